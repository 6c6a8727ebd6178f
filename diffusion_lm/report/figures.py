"""The figures of a report: what the runs measured, as axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from diffusion_lm.report.chart import PAPER, SERIES, Chart, Panel
from diffusion_lm.report.collection import Collection, Measured, Point, numeric, tasks_of
from diffusion_lm.report.draw import NAME, Bar, Scales, Series, bars, dots, scatter
from diffusion_lm.report.names import task_name
from diffusion_lm.report.paper_tables import TABLE_2, TASKS
from diffusion_lm.report.read import Row

SHARE = (0.0, 103.0)
"""Where axes of success end: panels of one scale can be compared, and no difference looks larger than it is."""

BAR, AROUND = 0.23, 0.75
"""Inches of a bar, and of the title and the axis beside them."""


def colours(found: Collection) -> dict[str, str]:
    """The colour of each system, the same in every figure."""
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(found.systems)}


def success(found: Collection) -> Chart | None:
    """Success by task and system, the paper's beside ours."""
    palette, by_task = colours(found), {}
    for task in TASKS:
        ours = [_bar(each, palette) for each in found.of_task(task) if each.row.number("success") is not None]
        paper = [
            Bar(f"paper: {name}", pairs[task].success, PAPER)
            for name, pairs in TABLE_2.items()
            if task in pairs
        ]
        if ours:
            by_task[task] = [*ours, *paper]
    # The same height of a bar in every panel, with room for a second line where a name needs it.
    tall = any(len(bar.name) > NAME for data in by_task.values() for bar in data)
    panels = [
        Panel(
            TASKS[task],
            partial(bars, data=data, label="success, %"),
            AROUND + (1.4 if tall else 1) * BAR * len(data),
        )
        for task, data in by_task.items()
    ]
    caption = (
        "Success of each system by task; the line is the 95 % interval over targets, the diamond the same texts as the paper's "
        "evaluator counts them. Grey: what the paper reports. Compare the diamonds with the grey bars, the bars with one another."
    )
    return Chart("success", caption, panels) if panels else None


def _bar(each: Measured, palette: Mapping[str, str]) -> Bar:
    row = each.row
    interval, second = row.interval("success"), row.number("success_paper")
    return Bar(
        row.system,
        100 * (row.number("success") or 0),
        palette[row.system],
        None if interval is None else (100 * interval[0], 100 * interval[1]),
        None if second is None else 100 * second,
    )


def fluency(found: Collection) -> Chart | None:
    """Success against nats a token above human text."""
    caption = (
        "Success against fluency: nats a token above human dev text, which is the dashed line. Up is better; "
        "left of the line is no better than right of it, but blander than people write. The paper's own lines are not here: "
        "its lm-score is of another judge."
    )
    scales = Scales("nats a token against human text (dashed)", "success, %", x_reference=0)
    panels = _by_task(found, "against_human", scales)
    return Chart("fluency", caption, panels, _legend(found)) if panels else None


def cost(found: Collection) -> Chart | None:
    """Success against network evaluations."""
    caption = (
        "Success against network evaluations, classifier passes included, for a batch of texts. "
        "Up and to the left is better. Hollow: runs of the ablations."
    )
    scales = Scales("network evaluations", "success, %", logarithmic=True)
    panels = _by_task(found, "evaluations", scales, with_ablations=True)
    return Chart("cost", caption, panels, _legend(found)) if panels else None


def _by_task(found: Collection, figure: str, scales: Scales, with_ablations: bool = False) -> list[Panel]:
    """A panel for each task that a system has success and the figure of."""
    palette, by_task = colours(found), {}
    for task in TASKS:
        series = [
            s for each in found.of_task(task) if (s := _point(each.row, figure, palette[each.row.system]))
        ]
        if with_ablations:
            series += _ablation_series(found, task, figure)
        if scales.logarithmic:
            series = [each for each in series if all(x > 0 for x, _ in each.points)]
        if series:
            by_task[task] = series
    across = [x for series in by_task.values() for each in series for x, _ in each.points]
    shared = replace(scales, x_limits=_around(across, scales), y_limits=SHARE) if across else scales
    return [Panel(TASKS[t], partial(scatter, series=series, scales=shared)) for t, series in by_task.items()]


def _around(values: Sequence[float], scales: Scales) -> tuple[float, float]:
    """Limits of x that hold the values, the line of human text, and some air."""
    if scales.logarithmic:
        return min(values) / 1.4, max(values) * 1.4
    low, high = min(*values, scales.x_reference or 0), max(*values, scales.x_reference or 0)
    air = 0.08 * (high - low) or 0.1
    return low - air, high + air


def _point(row: Row, figure: str, colour: str) -> Series | None:
    x = row.against_human if figure == "against_human" else row.number(figure)
    y, interval = row.number("success"), row.interval("success")
    if x is None or y is None:
        return None
    ends = None if interval is None else (100 * interval[0], 100 * interval[1])
    return Series(row.system, [(x, 100 * y)], colour, [ends])


