"""Several softmaxes beside each other on one hidden state: what a sentence is asked, and each question's classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Wanted = Sequence[tuple[int, int]]
"""The number of a softmax and a class of it, for each fact that is wanted."""


class Softmaxes(nn.Module):
    """S softmaxes, of `sizes` classes, each linear in the state."""

    def __init__(self, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(sizes))
        self.ends = [0, *accumulate(sizes)]

    def nll(self, states: Tensor, classes: Tensor) -> Tensor:
        """Mean -log p of the classes [N, S] at states [N, H], over both, in nats, []."""
        parts = self.linear(states).float().split([b - a for a, b in self._bounds()], -1)
        losses = [F.cross_entropy(part, right) for part, right in zip(parts, classes.long().T, strict=True)]
        return torch.stack(losses).mean()

    def log_p(self, states: Tensor, wanted: Wanted) -> Tensor:
        """Sum of the log-probabilities of the wanted classes, [...], at states [..., H]."""
        bounds = self._bounds()
        total = torch.zeros(states.shape[:-1], device=states.device)
        for number, right in wanted:
            a, b = bounds[number]
            logits = F.linear(states, self.linear.weight[a:b], self.linear.bias[a:b])
            total = total + logits.float().log_softmax(-1)[..., right]
        return total

    def _bounds(self) -> list[tuple[int, int]]:
        return list(zip(self.ends, self.ends[1:], strict=False))
