"""Settings of `train-control syntax`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_lm.training.latent_config import LatentTrainConfig


@dataclass(frozen=True)
class SyntaxTrainConfig(LatentTrainConfig):
    """How the latent classifiers of tags and constituents are trained."""

    labels: str = "runs/labels.jsonl"
    """The file of the training split's labels, as annotate writes it; made if it does not hold them."""
    dev_labels: str = "runs/labels-dev.jsonl"
    """The same of the dev split."""
    min_count: int = 20
    """A chain of labels is learned if it occurs so often."""
