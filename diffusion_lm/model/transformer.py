"""The bidirectional transformer that reads noised latents."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion_lm.model.denoiser import ModelConfig

TIME_FEATURES = 128


def time_features(t: Tensor, dim: int = TIME_FEATURES) -> Tensor:
    """Sinusoidal features of t in [0, 1] (scaled to 1000, as in the paper's code), [B] to [B, dim]."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each with a residual and a layer norm before or after it."""

    def __init__(self, width: int, heads: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.heads, self.pre_norm = heads, pre_norm
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, length, width = x.shape
        q, k, v = self.qkv(x).view(b, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        # For sentences, the CPU's flash kernel takes four times as long as plain products in its backward pass.
        with sdpa_kernel(SDPBackend.MATH) if not x.is_cuda else nullcontext():
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.attention_out(y.transpose(1, 2).reshape(b, length, width))

    def _feed(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """X [B, L, H], mask [B, 1, 1, L] (True where a key counts) or None."""
        if self.pre_norm:
            x = x + self.dropout(self._attend(self.norm1(x), mask))
            return x + self.dropout(self._feed(self.norm2(x)))
        x = self.norm1(x + self.dropout(self._attend(x, mask)))
        return self.norm2(x + self.dropout(self._feed(x)))


class Transformer(nn.Module):
    """Latents and time to hidden states; the paper's denoiser without its output layer (section 6.1, appendix B).

    Input Linear-Tanh-Linear, learned absolute positions, a time embedding added at every position, layer norm, blocks.
    """

    def __init__(self, config: ModelConfig, input_dim: int) -> None:
        super().__init__()
        width, layers, heads = config.shape
        pre_norm = config.norm == "pre"
        self.input = nn.Sequential(nn.Linear(input_dim, width), nn.Tanh(), nn.Linear(width, width))
        self.position = nn.Embedding(config.max_length, width)
        self.time = nn.Sequential(
            nn.Linear(TIME_FEATURES, 4 * TIME_FEATURES), nn.SiLU(), nn.Linear(4 * TIME_FEATURES, width)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        blocks = [Block(width, heads, config.dropout, pre_norm) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.apply(_initialize)
        for block in blocks:
            # Residual branches start small, so that depth does not raise the variance (GPT-2).
            for last in (block.attention_out, block.down):
                nn.init.normal_(last.weight, std=1 / math.sqrt(2 * layers * last.in_features))

    def forward(self, latents: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states of noised latents.

        Args:
            latents: what the network sees at each position, [B, L, input_dim].
            t: time in [0, 1], [B].
            mask: True at positions that exist, [B, L]; None where all do.

        Returns:
            [B, L, H].
        """
        position = self.position(torch.arange(latents.shape[1], device=latents.device))
        h = self.input(latents) + position + self.time(time_features(t))[:, None]
        h = self.dropout(self.norm(h))
        if torch.is_autocast_enabled(h.device.type):
            # Layer norm leaves autocast in fp32; the residual stream in bf16 halves the memory traffic of every block.
            h = h.to(torch.get_autocast_dtype(h.device.type))
        keys = None if mask is None or bool(mask.all()) else mask[:, None, None, :]
        for block in self.blocks:
            h = block(h, keys)
        return h


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
