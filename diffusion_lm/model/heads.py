"""What turns hidden states into a prediction of x0: one final class for each way to parametrise it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from diffusion_lm.diffusion.prediction import Prediction
from diffusion_lm.diffusion.process import x0_from_eps
from diffusion_lm.model.embedding import expected


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
