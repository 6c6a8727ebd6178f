"""Counts, and the log-probabilities that they come to."""

from __future__ import annotations

from torch import Tensor


def smoothed(counts: Tensor, prior: Tensor, weight: float) -> Tensor:
    """Log-probabilities from counts [..., T], with `weight` pseudo-counts spread as the prior [..., T] says."""
    # What was never seen is as good as impossible, and still finite.
    pseudo = counts + weight * prior.clamp(min=1e-6)
    return (pseudo / pseudo.sum(-1, keepdim=True)).log()
