"""Settings of `train-baseline fudge`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_lm.baselines.config import LabelledTrainConfig


@dataclass(frozen=True)
class FudgeConfig(LabelledTrainConfig):
    """How the future discriminators of all controls are trained, in one network."""

    out: str = "runs/fudge"
    """Folder of the result, which holds the language model too."""
