"""The latent classifiers p(tag of word i | z_t, t) and p(constituent of words i to j | z_t, t)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lm.control.saved import Kind, load, save
from diffusion_lm.model.config import ModelConfig
from diffusion_lm.model.transformer import Transformer

KIND = Kind("classifier of syntax", "diffusion-lm train-control syntax")
NO_CONSTITUENT = 0
"""Class of a span that is none; chain i of the list of chains is class i + 1."""


@dataclass(frozen=True)
class SyntaxConfig:
    """What the classifiers know and how large they are."""

    tags: list[str]
    chains: list[str]
    """Labels of constituents above the same words, joined from the top: "S+VP"."""
    embedding_dim: int
    max_length: int
    schedule: str
    lm: str
    width: int = 128
    layers: int = 3
    heads: int = 4


class SyntaxModel(nn.Module):
    """A small bidirectional transformer on noised word vectors, with a tagger and a span classifier on top.

    The paper has a BERT-base for each (appendix C); here both share one trunk of a hundredth of that size. A span (i, j) is
    classified from its first and its last word's states, as there; the perceptron's first layer is linear in each of
    them, so it is taken at the L positions and not at the L^2 spans.
    """

    def __init__(self, config: SyntaxConfig) -> None:
        super().__init__()
        self.config = config
        shape = ModelConfig(
            width=config.width, layers=config.layers, heads=config.heads, max_length=config.max_length
        )
        self.transformer = Transformer(shape, config.embedding_dim)
        self.norm = nn.LayerNorm(config.width)
        self.tag = nn.Linear(config.width, len(config.tags))
        self.first = nn.Linear(config.width, config.width)
        self.last = nn.Linear(config.width, config.width, bias=False)
        self.label = nn.Linear(config.width, len(config.chains) + 1)

    def forward(self, z: Tensor, t: Tensor, mask: Tensor) -> list[Tensor]:
        """Log-probabilities: z [B, L, D], t [B], mask [B, L] to tags [B, L, T] and chains [B, L, L, C + 1].

        Position 0 is START. Span (i, j) is from position i to position j, both inclusive; i > j means nothing.
        """
        hidden = self.norm(self.transformer(z, t, mask))
        pairs = torch.relu(self.first(hidden)[:, :, None] + self.last(hidden)[:, None])
        return [self.tag(hidden).float().log_softmax(-1), self.label(pairs).float().log_softmax(-1)]

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors."""
        save(folder, KIND, asdict(self.config), {k: v.to(dtype) for k, v in self.state_dict().items()})

    @staticmethod
    def from_pretrained(folder: str | Path, lm: str) -> SyntaxModel:
        """Load the classifiers of a language model.

        Args:
            folder: where they are.
            lm: fingerprint of the language model that will be steered.

        Raises:
            UserError: if the folder is missing or damaged, or they were trained on another language model.
        """

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> SyntaxModel:
            model = SyntaxModel(SyntaxConfig(**config))
            model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
            return model.eval().requires_grad_(False)

        return load(folder, KIND, lm, build)
