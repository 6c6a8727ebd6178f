"""`diffusion-lm train`."""

from __future__ import annotations

from pathlib import Path

from diffusion_lm.commands.saved import save_config
from diffusion_lm.training.config import TrainConfig
from diffusion_lm.training.run import train


def run(config: TrainConfig) -> None:
    """Train a language model, or go on with a run that was stopped; `run.out`/run.yaml says with what."""
    out = Path(config.run.out)
    # A run that has begun keeps its own file: with other settings this one is refused, and told to read it.
    if not any((out / "checkpoints").glob("step-*")):
        save_config(config, out)
    train(config)
