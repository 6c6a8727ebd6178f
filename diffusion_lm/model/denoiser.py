"""The denoising network: word embedding, heads, and the shape of both."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.common import Settings, UserError, number
from diffusion_lm.diffusion.process import Prediction, x0_from_eps

Size = Literal["tiny", "small", "base"]

SIZES: dict[str, tuple[int, int, int]] = {"tiny": (128, 4, 2), "small": (256, 6, 4), "base": (768, 12, 12)}
"""Width H, layers and heads of each size; base is the paper's (BERT-base)."""


@dataclass(frozen=True)
class ModelConfig(Settings):
    """What the model is; everything that generating needs to know."""

    size: Size = "small"
    """Width, layers and heads of the denoiser: tiny (128, 4, 2), small (256, 6, 4), base (768, 12, 12; the paper's)."""
    width: int | None = number(None, least=1)
    """H: width of the denoiser, instead of the size's."""
    layers: int | None = number(None, least=1)
    """Layers of the denoiser, instead of the size's."""
    heads: int | None = number(None, least=1)
    """Attention heads, instead of the size's."""
    embedding_dim: int = number(16, least=1)
    """D: width of the word embeddings, and so of the latents (paper: 16 on E2E, 128 on ROCStories)."""
    max_length: int = number(64, least=3)
    """Longest sentence in tokens, START and END included (paper: 64)."""
    layout: Literal["exact", "padded"] = "exact"
    """exact: a sentence is as long as its words; padded: every sentence fills max_length, PAD is a word (paper)."""
    objective: Literal["cross_entropy", "simple", "vlb"] = "cross_entropy"
    """cross_entropy on x0_hat = softmax(logits) E; simple: the paper's L_simple (Eq. 2-3); vlb: the paper's L_vlb."""
    prediction: Literal["x0", "eps"] = "x0"
    """What the network of the simple and vlb objectives predicts (paper: x0; eps is its ablation)."""
    embeddings: Literal["learned", "random"] = "learned"
    """learned with the model (paper), or random and fixed (its ablation)."""
    normalize_embeddings: bool = True
    """Scale every word vector to length sqrt(D); the paper's objective leaves them free."""
    self_conditioning: bool = True
    """Show the denoiser its own last x0_hat (Chen et al. 2022)."""
    output_prior: bool = False
    """cross_entropy only: add log q(z_t | x0 = Emb(w)) to the logit of w, so that the network only has to
    learn what the context says of a word (Gulrajani and Hashimoto 2023)."""
    schedule: Literal["sqrt", "cosine", "linear", "tan"] = "sqrt"
    """Noise schedule (paper: sqrt)."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each branch, or after the sum (paper, BERT)."""
    dropout: float = number(0.0, least=0, below=1)
    """Dropout (paper: 0.1)."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and what does not fit together."""
        super().__post_init__()
        if self.shape[0] % self.shape[2]:
            raise UserError(f"The width {self.shape[0]} is not a multiple of the number of heads, {self.shape[2]}.")
        if self.objective == "cross_entropy" and self.prediction == "eps":
            raise UserError("The cross_entropy objective predicts words, not eps; take --model.objective simple.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width H, layers, heads."""
        width, layers, heads = SIZES[self.size]
        return (
            width if self.width is None else self.width,
            layers if self.layers is None else self.layers,
            heads if self.heads is None else self.heads,
        )

    @property
    def canvas(self) -> int | None:
        """Positions that every sentence is padded to with PAD as a word, or None in the exact layout."""
        return self.max_length if self.layout == "padded" else None


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


def expected(logits: Tensor, vectors: Tensor) -> Tensor:
    """softmax(logits) E: the average word vector, in float32 under autocast too; [B, L, V] and [V, D] to [B, L, D]."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.float().softmax(-1) @ vectors.float()


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out))


class Head(nn.Module, ABC):
    """(hidden [B, L, H], z_t [B, L, D], alpha_bar [B, 1, 1], vectors [V, D]) to a Prediction."""

    @abstractmethod
    def forward(self, hidden: Tensor, z: Tensor, alpha_bar: Tensor, vectors: Tensor) -> Prediction:
        """The prediction of x0, in float32."""

    def rounding_logits(self, x0: Tensor, vectors: Tensor) -> Tensor:
        """Logits of p(w | x0), [B, L, V]: the learned rounding step (paper section 4.1), tied to the embedding."""
        return x0 @ vectors.T


@final
class LogitHead(Head):
    """x0_hat = softmax(logits) E: a distribution over words at each position (Gulrajani and Hashimoto 2023).

    With `prior`, log q(z_t | x0 = Emb(w)) = sqrt(alpha_bar) z.Emb(w) / (1 - alpha_bar) + const is added to the logit
    of w (const: -alpha_bar |Emb(w)|^2 / (2 (1 - alpha_bar))), which is Bayes' rule if the network says p(w | context).
    """

    def __init__(self, width: int, vocab_size: int, clean_snr: float, *, prior: bool) -> None:
        super().__init__()
        self.clean_snr = clean_snr
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, vocab_size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.prior = prior

    def forward(self, hidden: Tensor, z: Tensor, alpha_bar: Tensor, vectors: Tensor) -> Prediction:  # noqa: D102
        logits = self.out(self.norm(hidden)).float()
        with torch.autocast(z.device.type, enabled=False):
            if self.prior:
                precision = 1 / (1 - alpha_bar)
                logits = logits + (alpha_bar.sqrt() * precision) * (z @ vectors.T)
                logits = logits - (alpha_bar * precision / 2) * vectors.square().sum(-1)
            return Prediction(expected(logits, vectors), logits)

    def rounding_logits(self, x0: Tensor, vectors: Tensor) -> Tensor:
        """Bayes' rule for a word in the noise of t = 0, with SNR = alpha_bar(0) / (1 - alpha_bar(0)): nothing is learned."""
        with torch.autocast(x0.device.type, enabled=False):
            return self.clean_snr * (x0 @ vectors.T - vectors.square().sum(-1) / 2)


class _RoundingHead(Head):
    """A head whose network output is D wide; words come from the rounding step, whose bias is learned."""

    def __init__(self, width: int, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.out = _mlp(width, dim)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    @abstractmethod
    def _x0(self, output: Tensor, z: Tensor, alpha_bar: Tensor) -> Tensor: ...

    def forward(self, hidden: Tensor, z: Tensor, alpha_bar: Tensor, vectors: Tensor) -> Prediction:
        x0 = self._x0(self.out(hidden).float(), z, alpha_bar)
        return Prediction(x0, self.rounding_logits(x0, vectors))

    def rounding_logits(self, x0: Tensor, vectors: Tensor) -> Tensor:
        with torch.autocast(x0.device.type, enabled=False):
            return super().rounding_logits(x0, vectors) + self.bias


@final
class X0Head(_RoundingHead):
    """The network predicts x0 (paper section 4.2)."""

    def _x0(self, output: Tensor, z: Tensor, alpha_bar: Tensor) -> Tensor:
        return output


@final
class EpsHead(_RoundingHead):
    """The network predicts eps (the paper's ablation, figure 4); x0 follows from z_t."""

    def _x0(self, output: Tensor, z: Tensor, alpha_bar: Tensor) -> Tensor:
        return x0_from_eps(z, output, alpha_bar)
