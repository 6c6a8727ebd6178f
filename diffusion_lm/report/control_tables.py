"""Tables 2 and 4 of the paper with ours: one control, and two at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from diffusion_lm.report.cells import DIFFERENCE, NATS, between, drawn, fluency, interval, nats_between
from diffusion_lm.report.collection import Collection, Measured
from diffusion_lm.report.numbers import DASH, number, percent
from diffusion_lm.report.paper_tables import TABLE_2, TABLE_4, TASKS, Both, Pair
from diffusion_lm.report.table import Cell, Line, Table

T = TypeVar("T")

SEMANTIC = ("attribute", "said")
"""What the part of an attribute may be called: by its task, or by the control that knows its words."""


def table2(found: Collection) -> Table | None:
    """One control at a time."""
    systems = [name for name in found.systems if any(found.get(name, task) for task in TASKS)]
    if not systems:
        return None
    ours = [
        Line(name, [_success(found.get(name, task)) for task in TASKS], note=_judges(found, name))
        for name in systems
    ]
    paper = [
        Line(name, [_paper_pair(pairs[task]) if task in pairs else Cell() for task in TASKS], "paper")
        for name, pairs in TABLE_2.items()
    ]
    known = [[pairs[task].success if task in pairs else None for task in TASKS] for pairs in TABLE_2.values()]
    reached = [[_figure(found.get(name, task), "success") for task in TASKS] for name in systems]
    lines = [*_mark(paper, known), *_mark(ours, reached), _margins(found)]
    return Table("system", list(TASKS.values()), lines)


def table4(found: Collection) -> Table | None:
    """Two controls at a time, the success of each."""
    tasks = {"tree+attribute": ("tree",), "pos+attribute": ("pos",)}
    systems = [name for name in found.systems if any(found.get(name, task) for task in tasks)]
    if not systems:
        return None
    paper = [
        Line(name, [cell for task in tasks for cell in _paper_both(pairs[task])], "paper")
        for name, pairs in TABLE_4.items()
    ]
    ours = [
        Line(name, [cell for task, other in tasks.items() for cell in _both(found.get(name, task), other)])
        for name in systems
    ]
    ours = _mark(ours, [[_value(cell) for cell in line.cells] for line in ours], {0, 1, 3, 4})
    columns = ["semantic", "tree (F1)", "fluency", "semantic", "POS", "fluency"]
    over = [("Semantic and Tree", 3), ("Semantic and POS", 3)]
    return Table("system", columns, [*paper, *ours], over=over)


def _success(found: Measured | None) -> Cell:
    if found is None:
        return Cell()
    row = found.row
    paper = _paper_compatible(row.number("success_paper"))
    lines = (*interval(row, "success"), *paper, *fluency(row), *drawn(row))
    return Cell(percent(row.number("success")), lines)


def _both(found: Measured | None, other: tuple[str, ...]) -> list[Cell]:
    if found is None:
        return [Cell(), Cell(), Cell()]
    row = found.row
    parts = [
        Cell(
            percent(_part(row.parts(), names)),
            (
                *between(_part(row.parts_intervals(), names)),
                *_paper_compatible(_part(row.parts("parts_paper"), names)),
            ),
        )
        for names in (SEMANTIC, other)
    ]
    against = f"{number(row.against_human, DIFFERENCE)} to human"
    return [
        *parts,
        Cell(number(row.number("nats_per_token"), NATS), (*nats_between(row), against, *drawn(row))),
    ]


def _paper_compatible(value: float | None) -> tuple[str, ...]:
    return () if value is None else (f"paper-compatible {percent(value)}",)


def _part(parts: Mapping[str, T], names: Iterable[str]) -> T | None:
    known = {name.lower(): value for name, value in parts.items()}
    return next((known[name] for name in names if name in known), None)


def _paper_pair(pair: Pair) -> Cell:
    return Cell(f"{pair.success:.1f}", (f"lm {pair.lm:.2f}",))


def _paper_both(both: Both) -> list[Cell]:
    return [Cell(f"{both.semantic:.1f}"), Cell(f"{both.other:.1f}"), Cell(f"lm {both.lm:.2f}")]


def _value(cell: Cell) -> float | None:
    return None if cell.main == DASH else float(cell.main)


def _figure(found: Measured | None, name: str) -> float | None:
    return None if found is None else found.row.number(name)


def _mark(
    lines: Sequence[Line], figures: Sequence[Sequence[float | None]], columns: Iterable[int] | None = None
) -> list[Line]:
    """The lines with the largest figure of each column marked; one that stands alone has nothing to be better than."""
    out = [list(line.cells) for line in lines]
    for column in range(len(out[0])) if columns is None else columns:
        known = [value for row in figures if (value := row[column]) is not None]
        for cells, row in zip(out, figures, strict=True):
            if len(known) > 1 and row[column] == max(known):
                cells[column] = replace(cells[column], best=True)
    return [replace(line, cells=cells) for line, cells in zip(lines, out, strict=True)]


def _margins(found: Collection) -> Line:
    """The best measured here minus the best of the paper's, as the paper counts success."""
    cells = []
    for task in TASKS:
        ours = [
            value for each in found.of_task(task) if (value := each.row.number("success_paper")) is not None
        ]
        best = max(pairs[task].success for pairs in TABLE_2.values() if task in pairs)
        cells.append(Cell(number(100 * max(ours) - best, "{:+.1f}")) if ours else Cell())
    return Line(
        "best measured here against the best of the paper's", cells, "margin", "points, paper-compatible"
    )


def _judges(found: Collection, system: str) -> str:
    judges = {each.yardstick.judge for each in found.measured.values()}
    own = {each.yardstick.judge for (name, _), each in found.measured.items() if name == system}
    return "" if len(judges) < 2 else f"judged by {', '.join(sorted(own))}"
