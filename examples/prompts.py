"""What a text says, given as fields; the same as a promise, which no text breaks; and a gap that is filled."""

from diffusion_lm import DiffusionLM
from diffusion_lm.control import Infill, Prompt

lm = DiffusionLM.from_pretrained("e2e-given")
fields = "name = The Punter, Type = pub, food = Italian, area = riverside"
print("written from the fields:", *lm.generate(2, source=fields, seed=1), sep="\n  ")
print("and held to them:", *lm.generate(2, Prompt(fields, must_say=True), seed=1), sep="\n  ")
gaps = lm.generate(2, Infill("The Punter ___ riverside."), candidates=4, seed=1)
print("a gap, the likeliest of four:", *gaps, sep="\n  ")
