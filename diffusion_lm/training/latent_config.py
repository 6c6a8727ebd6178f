"""What the trainings of all latent classifiers have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_lm.errors import check_seed
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class LatentTrainConfig:
    """How a classifier of noised word vectors is trained."""

    model: str = "runs/lm"
    """The language model to be steered: a folder."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Labelled texts; the corpus that the model was trained on."""
    out: str | None = None
    """Where the classifier goes; default the control's folder in the model's folder."""
    width: int = 128
    """Width of the classifier."""
    layers: int = 3
    """Layers of the classifier."""
    heads: int = 4
    """Attention heads."""
    steps: int = 2000
    """Optimiser steps."""
    batch_tokens: int = 4096
    """Positions a step, padding included."""
    lr: float = 2e-3
    """Highest learning rate; warm-up over the first 5 %, then half a cosine to 0."""
    weight_decay: float = 0.05
    """AdamW's decoupled weight decay of matrices."""
    seed: int = 0
    """Seed of weights, batches and noise."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)
