"""`diffusion-lm make-targets`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.evaluation.make_targets import make_targets
from diffusion_lm.evaluation.make_targets_config import MakeTargetsConfig


def run(config: MakeTargetsConfig) -> None:
    """Draw targets and say where they are."""
    files = ", ".join(str(path) for path in make_targets(config).values())
    Console(highlight=False, soft_wrap=True).print(f"Targets of {config.n:,} sentences are in {files}.")
