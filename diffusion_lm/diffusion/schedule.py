"""Noise schedules: continuous in t, invertible; t = 0 is clean, t = 1 is noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from diffusion_lm.common import check_range
from diffusion_lm.diffusion.process import diffuse, per_sentence

# alpha_bar is kept away from 0 and 1 so that log_snr stays finite at both ends.
_EPS = 1e-6


class NoiseSchedule(ABC):
    """alpha_bar(t): the share of the signal's variance that is left at time t, falling from almost 1 to almost 0."""

    @abstractmethod
    def _alpha_bar(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _time(self, alpha_bar: Tensor) -> Tensor: ...

    def alpha_bar(self, t: Tensor) -> Tensor:
        """The signal's share of the variance at t, in (0, 1); same shape as t."""
        return self._alpha_bar(t).clamp(_EPS, 1 - _EPS)

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha_bar / (1 - alpha_bar)), falling in t."""
        return torch.logit(self.alpha_bar(t))

    def time(self, log_snr: Tensor) -> Tensor:
        """The t at which the log signal-to-noise ratio has this value: the inverse of `log_snr`."""
        return self._time(torch.sigmoid(log_snr)).clamp(0.0, 1.0)

    def noised(self, x0: Tensor, t: Tensor) -> Tensor:
        """z_t ~ q(z_t | x0), each sentence at a time of its own: x0 [B, L, D] and t [B] to [B, L, D]."""
        return diffuse(x0, per_sentence(self.alpha_bar(t)), torch.randn_like(x0))

    def grid(self, n: int, power: float = 1.0) -> Tensor:
        """N + 1 times from 1 down to 0, the n steps of a sampler: equal steps, to a power below 1 denser near t = 1, [n + 1]."""
        check_range("The number of a sampler's steps", n, least=1)
        check_range("The power of a sampler's times", power, above=0)
        return torch.linspace(1.0, 0.0, n + 1) ** power


@final
class Sqrt(NoiseSchedule):
    """The paper's schedule (appendix A): alpha_bar = 1 - sqrt(t + s); noise rises fast at first, then slowly."""

    def __init__(self, s: float = 1e-4) -> None:
        self.s = s

    def _alpha_bar(self, t: Tensor) -> Tensor:
        # Divided by its value at 0, as in the paper's code, would hide the noise that keeps z_0 from being a point.
        return 1 - torch.sqrt(t + self.s)

    def _time(self, alpha_bar: Tensor) -> Tensor:
        return (1 - alpha_bar) ** 2 - self.s


@final
class Cosine(NoiseSchedule):
    """Nichol and Dhariwal 2021: alpha_bar = cos^2(pi/2 (t + s)/(1 + s)) / cos^2(pi/2 s/(1 + s))."""

    def __init__(self, s: float = 0.008) -> None:
        self.s = s
        self._top = math.cos(math.pi / 2 * s / (1 + s)) ** 2

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return torch.cos(math.pi / 2 * (t + self.s) / (1 + self.s)) ** 2 / self._top

    def _time(self, alpha_bar: Tensor) -> Tensor:
        return torch.acos(torch.sqrt(alpha_bar * self._top).clamp(max=1.0)) * 2 / math.pi * (1 + self.s) - self.s


@final
class Linear(NoiseSchedule):
    """Ho et al. 2020 in the continuous limit: beta rises linearly, alpha_bar = exp(-b0 t - (b1 - b0) t^2 / 2)."""

    def __init__(self, beta_start: float = 0.1, beta_end: float = 20.0) -> None:
        self.b0, self.b1 = beta_start, beta_end

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return torch.exp(-self.b0 * t - (self.b1 - self.b0) * t**2 / 2)

    def _time(self, alpha_bar: Tensor) -> Tensor:
        slope, c = self.b1 - self.b0, -torch.log(alpha_bar)
        return (torch.sqrt(self.b0**2 + 2 * slope * c) - self.b0) / slope


@final
class Tan(NoiseSchedule):
    """Tan-d (TEncDM 2024): alpha_bar = 1 / (1 + d^2 tan^2(pi t / 2)); a larger d is noisier."""

    def __init__(self, d: float = 7.0) -> None:
        self.d = d

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return 1 / (1 + self.d**2 * torch.tan(math.pi / 2 * t.clamp(max=1 - 1e-7)) ** 2)

    def _time(self, alpha_bar: Tensor) -> Tensor:
        return torch.atan(torch.sqrt(1 / alpha_bar - 1) / self.d) * 2 / math.pi


SCHEDULES: dict[str, type[NoiseSchedule]] = {"sqrt": Sqrt, "cosine": Cosine, "linear": Linear, "tan": Tan}
"""The schedules by the name a config gives them."""
