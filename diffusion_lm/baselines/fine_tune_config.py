"""Settings of `train-baseline ft`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion_lm.baselines.config import LabelledTrainConfig


@dataclass(frozen=True)
class FineTuneConfig(LabelledTrainConfig):
    """Which control a language model is fine-tuned to, and how."""

    task: Literal["attribute", "pos", "tree", "span", "length"] = "attribute"
    """What its prompts say."""
    out: str | None = None
    """Folder of the result; null: runs/ft-TASK."""

    @property
    def folder(self) -> str:
        """Where the result goes."""
        return self.out or f"runs/ft-{self.task}"
