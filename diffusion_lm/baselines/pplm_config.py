"""Settings of `train-baseline pplm`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_lm.baselines.config import BaselineTrainConfig


@dataclass(frozen=True)
class PplmConfig(BaselineTrainConfig):
    """How the attribute model is trained; the language model that it reads stays as it is."""

    epochs: float = 2.0
    """Passes over the training sentences."""
    lr: float = 1e-2
    """Highest learning rate, after the warm-up; it then falls along half a cosine to zero."""
    out: str = "runs/pplm"
    """Folder of the result, which holds the language model too."""
