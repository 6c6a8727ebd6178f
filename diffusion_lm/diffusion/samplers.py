"""From noise to words: one loop over the contract `Denoise`, one final class for each transition z_t -> z_s.

Guidance (`guide`), clamping and self-conditioning (wrappers of the denoiser) compose with every sampler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from diffusion_lm.common import check_range
from diffusion_lm.diffusion.process import Denoise, Gaussian, Prediction, ddim, posterior, renoise
from diffusion_lm.diffusion.schedule import NoiseSchedule

Guide = Callable[[Tensor, Gaussian, Tensor], Tensor]
"""(z_s [B, L, D], the Gaussian that it was drawn from, s [B]) -> a better z_s."""

Callback = Callable[[int, Tensor, Tensor, Prediction], None]
"""(step 0 .. steps - 1, t [B], z_t [B, L, D], the prediction from it) -> None."""


class State(NamedTuple):
    """Where a sampler stands: z_t and the denoiser's x0_hat, [B, L, D], at the noise level alpha_bar, []."""

    z: Tensor
    x0: Tensor
    alpha_bar: Tensor


def gaussian_noise(z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise in the shape of z, drawn where the generator lives: a CPU one draws the same for every device."""
    device = generator.device if generator else z.device
    return torch.randn(z.shape, generator=generator, device=device, dtype=z.dtype).to(z.device)


class Sampler(ABC):
    """Goes down the schedule's grid; what differs between samplers is the transition."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def branches(self) -> bool:
        """Whether two copies of z_t go different ways: steps draw noise, and no step reads the one before it."""
        return True

    @abstractmethod
    def transition(self, now: State, before: State | None, alpha_bar_s: Tensor) -> Gaussian:
        """The Gaussian that z_s is drawn from; `before` is the state one step earlier, None at the first."""

    def __call__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        z: Tensor,
        steps: int,
        *,
        power: float = 1.0,
        guide: Guide | None = None,
        callback: Callback | None = None,
        generator: torch.Generator | None = None,
    ) -> Prediction:
        """Sample from z_1 with `steps` calls of the denoiser, at t = 1, ..., 1 / steps, each to a power.

        `denoise` is the contract with whatever is wrapped around it; z is where to start, z_1 ~ N(0, 1), [B, L, D];
        `guide` moves each z_s, s > 0, before the denoiser sees it. Returns the last prediction, whose x0 is the sample:
        in every sampler the step to t = 0 lands on x0_hat.
        """
        # Noise levels are float64 scalars on the CPU: no digits lost, no wait for an accelerator.
        grid = schedule.grid(steps, power).double().cpu()
        alpha_bars, times = schedule.alpha_bar(grid), grid.to(z)
        before: State | None = None
        for i in range(steps):
            t = times[i].expand(len(z))
            prediction = denoise(z, t)
            if callback is not None:
                callback(i, t, z, prediction)
            if i + 1 < steps:
                now = State(z, prediction.x0, alpha_bars[i])
                step = self.transition(now, before, alpha_bars[i + 1])
                z = step.mean + step.std * gaussian_noise(z, generator) if step.std > 0 else step.mean
                if guide is not None:
                    z = guide(z, step, times[i + 1].expand(len(z)))
                before = now
        return prediction


@final
class Ancestral(Sampler):
    """DDPM (Ho et al. 2020, algorithm 2): z_s ~ q(z_s | z_t, x0_hat)."""

    def transition(self, now: State, before: State | None, alpha_bar_s: Tensor) -> Gaussian:  # noqa: D102
        return posterior(now.z, now.x0, now.alpha_bar, alpha_bar_s)


@final
class Renoise(Sampler):
    """The paper's decoding step (section 4.2): z_s ~ q(z_s | x0_hat), where a wrapper has clamped x0_hat."""

    def transition(self, now: State, before: State | None, alpha_bar_s: Tensor) -> Gaussian:  # noqa: D102
        return renoise(now.x0, alpha_bar_s)


@final
@dataclass(frozen=True)
class DDIM(Sampler):
    """Song et al. 2021: eta = 0 is deterministic, eta = 1 is `Ancestral`; the paper controls with 1."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        check_range("DDIM's eta", self.eta, least=0, most=1)

    @property
    def branches(self) -> bool:  # noqa: D102
        return self.eta > 0

    def transition(self, now: State, before: State | None, alpha_bar_s: Tensor) -> Gaussian:  # noqa: D102
        return ddim(now.z, now.x0, now.alpha_bar, alpha_bar_s, self.eta)


@final
class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): deterministic and of second order.

    A step is DDIM's from a better x0: extrapolated to the middle of the step in lambda = log SNR / 2 along the line
    through the last two predictions.
    """

    @property
    def branches(self) -> bool:  # noqa: D102
        return False

    def transition(self, now: State, before: State | None, alpha_bar_s: Tensor) -> Gaussian:  # noqa: D102
        x0 = now.x0
        # Where a schedule is cut off near t = 1, two levels are the same and no line goes through them.
        if before is not None and now.alpha_bar > before.alpha_bar:
            log_snr = torch.logit(now.alpha_bar)
            last, next_ = log_snr - torch.logit(before.alpha_bar), torch.logit(alpha_bar_s) - log_snr
            x0 = x0 + (next_ / (2 * last)) * (x0 - before.x0)
        return ddim(now.z, x0, now.alpha_bar, alpha_bar_s, eta=0.0)


SAMPLERS: dict[str, Callable[[], Sampler]]
"""The samplers by name."""
SAMPLERS = {"ddpm": Ancestral, "renoise": Renoise, "ddim": DDIM, "dpm-solver++": DPMSolverPP2M}
