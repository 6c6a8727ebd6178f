"""Clamping: a denoiser whose x0_hat commits to words (paper section 4.2); any sampler takes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.common import check_range, pick
from diffusion_lm.diffusion.process import Denoise, Prediction, per_sentence

Draw = Callable[[Tensor, float, float, torch.Generator | None], Tensor]
"""(p(w_i | z_t) at a temperature, [B, L, V]; t; the temperature; what to draw with) to words, [B, L]."""

COLDEST, HOTTEST = 1e-6, 1e6
"""Temperatures between which logits stay numbers; at the first, the likeliest word is as good as certain."""


def nearest(x: Tensor, vectors: Tensor) -> Tensor:
    """Index of the nearest row of `vectors` [V, D] to each position of x [B, L, D] in Euclidean distance, [B, L]."""
    # |x - e|^2 = |x|^2 - 2 x.e + |e|^2, and |x|^2 is the same for every word.
    return (x @ vectors.T - vectors.square().sum(-1) / 2).argmax(-1)


def _probabilities(prediction: Prediction, temperature: float, dtype: torch.dtype) -> Tensor:
    if prediction.logits is None:
        raise ValueError("This clamp reads p(w | z_t), which the denoiser does not predict; take HardClamp.")
    if temperature == 1:
        return prediction.p.to(dtype)  # which an average may have been taken over already
    return (prediction.logits.to(dtype) / temperature).softmax(-1)


@dataclass(frozen=True, kw_only=True)
class Clamp(ABC):
    """(prediction, vectors [V, D], t [B]) to the prediction with another x0; what it says of words stays."""

    from_time: float = 1.0
    """Clamp where t <= from_time; 1 clamps at every step."""

    def __post_init__(self) -> None:
        """Refuse a temperature that is not above 0 and finite, or a time not from 0 to 1."""
        check_range("temperature", getattr(self, "temperature", 1.0), above=0, least=COLDEST, most=HOTTEST)
        check_range("from_time", self.from_time, least=0, most=1)

    @abstractmethod
    def x0(self, prediction: Prediction, vectors: Tensor, t: Tensor) -> Tensor:
        """The clamped x0_hat, [B, L, D]."""

    def __call__(self, prediction: Prediction, vectors: Tensor, t: Tensor) -> Prediction:
        """Clamp the sentences whose time has come."""
        # Where all are clamped, to ask whether would only wait for an accelerator.
        active = None if self.from_time >= 1 else per_sentence(t <= self.from_time)
        if active is not None and not bool(active.any()):
            return prediction
        # In the vectors' own precision: in bf16, the nearest of two near words would often be the other one.
        with torch.autocast(vectors.device.type, enabled=False):
            x0 = self.x0(prediction, vectors, t)
        if active is not None:
            x0 = torch.where(active, x0, prediction.x0)
        return Prediction(x0, prediction.logits)


@final
class NoClamp(Clamp):
    """x0_hat as the denoiser says it."""

    def x0(self, prediction: Prediction, vectors: Tensor, t: Tensor) -> Tensor:  # noqa: D102
        return prediction.x0


@final
class HardClamp(Clamp):
    """The paper's Clamp: the word vector nearest to x0_hat, not the likeliest word of the logits."""

    def x0(self, prediction: Prediction, vectors: Tensor, t: Tensor) -> Tensor:  # noqa: D102
        return F.embedding(nearest(prediction.x0.to(vectors.dtype), vectors), vectors)


@final
@dataclass(frozen=True, kw_only=True)
class SoftClamp(Clamp):
    """The average word vector under softmax(logits / temperature); a low temperature commits."""

    temperature: float = 1.0

    def x0(self, prediction: Prediction, vectors: Tensor, t: Tensor) -> Tensor:  # noqa: D102
        return _probabilities(prediction, self.temperature, vectors.dtype) @ vectors


@final
@dataclass(frozen=True, kw_only=True)
class SampledClamp(Clamp):
    """The vector of one word a position, drawn from softmax(logits / temperature).

    Keeps the variance of x0 that an average loses; with `Renoise` z_s ~ q(z_s | w) for a word w ~ p(w | z_t).
    """

    temperature: float = 1.0
    generator: torch.Generator | None = None
    together: Draw | None = field(default=None, repr=False)
    """Draws the words of a sentence as a whole (`diffusion.chain`); None: one by one."""

    def x0(self, prediction: Prediction, vectors: Tensor, t: Tensor) -> Tensor:  # noqa: D102
        p = _probabilities(prediction, self.temperature, vectors.dtype)
        if self.together is not None:
            return F.embedding(self.together(p, float(t[0]), self.temperature, self.generator), vectors)
        # Drawn where the generator lives, like the samplers' noise.
        device = self.generator.device if self.generator else p.device
        uniform = torch.rand(p.shape[:-1], generator=self.generator, device=device).to(p)
        return F.embedding(pick(p, uniform), vectors)


def clamped(denoise: Denoise, clamp: Clamp, vectors: Tensor) -> Denoise:
    """The denoiser with its x0_hat clamped to `vectors` [V, D]."""
    return lambda z, t: clamp(denoise(z, t), vectors, t)


CLAMPS: dict[str, type[Clamp]] = {"hard": HardClamp, "soft": SoftClamp, "sample": SampledClamp, "off": NoClamp}
"""The clamps by name."""
