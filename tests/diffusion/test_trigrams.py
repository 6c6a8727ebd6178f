"""Words drawn in their order against every sentence that there is, one by one."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from diffusion_lm.diffusion.trigrams import BACK_OFF, DISCOUNT, NONE, Trigrams, draw, log_likelihood, messages

V, L = 4, 4
PAIRS = torch.tensor([[0, 1, 7], [0, 3, 1], [1, 2, 5], [2, 0, 4], [2, 2, 2], [3, 1, 3]], dtype=torch.int32)
TRIPLES = torch.tensor([[0, 2, 4], [0, 3, 2], [2, 0, 3], [4, 0, 2]], dtype=torch.int32)
TRIGRAMS = Trigrams(PAIRS, TRIPLES, V)
EVERY = torch.tensor(list(product(range(V), repeat=L)))


def behind_one() -> Tensor:
    """p(w | a), [V, V], and p(w) as its last row."""
    counts = torch.zeros(V, V).index_put((PAIRS[:, 0].long(), PAIRS[:, 1].long()), PAIRS[:, 2].float())
    p = counts.sum(0) / counts.sum()
    return torch.cat([(counts + BACK_OFF * p) / (counts.sum(1, keepdim=True) + BACK_OFF), p[None]])


def log_ratio(first: int, second: int) -> Tensor:
    """Log R(a, b, w) by its definition, [V]."""
    *_, p = every = behind_one()
    behind = every[second]
    for row, (a, b, often) in enumerate(PAIRS.tolist()):
        if (a, b) == (first, second):
            own = torch.zeros(V)
            for _, word, count in TRIPLES[TRIPLES[:, 0] == row].tolist():
                own[word] = (count - DISCOUNT) / often
            behind = own + (1 - own.sum()) * behind
    assert behind.sum() == pytest.approx(1)
    return (behind / p).log()


def said(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(1, L, V).log_softmax(-1)


def ahead(log_p: Tensor, strength: float, length: int = L) -> list[Tensor]:
    """b_i by its definition, [V] each."""
    *rows, p = behind_one()
    ratio, found = (torch.stack(rows) / p) ** strength, [torch.ones(V)]
    for i in range(length - 1, 0, -1):
        found.append(ratio @ (log_p[0, i].exp() * found[-1]))
    return found[::-1]


def log_q(log_p: Tensor, strength: float, length: int = L) -> Tensor:
    """Log-probability of every sentence's first words, [V^L]."""
    total, b = [], ahead(log_p, strength, length)
    for sentence in EVERY.tolist():
        value = (log_p[0, 0] + b[0].log()).log_softmax(-1)[sentence[0]]
        for i in range(1, length):
            first = sentence[i - 2] if i > 1 else NONE
            here = log_p[0, i] + strength * log_ratio(first, sentence[i - 1]) + b[i].log()
            value = value + here.log_softmax(-1)[sentence[i]]
        total.append(value)
    return torch.stack(total)


def test_the_ratio_is_of_the_two_words_before() -> None:
    first, second = torch.tensor(list(product([NONE, *range(V)], range(V)))).T
    wanted = torch.stack([log_ratio(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)])
    torch.testing.assert_close(TRIGRAMS.log_ratio(first, second), wanted)
    assert TRIGRAMS.to(torch.device("cpu")) is TRIGRAMS


def test_messages_look_ahead_along_pairs() -> None:
    for strength in (0.0, 0.7, 3.0):
        log_p = said(1)
        found = messages(log_p.exp(), torch.ones(1, L, dtype=torch.bool), TRIGRAMS.ahead(strength))
        for i, wanted in enumerate(ahead(log_p, strength)):
            torch.testing.assert_close(found[0, i] / found[0, i].max(), wanted / wanted.max())


@pytest.mark.parametrize("strength", [0.7, 2.0])
def test_without_triples_it_is_a_chain(strength: float) -> None:
    # Its probability is that of the whole: prod p(w_i | z_t) R(w_i-1, w_i)^k over all sentences.
    log_p, (*rows, p) = said(6), behind_one()
    ties = strength * (torch.stack(rows) / p).log()
    whole = log_p[0, torch.arange(L), EVERY].sum(1) + ties[EVERY[:, :-1], EVERY[:, 1:]].sum(1)
    pairs = Trigrams(PAIRS, TRIPLES[:0], V)
    mask = torch.ones(len(EVERY), L, dtype=torch.bool)
    found = log_likelihood(log_p.expand(len(EVERY), -1, -1), EVERY, mask, pairs, strength)
    torch.testing.assert_close(found, whole.log_softmax(0))


@pytest.mark.parametrize("strength", [0.0, 0.7, 2.0])
def test_the_likelihood_is_that_of_all_sentences(strength: float) -> None:
    log_p, mask = said(), torch.ones(len(EVERY), L, dtype=torch.bool)
    found = log_likelihood(log_p.expand(len(EVERY), -1, -1), EVERY, mask, TRIGRAMS, strength)
    torch.testing.assert_close(found, log_q(log_p, strength))
    assert found.exp().sum() == pytest.approx(1)


def test_words_are_drawn_as_often_as_they_are_likely() -> None:
    n, generator = 20_000, torch.Generator().manual_seed(0)
    log_p, mask = said(1), torch.ones(n, L, dtype=torch.bool)
    words = draw(log_p.expand(n, -1, -1), mask, TRIGRAMS, 1.3, generator)
    number = (words * V ** torch.arange(L - 1, -1, -1)).sum(1)
    often = torch.bincount(number, minlength=V**L) / n
    wanted = log_q(log_p, 1.3).exp()
    assert (often - wanted).abs().max() < 4 * (wanted.max() / n) ** 0.5
    assert (often - wanted).abs().sum() < 0.1


def test_what_does_not_exist_is_tied_to_nothing() -> None:
    log_p, mask = said(2).expand(len(EVERY), -1, -1), torch.tensor([[True, True, True, False]])
    found = log_likelihood(log_p, EVERY, mask.expand(len(EVERY), -1), TRIGRAMS, 1.0)
    torch.testing.assert_close(found, log_q(said(2), 1.0, L - 1))
    n = 20_000
    last = draw(said(2).expand(n, -1, -1), mask.expand(n, -1), TRIGRAMS, 5.0, torch.Generator().manual_seed(0))[:, -1]
    assert ((torch.bincount(last) / n) - said(2)[0, -1].exp()).abs().max() < 0.02


def test_a_word_that_cannot_be_is_never_drawn_and_one_that_must_be_always() -> None:
    log_p, mask = said(3).repeat(500, 1, 1), torch.ones(500, L, dtype=torch.bool)
    log_p[:, 1, 2] = -torch.inf
    log_p[:, 2] = torch.tensor([0.0, 0.0, 0.0, 1.0]).log()
    words = draw(log_p, mask, TRIGRAMS, 2.0, torch.Generator().manual_seed(0))
    assert not (words[:, 1] == 2).any() and (words[:, 2] == 3).all()


def test_a_seed_draws_the_same_words() -> None:
    log_p, mask = said(4).repeat(8, 1, 1), torch.ones(8, L, dtype=torch.bool)
    one, other = (draw(log_p, mask, TRIGRAMS, 1.0, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, other)
