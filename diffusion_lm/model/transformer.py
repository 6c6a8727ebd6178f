"""The transformer: one block, causal or not, and the bidirectional network that reads noised latents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.diffusion.process import Source

TIME_FEATURES = 128


def time_features(t: Tensor, dim: int = TIME_FEATURES) -> Tensor:
    """Sinusoidal features of t in [0, 1] (scaled to 1000, as in the paper's code), [B] to [B, dim]."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class LayerNorm(nn.LayerNorm):
    """Layer norm that leaves what enters in its precision (sums are in float32), where torch's own under autocast does not."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(depth)) v, [B, heads, L, depth], where the mask is True, [..., L or 1, S], of S keys."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # For sentences, plain products are faster on a CPU than torch's kernels, in bf16 up to four times.
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    # Autocast would take the softmax in float32, only to round it again.
    with torch.autocast(q.device.type, enabled=False):
        weights = scores.softmax(-1)
    return weights @ v


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each with a residual, dropout and a layer norm before it or after the sum.

    `heads` divide the width H; in a causal block a position sees itself and those before it.
    """

    def __init__(
        self, width: int, heads: int, dropout: nn.Module, *, pre_norm: bool = True, causal: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.pre_norm, self.causal = heads, pre_norm, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.dropout = dropout

    def _attend(self, x: Tensor, mask: Tensor | None, past: Tensor | None) -> tuple[Tensor, Tensor]:
        b, length, width = x.shape
        q, *kv = self.qkv(x).view(b, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = torch.stack(kv) if past is None else torch.cat([past, torch.stack(kv)], dim=3)
        if self.causal and length > 1:
            mask = torch.ones(length, seen.shape[3], dtype=torch.bool, device=x.device).tril(seen.shape[3] - length)
        y = attend(q, seen[0], seen[1], mask)
        return self.attention_out(y.transpose(1, 2).reshape(b, length, width)), seen

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States of more positions, [B, L, H], and the past with them.

        The mask is True where a key counts, [B, 1, 1, L]; None where all do. `past` has the keys and values of the
        positions before these, [2, B, heads, S, depth]; None where there are none.
        """
        if self.pre_norm:
            y, seen = self._attend(self.norm1(x), mask, past)
            x = x + self.dropout(y)
            return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x))))), seen
        y, seen = self._attend(x, mask, past)
        x = self.norm1(x + self.dropout(y))
        return self.norm2(x + self.dropout(self.down(F.gelu(self.up(x))))), seen


class Transformer(nn.Module):
    """Latents and time to hidden states; the paper's denoiser without its output layer (section 6.1, appendix B).

    Input Linear-Tanh-Linear, learned absolute positions, a time embedding added at every position, layer norm, blocks.
    The shape is width H, layers and heads.
    """

    def __init__(
        self,
        input_dim: int,
        shape: tuple[int, int, int],
        max_length: int,
        *,
        pre_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width, layers, heads = shape
        self.input = nn.Sequential(nn.Linear(input_dim, width), nn.Tanh(), nn.Linear(width, width))
        self.position = nn.Embedding(max_length, width)
        self.time = nn.Sequential(
            nn.Linear(TIME_FEATURES, 4 * TIME_FEATURES), nn.SiLU(), nn.Linear(4 * TIME_FEATURES, width)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        blocks = [Block(width, heads, nn.Dropout(dropout), pre_norm=pre_norm) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        initialize(self, blocks)

    def forward(
        self,
        latents: Tensor,
        t: Tensor,
        mask: Tensor | None = None,
        marks: Tensor | None = None,
        source: Source | None = None,
    ) -> Tensor:
        """Latents [B, L, input_dim] and t [B] to hidden states [B, L, H]; the mask [B, L] is True at positions that exist.

        Marks, [B, L, H], are added to what enters; every position also attends to a source that was read before.
        """
        position = self.position(torch.arange(latents.shape[1], device=latents.device))
        time = self.time(time_features(t))[:, None]
        h = self._entered(latents, position, time, *([] if marks is None else [marks]))
        # A mask that hides nothing costs a CPU time; to find out, an accelerator would have to be waited for.
        whole = mask is None or (mask.device.type == "cpu" and bool(mask.all()))
        keys = None if mask is None or whole else mask[:, None, None, :]
        if source is not None:
            own = source.mask.new_ones(latents.shape[:2]) if mask is None else mask
            keys = torch.cat([source.mask, own], dim=1)[:, None, None, :]
        for i, block in enumerate(self.blocks):
            h, _ = block(h, keys, past=source and source.past[i])
        return h

    def read(self, latents: Tensor, mask: Tensor, position: Tensor) -> list[Tensor]:
        """Keys and values of a source: clean latents [B, S, input_dim] at positions [S, H] of their own, without a time.

        A source sees itself alone: a tensor [2, B, heads, S, depth] of each block.
        With t = 0 the network would have to read sources and denoise texts that are nearly clean by the same features of t.
        """
        h = self._entered(latents, position)
        seen = mask.clone()
        seen[:, 0] = True  # a sentence without a source has a key to look at, which nobody reads
        past = []
        for block in self.blocks:
            h, kv = block(h, seen[:, None, None, :])
            past.append(kv)
        return past

    def _entered(self, latents: Tensor, *added: Tensor) -> Tensor:
        h = self.dropout(self.norm(sum(added, start=self.input(latents))))
        if torch.is_autocast_enabled(h.device.type):
            # Layer norm leaves autocast in fp32; the residual stream in bf16 halves the memory traffic of every block.
            h = h.to(torch.get_autocast_dtype(h.device.type))
        return h


def initialize(network: nn.Module, blocks: Sequence[Block]) -> None:
    """Weights of chance for a network and its blocks: what enters and what leaves a layer has about the same variance."""

    def fill(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)

    network.apply(fill)
    for block in blocks:
        # Residual branches start small, so that depth does not raise the variance (GPT-2).
        for last in (block.attention_out, block.down):
            nn.init.normal_(last.weight, std=1 / math.sqrt(2 * len(blocks) * last.in_features))
