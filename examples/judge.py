"""The bundled judge says how fluent texts are: nats a token, beside what human text of its corpus has."""

from diffusion_lm import DiffusionLM
from diffusion_lm.model.causal import JudgeLM, fluency

lm, judge = DiffusionLM.from_pretrained("e2e-small"), JudgeLM.from_pretrained("e2e-judge")
for quality in ("fast", "balanced"):
    texts = lm.generate(32, quality=quality, seed=0)
    print(
        f"{quality}: {fluency(judge, texts):.2f} nats a token in {texts.seconds:.1f} s; human text {judge.human_nats:.2f}"
    )
shuffled = [" ".join(sorted(text.split())) for text in texts]
print(f"the same words in the order of the alphabet: {fluency(judge, shuffled):.2f}")
