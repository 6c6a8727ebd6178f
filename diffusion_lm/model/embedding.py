"""Words to vectors and back: the learned embedding, and rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WordEmbedding(nn.Module):
    """The V x D table that the diffusion runs on, free or on a sphere of radius sqrt(D).

    On the sphere every coordinate has variance about 1, so that z_t has too at every t, and the objective cannot be
    lowered by shrinking or blowing up the vectors.
    """

    def __init__(self, vocab_size: int, dim: int, *, normalize: bool, learned: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, dim), requires_grad=learned)
        self.normalize = normalize

    def vectors(self) -> Tensor:
        """The table as the diffusion sees it, [V, D]."""
        if not self.normalize:
            return self.weight
        return F.normalize(self.weight.float(), dim=-1) * math.sqrt(self.weight.shape[1])

    def forward(self, ids: Tensor) -> Tensor:
        """Emb(w): ids [B, L] to vectors [B, L, D]."""
        return F.embedding(ids, self.vectors())


def nearest(x: Tensor, vectors: Tensor) -> Tensor:
    """Index of the nearest row of `vectors` [V, D] to each position of x [B, L, D] in Euclidean distance, [B, L]."""
    # |x - e|^2 = |x|^2 - 2 x.e + |e|^2, and |x|^2 is the same for every word.
    return (x @ vectors.T - vectors.square().sum(-1) / 2).argmax(-1)


def expected(logits: Tensor, vectors: Tensor) -> Tensor:
    """softmax(logits) E: the average word vector, in float32 under autocast too; [B, L, V] and [V, D] to [B, L, D]."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.float().softmax(-1) @ vectors.float()
