from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffusion_lm.diffusion.process import ddim, diffuse, eps_from_x0, per_sentence, posterior, renoise, x0_from_eps
from diffusion_lm.diffusion.schedule import Sqrt

LEVEL = st.floats(0.001, 0.999)


def latents() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)


def levels(a: float, b: float) -> tuple[Tensor, Tensor]:
    """alpha_bar(t) < alpha_bar(s)."""
    low, high = sorted((a, b))
    return torch.tensor(low * 0.999, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def test_diffuse_has_the_mean_and_variance_of_the_forward_process() -> None:
    alpha_bar = torch.tensor(0.3)
    z = diffuse(torch.full((100_000,), 2.0), alpha_bar, torch.randn(100_000))
    assert z.mean().item() == pytest.approx(2 * 0.3**0.5, abs=0.01)
    assert z.var().item() == pytest.approx(0.7, abs=0.02)


def test_a_level_a_sentence_broadcasts_with_latents() -> None:
    x0, noise = latents()
    alpha_bar = torch.tensor([0.2, 0.9], dtype=torch.float64)
    z = diffuse(x0, per_sentence(alpha_bar), noise)
    for i in range(2):
        assert torch.equal(z[i], diffuse(x0[i], alpha_bar[i], noise[i]))


@given(alpha_bar=LEVEL)
def test_the_conversions_between_x0_and_eps_are_inverses(alpha_bar: float) -> None:
    x0, noise = latents()
    level = torch.tensor(alpha_bar, dtype=torch.float64)
    z = diffuse(x0, level, noise)
    assert torch.allclose(eps_from_x0(z, x0, level), noise)
    assert torch.allclose(x0_from_eps(z, noise, level), x0)


@given(a=LEVEL, b=LEVEL)
def test_posterior_is_bayes_rule(a: float, b: float) -> None:
    # The product of two Gaussians in z_s: q(z_s | x0), and q(z_t | z_s) read as a function of z_s.
    alpha_bar, alpha_bar_s = levels(a, b)
    x0, z = latents()
    alpha = alpha_bar / alpha_bar_s
    precision_prior, precision_seen = 1 / (1 - alpha_bar_s), alpha / (1 - alpha)
    precision = precision_prior + precision_seen
    mean = (precision_prior * alpha_bar_s.sqrt() * x0 + precision_seen * z / alpha.sqrt()) / precision
    got = posterior(z, x0, alpha_bar, alpha_bar_s)
    assert torch.allclose(got.mean, mean)
    assert got.std.item() == pytest.approx(precision.item() ** -0.5)


@given(a=LEVEL, b=LEVEL, c=LEVEL)
def test_two_posterior_steps_are_one(a: float, b: float, c: float) -> None:
    low, middle, high = (torch.tensor(v, dtype=torch.float64) for v in sorted((a * 0.998, b * 0.999, c)))
    x0, z = latents()
    whole, first = posterior(z, x0, low, high), posterior(z, x0, low, middle)
    # The second mean is linear in z: the first mean goes through it, its variance by the slope squared.
    second = posterior(first.mean, x0, middle, high)
    slope = posterior(torch.ones(()), torch.zeros(()), middle, high).mean
    assert torch.allclose(second.mean, whole.mean)
    assert torch.allclose(second.std**2 + (slope * first.std) ** 2, whole.std**2, atol=1e-9)


def test_many_tiny_posterior_steps_are_one_large_step() -> None:
    x0, z = latents()
    levels = Sqrt().alpha_bar(torch.linspace(0.9, 0.1, 201, dtype=torch.float64))
    mean, variance = z, torch.zeros((), dtype=torch.float64)
    for low, high in pairwise(levels):
        slope = posterior(torch.ones(()), torch.zeros(()), low, high).mean
        mean, std = posterior(mean, x0, low, high)
        variance = slope**2 * variance + std**2
    whole = posterior(z, x0, levels[0], levels[-1])
    assert torch.allclose(mean, whole.mean) and torch.allclose(variance, whole.std**2)


@given(a=LEVEL, b=LEVEL)
def test_ddim_with_eta_one_is_the_posterior(a: float, b: float) -> None:
    alpha_bar, alpha_bar_s = levels(a, b)
    x0, z = latents()
    got, expected = ddim(z, x0, alpha_bar, alpha_bar_s, 1.0), posterior(z, x0, alpha_bar, alpha_bar_s)
    assert torch.allclose(got.mean, expected.mean, atol=1e-6) and torch.allclose(got.std, expected.std)


@given(a=LEVEL, b=LEVEL, eta=st.floats(0, 1))
def test_ddim_keeps_the_marginals_for_every_eta(a: float, b: float, eta: float) -> None:
    # Given x0, z_t ~ q(z_t | x0) must lead to z_s ~ q(z_s | x0).
    alpha_bar, alpha_bar_s = levels(a, b)
    x0, _ = latents()
    mean, std = ddim(alpha_bar.sqrt() * x0, x0, alpha_bar, alpha_bar_s, eta)
    slope = ddim(torch.ones(()), torch.zeros(()), alpha_bar, alpha_bar_s, eta).mean
    assert torch.allclose(mean, alpha_bar_s.sqrt() * x0)
    assert (slope**2 * (1 - alpha_bar) + std**2).item() == pytest.approx(1 - alpha_bar_s.item())


def test_the_step_to_no_noise_lands_on_x0() -> None:
    x0, z = latents()
    alpha_bar, one = torch.tensor(0.4, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for mean, std in (posterior(z, x0, alpha_bar, one), ddim(z, x0, alpha_bar, one, 0.5), renoise(x0, one)):
        assert torch.allclose(mean, x0) and std == 0


def test_renoise_is_the_forward_process() -> None:
    x0, noise = latents()
    level = torch.tensor(0.7, dtype=torch.float64)
    mean, std = renoise(x0, level)
    assert torch.equal(mean + std * noise, diffuse(x0, level, noise))
