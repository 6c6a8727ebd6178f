"""The shape of a DiffusionLM: flags, YAML keys and the checkpoint's config.json in one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion_lm.errors import UserError

Size = Literal["tiny", "small", "base"]

SIZES: dict[str, tuple[int, int, int]] = {"tiny": (128, 4, 2), "small": (256, 6, 4), "base": (768, 12, 12)}
"""Width H, layers and heads of each size; base is the paper's (BERT-base)."""


@dataclass(frozen=True)
class ModelConfig:
    """What the model is; everything that generating needs to know."""

    size: Size = "small"
    """Width, layers and heads of the denoiser: tiny (128, 4, 2), small (256, 6, 4), base (768, 12, 12; the paper's)."""
    width: int | None = None
    """H: width of the denoiser, instead of the size's."""
    layers: int | None = None
    """Layers of the denoiser, instead of the size's."""
    heads: int | None = None
    """Attention heads, instead of the size's."""
    embedding_dim: int = 16
    """D: width of the word embeddings, and so of the latents (paper: 16 on E2E, 128 on ROCStories)."""
    max_length: int = 64
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
    dropout: float = 0.0
    """Dropout (paper: 0.1)."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if min(*self.shape, self.embedding_dim) < 1:
            raise UserError("width, layers, heads and embedding_dim are at least 1.")
        if self.shape[0] % self.shape[2]:
            raise UserError(
                f"The width {self.shape[0]} is not a multiple of the number of heads, {self.shape[2]}."
            )
        if self.objective == "cross_entropy" and self.prediction == "eps":
            raise UserError(
                "The cross_entropy objective predicts words, not eps; take --model.objective simple."
            )
        if self.max_length < 3:
            raise UserError(f"max_length counts START and END and must be at least 3, not {self.max_length}.")

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
