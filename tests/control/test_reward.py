"""Rewards: weights of particles, their resampling, and steering by a black box."""

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import Keyword, Length, Reward
from diffusion_lm.diffusion.samplers import DDIM, DPMSolverPP2M
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Particles, systematic


def vowels(texts):
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]


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


@pytest.mark.parametrize("rest", [Length(14), Keyword("riverside")], ids=str)
def test_a_reward_raises_what_it_rewards(rest):
    def of_pubs(texts):
        return [float("pub" in text) for text in texts]

    lm = DiffusionLM.from_pretrained("e2e-small", "cpu")
    plain = lm.generate(24, rest, steps=20, seed=1)
    steered = lm.generate(24, rest & Reward(of_pubs, strength=5.0), steps=20, seed=1)
    assert sum(of_pubs(steered)) > sum(of_pubs(plain)) + 3
    assert rest.success(steered.texts).tolist() == [1.0] * 24


def test_a_reward_of_nothing_changes_nothing(lm):
    plain = lm.generate(8, Length(7), steps=12, seed=3)
    assert lm.generate(8, Length(7) & Reward(vowels, strength=0.0), steps=12, seed=3).texts == plain.texts


def test_each_sentence_may_have_a_reward_of_its_own(lm):
    reward = Reward(vowels, strength=200.0) & Length(8)
    out = lm.generate(12, [reward] * 6 + [Length(5)] * 5 + [None], steps=10, seed=0)
    assert [len(words) for words in out.words[:11]] == [8] * 6 + [5] * 5


def test_bad_rewards_are_refused(lm):
    with pytest.raises(UserError, match="one finite number for each of 4 texts"):
        lm.generate(4, Reward(lambda texts: [0.0]), steps=6)
    with pytest.raises(UserError, match="1 that are not finite"):
        Reward(lambda texts: [float("nan")]).success(["a"])
    for sampler in (DPMSolverPP2M(), DDIM()):
        with pytest.raises(UserError, match="needs a sampler that draws noise"):
            lm.generate(4, Reward(vowels), steps=6, sampler=sampler)
