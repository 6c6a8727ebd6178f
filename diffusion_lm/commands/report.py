"""`diffusion-lm report`."""

from __future__ import annotations

from rich.console import Console

from diffusion_lm.report.config import ReportConfig
from diffusion_lm.report.make import make_report


def run(config: ReportConfig) -> None:
    """Write the pages and say where they are."""
    files = ", ".join(str(path) for path in make_report(config))
    Console(highlight=False, soft_wrap=True).print(f"The report is in {files}.")
