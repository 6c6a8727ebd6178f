"""How a control's energy is followed while sampling.

`Guidance` is abstract: a wrapper of the denoiser, a guide of each z_s, or both. `Tilt` is our default; `InnerLoop` is the
paper's.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from diffusion_lm.control.base import Control, Latents
from diffusion_lm.diffusion.prediction import Denoise, Prediction
from diffusion_lm.diffusion.process import Gaussian, per_sentence
from diffusion_lm.diffusion.samplers import Guide
from diffusion_lm.diffusion.schedule import NoiseSchedule
from diffusion_lm.model.embedding import expected


@dataclass
class Steered:
    """A denoiser and what steers it, counted.

    Attributes:
        control: whose energy is followed.
        denoise: the plain denoiser.
        schedule: its schedule.
        mask: True at positions that exist, [B, L].
        vectors: Emb(w), [V, D].
        passes: classifier evaluations (forward and backward count as one).
    """

    control: Control
    denoise: Denoise
    schedule: NoiseSchedule
    mask: Tensor
    vectors: Tensor
    passes: int = field(default=0)

    def energy(self, z: Tensor, t: Tensor, prediction: Prediction | None = None) -> Tensor | None:
        """The control's energy at z_t, [B]; the denoiser is asked first where the control reads its prediction."""
        if prediction is None or self.control.reads_prediction:
            prediction = self.denoise(z, t) if self.control.reads_prediction else Prediction(z, z)
        logits = prediction.logits if prediction.logits is not None else z
        return self.control.energy(Latents(z, t, self.mask, prediction.x0, logits, self.vectors))

    def gradient(self, z: Tensor, t: Tensor) -> Tensor | None:
        """The gradient of the summed energy by z_t, [B, L, D]; None for a control without energy."""
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            energy = self.energy(z, t)
            if energy is None:
                return None
            self.passes += 1
            return torch.autograd.grad(energy.sum(), z)[0]


class Guidance(ABC):
    """A way to follow an energy; `wrap` changes what the denoiser says, `guide` changes z_s."""

    def wrap(self, steered: Steered) -> Denoise:
        """The denoiser that the sampler calls."""
        return steered.denoise

    def guide(self, steered: Steered) -> Guide | None:
        """What moves each z_s, None for nothing."""
        return None

    @staticmethod
    def paper(task: str = "attribute") -> InnerLoop:
        """The original's inner loop with the numbers of its code (appendix C, table 6) for a task."""
        rate, fluency = PAPER[task]
        return InnerLoop(steps=3, rate=rate, fluency=fluency, rule=sign_step, until=0.05)


@final
@dataclass(frozen=True)
class Tilt(Guidance):
    """p(w_i | z_t, c) from p(w_i | z_t), by Bayes' rule to first order, in one classifier pass a step.

    Tweedie's formula moves E[x0 | z_t] by (1 - alpha_bar) / sqrt(alpha_bar) grad log p(c | z_t). On a model that predicts
    words the same tilt is made on the logits: logit(w) += scale g_i . Emb(w) with g that vector, shortened to `limit`
    where it is longer; x0_hat = softmax(logits) E then stays an average of word vectors, however strong the tilt.
    """

    scale: float = 1.0
    """Exponent of p(c | z_t)."""
    limit: float = 1.0
    """Longest g at a position, in units of 1 / sqrt(D): the most by which one step can favour a word."""

    def wrap(self, steered: Steered) -> Denoise:  # noqa: D102
        def denoise(z: Tensor, t: Tensor) -> Prediction:
            prediction = steered.denoise(z, t)
            gradient = steered.gradient(z, t)
            if gradient is None:
                return prediction
            alpha_bar = per_sentence(steered.schedule.alpha_bar(t))
            g = -self.scale * (1 - alpha_bar) / alpha_bar.sqrt() * gradient
            g = g * (self.limit / g.norm(dim=-1, keepdim=True).clamp(min=self.limit))
            if prediction.logits is None:
                return prediction._replace(x0=prediction.x0 + g)
            with torch.autocast(z.device.type, enabled=False):
                logits = prediction.logits + g.float() @ steered.vectors.T
            return Prediction(expected(logits, steered.vectors), logits)

        return denoise


Rule = Callable[[Tensor, float, dict[str, Tensor]], Tensor]
"""(gradient, rate, state kept over the inner steps) to the step that is taken off z_s."""


def sign_step(gradient: Tensor, rate: float, state: dict[str, Tensor]) -> Tensor:
    """`rate` in every coordinate: what the original's Adagrad, made anew at each inner step, comes to."""
    return rate * gradient.sign()


def adagrad_step(gradient: Tensor, rate: float, state: dict[str, Tensor]) -> Tensor:
    """Adagrad as the paper describes it, its second moment kept over the inner steps."""
    state["sum"] = state.get("sum", torch.zeros_like(gradient)) + gradient.square()
    return rate * gradient / (state["sum"].sqrt() + 1e-10)


def sgd_step(gradient: Tensor, rate: float, state: dict[str, Tensor]) -> Tensor:
    """Plain gradient descent."""
    return rate * gradient


@final
@dataclass(frozen=True)
class InnerLoop(Guidance):
    """The paper's guidance (section 5.2): after each step, a few updates of z_s on energy + fluency.

    Minimises energy(z_s) + fluency |z_s - mean|^2 / std, with std where the paper's -log p has std^2, as the original
    computes it.
    """

    steps: int = 3
    """Inner updates a step (paper: 3)."""
    rate: float = 0.1
    """Size of an update."""
    fluency: float = 0.01
    """Weight of staying near the sampler's own step (the paper's lambda)."""
    rule: Rule = sign_step
    """Update rule: sign_step, adagrad_step or sgd_step."""
    until: float = 0.0
    """No guidance below this t (the original: below step 10 of 200)."""

    def guide(self, steered: Steered) -> Guide | None:  # noqa: D102
        def move(z: Tensor, step: Gaussian, s: Tensor) -> Tensor:
            if float(s[0]) < self.until:
                return z
            state: dict[str, Tensor] = {}
            std = step.std if float(step.std) > 0 else 1.0
            for _ in range(self.steps):
                gradient = steered.gradient(z, s)
                if gradient is None:
                    return z
                # The original's energy is a mean over the batch and the labelled tokens; the sign drops that scale but
                # its balance with the fluency term stays.
                gradient = gradient / len(z) + self.fluency * 2 * (z - step.mean) / std / len(z)
                z = z - self.rule(gradient, self.rate, state)
            return z

        return move


PAPER = {
    "attribute": (0.1, 0.01),
    "pos": (0.1, 0.0001),
    "tree": (0.1, 0.0005),
    "span": (0.1, 0.1),
    "length": (0.1, 0.01),
}
"""Rate and lambda a task, as the original's code has them."""
