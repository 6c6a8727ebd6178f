"""Weights and resampling of a batch of sentences that are sampled side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RESAMPLE_BELOW = 0.5
"""Resample a group where its effective number of particles is below this share of them."""


class Particles:
    """The weights of B = `size` particles whose potentials are differences of a log-weight.

    A group is the rows, an index tensor, that may take each other's place.
    """

    def __init__(self, groups: Sequence[Tensor], size: int, generator: torch.Generator) -> None:
        self.groups, self.generator = groups, generator
        self.weights, self.last = torch.zeros(size), torch.zeros(size)

    def resample(self, log_weight: Tensor, below: float = RESAMPLE_BELOW) -> Tensor | None:
        """Take in new log-weights [B], in nats, and draw anew where they are uneven.

        A group with a share of effective particles `below` this is resampled; above 1, whatever its weights are. Returned
        are the rows that go on in each place, [B]; None where all stay.
        """
        self.weights = self.weights + log_weight - self.last
        self.last = log_weight
        index = torch.arange(len(log_weight))
        for rows in self.groups:
            w = self.weights[rows].softmax(0)
            if 1 / w.square().sum() < below * len(rows):
                index[rows] = rows[systematic(w, self.generator)]
                self.weights[rows] = 0.0
        if bool((index == torch.arange(len(index))).all()):
            return None
        self.last = self.last[index]
        return index


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many indices as there are weights [n], each close to its share (systematic resampling)."""
    n = len(weights)
    ticks = (torch.arange(n) + torch.rand((), generator=generator)) / n
    return torch.searchsorted(weights.cumsum(0), ticks).clamp(max=n - 1)
