from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.clamp import HardClamp, NoClamp, SampledClamp, SoftClamp, clamped
from diffusion_lm.diffusion.process import Denoise, Gaussian, Prediction
from diffusion_lm.diffusion.samplers import DDIM, SAMPLERS, Ancestral, DPMSolverPP2M, Renoise, Sampler
from diffusion_lm.diffusion.schedule import SCHEDULES, Linear, Sqrt, Tan

EVERY = pytest.mark.parametrize("sampler", [s() for s in SAMPLERS.values()], ids=list(SAMPLERS))
MU, SIGMA = 0.7, 0.5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_denoiser(schedule: Sqrt | Linear) -> Denoise:
    """E[x0 | z_t] for x0 ~ N(MU, SIGMA^2)."""

    def denoise(z: Tensor, t: Tensor) -> Prediction:
        a = schedule.alpha_bar(t).reshape(-1, 1, 1)
        return Prediction(MU + a.sqrt() * SIGMA**2 / (a * SIGMA**2 + 1 - a) * (z - a.sqrt() * MU))

    return denoise


def crooked(z: Tensor, t: Tensor) -> Prediction:
    """Not a good denoiser, but one that depends on everything it is shown."""
    return Prediction(torch.tanh(z.roll(1, dims=1)) + 0.3 * torch.sin(5 * t)[:, None, None])


@EVERY
@pytest.mark.parametrize("clamp", [NoClamp(), HardClamp(), SoftClamp(), SampledClamp(generator=seeded())])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_an_oracle_lands_on_x0(
    sampler: Sampler, clamp: NoClamp | HardClamp | SoftClamp | SampledClamp, steps: int
) -> None:
    vectors, ids = torch.randn(9, 4), torch.randint(9, (3, 5))
    logits = torch.full((3, 5, 9), -torch.inf).scatter(-1, ids[..., None], 0.0)
    denoise = clamped(lambda z, t: Prediction(vectors[ids], logits), clamp, vectors)
    for schedule in SCHEDULES.values():
        result = sampler(denoise, schedule(), torch.randn(3, 5, 4), steps, generator=seeded())
        assert torch.allclose(result.x0, vectors[ids])
        assert result.logits is not None and torch.equal(result.logits.argmax(-1), ids)


@EVERY
def test_z_is_noised_x0_all_the_way_with_an_oracle(sampler: Sampler) -> None:
    # The marginals q(z_t | x0), which hold for every sampler when z_1 has its own.
    schedule, x0 = Sqrt(), torch.full((500, 5, 4), 2.0)

    def check(step: int, t: Tensor, z: Tensor, prediction: Prediction) -> None:
        a = schedule.alpha_bar(t[0])
        assert z.mean().item() == pytest.approx(2 * a.sqrt().item(), abs=0.05)
        assert z.var().item() == pytest.approx(1 - a.item(), rel=0.1)

    start = schedule.alpha_bar(torch.tensor(1.0)).sqrt() * x0 + torch.randn_like(x0)
    sampler(lambda z, t: Prediction(x0), schedule, start, 10, callback=check)


@EVERY
def test_steps_are_calls_of_the_denoiser_at_the_times_of_the_grid(sampler: Sampler) -> None:
    seen: list[float] = []

    def denoise(z: Tensor, t: Tensor) -> Prediction:
        assert t.shape == (2,) and z.shape == (2, 3, 4)
        seen.append(t[0].item())
        return crooked(z, t)

    sampler(denoise, Sqrt(), torch.randn(2, 3, 4), 5)
    sampler(denoise, Sqrt(), torch.randn(2, 3, 4), 4, power=0.5)
    assert seen == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 1.0, 0.75**0.5, 0.5**0.5, 0.5])


@EVERY
def test_a_sampler_keeps_no_state_and_follows_its_generator(sampler: Sampler) -> None:
    z = torch.randn(2, 3, 4)
    first, again = (sampler(crooked, Sqrt(), z, 6, generator=seeded(1)).x0 for _ in range(2))
    assert torch.equal(first, again)
    fresh = type(sampler)()(crooked, Sqrt(), z, 6, generator=seeded(1)).x0
    assert torch.equal(first, fresh)
    other = sampler(crooked, Sqrt(), z, 6, generator=seeded(2)).x0
    deterministic = isinstance(sampler, DDIM | DPMSolverPP2M)
    assert torch.equal(first, other) == deterministic


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolverPP2M()])
def test_deterministic_samplers_draw_nothing(sampler: Sampler) -> None:
    generator, before = seeded(), seeded().get_state()
    sampler(crooked, Sqrt(), torch.randn(2, 3, 4), 6, generator=generator)
    assert torch.equal(generator.get_state(), before)


