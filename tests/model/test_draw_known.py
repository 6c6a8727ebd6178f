from __future__ import annotations

import torch

from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.model.gaps import between
from diffusion_lm.model.given import draw_known

END_OF_SENTENCE = 9


def draws(share: float, n: int = 2000, *, threes: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and what is known of n texts of three sentences of three words and a mark."""
    torch.manual_seed(0)
    sentence = [4, 5, 6, END_OF_SENTENCE]
    ids = torch.tensor([[0, *sentence * 3, 1, 3, 3]]).repeat(n, 1)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, -2:] = False
    ends = torch.arange(12) == END_OF_SENTENCE
    return ids, mask, draw_known(ids, mask, share, ends, threes=threes)


def test_start_and_end_are_always_given_and_no_text_as_a_whole() -> None:
    ids, mask, known = draws(1.0)
    words = between(mask)
    assert torch.equal(known[mask & ~words], ids[mask & ~words])
    assert bool((known[~mask] == UNKNOWN).all())
    assert bool((words & (known == UNKNOWN)).any(1).all())
    assert torch.equal(known[known != UNKNOWN], ids[known != UNKNOWN])


def test_so_many_texts_have_given_words() -> None:
    def share(asked: float) -> float:
        _, mask, known = draws(asked)
        return float((between(mask) & (known != UNKNOWN)).any(1).float().mean())

    most = share(1.0)  # a pattern may give nothing, such as a prefix of no word
    assert share(0.0) == 0
    assert 0.85 < most <= 1
    assert abs(share(0.4) - 0.4 * most) < 0.04


def test_every_pattern_is_drawn() -> None:
    _, _, known = draws(1.0)
    given = known[:, 1:13] != UNKNOWN
    found = {"".join("x" if each else "." for each in row) for row in given.tolist()}
    assert {
        "xxxx........",
        "........xxxx",
        "xxxx....xxxx",
        "....xxxxxxxx",
        "....xxxx....",
    } <= found  # ends and sentences
    assert any(row.strip(".").count("x.") > 2 for row in found)  # a random set


def test_of_threes_the_middle_is_written() -> None:
    _, mask, known = draws(1.0, 10, threes=True)
    written = mask & (known == UNKNOWN)
    assert torch.equal(written.nonzero()[:, 1].view(10, -1), torch.arange(5, 9).expand(10, -1))
    # A text that has but one sentence still is not given as a whole.
    one = torch.tensor([[0, 4, 5, 6, 1]])
    assert int((draw_known(one, one >= 0, 1.0, torch.zeros(12) > 0, threes=True) == UNKNOWN).sum()) == 1
