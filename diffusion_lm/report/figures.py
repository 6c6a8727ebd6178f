"""The figures."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from diffusion_lm.common import UserError
from diffusion_lm.report.data import Collection, Measured, Point, Row, numeric, percent, task_name, tasks_of
from diffusion_lm.report.paper import TABLE_2, TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NAME = 24
"""Letters of a name beside a bar before it goes on below, where it has one line more."""


@dataclass(frozen=True)
class Bar:
    """A bar, its interval, and a second measure of the same, drawn as a hollow mark."""

    name: str
    value: float
    colour: str
    interval: tuple[float, float] | None = None
    second: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes:
        name: what they are of.
        points: x and y.
        colour: of the points.
        intervals: low and high of each y.
        joined: whether a line joins them.
        filled: whether they are filled.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    intervals: Sequence[tuple[float, float] | None] = ()
    joined: bool = False
    filled: bool = True


@dataclass(frozen=True)
class Scales:
    """How axes are labelled, and where they end.

    Attributes:
        x: label.
        y: label.
        logarithmic: whether x is.
        x_limits: of x; None: around the points.
        y_limits: of y; None: around the points.
        x_reference: where a line stands for human text, on x.
        y_reference: the same, on y.
    """

    x: str = ""
    y: str = ""
    logarithmic: bool = False
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    x_reference: float | None = None
    y_reference: float | None = None


def bars(axes: Axes, data: Sequence[Bar], label: str) -> None:
    """Bars from 0 to 100, the first on top, their value at the right edge."""
    for row, bar in enumerate(data):
        axes.barh(row, bar.value, height=0.62, color=bar.colour)
        if bar.interval is not None:
            axes.plot(bar.interval, (row, row), color=INK, linewidth=1.4, solid_capstyle="butt")
        if bar.second is not None:
            axes.plot(
                bar.second,
                row,
                marker="D",
                markersize=4,
                color=INK,
                markerfacecolor="none",
                markeredgewidth=0.9,
                clip_on=False,
            )
        axes.annotate(
            percent(bar.value / 100),
            (1.03, row),
            xycoords=("axes fraction", "data"),
            va="center",
            color=INK,
            annotation_clip=False,
        )
    axes.set_yticks(
        range(len(data)),
        [textwrap.fill(bar.name, NAME, max_lines=2, placeholder=" …") for bar in data],
        linespacing=0.95,
    )
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(0, 100), ylim=(len(data) - 0.4, -0.6), xlabel=label)
    axes.spines["bottom"].set_visible(False)
    axes.grid(axis="x")


def scatter(axes: Axes, series: Sequence[Series], scales: Scales) -> None:
    """Points with their intervals, and a line where human text is."""
    for each in series:
        for (x, _), interval in zip(each.points, each.intervals, strict=False):
            if interval is not None:
                axes.plot((x, x), interval, color=each.colour, linewidth=1.2, alpha=0.6, clip_on=False)
        axes.plot(
            *zip(*each.points, strict=True),
            marker="o",
            markersize=5,
            linestyle="-" if each.joined else "",
            linewidth=1.2,
            color=each.colour,
            markerfacecolor=each.colour if each.filled else "none",
            clip_on=False,
        )
    _scale(axes, series, scales)
    axes.tick_params(length=0)
    axes.grid()


def dots(axes: Axes, names: Sequence[str], series: Sequence[Series], scales: Scales) -> None:
    """Named rows with a dot for each series; x is the figure, y the number of the row."""
    for each in series:
        axes.plot(*zip(*each.points, strict=True), marker="o", markersize=6, linestyle="", color=each.colour)
    axes.set_yticks(range(len(names)), list(names))
    axes.set(xlabel=scales.x, ylim=(len(names) - 0.4, -0.6))
    _reference(axes, scales)
    if scales.x_limits is not None:
        axes.set_xlim(*scales.x_limits)
    else:
        axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid()


def _scale(axes: Axes, series: Sequence[Series], scales: Scales) -> None:
    axes.set(xlabel=scales.x, ylabel=scales.y)
    if scales.logarithmic:
        values = [x for each in series for x, _ in each.points]
        _logarithmic(axes, *(scales.x_limits or (min(values) / 1.4, max(values) * 1.4)))
    elif scales.x_limits is not None:
        axes.set_xlim(*scales.x_limits)
    if scales.y_limits is not None:
        axes.set_ylim(*scales.y_limits)
    _reference(axes, scales)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x with round numbers that are written out."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kept: list[float] = []
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        if len(kept) < 2:  # a short axis has too few of the roundest numbers
            kept = [t for power in powers for step in steps if low <= (t := step * 10.0**power) <= high]
    axes.set_xticks(kept, [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in kept])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _reference(axes: Axes, scales: Scales) -> None:
    style: dict[str, Any] = {"color": MUTED, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 0.9}
    if scales.x_reference is not None:
        axes.axvline(scales.x_reference, **style)
    if scales.y_reference is not None:
        axes.axhline(scales.y_reference, **style)


INK, MUTED, RULE, PAPER = "#1c2127", "#68727d", "#d9dee4", "#a9b2bc"
SERIES = ("#2261a9", "#c0561c", "#1d8a60", "#8b4a9f", "#a68415", "#b2344b", "#3a8796", "#7a5c44")
COLOURS = {
    "ink": (INK, "#e6e9ec"),
    "muted": (MUTED, "#98a3ae"),
    "rule": (RULE, "#303841"),
    "paper": (PAPER, "#66717d"),
    "s1": (SERIES[0], "#79b0f2"),
    "s2": (SERIES[1], "#f09d64"),
    "s3": (SERIES[2], "#5fcd9f"),
    "s4": (SERIES[3], "#cf9be0"),
    "s5": (SERIES[4], "#dcc05c"),
    "s6": (SERIES[5], "#f1899b"),
    "s7": (SERIES[6], "#80cbd9"),
    "s8": (SERIES[7], "#c9a88e"),
}
"""Name in the style sheet: light, and dark. A figure is drawn in the light ones; in its SVG each becomes the name."""

WIDTH = 3.7
"""Inches of a panel: narrow enough to be read on a phone."""
COLUMNS = 2
"""Panels side by side in a PNG."""
_DPI = 160


@dataclass(frozen=True)
class Panel:
    """A pair of axes.

    Attributes:
        title: what it is of.
        draw: puts it onto axes.
        height: in inches.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = 2.5