@EVERY
def test_the_callback_sees_every_step(sampler: Sampler) -> None:
    history: list[tuple[int, float, Tensor, Prediction]] = []
    z = torch.randn(2, 3, 4)
    result = sampler(crooked, Sqrt(), z, 4, callback=lambda i, t, z, p: history.append((i, t[0].item(), z, p)))
    assert [(i, t) for i, t, _, _ in history] == [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25)]
    assert history[0][2] is z and history[-1][3] is result
    for _, t, at, prediction in history:
        assert torch.equal(prediction.x0, crooked(at, torch.full((2,), t)).x0)


@EVERY
def test_the_guide_moves_every_z_but_the_last(sampler: Sampler) -> None:
    times: list[float] = []
    shown: list[Tensor] = []

    def guide(z: Tensor, step: Gaussian, s: Tensor) -> Tensor:
        assert s.shape == (2,) and z.shape == step.mean.shape == (2, 3, 4)
        assert bool(step.std == 0) == torch.equal(z, step.mean)
        times.append(s[0].item())
        return torch.full_like(z, len(times))

    def denoise(z: Tensor, t: Tensor) -> Prediction:
        shown.append(z)
        return crooked(z, t)

    sampler(denoise, Sqrt(), torch.randn(2, 3, 4), 4, guide=guide, generator=seeded())
    assert times == [0.75, 0.5, 0.25]
    assert [z.unique().tolist() for z in shown[1:]] == [[1.0], [2.0], [3.0]]


def test_ddim_with_eta_one_is_ddpm_given_the_same_noise() -> None:
    z = torch.randn(2, 3, 4, dtype=torch.float64)
    one, other = (s(crooked, Sqrt(), z, 20, generator=seeded()).x0 for s in (DDIM(1.0), Ancestral()))
    assert torch.allclose(one, other)


def test_ddim_refuses_another_eta() -> None:
    with pytest.raises(UserError, match=r"not 1\.5"):
        DDIM(1.5)


def test_a_sampler_takes_at_least_one_step() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Ancestral()(crooked, Sqrt(), torch.randn(1, 1, 1), 0)


@EVERY
def test_results_have_the_dtype_of_the_latents(sampler: Sampler) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        seen: list[torch.dtype] = []
        sampler(
            lambda z, t, seen=seen: (seen.extend((z.dtype, t.dtype)), Prediction(z))[1],
            Sqrt(),
            torch.randn(1, 2, 3, dtype=dtype),
            3,
        )
        assert set(seen) == {dtype}


@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(1.0), DDIM(0.5), DDIM(), DPMSolverPP2M()])
def test_gaussian_data_has_its_own_mean_and_variance(sampler: Sampler) -> None:
    schedule = Linear()
    at: list[Tensor] = []
    z = torch.randn(20_000, 1, 1, generator=seeded(1))
    result = sampler(
        gaussian_denoiser(schedule), schedule, z, 200, callback=lambda i, t, z, p: at.append(z), generator=seeded(2)
    )
    for i in (60, 120, 180):
        a = schedule.alpha_bar(torch.tensor(1 - i / 200)).item()
        assert at[i].mean().item() == pytest.approx(a**0.5 * MU, abs=0.02)
        assert at[i].var().item() == pytest.approx(a * SIGMA**2 + 1 - a, rel=0.03)
    assert result.x0.mean().item() == pytest.approx(MU, abs=0.02)
    assert result.x0.std().item() == pytest.approx(SIGMA, rel=0.05)


def probability_flow(schedule: Sqrt | Linear, z: Tensor, steps: int) -> Tensor:
    """The exact deterministic map to x0_hat at the last time: every z_t keeps its quantile."""
    first, last = (schedule.alpha_bar(t) for t in torch.tensor([1.0, 1 / steps], dtype=torch.float64))
    quantile = (z - first.sqrt() * MU) / (first * SIGMA**2 + 1 - first).sqrt()
    z_last = last.sqrt() * MU + (last * SIGMA**2 + 1 - last).sqrt() * quantile
    return gaussian_denoiser(schedule)(z_last, torch.tensor([1 / steps], dtype=torch.float64)).x0


def flow_error(sampler: Sampler, schedule: Sqrt | Linear, steps: int) -> float:
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 9, 1)
    got = sampler(gaussian_denoiser(schedule), schedule, z, steps).x0
    return (got - probability_flow(schedule, z, steps)).abs().max().item()