def _ablation_series(found: Collection, task: str, figure: str) -> list[Series]:
    out = []
    for name, points in found.ablations.items():
        rows = [row for point in points for row in tasks_of(point.rows) if row.task == task]
        pairs = [
            (x, 100 * y) for r in rows if (x := r.number(figure)) and (y := r.number("success")) is not None
        ]
        if pairs:
            out.append(Series(name, sorted(pairs), PAPER, joined=numeric(points), filled=False))
    return out


def _legend(found: Collection) -> list[tuple[str, str]]:
    return [
        (name, colour) for name, colour in colours(found).items() if any(found.get(name, t) for t in TASKS)
    ]


def ablations(found: Collection) -> list[Chart]:
    """A chart for each figure that labels name: fluency, distinct words, and success where there is any."""
    return [_ablation(name, points) for name, points in found.ablations.items()]


MEASURES = {
    "nats_per_token": ("nats a token", "human", 1.0),
    "distinct_1": ("distinct words", "human in vocabulary", 1.0),
    "success": ("success, %", "", 100.0),
}
"""Figure: its name, the reference row that it is held against, and what it is multiplied with."""


def _ablation(name: str, points: Sequence[Point]) -> Chart:
    tasks = list(dict.fromkeys(row.task for point in points for row in tasks_of(point.rows)))
    palette = {task: SERIES[i % len(SERIES)] for i, task in enumerate(tasks)}
    panels = [panel for figure in MEASURES if (panel := _measure(name, points, figure, palette))]
    caption = (
        f"{name[:1].upper()}{name[1:]}: each point is a run and all else is equal. The dashed line is human text, for words "
        "in the model's vocabulary: nearer to it is better, on either side."
    )
    return Chart(
        file_name(name), caption, panels, [(task_name(task), colour) for task, colour in palette.items()]
    )


def _measure(name: str, points: Sequence[Point], figure: str, palette: Mapping[str, str]) -> Panel | None:
    label, reference, factor = MEASURES[figure]
    ordered = numeric(points)
    series = []
    for task, colour in palette.items():
        pairs = [
            (float(point.name) if ordered else float(i), factor * value)
            for i, point in enumerate(points)
            for row in tasks_of(point.rows)
            if row.task == task and (value := row.number(figure)) is not None
        ]
        if pairs:
            series.append(
                Series(task, pairs if ordered else [(y, x) for x, y in pairs], colour, joined=ordered)
            )
    if not series:
        return None
    limits = SHARE if figure == "success" else None
    human = next(
        (v for p in points for r in p.rows if r.task == reference and (v := r.number(figure)) is not None),
        None,
    )
    named = label if human is None else f"{label} (dashed: human)"
    if ordered:
        values = [float(point.name) for point in points]
        wide = min(values) > 0 and max(values) / min(values) >= 8
        scales = Scales(name, named, logarithmic=wide, y_limits=limits, y_reference=human)
        return Panel(f"{name}: {label}", partial(scatter, series=series, scales=scales))
    draw = partial(
        dots,
        names=[p.name for p in points],
        series=series,
        scales=Scales(named, x_limits=limits, x_reference=human),
    )
    return Panel(f"{name}: {label}", draw, AROUND + 0.3 * len(points))


CURVES = {
    "attribute said": "attributes that the text says",
    "attribute overall": "all attributes, said or not",
    "syntax tags": "part-of-speech tags",
    "syntax spans": "constituents (F1)",
}
"""What the curves of `benchmarks/classifiers.py` are of."""


def noise(found: Collection) -> Chart | None:
    """What is known of a text at which noise."""
    panels, legend = [], {}
    for run in found.runs:
        if run.by_noise is not None:
            series = list(_curves(run.by_noise))
            legend.update({each.name: each.colour for each in series})
            scales = Scales("noise level t", "right, %", x_limits=(0, 1), y_limits=(0, 100))
            panels.append(Panel(run.folder.name, partial(scatter, series=series, scales=scales), 2.8))
    caption = (
        "How much a classifier can tell of a text by its noise level, from clean on the left to pure noise on the right: "
        "where a curve is high, guidance has something to follow."
    )
    return Chart("noise", caption, panels, list(legend.items())) if panels else None


def _curves(sections: Mapping[str, Any]) -> list[Series]:
    """The curves of `benchmarks/classifiers.py`: {section: {"t": [...], curve: [...]}}."""
    names = [(section, curve) for section, each in sections.items() for curve in each if curve != "t"]
    return [
        Series(
            CURVES.get(f"{section} {curve}", f"{section}: {curve}"),
            [(t, 100 * y) for t, y in zip(sections[section]["t"], sections[section][curve], strict=True)],
            SERIES[i % len(SERIES)],
            joined=True,
        )
        for i, (section, curve) in enumerate(names)
    ]


def file_name(figure: str) -> str:
    """The name of an ablation's figure as that of a file."""
    return "ablation-" + "".join(c if c.isalnum() else "-" for c in figure.lower()).strip("-")
