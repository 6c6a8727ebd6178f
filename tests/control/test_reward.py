"""Rewards: weights of particles, their resampling, and steering by a black box, beside what chance holds sentences to."""

import pytest
import torch

from diffusion_lm.control import Keyword, Length, Pos, Program, Reward, Span
from diffusion_lm.generation.particles import Particles, systematic
from tests.control.conftest import Unjudged


def vowels(texts):
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]


def brevity(texts):
    return [-float(len(text)) for text in texts]


def letters(texts):
    return sum(map(len, texts)) / len(texts)


def test_systematic_resampling_keeps_shares():
    weights = torch.tensor([0.5, 0.25, 0.125, 0.125])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([systematic(weights, generator) for _ in range(2000)])
    torch.testing.assert_close(torch.bincount(drawn) / len(drawn), weights, atol=0.01, rtol=0)
    # Four of equal weight all stay.
    assert systematic(torch.full((4,), 0.25), generator).tolist() == [0, 1, 2, 3]


def test_only_uneven_groups_are_resampled_and_only_within_themselves():
    groups = [torch.tensor([0, 2]), torch.tensor([1, 3, 4])]
    particles = Particles(groups, 5, torch.Generator().manual_seed(0))
    assert particles.resample(torch.tensor([0.1, 0.0, 0.0, 0.1, 0.0])) is None
    index = particles.resample(torch.tensor([0.1, 0.0, 0.0, 30.0, 0.0]))
    assert index.tolist() == [0, 3, 2, 3, 3]
    # What has been paid for is not paid for again: the weights are differences.
    assert particles.resample(torch.tensor([0.1, 30.0, 0.0, 30.0, 30.0])) is None


@pytest.mark.parametrize(
    ("rest", "steps"),
    [
        (Length(14), 16),
        (Length(9), 3),  # however few the steps
        (Keyword("harbour") & Length(9), 16),
        (Pos("DET NOUN AUX DET ADJ NOUN PUNCT"), 16),
        (Span("1:2:NP"), 11),
    ],
    ids=str,
)
def test_a_reward_raises_what_it_rewards_beside_what_holds_the_sentences(lm, rest, steps):
    plain = lm.generate(16, rest, steps=steps, seed=1)
    steered = lm.generate(16, rest & Reward(brevity), steps=steps, seed=1)
    assert letters(steered) < letters(plain) - 2
    if not isinstance(rest, Pos | Span):
        assert rest.success(steered.texts).tolist() == [1.0] * 16


class Echo(Unjudged):
    """Each sentence is a word longer than the one before, and says one word all the time, each its own."""

    def compile(self, host, canvases, generator):
        columns = torch.zeros(len(canvases), host.tokenizer.vocab_size)
        columns[range(len(canvases)), range(10, 10 + len(canvases))] = 3000.0
        return [Program(canvas.with_words(4 + i), (columns[i],)) for i, canvas in enumerate(canvases)]


def test_a_sentence_takes_what_it_is_held_to_along(lm):
    plain = lm.generate(12, Echo(), steps=11, seed=0)
    steered = lm.generate(12, Echo() & Reward(brevity, strength=0.2), steps=11, seed=0)
    assert letters(steered) < letters(plain) - 3
    for ids in steered.ids:
        (word,) = set(ids[1:-1])
        assert len(ids) == 6 + word - 10


def test_a_reward_of_nothing_changes_nothing(lm):
    plain = lm.generate(8, Length(7), steps=12, seed=3)
    nothing = Length(7) & Reward(vowels, strength=0.0)
    assert lm.generate(8, nothing, steps=12, seed=3, clamp=plain.decoding.clamp).texts == plain.texts


def test_each_sentence_may_have_a_reward_of_its_own(lm):
    reward = 2 * Reward(vowels, strength=100.0) & Length(8)
    out = lm.generate(12, [reward] * 6 + [Length(5)] * 5 + [None], steps=10, seed=0)
    assert [len(words) for words in out.words[:11]] == [8] * 6 + [5] * 5
