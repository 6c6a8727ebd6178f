"""A table before it is HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffusion_lm.report.numbers import DASH

KINDS = {
    "paper": "the paper",
    "ours": "measured here",
    "reference": "to compare with",
    "margin": "difference",
}
"""Kinds of rows: what stands above the first of them."""

MOST_NARROW = 5
"""Columns of plain numbers that a phone has room for."""


@dataclass(frozen=True)
class Cell:
    """A figure and what stands smaller beneath it."""

    main: str = DASH
    lines: tuple[str, ...] = ()
    best: bool = False
    """Whether it is the best of its column."""


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        head: who.
        cells: one a column.
        kind: a key of `KINDS`.
        note: what stands smaller beside the head.
    """

    head: str
    cells: Sequence[Cell]
    kind: str = "ours"
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: heading of the rows' heads.
        columns: headings of the cells.
        lines: the rows.
        words: how many of the first columns hold words, not numbers.
        over: a heading above so many columns each, from the first.
    """

    head: str
    columns: Sequence[str]
    lines: Sequence[Line]
    words: int = 0
    over: Sequence[tuple[str, int]] = ()

    @property
    def wide(self) -> bool:
        """Whether a phone has no room for it."""
        return len(self.columns) > MOST_NARROW or any(
            cell.lines for line in self.lines for cell in line.cells
        )

    @property
    def full_columns(self) -> list[str]:
        """The headings with what stands above them."""
        above = [name for name, count in self.over for _ in range(count)]
        return (
            [f"{name}: {column}" for name, column in zip(above, self.columns, strict=True)]
            if above
            else [*self.columns]
        )


def without_empty_columns(table: Table) -> Table:
    """The table without the columns that no row has measured; it has nothing above its headings."""
    kept = [i for i in range(len(table.columns)) if any(line.cells[i].main != DASH for line in table.lines)]
    lines = [replace(line, cells=[line.cells[i] for i in kept]) for line in table.lines]
    return replace(table, columns=[table.columns[i] for i in kept], lines=lines)
