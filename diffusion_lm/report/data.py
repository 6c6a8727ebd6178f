"""Evaluations as the report reads them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_lm.common import UserError
from diffusion_lm.report.paper import TASKS

REFERENCE_NAMES = {
    "human": "human text, as written",
    "human in vocabulary": "human text, in the model's vocabulary",
    "judge": "the judge's own samples",
}
"""By the task of the row."""


def task_name(task: str) -> str:
    """A task as a reader calls it."""
    if task == FREE:
        return "free text"
    return " and ".join(TASKS.get(part, part) for part in task.split("+"))


DASH = "–"
"""A cell whose figure was not measured."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a number of percent; what is not all of it is never rounded to 100."""
    if share is None:
        return DASH
    scale = 10**digits
    value = round(100 * share * scale) / scale
    if value >= 100 and share < 1:
        value = math.floor(100 * share * scale) / scale
    return f"{value:.{digits}f}"


def number(value: float | None, form: str) -> str:
    """A figure in a format; a dash where it was not measured."""
    return DASH if value is None else signed(form.format(value))


def signed(text: str) -> str:
    """With the minus sign of typography, as wide as the plus."""
    return text.replace("-", "−")


SUMMARY, TEXTS = "summary.json", "results.jsonl"
EXTRAS = ("likelihood.json", "by_noise.json", "trace.json", "time.json")
"""Files of which a folder may hold any, with an evaluation or instead of one."""


class Text(NamedTuple):
    """What the report needs of a line of results.jsonl."""

    task: str
    target: str
    text: str
    success: float | None


@dataclass(frozen=True)
class Row:
    """A row of a summary: who did what, and the figures. What was not measured is None."""

    system: str
    task: str
    figures: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """A figure by its name in `EvaluationRow`."""
        value = self.figures.get(name)
        return None if value is None else float(value)

    def interval(self, name: str) -> tuple[float, float] | None:
        """The ends of the 95 % interval of a figure."""
        return _ends(self.figures.get(f"{name}_interval"))

    def parts(self, name: str = "parts") -> dict[str, float]:
        """The mean success of each of several controls, by the name of its task."""
        return dict(self.figures.get(name) or {})

    def parts_intervals(self) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each of `parts`, where it was measured."""
        return {name: _ends(ends) for name, ends in dict(self.figures.get("parts_interval") or {}).items()}

    @property
    def against_human(self) -> float | None:
        """Nats a token above human text."""
        nats, human = self.number("nats_per_token"), self.number("human_nats_per_token")
        return None if nats is None or human is None else nats - human


def _ends(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (float(ends[0]), float(ends[1]))


@dataclass(frozen=True)
class Run:
    """A folder: `rows` is empty where it holds no evaluation, an extra is None where it is not there."""

    folder: Path
    system: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    texts: tuple[Text, ...] = ()
    references: Mapping[str, Any] = field(default_factory=dict)
    likelihood: Mapping[str, Any] | None = None
    by_noise: Mapping[str, Any] | None = None
    trace: Mapping[str, Any] | None = None
    time: Mapping[str, Any] | None = None

    @property
    def point(self) -> tuple[str, str] | None:
        """The figure that a label "FIGURE: POINT" puts the run into, and its place there."""
        figure, colon, point = (self.config.get("label") or "").partition(": ")
        return (figure.strip(), point.strip()) if colon else None


def read_run(folder: str | Path) -> Run:
    """Read a folder.

    Raises:
        UserError: the folder holds nothing that a report shows, or a file in it is unfinished or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; diffusion-lm evaluate --out {folder} makes it.")
    extras = {Path(name).stem: _json(folder / name) for name in EXTRAS if (folder / name).is_file()}
    if not (folder / SUMMARY).is_file():
        if extras:
            return _run(folder, extras)
        begun = "give the same command again to go on with what was begun" if (folder / TEXTS).is_file() else ""
        raise UserError(
            f"{folder} is no finished evaluation: it holds no {SUMMARY}, which diffusion-lm evaluate --out {folder} "
            f"writes last{begun and f'; {begun}'}."
        )
    if not (folder / TEXTS).is_file():
        raise UserError(
            f"{folder} is no whole evaluation: it holds no {TEXTS}; diffusion-lm evaluate --out {folder} writes it again."
        )
    summary = _json(folder / SUMMARY)
    try:
        rows = tuple(Row(shown(row["system"]), row["task"], row) for row in summary["rows"])
        config = dict(summary["config"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / SUMMARY} does not say {error}: it is of another version; run the same diffusion-lm evaluate "
            "again, which keeps the texts and writes the summary anew."
        ) from error
    references = dict(summary.get("references") or {})
    system = shown(str(summary.get("system") or config.get("model") or folder.name))
    return _run(
        folder,
        extras,
        system=system,
        config=config,
        rows=rows,
        texts=_texts(folder / TEXTS),
        references=references,
    )


def _run(folder: Path, extras: Mapping[str, Any], **evaluation: Any) -> Run:
    return Run(folder, **evaluation, **extras)


def shown(name: str) -> str:
    """A name without the place on this machine, which is nobody else's."""
    return Path(name).name if Path(name).is_absolute() else name


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); make it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(values).__name__}.")
    return values


def _texts(path: Path) -> tuple[Text, ...]:
    out = []
    # Not splitlines, which would also split at separators that JSON leaves inside a text.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line:
            try:
                found = json.loads(line)
                out.append(Text(*(found[name] for name in Text._fields)))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"Line {number} of {path} is no result of an evaluation ({error}).") from error
    return tuple(out)


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
