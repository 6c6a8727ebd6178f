"""How far a training is that may be limited in passes and in time, and a step of it."""

from __future__ import annotations

import math
import time

from torch import Tensor, nn
from torch.optim import Optimizer

from diffusion_lm.errors import UserError


class Clock:
    """How far the training is, by steps or by time, whichever is further; the learning rate follows it.

    Args:
        epochs: passes over the batches.
        minutes: time limit; None: none.
        steps_per_epoch: batches of a pass.
        lr: highest learning rate.
        warmup: steps over which it rises from zero; it then falls along half a cosine to zero.

    Raises:
        UserError: if the training would have no step.
    """

    def __init__(
        self, epochs: float, minutes: float | None, steps_per_epoch: int, lr: float, warmup: int
    ) -> None:
        self.total = math.ceil(epochs * steps_per_epoch)
        self.limit = math.inf if minutes is None else 60 * minutes
        if self.total < 1 or self.limit <= 0:
            raise UserError("The epochs and minutes of a training must be above 0.")
        self.highest, self.warmup = lr, max(1, warmup)
        self.steps = 0
        self.started = time.monotonic()

    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    def fraction(self) -> float:
        """Share of the training done, in [0, 1]."""
        return min(1.0, max(self.steps / self.total, self.seconds() / self.limit))

    def lr(self) -> float:
        """The learning rate of the next step."""
        warm = min(1.0, (self.steps + 1) / self.warmup)
        return self.highest * warm * 0.5 * (1 + math.cos(math.pi * self.fraction()))

    def step(self, loss: Tensor, model: nn.Module, optimizer: Optimizer) -> None:
        """Follow the gradient of a loss [], its norm over the model at most 1, and count the step."""
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = self.lr()
        optimizer.step()
        optimizer.zero_grad()
        self.steps += 1
