"""One batch, a target of its own for each sentence: a value, a length, tags, a tree, a phrase, a regular expression."""

from diffusion_lm import DiffusionLM
from diffusion_lm.control import Avoid, Keyword, Length, Pos, Regex, Said, Span, Tree

lm = DiffusionLM.from_pretrained("e2e-small")
targets = [
    Said("food", "Japanese") & Length(12),
    Pos("DET PROPN AUX DET ADJ NOUN PUNCT"),
    Tree("(S (NP (DT _) (NN _)) (VP (VBZ is) (PP (IN near) (NP _ _))) (. .))"),
    Span("1:5:PP") & Keyword("riverside") & Avoid("pub"),
    ~Keyword("restaurant") & Regex(r"There is a .* (cheap|moderate) .* \."),
]
texts = lm.generate(len(targets), targets, seed=0)
for target, text in zip(targets, texts, strict=True):
    parts = "  ".join(f"{part} {float(part.success([text])):.0%}" for part in target.parts())
    print(f"{text}\n    {parts}")
