"""`diffusion-lm evaluate`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.evaluation.config import EvaluateConfig
from diffusion_lm.evaluation.run import evaluate


def run(config: EvaluateConfig) -> None:
    """Measure a model and print the table."""
    evaluate(config, Console())
