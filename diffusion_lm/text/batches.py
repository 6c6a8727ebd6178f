"""Batches by token budget in length buckets, drawn from an encoded corpus, and the sources beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_lm.common import ragged
from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.text.encoded import EncodedCorpus


def token_batches(lengths: Tensor, budget: int, generator: torch.Generator | None) -> list[Tensor]:
    """Split sentences into batches of at most `budget` tokens (padding counted) and of like length: indices of each.

    Sentences of `lengths` [n] tokens are shuffled, sorted by length within that order, cut, and the batches shuffled: an
    epoch sees every sentence once, and padding is a few per cent. Without a generator the order is that of length alone
    (for validation). A sentence longer than the budget makes a batch of its own.
    """
    order = torch.randperm(len(lengths), generator=generator) if generator else torch.arange(len(lengths))
    order = order[torch.sort(lengths[order], stable=True).indices]
    batches, start = [], 0
    for i, length in enumerate(lengths[order].tolist()):
        # Lengths ascend, so the newest sentence sets the padded length of the batch.
        if i > start and (i - start + 1) * length > budget:
            batches.append(order[start:i])
            start = i
    if start < len(order):
        batches.append(order[start:])
    if generator is None:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def gather(corpus: EncodedCorpus, indices: Tensor, pad_id: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
    """The sentences with these indices [B] as one padded batch: ids [B, L] (int64) and mask [B, L], where True counts.

    A canvas is the number of positions to which every sentence is padded, and PAD counts as a word (the paper's
    `padded` layout); None pads to the longest and masks (the `exact` layout).
    """
    indices = indices.to(corpus.offsets.device)
    starts = corpus.offsets[indices]
    lengths = corpus.offsets[indices + 1] - starts
    width = canvas or int(lengths.max())
    position = torch.arange(width, device=starts.device)
    mask = position < lengths[:, None]
    flat = torch.where(mask, starts[:, None] + position, 0)
    ids = torch.where(mask, corpus.ids[flat].long(), pad_id)
    return ids, torch.ones_like(mask) if canvas else mask


SHUFFLED = 0.5
"""Share of the sources whose parts stand in an order of chance while training, so that a prompt may name them in any."""


def gather_sources(corpus: EncodedCorpus, indices: Tensor, *, shuffled: float = 0.0) -> Tensor | None:
    """The sources of the sentences with these indices [B], and `UNKNOWN` behind their ends, [B, S].

    Of a share of them the parts are shuffled. None where no sentence has a source.
    """
    if (sources := corpus.sources) is None:
        return None
    rows = indices.to(sources.first.device)
    first = sources.first[rows]
    count = sources.first[rows + 1] - first
    part, row = ragged(first, count)
    place = (part - first[row]) / count[row]
    mixed = torch.rand(len(rows), device=rows.device) < shuffled
    # Parts stay with their row, whose number is the whole part of what they are sorted by.
    part = part[(row + torch.where(mixed[row], torch.rand_like(place), place).double()).argsort(stable=True)]
    start = sources.offsets[part]
    token, which = ragged(start, sources.offsets[part + 1] - start)
    row = row[which]
    if not len(token):
        return None
    lengths = torch.bincount(row, minlength=len(rows))
    column, _ = ragged(torch.zeros_like(lengths), lengths)
    found = torch.full((len(rows), int(lengths.max())), UNKNOWN, device=rows.device)
    found[row, column] = sources.ids[token].long()
    return found


def draw_sources(corpus: EncodedCorpus, indices: Tensor, dropout: float) -> Tensor | None:
    """The sources as training draws them: of a share of the batches none, else with the parts of half of them shuffled.

    A batch has sources or has none: what is left out then costs no time.
    """
    read = float(torch.rand(())) >= dropout
    return gather_sources(corpus, indices, shuffled=SHUFFLED) if read else None


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of unequal length as one tensor, [B, L], filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
