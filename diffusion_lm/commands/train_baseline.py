"""`diffusion-lm train-baseline`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.baselines.fine_tune import FineTuneProgress, fine_tune
from diffusion_lm.baselines.fine_tune_config import FineTuneConfig


def run(config: FineTuneConfig) -> None:
    """Fine-tune a language model to a control."""
    console = Console(highlight=False, soft_wrap=True)

    def show(report: FineTuneProgress) -> None:
        console.print(f"epoch {report.epoch}: {report.nats:.4f} nats a token after {report.seconds:,.0f} s")

    fine_tune(config, show)
    console.print(f"The fine-tuned model is in {config.folder}.")
