"""How long a text is: a gap of any number of words as a single position, and p(that number | all that is given)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.diffusion.process import UNKNOWN, Source
from diffusion_lm.model.denoiser import Denoiser


def between(mask: Tensor) -> Tensor:
    """The positions between START, the first, and END, the last that exists: [B, L] to [B, L]."""
    inner = mask.clone()
    inner[:, :-1] &= mask[:, 1:]
    inner[:, [0, -1]] = False
    return inner


def ends_known(ids: Tensor, mask: Tensor) -> Tensor:
    """The ids of START and END, and `UNKNOWN` for the words between them, of texts [B, L]."""
    return torch.where(mask & ~between(mask), ids, UNKNOWN)


class Gaps(NamedTuple):
    """Texts whose gaps are single positions."""

    known: Tensor
    """The ids that are given, and `UNKNOWN` for each gap, [B, K]."""
    mask: Tensor
    """True at positions that exist, [B, K]."""
    words: Tensor
    """The number of words of each gap, 0 where none is, [B, K]."""


def collapse(known: Tensor, mask: Tensor) -> Gaps:
    """Texts [B, L] of which some words are given, each run of the others made one position; the mask says which exist."""
    gap = mask & (known == UNKNOWN)
    first = gap.clone()
    first[:, 1:] &= ~gap[:, :-1]
    kept = first | (mask & ~gap)
    place = (kept.cumsum(1) - 1).clamp(min=0)  # of a position in the shorter text: its own, or that of its gap
    sizes = kept.sum(1)
    width = int(sizes.max())
    short = torch.full((len(known), width + 1), UNKNOWN, device=known.device)
    short.scatter_(1, torch.where(kept, place, width), known)  # what is not kept lands in a last column
    words = torch.zeros_like(short).scatter_add_(1, torch.where(gap, place, width), gap.long())
    return Gaps(short[:, :width], torch.arange(width, device=known.device) < sizes[:, None], words[:, :width])


def gap_nats(network: Denoiser, known: Tensor, mask: Tensor, source: Source | None = None) -> Tensor:
    """-log p(numbers of words of all gaps | what is given) of texts [B, L], in nats, [B]; gaps are independent."""
    gaps = collapse(known, mask)
    logits = network.gap_logits(gaps.known, gaps.mask, source)
    nats = F.cross_entropy(logits.flatten(0, 1), gaps.words.flatten(), reduction="none").view(gaps.words.shape)
    return torch.where(gaps.words > 0, nats, 0.0).sum(1)
