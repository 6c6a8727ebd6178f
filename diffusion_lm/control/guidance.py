"""How a control's energy is followed while sampling: `Pull` is our default, `InnerLoop` and `Adagrad` the paper's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.program import Energy, Latents
from diffusion_lm.diffusion.process import Denoise, Gaussian, Prediction, per_sentence
from diffusion_lm.diffusion.samplers import Guide


class Slope(NamedTuple):
    """What is followed at z_t, and its gradient."""

    energy: Tensor
    """The sum of the energies, each a mean over its terms, [B]."""
    nats: Tensor
    """-log p of all that is wanted, [B]."""
    terms: Tensor
    """Of how many words, spans or values that speaks, [B]."""
    gradient: Tensor
    """Of the energy, or of the nats, by z_t, [B, L, D]."""


@dataclass
class Steered:
    """A denoiser and what steers it, counted."""

    denoise: Denoise
    mask: Tensor
    """True at positions that exist, [B, L]."""
    vectors: Tensor
    """Emb(w), [V, D]."""
    energies: list[tuple[Energy, Tensor]] = field(default_factory=list)
    """What is followed, and the sentences of the batch that it is wanted of."""
    passes: int = 0
    """Classifier evaluations (forward and backward count as one)."""

    def energy(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """What a `Slope` says of each sentence at z_t but the gradient, 0 for one without energies; None if all are."""
        if not self.energies:
            return None
        # Energies that do not read the prediction are spared the pass, and shown z_t in its place.
        reads = any(energy.reads_prediction for energy, _ in self.energies)
        prediction = self.denoise(z, t) if reads else Prediction(z, z)
        logits = prediction.logits if prediction.logits is not None else z
        latents = Latents(z, t, self.mask, prediction.x0, logits, self.vectors)
        total, nats, terms = z.new_zeros(len(z)), z.new_zeros(len(z)), z.new_zeros(len(z))
        for energy, rows in self.energies:
            every = len(rows) == len(z)
            values = energy.of(latents if every else latents.rows(rows)).to(total.dtype)
            total = total + values if every else total.index_add(0, rows, values)
            nats = nats.index_add(0, rows, energy.terms * values)
            terms = terms.index_add(0, rows, torch.full_like(values, energy.terms))
        return total, nats, terms

    def slope(self, z: Tensor, t: Tensor, *, of_nats: bool = False) -> Slope | None:
        """The energies and the gradient by z_t, of their means or of the nats; None for a control without energy."""
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            found = self.energy(z, t)
            if found is None:
                return None
            energy, nats, terms = found
            self.passes += 1
            (gradient,) = torch.autograd.grad((nats if of_nats else energy).sum(), z)
            return Slope(energy.detach(), nats.detach(), terms.detach(), gradient)


class Guidance(ABC):
    """A way to follow an energy: it moves each z_s, a few times, before the denoiser sees it."""

    steps: int
    until: float = 0.0
    of_nats: ClassVar[bool] = False
    """Whether it follows -log p itself, in which a long target weighs more, and not its mean over the terms."""

    def direction(self, z: Tensor, step: Gaussian, slope: Slope) -> Tensor:
        """The gradient of all that is minimised, [B, L, D]."""
        return slope.gradient

    @abstractmethod
    def update(self, slope: Slope, directions: Sequence[Tensor], step: Gaussian) -> Tensor:
        """What is taken from z_s, [B, L, D], from the directions of this step's updates so far, the newest last."""

    def guide(self, steered: Steered) -> Guide:
        """What the sampler calls after each step."""

        def move(z: Tensor, step: Gaussian, s: Tensor) -> Tensor:
            directions: list[Tensor] = []
            for _ in range(self.steps if float(s[0]) >= self.until else 0):
                slope = steered.slope(z, s, of_nats=self.of_nats)
                if slope is None:
                    break
                directions.append(self.direction(z, step, slope))
                z = z - self.update(slope, directions, step)
            return z

        return move

    @staticmethod
    def paper(task: str = "attribute") -> InnerLoop:
        """The original's inner loop with the numbers of its code for a task (appendix C, table 6), or for `COMPOSITION`."""
        if task not in PAPER:
            raise UserError(f"The paper has no guidance for {task!r}; it has numbers for {', '.join(PAPER)}.")
        return InnerLoop(steps=3, rate=0.1, fluency=PAPER[task], until=0.05)


