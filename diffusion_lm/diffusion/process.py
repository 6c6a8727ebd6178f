"""The forward process, its posterior, and the conversions between x0, eps and z_t.

z_t = sqrt(alpha_bar(t)) x0 + sqrt(1 - alpha_bar(t)) eps. Everything broadcasts: alpha_bar is [B, 1, 1] or a scalar
beside latents [B, L, D].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Prediction:
    """What a denoiser says of z_t."""

    def __init__(
        self, x0: Tensor | Callable[[Prediction], Tensor], logits: Tensor | None = None, hidden: Tensor | None = None
    ) -> None:
        self._x0 = x0
        self.logits = logits
        """Of p(w | z_t) a position, [B, L, V]; None for a denoiser that has none."""
        self.hidden = hidden
        """The network's last states, [B, L, H]; None for a denoiser that shows none."""

    @property
    def x0(self) -> Tensor:
        """The predicted clean latents x0_hat, [B, L, D].

        An average over all words is taken when it is first read: a loss or a clamp that reads the logits never asks.
        """
        if not isinstance(self._x0, Tensor):
            self._x0 = self._x0(self)
        return self._x0

    @cached_property
    def p(self) -> Tensor:
        """What `logits` say of each word in float32, [B, L, V]; a `ValueError` where there are none."""
        if self.logits is None:
            raise ValueError("This denoiser does not predict p(w | z_t).")
        with torch.autocast(self.logits.device.type, enabled=False):
            return self.logits.float().softmax(-1)


def average(vectors: Tensor) -> Callable[[Prediction], Tensor]:
    """x0_hat of a prediction as the average word vector under its p(w | z_t), in float32 under autocast too; [V, D]."""

    def of(said: Prediction) -> Tensor:
        p = said.p
        with torch.autocast(p.device.type, enabled=False):
            return p @ vectors.float()

    return of


Denoise = Callable[[Tensor, Tensor], Prediction]
"""(z_t [B, L, D], t [B]) -> Prediction. Clamping, self-conditioning, infilling and control are wrappers around it."""


UNKNOWN = -1
"""Id of a position whose word is to be written, or of one behind the end of a source."""


class Source(NamedTuple):
    """A source as the network has read it, which no noise level changes."""

    ids: Tensor
    """Its words, `UNKNOWN` behind their end, [B, S]; a sentence without a source has none."""
    past: list[Tensor]
    """The keys and values of every block, [2, B, heads, S, depth]."""

    @property
    def mask(self) -> Tensor:
        """True at positions that exist, [B, S]."""
        return self.ids != UNKNOWN

    def rows(self, index: Tensor) -> Source:
        """Those of some sentences of the batch."""
        return Source(self.ids[index], [each[:, index] for each in self.past])


class Given(NamedTuple):
    """Words that are given: they stand clean at every noise level, and the network knows that they are."""

    known: Tensor
    """The ids of the positions that are given, `UNKNOWN` elsewhere, [B, L]."""
    source: Source | None = None
    """A segment of its own that is always given; None where no sentence has one."""

    def rows(self, index: Tensor) -> Given:
        """Those of some sentences of the batch."""
        return Given(self.known[index], self.source and self.source.rows(index))

    def counted(self, mask: Tensor) -> Tensor:
        """The positions that are written and so are learned from, of those that exist, [B, L]."""
        return mask & (self.known == UNKNOWN)


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean [B, L, D] and standard deviation (broadcastable)."""

    mean: Tensor
    std: Tensor


def per_sentence(value: Tensor) -> Tensor:
    """A value a sentence [B] (or one for all, []) in a shape that broadcasts with latents [B, L, D]."""
    return value.reshape(-1, 1, 1)


def diffuse(x0: Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
    """z_t from x0 and eps (paper section 3.3, in closed form)."""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def eps_from_x0(z: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise that leads from x0 to z_t."""
    return (z - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def x0_from_eps(z: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The x0 from which this noise leads to z_t."""
    return (z - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def posterior(z: Tensor, x0: Tensor, alpha_bar: Tensor, alpha_bar_s: Tensor) -> Gaussian:
    """q(z_s | z_t, x0) for s < t (Ho et al. 2020, Eq. 7), for steps of any size.

    With alpha = alpha_bar(t) / alpha_bar(s): mean = sqrt(alpha_bar_s) (1 - alpha) / (1 - alpha_bar) x0
    + sqrt(alpha) (1 - alpha_bar_s) / (1 - alpha_bar) z_t, variance = (1 - alpha_bar_s) (1 - alpha) / (1 - alpha_bar).
    """
    alpha = alpha_bar / alpha_bar_s
    of_x0 = alpha_bar_s.sqrt() * (1 - alpha) / (1 - alpha_bar)
    of_z = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar)
    return Gaussian(of_x0 * x0 + of_z * z, ((1 - alpha_bar_s) * (1 - alpha) / (1 - alpha_bar)).sqrt())


def ddim(z: Tensor, x0: Tensor, alpha_bar: Tensor, alpha_bar_s: Tensor, eta: float) -> Gaussian:
    """The DDIM transition z_t -> z_s (Song et al. 2021, Eq. 12 and 16); eta = 1 is the posterior, eta = 0 has no noise."""
    std = eta * ((1 - alpha_bar_s) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_s)).sqrt()
    eps = eps_from_x0(z, x0, alpha_bar)
    mean = alpha_bar_s.sqrt() * x0 + (1 - alpha_bar_s - std**2).clamp(min=0).sqrt() * eps
    return Gaussian(mean, std)


def renoise(x0: Tensor, alpha_bar_s: Tensor) -> Gaussian:
    """q(z_s | x0): forget z_t and noise x0 afresh; the paper's clamped step (section 4.2) with x0 clamped."""
    return Gaussian(alpha_bar_s.sqrt() * x0, (1 - alpha_bar_s).sqrt())
