"""At which noise levels a training batch is looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor, nn


class Times(NamedTuple):
    """Times t [B] and the weights [B] that keep the expectation over uniform t unbiased."""

    t: Tensor
    weight: Tensor


class TimeSampler(nn.Module, ABC):
    """Draws t for training; a module, so that what it has learned is saved with the training state."""

    @abstractmethod
    def sample(self, n: int, device: torch.device) -> Times:
        """N times in [0, 1)."""

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Learn from the losses [B] seen at t [B]."""


def stratified(n: int, device: torch.device) -> Tensor:
    """N uniform numbers in [0, 1), one in each of n equal strata, shuffled: less variance than independent draws, [n]."""
    t = (torch.arange(n, device=device) + torch.rand(n, device=device)) / n
    # The last stratum can round up to 1 in float32.
    return t.clamp(max=1 - 1e-6)[torch.randperm(n, device=device)]


@final
class UniformTimes(TimeSampler):
    """Uniform t, stratified over the batch."""

    def sample(self, n: int, device: torch.device) -> Times:  # noqa: D102
        return Times(stratified(n, device), torch.ones(n, device=device))


@final
class ImportanceTimes(TimeSampler):
    """p(t) in proportion to sqrt(E[loss^2]) in bins of t (paper appendix B, for L_vlb; Nichol and Dhariwal 2021).

    Uniform until every bin has been seen `warmup` times.
    """

    second_moment: Tensor
    seen: Tensor

    def __init__(self, bins: int = 100, decay: float = 0.9, warmup: int = 10) -> None:
        super().__init__()
        self.decay, self.warmup = decay, warmup
        self.register_buffer("second_moment", torch.ones(bins))
        self.register_buffer("seen", torch.zeros(bins, dtype=torch.long))

    def probabilities(self) -> Tensor:
        """The probability of each bin, [bins]; a thousandth of the mass stays uniform."""
        bins = len(self.second_moment)
        if bool((self.seen < self.warmup).any()):
            return torch.full_like(self.second_moment, 1 / bins)
        p = self.second_moment.sqrt()
        return 0.999 * p / p.sum() + 0.001 / bins

    def sample(self, n: int, device: torch.device) -> Times:  # noqa: D102
        p = self.probabilities().to(device)
        edges = torch.cat([p.new_zeros(1), p.cumsum(0)])
        u = stratified(n, device) * edges[-1]
        which = torch.searchsorted(edges, u, right=True).clamp(1, len(p)) - 1
        t = (which + (u - edges[which]) / p[which]) / len(p)
        return Times(t.clamp(0, 1 - 1e-6), 1 / (p[which] * len(p)))

    @torch.no_grad()
    def update(self, t: Tensor, loss: Tensor) -> None:  # noqa: D102
        bins = (t.cpu() * len(self.seen)).long().clamp(max=len(self.seen) - 1)
        for i, value in zip(bins.tolist(), loss.detach().cpu().tolist(), strict=True):
            old = self.second_moment[i] if self.seen[i] else value**2
            self.second_moment[i] = self.decay * old + (1 - self.decay) * value**2
            self.seen[i] += 1
