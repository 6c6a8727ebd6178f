"""The tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from diffusion_lm.common import UserError
from diffusion_lm.report.data import (
    DASH,
    FREE,
    REFERENCE_NAMES,
    Collection,
    Measured,
    Row,
    Yardstick,
    number,
    percent,
    task_name,
    tasks_of,
)
from diffusion_lm.report.paper import MEASURES, TABLE_2, TABLE_4, TABLE_5, TABLE_7, TASKS, Both, Pair

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
        return len(self.columns) > MOST_NARROW or any(cell.lines for line in self.lines for cell in line.cells)

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


NATS, DIFFERENCE = "{:.3f}", "{:+.3f}"
"""How nats a token are written, and their difference to another's."""


def interval(row: Row, name: str) -> tuple[str, ...]:
    """The 95 % interval of a figure, where it has one."""
    return between(row.interval(name))


def between(ends: tuple[float, float] | None) -> tuple[str, ...]:
    """An interval of shares, in percent."""
    return () if ends is None else (f"{percent(ends[0])} to {percent(ends[1])}",)


def nats_between(row: Row) -> tuple[str, ...]:
    """The 95 % interval of the nats a token, where they have one."""
    ends = row.interval("nats")
    return () if ends is None else (f"{number(ends[0], NATS)} to {number(ends[1], NATS)}",)


def success(row: Row) -> Cell:
    """Strict success with its interval."""
    return Cell(percent(row.number("success")), interval(row, "success"))


def fluency(row: Row) -> tuple[str, ...]:
    """Nats a token, and against human text, where they were measured."""
    if row.number("nats_per_token") is None:
        return ()
    figure = f"{number(row.number('nats_per_token'), NATS)} nats ({number(row.against_human, DIFFERENCE)})"
    return (figure, *nats_between(row))


def drawn(row: Row) -> tuple[str, ...]:
    """How many texts, by which seed, and for which share of the targets if not all."""
    text = f"n {number(row.number('n'), '{:,.0f}')}, seed {number(row.number('seed'), '{:.0f}')}"
    tried, of = row.number("targets"), row.number("targets_in_all")
    some = tried is not None and of is not None and tried < of
    return (text, f"{tried:.0f} of {of:.0f} targets") if some else (text,)


T = TypeVar("T")

SEMANTIC = ("attribute", "said")
"""What the part of an attribute may be called: by its task, or by the control that knows its words."""


def table2(found: Collection) -> Table | None:
    """One control at a time."""
    systems = [name for name in found.systems if any(found.get(name, task) for task in TASKS)]
    if not systems:
        return None
    ours = [
        Line(name, [_success(found.get(name, task)) for task in TASKS], note=_judges(found, name)) for name in systems
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
        ours = [value for each in found.of_task(task) if (value := each.row.number("success_paper")) is not None]
        best = max(pairs[task].success for pairs in TABLE_2.values() if task in pairs)
        cells.append(Cell(number(100 * max(ours) - best, "{:+.1f}")) if ours else Cell())
    return Line("best measured here against the best of the paper's", cells, "margin", "points, paper-compatible")


def _judges(found: Collection, system: str) -> str:
    judges = {each.yardstick.judge for each in found.measured.values()}
    own = {each.yardstick.judge for (name, _), each in found.measured.items() if name == system}
    return "" if len(judges) < 2 else f"judged by {', '.join(sorted(own))}"


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
        lines += [Line(each.row.system, _row(each.row), note=note) for each in done if each.yardstick == yardstick]
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


def table5(found: Collection) -> Table | None:
    """Infilling against references."""
    done = [
        (run.system, task, way, figures)
        for run in found.runs
        for task, ways in run.references.items()
        for way, figures in ways.items()
    ]
    if not done:
        return None
    paper = [
        Line(name, [*(Cell(f"{value:.1f}") for value in values), Cell()], "paper", "aNLG")
        for name, values in TABLE_5.items()
    ]
    people = [
        Line(
            "the first reference against the others",
            _against_references(figures),
            "reference",
            f"{system}: {task}",
        )
        for system, task, way, figures in done
        if way == "human"
    ]
    ours = [
        Line(f"{system}, {way}", _against_references(figures), note=task)
        for system, task, way, figures in done
        if way != "human"
    ]
    return Table("system", [*MEASURES.values(), "n"], [*paper, *people, *ours])


def _against_references(figures: Mapping[str, float]) -> list[Cell]:
    """The cells of `MEASURES`, and the number of texts; BLEU-4 may be written with or without its underscore."""
    known = {"bleu_4": figures.get("bleu4"), **figures}
    return [
        *(Cell(number(known.get(name), "{:.1f}")) for name in MEASURES),
        Cell(number(known.get("n"), "{:,.0f}")),
    ]


def table7(found: Collection) -> Table | None:
    """The bound on the likelihood."""
    ours = [
        Line(
            str(known.get("system", run.folder.name)),
            [
                Cell(str(known.get("split", DASH))),
                Cell(number(known.get("nats_per_token"), NATS)),
                Cell(number(known.get("length_nats_per_token"), NATS)),
                Cell(number(known.get("n"), "{:,}")),
            ],
        )
        for run in found.runs
        if (known := run.likelihood) is not None
    ]
    if not ours:
        return None
    paper = [Line(name, [Cell(data), Cell(f"{nats:.2f}"), Cell(), Cell()], "paper") for name, data, nats in TABLE_7]
    return Table("system", ["text", "nats a token", "of the length", "n"], [*paper, *ours], words=1)


TIME_TABLE_KINDS = {"making": "training or labelling", "measuring": "writing and scoring"}
"""Kinds of work by their name in the file."""
MINUTE = 60


def time_table(found: Collection) -> Table | None:
    """Minutes by part and kind of work, of a time.json: {part: {"making": seconds, "measuring": seconds}}.

    Raises:
        UserError: it is laid out otherwise.
    """
    lines = []
    total = dict.fromkeys(TIME_TABLE_KINDS, 0.0)
    for run in found.runs:
        for part, spent in (run.time or {}).items():
            try:
                seconds = {kind: float(spent[kind]) for kind in TIME_TABLE_KINDS}
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f'{run.folder}/time.json must hold {{PART: {{"making": SECONDS, "measuring": SECONDS}}}} ({error}).'
                ) from error
            lines.append(Line(part, _cells(seconds)))
            total = {kind: total[kind] + seconds[kind] for kind in TIME_TABLE_KINDS}
    if not lines:
        return None
    return Table("part", [*TIME_TABLE_KINDS.values(), "together"], [*lines, Line("all", _cells(total))])


def _cells(seconds: dict[str, float]) -> list[Cell]:
    return [Cell(f"{spent / MINUTE:.1f}") for spent in (*seconds.values(), sum(seconds.values()))]