@final
@dataclass(frozen=True)
class Pull(Guidance):
    """Steps of fixed length along each sentence's own gradient, shorter the surer the classifier is.

    z_s <- z_s - rate (1 - p(c | z_s)) g / |g| with g the gradient of the energy by the whole sentence's latents [L, D]. A sign
    step moves every coordinate alike and so disturbs words that have nothing to do with the control; this one moves the
    few positions that matter, and stops where the control holds (docs/log.md has both beside each other).
    """

    steps: int = 3
    """Inner updates a step."""
    rate: float = 5.0
    """Length of an update in the latents' own units, where p(c | z_s) is near 0."""

    def update(self, slope: Slope, directions: Sequence[Tensor], step: Gaussian) -> Tensor:  # noqa: D102
        length = slope.gradient.flatten(1).norm(dim=1) + 1e-8
        return per_sentence(self.rate * -torch.expm1(-slope.nats) / length) * slope.gradient


@final
@dataclass(frozen=True)
class Proximal(Guidance):
    """Towards the likeliest z_s given z_t and the control: sign steps in units of the noise that the sampler's step has.

    Minimises -log p(c | z_s) + weight |z_s - mean|^2 / (2 std^2); a weight of 1 is Bayes' rule, a smaller one follows the control
    harder. It is `fluency` times the root of the number of words, spans or values that c speaks of: many together are surer than
    one. An update is `rate` std in every coordinate, so that one rate fits any number of steps, and words that the control does
    not need are drawn back to the sampler's own step.
    """

    of_nats = True
    steps: int = 3
    """Inner updates a step."""
    rate: float = 1.0
    """Size of an update, in standard deviations of the sampler's step."""
    fluency: float = 0.005
    """Weight of staying near the sampler's own step."""

    def direction(self, z: Tensor, step: Gaussian, slope: Slope) -> Tensor:  # noqa: D102
        weight = per_sentence(self.fluency * slope.terms.sqrt())
        return slope.gradient + weight * (z - step.mean) / step.std.clamp(min=1e-3) ** 2

    def update(self, slope: Slope, directions: Sequence[Tensor], step: Gaussian) -> Tensor:  # noqa: D102
        return self.rate * step.std * directions[-1].sign()


@dataclass(frozen=True)
class InnerLoop(Guidance):
    """The paper's guidance (section 5.2) as the original computes it: a few sign steps on energy + fluency.

    Minimises energy(z_s) + fluency |z_s - mean|^2 / std, with std where the paper's -log p has std^2. An update is `rate` in
    every coordinate: what the original's Adagrad, made anew at each inner step, comes to.
    """

    steps: int = 3
    """Inner updates a step (paper: 3)."""
    rate: float = 0.1
    """Size of an update."""
    fluency: float = 0.01
    """Weight of staying near the sampler's own step (the paper's lambda)."""
    until: float = 0.0
    """No guidance below this t (the original: below step 10 of 200)."""

    def direction(self, z: Tensor, step: Gaussian, slope: Slope) -> Tensor:  # noqa: D102
        std = step.std if float(step.std) > 0 else 1.0
        # The original's energy is a mean over the batch and the labelled tokens; the sign drops that scale.
        return slope.gradient + self.fluency * 2 * (z - step.mean) / std

    def update(self, slope: Slope, directions: Sequence[Tensor], step: Gaussian) -> Tensor:  # noqa: D102
        return self.rate * directions[-1].sign()


@final
@dataclass(frozen=True)
class Adagrad(InnerLoop):
    """The paper's guidance as it is written: Adagrad (Duchi et al. 2011), one for the updates of a step.

    The k-th update of a coordinate is rate g_k / sqrt(g_1^2 + ... + g_k^2), and so the first a sign step.
    """

    def update(self, slope: Slope, directions: Sequence[Tensor], step: Gaussian) -> Tensor:  # noqa: D102
        squares = torch.stack([direction.square() for direction in directions]).sum(0)
        return self.rate * directions[-1] / (squares.sqrt() + 1e-10)


COMPOSITION = "composition"
"""Several controls at once, whose energies are added."""
PAPER = {"attribute": 0.01, "pos": 0.0001, "tree": 0.0005, "span": 0.1, "length": 0.01, COMPOSITION: 0.01}
"""Lambda a task, as the original's code has it; its rate is always 0.1."""
