"""The chain against every sentence that there is, one by one."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from diffusion_lm.diffusion.chain import BACK_OFF, Pairs, draw, log_likelihood, messages

V, L = 4, 4
COUNTS = torch.tensor([[0, 1, 7], [0, 3, 1], [1, 2, 5], [2, 0, 4], [2, 2, 2], [3, 1, 3]], dtype=torch.int32)
PAIRS = Pairs(COUNTS, V)
EVERY = torch.tensor(list(product(range(V), repeat=L)))


def ratio() -> Tensor:
    """R by its definition over its largest entry, [V, V]."""
    counts = torch.zeros(V, V).index_put((COUNTS[:, 0].long(), COUNTS[:, 1].long()), COUNTS[:, 2].float())
    p = counts.sum(0) / counts.sum()
    found = (counts + BACK_OFF * p) / (counts.sum(1, keepdim=True) + BACK_OFF) / p
    return found / found.max()


def said(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(1, L, V).softmax(-1)


def log_weights(p: Tensor, strength: float, length: int = L) -> Tensor:
    """The chain's numerator of every sentence, by its first words, [V^L]."""
    own = p[0, torch.arange(length), EVERY[:, :length]].log().sum(1)
    return own + strength * ratio()[EVERY[:, : length - 1], EVERY[:, 1:length]].log().sum(1)


def test_ties_are_the_ratio_to_a_power() -> None:
    for strength in (0.0, 0.4, 1.0, 3.0):
        ties, wanted, x = PAIRS.ties(strength), ratio() ** strength, torch.rand(3, V)
        torch.testing.assert_close(ties.behind(torch.arange(V)), wanted)
        torch.testing.assert_close(ties.before(x), x @ wanted.T)
        first, second = torch.tensor([[0, 2], [3, 3]]), torch.tensor([[1, 2], [0, 1]])
        torch.testing.assert_close(ties.between(first, second), wanted[first, second])


@pytest.mark.parametrize("strength", [0.0, 0.7, 2.0])
def test_the_likelihood_is_that_of_all_sentences(strength: float) -> None:
    p, mask = said(), torch.ones(1, L, dtype=torch.bool)
    wanted = log_weights(p, strength).log_softmax(0)
    ties, many = PAIRS.ties(strength), p.expand(len(EVERY), -1, -1)
    found = log_likelihood(many, EVERY, mask.expand(len(EVERY), -1), ties)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(messages(p, mask, ties)[1], log_weights(p, strength).logsumexp(0, keepdim=True))


def test_words_are_drawn_as_often_as_they_are_likely() -> None:
    n, generator = 20_000, torch.Generator().manual_seed(0)
    p, mask = said(1), torch.ones(n, L, dtype=torch.bool)
    words = draw(p.expand(n, -1, -1), mask, PAIRS.ties(1.3), generator)
    number = (words * V ** torch.arange(L - 1, -1, -1)).sum(1)
    often = torch.bincount(number, minlength=V**L) / n
    wanted = log_weights(p, 1.3).softmax(0)
    assert (often - wanted).abs().max() < 4 * (wanted.max() / n) ** 0.5
    assert (often - wanted).abs().sum() < 0.1


def test_what_does_not_exist_ties_nothing() -> None:
    p = said(2)
    mask = torch.tensor([[True, True, True, False]])
    short, ids = log_weights(p, 1.0, L - 1), EVERY[:, :-1]
    unique = EVERY[:, -1] == 0
    found = log_likelihood(p.expand(len(EVERY), -1, -1), EVERY, mask.expand(len(EVERY), -1), PAIRS.ties(1.0))
    # What stands behind the end is drawn by itself and changes nothing of the sentence.
    torch.testing.assert_close(found[unique], short[unique].log_softmax(0))
    assert len(ids[unique]) == V ** (L - 1)


def test_a_word_that_cannot_be_is_never_drawn_and_one_that_must_be_always() -> None:
    p, mask = said(3).repeat(500, 1, 1), torch.ones(500, L, dtype=torch.bool)
    p[:, 1, 2] = 0
    p[:, 2] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    words = draw(p, mask, PAIRS.ties(2.0), torch.Generator().manual_seed(0))
    assert not (words[:, 1] == 2).any() and (words[:, 2] == 3).all()


def test_a_seed_draws_the_same_words() -> None:
    p, mask = said(4).repeat(8, 1, 1), torch.ones(8, L, dtype=torch.bool)
    one, other = (draw(p, mask, PAIRS.ties(1.0), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, other)


def test_cold_draws_are_the_likeliest_sentence() -> None:
    p, mask, cold = said(5), torch.ones(1, L, dtype=torch.bool), 0.05
    wanted = EVERY[log_weights(p, 0.8).argmax()]
    sharp = (p.log() / cold).softmax(-1)
    assert torch.equal(draw(sharp, mask, PAIRS.ties(0.8 / cold))[0], wanted)
