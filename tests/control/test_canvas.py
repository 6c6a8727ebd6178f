"""What is known of a sentence before sampling: how long its gaps are."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Blank, Canvas
from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.text.tokenizer import build_word_tokenizer

TEMPLATE = ((7,), Blank(), (8, 9), Blank(2), Blank())
MOST = 10
N = 20_000


def exact(canvas: Canvas, log_p: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The sizes of all pieces by brute force."""
    p, weights = log_p.double().exp(), {}
    for a, b in product(range(1, MOST), repeat=2):
        sizes = (1, a, 2, 2, b)
        if canvas.fits(sum(sizes)):
            weights[sizes] = float(p[0, a] * p[2, b])
    total = sum(weights.values())
    return {sizes: weight / total for sizes, weight in weights.items()}


@pytest.mark.parametrize("canvas", [
    Canvas(MOST, template=TEMPLATE),
    Canvas(MOST, template=TEMPLATE, words=9),
    Canvas(MOST, template=TEMPLATE, allowed=frozenset([8, 10])),
], ids=["free", "so many words", "one of some numbers"])  # fmt: skip
def test_sizes_are_drawn_from_those_that_fit(canvas: Canvas) -> None:
    log_p = torch.randn(3, MOST + 1, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    log_p[:, 0] = -torch.inf
    drawn = Counter(map(tuple, canvas.sizes_by_model(N, log_p, torch.Generator().manual_seed(1))))
    wanted = exact(canvas, log_p)
    assert set(drawn) <= set(wanted)
    for sizes, share in wanted.items():
        assert drawn[sizes] / N == pytest.approx(share, abs=4 * (share / N) ** 0.5 + 1e-4)


def test_the_outline_has_a_position_for_each_gap() -> None:
    tokenizer = build_word_tokenizer(["a b c d e f"], 1)
    assert Canvas(MOST, template=TEMPLATE).outline(tokenizer) == [0, 7, UNKNOWN, 8, 9, UNKNOWN, UNKNOWN, 1]
    assert Canvas(MOST).outline(tokenizer) == [0, UNKNOWN, 1]


def test_a_canvas_is_open_where_chance_has_something_to_decide() -> None:
    assert Canvas(MOST).is_open() and Canvas(MOST, template=TEMPLATE, words=9).is_open()
    assert not Canvas(MOST, words=4).is_open()
    assert not Canvas(MOST, template=((7,), Blank(3))).is_open()


def test_two_sources_contradict_each_other() -> None:
    with pytest.raises(UserError, match="Two prompts"):
        Canvas(MOST).with_source((5,)).with_source((6,))
