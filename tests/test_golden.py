"""The words that the bundled model writes under each kind of control, in fp32: what a rebuilding must not change unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_lm import DiffusionLM
from diffusion_lm.control import Attribute, Control, Infill, Keyword, Length, Pos, Regex, Said, Span, Tree
from diffusion_lm.diffusion.clamp import SoftClamp

GOLDEN = Path(__file__).with_name("golden.json")
CONTROLS: dict[str, Control | None] = {
    "free": None,
    "length": Length(9),
    "infill": Infill("The Punter ___ riverside."),
    "words": Said("food", "Italian") & ~Keyword("pub"),
    "regex": Regex(r"There is .* (cheap|moderate) .* \."),
    "attribute": Attribute("food", "Japanese"),
    "pos": Pos("PROPN AUX DET ADJ NOUN ADP DET NOUN PUNCT"),
    "tree": Tree("(S (NP (DT The) (NN _)) (VP (VBZ is) (PP (IN near) (NP _ _))) (. .))"),
    "span": Span("1:5:PP") & Keyword("riverside"),
}


@pytest.fixture(scope="module")
def lm() -> DiffusionLM:
    lm = DiffusionLM.from_pretrained("e2e-small", "cpu")
    lm.bf16 = False  # products in bf16 differ between machines
    return lm


@pytest.mark.parametrize("name", CONTROLS)
def test_the_words_are_the_same(lm: DiffusionLM, name: str) -> None:
    texts = lm.generate(3, CONTROLS[name], steps=6, clamp=SoftClamp(), seed=11).texts
    known = json.loads(GOLDEN.read_text(encoding="utf8"))
    assert texts == known[name]
