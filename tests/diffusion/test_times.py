from __future__ import annotations

import pytest
import torch

from diffusion_lm.diffusion.times import ImportanceTimes, TimeSampler, UniformTimes, stratified

CPU = torch.device("cpu")


def taught(bins: int = 20) -> ImportanceTimes:
    """Has seen a loss of exp(-10 t) everywhere."""
    times = ImportanceTimes(bins=bins, warmup=3)
    t = (torch.arange(bins) + 0.5).repeat(30) / bins
    times.update(t, torch.exp(-10 * t))
    return times


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_stratified_has_one_time_in_each_stratum(n: int) -> None:
    for _ in range(20):
        assert (stratified(n, CPU) * n).floor().sort().values.tolist() == list(range(n))


def test_stratified_is_shuffled() -> None:
    # Batches are sorted by length; a time must not tell of the length.
    first = torch.stack([stratified(8, CPU) for _ in range(500)])[:, 0]
    assert first.mean().item() == pytest.approx(0.5, abs=0.05) and first.std().item() > 0.25


@pytest.mark.parametrize("times", [UniformTimes(), ImportanceTimes(bins=10, warmup=1), taught()])
def test_weighted_means_are_integrals_over_uniform_t(times: TimeSampler) -> None:
    t, weight = times.sample(100_000, CPU)
    assert ((t >= 0) & (t < 1)).all() and t.shape == weight.shape
    assert weight.mean().item() == pytest.approx(1, abs=0.01)
    assert (weight * t**2).mean().item() == pytest.approx(1 / 3, abs=0.01)
    assert (weight * torch.exp(-10 * t)).mean().item() == pytest.approx(0.1, abs=1e-3)


def test_importance_is_uniform_until_every_bin_is_warm() -> None:
    times = ImportanceTimes(bins=4, warmup=2)
    t = torch.tensor([0.1, 0.1, 0.3, 0.3, 0.6, 0.6, 0.9])
    times.update(t, 100 * t)
    assert times.probabilities().tolist() == [0.25] * 4
    times.update(torch.tensor([0.9]), torch.tensor([90.0]))
    assert times.probabilities()[0] < 0.25 < times.probabilities()[3]


def test_importance_learns_the_root_of_the_second_moment() -> None:
    times = taught()
    expected = torch.exp(-10 * (torch.arange(20) + 0.5) / 20)
    assert torch.allclose(times.probabilities(), 0.999 * expected / expected.sum() + 0.001 / 20, atol=1e-4)
    assert times.probabilities().sum().item() == pytest.approx(1)
    t, _ = times.sample(10_000, CPU)
    share = (t < 0.05).float().mean().item()
    assert share == pytest.approx(times.probabilities()[0].item(), abs=0.01)


def test_importance_lowers_the_variance_of_an_uneven_loss() -> None:
    def variance(times: TimeSampler) -> float:
        t, weight = times.sample(20_000, CPU)
        return (weight * torch.exp(-10 * t)).var().item()

    assert variance(taught()) < 0.1 * variance(UniformTimes())


def test_importance_forgets() -> None:
    times = ImportanceTimes(bins=1, decay=0.5)
    for loss, expected in ((2.0, 4.0), (0.0, 2.0), (0.0, 1.0)):
        times.update(torch.tensor([0.5]), torch.tensor([loss]))
        assert times.second_moment.item() == expected


def test_what_was_learned_is_in_the_state_dict() -> None:
    other = ImportanceTimes(bins=20, warmup=3)
    other.load_state_dict(taught().state_dict())
    assert torch.equal(other.probabilities(), taught().probabilities())
    assert list(UniformTimes().state_dict()) == []
