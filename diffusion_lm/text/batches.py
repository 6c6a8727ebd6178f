"""Batches by token budget in length buckets, drawn from an encoded corpus."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lm.text.encoded import EncodedCorpus


def token_batches(lengths: Tensor, budget: int, generator: torch.Generator | None) -> list[Tensor]:
    """Split sentences into batches of at most `budget` tokens (padding counted) and of like length.

    Sentences are shuffled, sorted by length within that order, cut, and the batches shuffled: an epoch sees
    every sentence once, and padding is a few per cent. With `generator=None` the order is that of length
    alone (for validation).

    Args:
        lengths: tokens a sentence, START and END included, [n].
        budget: the most tokens, padding included, that a batch holds; a longer sentence makes a batch of its
            own.
        generator: source of the shuffle.

    Returns:
        Index tensors, one a batch.
    """
    order = torch.randperm(len(lengths), generator=generator) if generator else torch.arange(len(lengths))
    order = order[torch.sort(lengths[order], stable=True).indices]
    sizes = lengths[order].tolist()
    batches, start = [], 0
    for i, length in enumerate(sizes):
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
    """The sentences with these indices as one padded batch.

    Args:
        corpus: the encoded corpus.
        indices: sentence numbers, [B].
        pad_id: the id that fills what is beyond a sentence.
        canvas: pad every sentence to this many positions and let PAD count as a word (the paper's `padded`
            layout); None pads to the longest and masks (the `exact` layout).

    Returns:
        ids [B, L] (int64) and mask [B, L] (True at positions that count), on the corpus's device.
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
