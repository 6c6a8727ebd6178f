"""Results as records: one table for the reader, one line of `results.jsonl` for every run."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

BLANK = "–"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system on one task; None where a figure was not measured."""

    name: str
    """The system, and the control if there is one."""
    nats_per_token: float | None = None
    """Fluency: the judge's nats a token, END counted."""
    human_nats_per_token: float | None = None
    """The same judge on human text."""
    success: float | None = None
    """Share of the texts that obey the control, in [0, 1]."""
    success_paper: float | None = None
    """The same as the paper's evaluator counts it, which rewrites the text first: paper-compatible."""
    distinct_1: int | None = None
    """Number of distinct words."""
    distinct_2: float | None = None
    """Distinct word pairs over all word pairs."""
    self_bleu: float | None = None
    """Mean BLEU-4 of each text against the others, 0 to 100."""
    mauve: float | None = None
    """MAUVE against human text of the dev split, in [0, 1]; of the human row itself, against other such text."""
    mauve_train: float | None = None
    """The same against human text of the training split."""
    outside_nats: float | None = None
    """Nats a token under a language model that never read the corpus."""
    verbatim: float | None = None
    """Share of the texts that stand in the training corpus, in [0, 1]."""
    evaluations: int | None = None
    """Network evaluations a batch of texts."""
    seconds: float | None = None
    """Wall-clock time to generate all texts."""
    n: int | None = None
    """Number of texts."""
    seed: int | None = None
    """Seed of the generation."""

    @property
    def against_human(self) -> float | None:
        """Nats a token above human text; negative where the judge likes the system better."""
        if self.nats_per_token is None or self.human_nats_per_token is None:
            return None
        return self.nats_per_token - self.human_nats_per_token


COLUMNS = {
    "nats/token": ("nats_per_token", "{:.3f}"),
    "vs human": ("against_human", "{:+.3f}"),
    "success %": ("success", "{:.1%}"),
    "paper-compatible %": ("success_paper", "{:.1%}"),
    "distinct-1": ("distinct_1", "{:,}"),
    "distinct-2": ("distinct_2", "{:.3f}"),
    "self-BLEU": ("self_bleu", "{:.1f}"),
    "MAUVE": ("mauve", "{:.3f}"),
    "MAUVE, train": ("mauve_train", "{:.3f}"),
    "outside nats": ("outside_nats", "{:.3f}"),
    "verbatim %": ("verbatim", "{:.1%}"),
    "evaluations": ("evaluations", "{:,}"),
    "seconds": ("seconds", "{:,.1f}"),
    "n": ("n", "{:,}"),
    "seed": ("seed", "{}"),
}
"""Heading: the attribute of `Row` under it, and its format."""


def print_rows(console: Console, rows: Sequence[Row], title: str | None = None) -> None:
    """Print `rows` as a table on `console`; a column that no row has measured is left out."""
    from rich.table import Table

    columns = {head: column for head, column in COLUMNS.items() if any(_value(row, column) for row in rows)}
    table = Table(title=title)
    table.add_column("name")
    for head in columns:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.name, *(_value(row, column) or BLANK for column in columns.values()))
    console.print(table)


def _value(row: Row, column: tuple[str, str]) -> str | None:
    value = getattr(row, column[0])
    return None if value is None else column[1].format(value)


def append_jsonl(path: str | Path, record: Row | Mapping[str, Any]) -> None:
    """Append `record` as one line of JSON to `path`, made if need be; on return the line is on the disk.

    The line is one write to a file opened for appending, so runs that share a file do not mix their lines.

    Raises:
        ValueError: a number is not finite, which JSON cannot hold; None stands for a figure that is missing.
    """
    values = dataclasses.asdict(record) if isinstance(record, Row) else dict(record)
    line = json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(line.encode("utf-8"))
        os.fsync(file.fileno())
