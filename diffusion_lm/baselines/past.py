"""A language model word by word, from the keys and values of the words before."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.evaluation.judge import Block, JudgeLM

Past = list[Tensor]
"""For every block the keys and the values of the words read so far, [2, B, heads, L, depth]."""


def read_all(lm: JudgeLM, ids: Tensor) -> tuple[Tensor, Past]:
    """The last hidden states [B, L, H] of words [B, L], START the first, and their past."""
    x, past = lm.embedding(ids) + lm.positions.weight[: ids.shape[1]], []
    for block in lm.blocks:
        assert isinstance(block, Block)
        past.append(_projected(block, x)[1:])
        x = block(x)
    return lm.norm(x), past


def read_word(lm: JudgeLM, vectors: Tensor, past: Past) -> tuple[Tensor, Past]:
    """The last hidden states [B, H] of one more word, given as embeddings [B, H], and the past with it."""
    place = past[0].shape[3]
    x, longer = (vectors + lm.positions.weight[place])[:, None], []
    for block, before in zip(lm.blocks, past, strict=True):
        assert isinstance(block, Block)
        q, k, v = _projected(block, x)
        all_ = torch.cat([before, torch.stack([k, v])], dim=3)
        y = F.scaled_dot_product_attention(q, all_[0], all_[1])
        x = x + block.project(y.transpose(1, 2).flatten(2))
        x = x + block.contract(F.gelu(block.expand(block.norm_mlp(x))))
        longer.append(all_)
    return lm.norm(x)[:, 0], longer


def _projected(block: Block, x: Tensor) -> Tensor:
    """Queries, keys and values, [3, B, heads, L, depth], of the block's input [B, L, H]."""
    batch, length, width = x.shape
    qkv = block.qkv(block.norm_attention(x)).view(batch, length, 3, block.heads, width // block.heads)
    return qkv.permute(2, 0, 3, 1, 4)