@dataclass(frozen=True)
class Chart:
    """A figure of one or more panels.

    Attributes:
        name: of its files.
        caption: what to read from it.
        panels: its axes.
        legend: label and colour of what they share.
    """

    name: str
    caption: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[str, str]] = ()


def svgs(chart: Chart) -> list[str]:
    """Each panel as an SVG element that takes its colours from the page's style sheet."""
    out = []
    for i, panel in enumerate(chart.panels):
        with _style(f"{chart.name}-{i}"):
            figure = _figure(WIDTH, panel.height)
            _draw(panel, figure.subplots())
            file = io.StringIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        out.append(_inline(file.getvalue(), f"{chart.name}-{i}", panel.title))
    return out


def png(chart: Chart) -> bytes:
    """All panels and the legend as one picture on white."""
    columns = min(COLUMNS, len(chart.panels))
    rows = [chart.panels[i : i + columns] for i in range(0, len(chart.panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    with _style(chart.name):
        figure = _figure(WIDTH * columns, sum(heights) + _legend_height(chart, columns))
        grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        for row, line in zip(rows, grid, strict=True):
            for i, axes in enumerate(line):
                if i < len(row):
                    _draw(row[i], axes)
                else:
                    axes.remove()
        _legend(chart, figure, columns)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def _style(salt: str) -> AbstractContextManager[None]:
    try:
        from matplotlib import rc_context
    except ImportError:
        raise UserError("The figures of a report need matplotlib: pip install 'diffusion-lm[plot]'.") from None
    return rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": salt,
            "font.family": "DejaVu Sans",
            "font.size": 8.5,
            "text.color": INK,
            "axes.labelcolor": MUTED,
            "axes.edgecolor": RULE,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": RULE,
            "grid.linewidth": 0.6,
            "xtick.color": RULE,
            "ytick.color": RULE,
            "xtick.labelcolor": MUTED,
            "ytick.labelcolor": MUTED,
        }
    )


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)  # type: ignore[union-attr, call-arg]
    return figure


def _draw(panel: Panel, axes: Axes) -> None:
    panel.draw(axes)
    axes.set_title(panel.title)


def _legend_columns(columns: int) -> int:
    """Names side by side under so many panels: in one panel's width a long name has no room for another."""
    return 1 if columns == 1 else 4


def _legend_height(chart: Chart, columns: int) -> float:
    """Inches."""
    return 0.13 + 0.22 * -(-len(chart.legend) // _legend_columns(columns)) if len(chart.legend) > 1 else 0


def _legend(chart: Chart, figure: Figure, columns: int) -> None:
    from matplotlib.lines import Line2D

    if len(chart.legend) > 1:
        handles = [Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in chart.legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=_legend_columns(columns), frameon=False)


def _inline(svg: str, name: str, title: str) -> str:
    """The element alone: no fixed size, ids that no other picture of the page has, colours by name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)
    for variable, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{variable})")
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None  # matplotlib writes one
    opening = f'<svg role="img" aria-label="{escape(title)}" viewBox="{size[0][9:-1]}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return opening + svg[svg.index(">") + 1 :].strip()


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
        paper = [Bar(f"paper: {name}", pairs[task].success, PAPER) for name, pairs in TABLE_2.items() if task in pairs]
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
    return Chart("fluency", caption, panels, _figures_legend(found)) if panels else None


def cost(found: Collection) -> Chart | None:
    """Success against network evaluations."""
    caption = (
        "Success against network evaluations, classifier passes included, for a batch of texts. "
        "Up and to the left is better. Hollow: runs of the ablations."
    )
    scales = Scales("network evaluations", "success, %", logarithmic=True)
    panels = _by_task(found, "evaluations", scales, with_ablations=True)
    return Chart("cost", caption, panels, _figures_legend(found)) if panels else None


def _by_task(found: Collection, figure: str, scales: Scales, with_ablations: bool = False) -> list[Panel]:
    """A panel for each task that a system has success and the figure of."""
    palette, by_task = colours(found), {}
    for task in TASKS:
        series = [s for each in found.of_task(task) if (s := _point(each.row, figure, palette[each.row.system]))]
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
        pairs = [(x, 100 * y) for r in rows if (x := r.number(figure)) and (y := r.number("success")) is not None]
        if pairs:
            out.append(Series(name, sorted(pairs), PAPER, joined=numeric(points), filled=False))
    return out


def _figures_legend(found: Collection) -> list[tuple[str, str]]:
    return [(name, colour) for name, colour in colours(found).items() if any(found.get(name, t) for t in TASKS)]


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
    return Chart(file_name(name), caption, panels, [(task_name(task), colour) for task, colour in palette.items()])


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
            series.append(Series(task, pairs if ordered else [(y, x) for x, y in pairs], colour, joined=ordered))
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
