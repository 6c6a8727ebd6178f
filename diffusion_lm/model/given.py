"""Which words of a training text are given: the patterns that one model learns to fill (docs/given.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.model.gaps import between
from diffusion_lm.text.spacing import bare
from diffusion_lm.text.tokenizer import Tokenizer

PATTERNS = 5
"""A random set, a prefix, a suffix, all but one stretch, some whole sentences; each as often."""


def sentence_ends(tokenizer: Tokenizer) -> Tensor:
    """Which tokens end a sentence, [V]."""
    return torch.tensor([bare(tokenizer.token(i)) in (".", "!", "?") for i in range(tokenizer.vocab_size)])


def draw_known(ids: Tensor, mask: Tensor, share: float, ends: Tensor, *, threes: bool = False) -> Tensor:
    """The ids of what is given of texts [B, L], `UNKNOWN` for the rest: of a share of them some words, START and END always.

    `ends` says which tokens end a sentence, [V]. Of `threes`, texts that were made to have three sentences, the first and the
    last are given. No text is given as a whole.
    """
    words, (b, length), device = between(mask), ids.shape, ids.device
    number, position = words.sum(1, keepdim=True), torch.arange(length, device=device)[None]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, device=device)

    def upto(most: Tensor) -> Tensor:  # whole numbers from 1 to `most`, [B, 1]
        return 1 + (uniform(b, 1) * most).long().clamp(max=(most - 1).clamp(min=0))

    cut = upto(number)
    # A sentence goes on until the position behind its mark.
    before = torch.cat([torch.zeros_like(words[:, :1]), (ends.to(device)[ids] & words)[:, :-1]], 1)
    sentence = before.cumsum(1)
    last = (sentence * words).amax(1, keepdim=True)
    if threes:
        chosen = (sentence == 0) | (sentence == last)
    else:
        other = upto(number)
        low, high = torch.minimum(cut, other), torch.maximum(cut, other)
        written = (uniform(b, 1) * last.add(1)).long()
        patterns = [
            uniform(b, length) < uniform(b, 1),
            position < cut,
            position > cut,
            (position < low) | (position > high),
            # One sentence is written, and of the others each with a chance of its own, often none.
            (sentence != written)
            & (torch.rand(b, length, device=device).gather(1, sentence) > 0.5 * uniform(b, 1).round()),
        ]
        which = (uniform(b) * PATTERNS).long()
        chosen = torch.stack(patterns)[which, torch.arange(b, device=device)]
    given = chosen & words & (uniform(b, 1) < share)
    whole = (given | ~words).all(1, keepdim=True)
    given &= ~(whole & (position == cut))
    return torch.where(given | (mask & ~words), ids, UNKNOWN)