@pytest.mark.parametrize(("schedule", "ratio"), [(Linear(), 0.7), (Sqrt(), 0.95)])
def test_ddim_converges_to_the_probability_flow(schedule: Sqrt | Linear, ratio: float) -> None:
    # Slowly on the sqrt schedule, whose noise rises infinitely fast near t = 0.
    errors = [flow_error(DDIM(), schedule, n) for n in (25, 50, 100, 200)]
    assert errors[-1] < 0.02
    assert all(after < ratio * before for before, after in pairwise(errors))


@pytest.mark.parametrize("schedule", [Linear(), Sqrt()])
@pytest.mark.parametrize("steps", [10, 20, 50, 100])
def test_dpm_solver_is_more_accurate_than_ddim(schedule: Sqrt | Linear, steps: int) -> None:
    assert flow_error(DPMSolverPP2M(), schedule, steps) < 0.5 * flow_error(DDIM(), schedule, steps)


def test_dpm_solver_is_of_second_order() -> None:
    errors = [flow_error(DPMSolverPP2M(), Linear(), n) for n in (100, 200, 400, 800)]
    assert all(after < 0.35 * before for before, after in pairwise(errors))


def test_dpm_solver_starts_as_ddim() -> None:
    z = torch.randn(2, 3, 4)
    assert torch.equal(DPMSolverPP2M()(crooked, Sqrt(), z, 2).x0, DDIM()(crooked, Sqrt(), z, 2).x0)
    assert not torch.equal(DPMSolverPP2M()(crooked, Sqrt(), z, 3).x0, DDIM()(crooked, Sqrt(), z, 3).x0)


def test_dpm_solver_passes_levels_that_are_the_same() -> None:
    # Tan's alpha_bar is held at 1e-6 for the last 0.4 % of the times.
    x0 = DPMSolverPP2M()(crooked, Tan(), torch.randn(1, 2, 3), 1000).x0
    assert x0.isfinite().all()


def test_dpm_solver_is_the_published_second_order_step() -> None:
    # Lu et al. 2022, Eq. 18 and algorithm 2, in their symbols.
    sampler, schedule, z = DPMSolverPP2M(), Sqrt(), torch.randn(1, 2, 3, dtype=torch.float64)
    at: list[Tensor] = []
    sampler(crooked, schedule, z, 4, callback=lambda i, t, z, p: at.append(z))
    grid = torch.tensor([1.0, 0.75, 0.5], dtype=torch.float64)
    alpha, sigma = schedule.alpha_bar(grid).sqrt(), (1 - schedule.alpha_bar(grid)).sqrt()
    h = (alpha / sigma).log().diff()
    r = h[0] / h[1]
    x = [crooked(at[i], grid[i, None]).x0 for i in (0, 1)]
    d = (1 + 1 / (2 * r)) * x[1] - 1 / (2 * r) * x[0]
    assert torch.allclose(at[2], sigma[2] / sigma[1] * at[1] - alpha[2] * torch.expm1(-h[1]) * d)


def word_denoiser(schedule: Sqrt, vectors: Tensor, prior: Tensor) -> Denoise:
    """Bayes' rule for words that are drawn from `prior` at every position."""

    def denoise(z: Tensor, t: Tensor) -> Prediction:
        a = schedule.alpha_bar(t).reshape(-1, 1, 1)
        logits = prior.log() - (z[..., None, :] - a.sqrt()[..., None] * vectors).square().sum(-1) / (2 * (1 - a))
        return Prediction(logits.softmax(-1) @ vectors, logits)

    return denoise


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_renoising_sampled_words_keeps_the_distribution_of_words_at_any_number_of_steps(steps: int) -> None:
    schedule, prior = Sqrt(), torch.tensor([0.5, 0.3, 0.2])
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.5]])
    denoise = clamped(word_denoiser(schedule, vectors, prior), SampledClamp(generator=seeded(1)), vectors)
    x0 = Renoise()(denoise, schedule, torch.randn(10_000, 1, 2), steps, generator=seeded()).x0
    words = torch.cdist(x0[:, 0], vectors).argmin(-1)
    assert (words.bincount(minlength=3) / 10_000).tolist() == pytest.approx(prior.tolist(), abs=0.02)


def test_renoising_averages_loses_rare_words_and_ddpm_keeps_them() -> None:
    schedule, prior = Sqrt(), torch.tensor([0.5, 0.3, 0.2])
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.5]])
    denoise = word_denoiser(schedule, vectors, prior)

    def shares(sampler: Sampler) -> list[float]:
        logits = sampler(denoise, schedule, torch.randn(4_000, 1, 2), 100, generator=seeded()).logits
        assert logits is not None
        return logits.softmax(-1).mean((0, 1)).tolist()

    assert shares(Ancestral()) == pytest.approx(prior.tolist(), abs=0.04)
    assert shares(Renoise())[2] < 0.15
