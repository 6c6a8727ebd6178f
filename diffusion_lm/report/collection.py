"""All runs together: one row for each system and task, the ablations apart, human text beside."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from diffusion_lm.report.read import Row, Run, Text, shown

logger = logging.getLogger(__name__)

FREE = "unconditional"
REFERENCES = ("human", "human in vocabulary", "judge")
"""Tasks of the rows that stand in every run: what a system is compared with."""


class Yardstick(NamedTuple):
    """By what fluency and variety were measured; figures of two of them do not compare."""

    judge: str
    corpus: str
    n: int


@dataclass(frozen=True)
class Measured:
    """A row, the yardstick of its run, and its texts."""

    row: Row
    yardstick: Yardstick
    texts: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Point:
    """A run of an ablation: its place in the figure and its rows, references included."""

    name: str
    rows: tuple[Row, ...]


@dataclass
class Collection:
    """What the tables and figures are made from."""

    measured: dict[tuple[str, str], Measured] = field(default_factory=dict)
    """By system and task."""
    references: dict[Yardstick, dict[str, Row]] = field(default_factory=dict)
    """The rows of `REFERENCES` by task, once for each yardstick."""
    ablations: dict[str, list[Point]] = field(default_factory=dict)
    """By figure."""
    runs: list[Run] = field(default_factory=list)

    @property
    def systems(self) -> list[str]:
        """Names of the systems, as they came."""
        return list(dict.fromkeys(system for system, _ in self.measured))

    def get(self, system: str, task: str) -> Measured | None:
        """What a system did on a task."""
        return self.measured.get((system, task))

    def of_task(self, task: str) -> list[Measured]:
        """What every system did on a task that did it."""
        return [found for (_, name), found in self.measured.items() if name == task]


def collect(runs: Iterable[Run]) -> Collection:
    """Put runs together; of two with the same system and task the later one counts, which a warning says."""
    out = Collection()
    for run in runs:
        out.runs.append(run)
        if run.rows:
            _add(out, run)
    for figure, points in out.ablations.items():
        if numeric(points):
            out.ablations[figure] = sorted(points, key=lambda point: float(point.name))
    return out


def numeric(points: Sequence[Point]) -> bool:
    """Whether the points of a figure are numbers, so that they have an order and distances."""
    try:
        for point in points:
            float(point.name)
    except ValueError:
        return False
    return True


def _add(out: Collection, run: Run) -> None:
    yardstick = _yardstick(run)
    known = {row.task: row for row in run.rows if row.task in REFERENCES}
    references = out.references.setdefault(yardstick, {})
    for task, row in known.items():
        references[task] = _joined(references.get(task), row)
    if run.point is not None:
        _add_point(out, run, *run.point)
        return
    for row in tasks_of(run.rows):
        if (row.system, row.task) in out.measured:
            _warn(row, run)
            del out.measured[row.system, row.task]
        texts = tuple(text for text in run.texts if text.task == row.task)
        out.measured[row.system, row.task] = Measured(row, yardstick, texts)


def _joined(before: Row | None, row: Row) -> Row:
    """A reference as two runs measured it: what the later did not measure is taken from the earlier."""
    if before is None:
        return row
    measured = {name: value for name, value in row.figures.items() if value is not None}
    return replace(row, figures={**before.figures, **measured})


def _add_point(out: Collection, run: Run, figure: str, name: str) -> None:
    """Add a run of an ablation. One point may come in several folders, a task each: the rows of the later come first."""
    points = {point.name: point for point in out.ablations.get(figure, ())}
    before = points[name].rows if name in points else ()
    known = {row.task for row in tasks_of(before)}
    for row in tasks_of(run.rows):
        if row.task in known:
            _warn(row, run)
    points[name] = Point(name, (*run.rows, *before))
    out.ablations[figure] = list(points.values())


def _warn(row: Row, run: Run) -> None:
    logger.warning("%s does %s in several runs; the one in %s counts.", row.system, row.task, run.folder)


def _yardstick(run: Run) -> Yardstick:
    corpus = run.config.get("corpus")
    source = corpus.get("source") if isinstance(corpus, dict) else None
    return Yardstick(shown(str(run.config.get("judge"))), shown(str(source)), int(run.config.get("n") or 0))


def tasks_of(rows: Sequence[Row]) -> list[Row]:
    """The rows that are no references, one for each task: the first."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.task not in ("", *REFERENCES):
            first.setdefault(row.task, row)
    return list(first.values())
