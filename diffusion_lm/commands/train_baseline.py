"""`diffusion-lm train-baseline`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from diffusion_lm.baselines.fine_tune import fine_tune
from diffusion_lm.baselines.fine_tune_config import FineTuneConfig
from diffusion_lm.baselines.fit import FitProgress, Report
from diffusion_lm.baselines.fudge_config import FudgeConfig
from diffusion_lm.baselines.pplm_config import PplmConfig
from diffusion_lm.baselines.train_fudge import train_fudge
from diffusion_lm.baselines.train_pplm import train_pplm


def ft(config: FineTuneConfig) -> None:
    """Fine-tune a language model to a control."""
    with _reports("fine-tuned model", config.folder) as report:
        fine_tune(config, report)


def fudge(config: FudgeConfig) -> None:
    """Train future discriminators of all controls."""
    with _reports("language model with its discriminators", config.out) as report:
        train_fudge(config, report)


def pplm(config: PplmConfig) -> None:
    """Train an attribute model on a frozen language model."""
    with _reports("language model with its attribute model", config.out) as report:
        train_pplm(config, report)


@contextmanager
def _reports(what: str, folder: str) -> Iterator[Report]:
    """Show every epoch, and at last where the result is."""
    console = Console(highlight=False, soft_wrap=True)
    yield lambda report: console.print(_line(report))
    console.print(f"The {what} is in {folder}.")


def _line(report: FitProgress) -> str:
    done = f"{report.fraction:.0%} done after {report.seconds:,.0f} s"
    return f"epoch {report.epoch}: loss {report.loss:.4f}; {done}"
