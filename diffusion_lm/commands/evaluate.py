"""`diffusion-lm evaluate`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.evaluation.config import EvaluateConfig
from diffusion_lm.evaluation.run import evaluate

WIDTH = 160
"""Columns of the table where the output is no terminal."""


def run(config: EvaluateConfig) -> None:
    """Measure a model and print the table."""
    console = Console()
    if not console.is_terminal:  # a file has no edge at which the table would have to be cut
        console = Console(width=max(console.width, WIDTH))
    evaluate(config, console)
