"""Exact conditioning on an automaton, against the sum over all sentences."""

from itertools import product

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import NEVER, Automaton, combine, complement

V, WORDS = 6, 4
"""Two tokens that are no words, and four that are."""


def contains(token):
    """Sentences that hold a token."""
    classes = torch.tensor([NEVER, NEVER, *(int(v == token) for v in range(2, V))])
    return Automaton(classes, torch.tensor([[0, 1], [1, 1]]), torch.tensor([False, True]))


def setting(n=3, batch=4000):
    logits = torch.randn(1, n + 2, V, generator=torch.Generator().manual_seed(3)).double()
    mask = torch.ones(batch, n + 2, dtype=torch.bool)
    return logits.expand(batch, -1, -1), mask


def probabilities(logits, automaton):
    """p(words | accept) by enumeration, over words 2 to V - 1."""
    p = logits[0, 1:-1, 2:].softmax(-1)
    weight = {
        ids: float(torch.stack([p[i, w - 2] for i, w in enumerate(ids)]).prod())
        for ids in product(range(2, V), repeat=len(p))
        if automaton.accepts(ids)
    }
    total = sum(weight.values())
    return {ids: w / total for ids, w in weight.items()}, total


@pytest.mark.parametrize(
    "automaton", [contains(3), complement(contains(3)), combine(contains(3), contains(5), min, "x")]
)
def test_the_backward_algorithm_sums_over_all_sentences(automaton):
    logits, _ = setting(batch=1)
    log_p = automaton.class_log_p(logits)
    words = torch.tensor([[False, True, True, True, False]])
    _, total = probabilities(logits, automaton)
    torch.testing.assert_close(automaton.messages(log_p, words)[0, 0, 0].exp().item(), total)


def test_words_drawn_after_constraining_are_draws_from_the_exact_posterior():
    both = combine(contains(3), contains(5), min, "both")
    logits, mask = setting()
    held = both.constrain(logits, mask, torch.Generator().manual_seed(0))
    draws = torch.distributions.Categorical(logits=held[:, 1:-1]).sample().tolist()
    assert all(both.accepts(ids) for ids in draws)
    exact, _ = probabilities(logits, both)
    for ids, p in exact.items():
        found = draws.count(list(ids)) / len(draws)
        assert abs(found - p) < 4 * (p * (1 - p) / len(draws)) ** 0.5 + 1e-3


def test_any_choice_that_is_left_is_accepted():
    automaton = contains(4)
    logits, mask = setting(batch=20)
    held = automaton.constrain(logits, mask, torch.Generator().manual_seed(0))
    for row in held[:, 1:-1]:
        for ids in product(*((position > -1e3).nonzero().flatten().tolist() for position in row)):
            assert automaton.accepts(ids)


def test_padding_and_marks_are_left_alone():
    automaton = contains(4)
    logits, mask = setting(n=4, batch=2)
    mask = mask.clone()
    mask[1, 4:] = False  # START, two words, END, nothing
    held = automaton.constrain(logits, mask, torch.Generator().manual_seed(0))
    torch.testing.assert_close(held[:, 0], logits[:, 0])
    torch.testing.assert_close(held[1, 3:], logits[1, 3:])


def test_lengths_are_those_of_accepted_sentences():
    three = combine(contains(3), contains(5), min, "x")
    assert three.lengths(4) == {2, 3, 4}
    assert complement(contains(3)).lengths(2) == {1, 2}


def test_what_cannot_be_is_refused():
    automaton = contains(3)
    logits, mask = setting(batch=1)
    banned = logits.clone()
    banned[..., 3] = -1e4
    with pytest.raises(UserError, match="drop one of the controls"):
        automaton.constrain(banned, mask)


def test_a_required_word_is_found_however_unlikely():
    automaton = contains(3)
    logits, mask = setting(batch=8)
    rare = logits.clone()
    rare[..., 3] = -300.0
    held = automaton.constrain(rare, mask, torch.Generator().manual_seed(0))
    assert all(automaton.accepts(ids) for ids in held[:, 1:-1].argmax(-1).tolist())
