"""Likelihood of human text under a diffusion model: the variational bound in nats a token (paper, appendix F and Table 7)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from diffusion_lm.diffusion.losses import VariationalBound
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.encoded import EncodedCorpus

UNSEEN = 1e-9
"""Probability of a length that no training sentence had, so that one such sentence does not make the bound infinite."""


class Likelihood(NamedTuple):
    """An upper bound on -log p(text), in nats a token; words and END count as tokens, as they do for the judge."""

    nats_per_token: float
    """The whole: the words given their number, and their number."""
    length_nats_per_token: float
    """The share of it that the number of words takes; 0 in the padded layout, where PAD is a word."""
    n: int
    """Sentences."""


@torch.no_grad()
def likelihood(lm: DiffusionLM, corpus: EncodedCorpus, n: int, draws: int = 4, seed: int = 0) -> Likelihood:
    """Bound the likelihood of `n` sentences at even distances, the mean over `draws` draws of time and noise."""
    bound, canvas = VariationalBound(steps=None), lm.config.canvas
    lengths = corpus.lengths.cpu()
    chosen = torch.arange(0, len(lengths), max(1, len(lengths) // n))[:n]
    sizes = torch.full_like(lengths, canvas) if canvas else lengths
    nats, seen = 0.0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for rows in token_batches(sizes[chosen], 4096, None):
            ids, mask = gather(corpus, chosen[rows], lm.tokenizer.pad_id, canvas)
            for _ in range(draws):
                each = bound.estimate(lm, ids, mask, seen)
                nats += float((each * mask.sum(-1)).sum()) / draws
                seen += len(ids)
    tokens = int((lengths[chosen] - 1).sum())
    of_length = 0.0
    if canvas is None:
        p = lm.length_counts.cpu().double() / lm.length_counts.sum()
        of_length = float(-p[lengths[chosen]].clamp(min=UNSEEN).log().sum())
    return Likelihood((nats + of_length) / tokens, of_length / tokens, len(chosen))
