"""Any function of the text as a reward: particles are weighted and resampled on the way; nothing is trained, no gradient."""

from diffusion_lm import DiffusionLM
from diffusion_lm.control import Reward

lm = DiffusionLM.from_pretrained("e2e-small")


def brevity(texts: list[str]) -> list[float]:
    """Fewer letters are better."""
    return [-float(len(text)) for text in texts]


for name, control in {"free": None, "short": Reward(brevity, strength=0.2)}.items():
    texts = lm.generate(16, control, steps=50, seed=0)
    print(f"{name}: {sum(map(len, texts)) / len(texts):.0f} letters a text, such as: {texts[0]}")
