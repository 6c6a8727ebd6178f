"""The flags of the report. Nothing heavy may be imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion_lm.errors import UserError


@dataclass(frozen=True)
class ReportConfig:
    """Which evaluations are put together, and where the pages go."""

    runs: list[str]
    """Folders that evaluate wrote; of two with the same system and task the later one counts."""
    out: str = "runs/report"
    """Folder for index.html, which needs no other file, and report.md with its figures."""
    into: str | None = None
    """A Markdown file in which what stands between <!-- report:NAME --> and <!-- /report:NAME --> is written anew;
    its figures go to img/report beside it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.runs:
            raise UserError("A report needs at least one folder that diffusion-lm evaluate wrote.")
        if Path(self.out).is_file():
            raise UserError(f"{self.out} is a file; give --out a folder.")
