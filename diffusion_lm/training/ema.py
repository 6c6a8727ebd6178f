"""The exponential moving average of the weights: what generates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """shadow <- decay shadow + (1 - decay) weight, after every step.

    The decay of the first steps is smaller, (1 + n) / (10 + n), so that the average forgets the initial
    weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._names = list(trained)
        self._live: list[Tensor] = list(trained.values())
        self._shadow = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Take the newest weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._shadow, self._live, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(zip(self._names, self._shadow, strict=True))

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Take up a saved average."""
        for name, shadow in zip(self._names, self._shadow, strict=True):
            shadow.copy_(state[name])
        self.steps = steps

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live and the averaged weights; a second call puts them back."""
        for live, shadow in zip(self._live, self._shadow, strict=True):
            kept = live.detach().clone()
            live.copy_(shadow)
            shadow.copy_(kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averaged weights are the model's inside the `with` block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
