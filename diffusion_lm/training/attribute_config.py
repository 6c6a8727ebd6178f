"""Settings of `train-control attribute`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_lm.training.latent_config import LatentTrainConfig


@dataclass(frozen=True)
class AttributeTrainConfig(LatentTrainConfig):
    """How the latent attribute classifier is trained, on texts with fields."""

    min_count: int = 20
    """A value is learned if so many training texts say it."""
