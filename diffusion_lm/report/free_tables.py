"""Free text beside human text, and the ablations."""

from __future__ import annotations

from collections.abc import Iterable

from diffusion_lm.report.cells import DIFFERENCE, NATS, nats_between, success
from diffusion_lm.report.collection import FREE, Collection, Yardstick, tasks_of
from diffusion_lm.report.names import REFERENCE_NAMES, task_name
from diffusion_lm.report.numbers import DASH, number, percent
from diffusion_lm.report.read import Row
from diffusion_lm.report.table import Cell, Line, Table, without_empty_columns

FIGURES: dict[str, tuple[str, str]] = {
    "nats a token": ("nats_per_token", NATS),
    "against human": ("against_human", DIFFERENCE),
    "distinct words": ("distinct_1", "{:,.0f}"),
    "bigram ratio": ("distinct_2", "{:.3f}"),
    "self-BLEU": ("self_bleu", "{:.1f}"),
    "verbatim in train, %": ("verbatim", "%"),
    "MAUVE, dev": ("mauve", "{:.3f}"),
    "MAUVE, train": ("mauve_train", "{:.3f}"),
    "outside nats": ("outside_nats", NATS),
    "network passes": ("evaluations", "{:,.0f}"),
    "n": ("n", "{:,.0f}"),
    "seed": ("seed", "{:.0f}"),
}
"""Columns of the table of free text: the figure under each, and how it is written."""


def free(found: Collection) -> Table | None:
    """Free text beside human text and the judge's own, once for each judge."""
    done = found.of_task(FREE)
    yardsticks = list(dict.fromkeys(each.yardstick for each in done)) or list(found.references)[-1:]
    lines = []
    for yardstick in yardsticks:
        note = _note(yardstick) if len(yardsticks) > 1 else ""
        lines += [
            Line(REFERENCE_NAMES[task], _row(row), "reference", note)
            for task, row in found.references[yardstick].items()
        ]
        lines += [
            Line(each.row.system, _row(each.row), note=note) for each in done if each.yardstick == yardstick
        ]
    return without_empty_columns(Table("text", list(FIGURES), lines)) if lines else None


def ablations(found: Collection) -> Table | None:
    """What one change does to free text or to a task."""
    if not found.ablations:
        return None
    names = ("nats a token", "against human", "distinct words", "network passes", "n", "seed")
    lines = [
        Line(
            f"{figure}: {point.name}",
            [Cell(task_name(row.task)), *_row(row, names), success(row)],
        )
        for figure, points in found.ablations.items()
        for task in dict.fromkeys(row.task for point in points for row in tasks_of(point.rows))
        for point in points
        for row in tasks_of(point.rows)
        if row.task == task
    ]
    return without_empty_columns(Table("run", ["task", *names, "success, %"], lines, words=1))


def _row(row: Row, names: Iterable[str] = tuple(FIGURES)) -> list[Cell]:
    return [
        Cell(_written(row, *FIGURES[name]), nats_between(row) if FIGURES[name][0] == "nats_per_token" else ())
        for name in names
    ]


def _written(row: Row, name: str, form: str) -> str:
    value = row.against_human if name == "against_human" else row.number(name)
    if name == "against_human" and row.task == "human":
        return DASH
    return percent(value) if form == "%" else number(value, form)


def _note(yardstick: Yardstick) -> str:
    return f"judged by {yardstick.judge}, {yardstick.n:,} texts"
