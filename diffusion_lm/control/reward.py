"""A reward by any function of the text, followed by particles and not by a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from diffusion_lm.common import UserError, check_range
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control
from diffusion_lm.control.program import Host, Program


@final
@dataclass(frozen=True)
class Reward(Control):
    """Texts in proportion to p(text) exp(strength * fn(text)), for a function that need not be differentiable.

    Feynman-Kac steering (Singhal et al. 2025, "A General Framework for Inference-time Scaling and Steering of Diffusion
    Models", difference potential): the sentences of a batch that share a control are particles; every few steps each is
    weighted by what its decoded x0_hat has gained, and they are resampled where the weights have become uneven. The
    product of the potentials telescopes to exp(strength * fn(text)).
    """

    fn: Callable[[list[str]], Sequence[float] | Tensor]
    """From texts to a number each; it sees half-made texts too."""
    strength: float = 1.0
    """Nats that a unit of reward is worth."""
    name: str = "reward"
    """How it is called in reports."""

    def __post_init__(self) -> None:
        """Refuse a strength that is no number from 0 on."""
        check_range("A reward's strength", self.strength, least=0, most=1e6)

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        rewards = (lambda texts: self.strength * self.success(texts),)
        return [Program(canvas, rewards=rewards) for canvas in canvases]

    def success(self, texts: Sequence[str]) -> Tensor:
        """The reward itself, [B]; a `UserError` if the function does not give one finite number a text."""
        values = torch.as_tensor(self.fn(list(texts)), dtype=torch.float32).detach().cpu()
        if values.shape != (len(texts),) or not bool(values.isfinite().all()):
            gave = f"{tuple(values.shape)} with {int((~values.isfinite()).sum())} that are not finite"
            raise UserError(
                f"{self.name} has to give one finite number for each of {len(texts)} texts; it gave {gave}."
            )
        return values

    def __str__(self) -> str:
        return self.name
