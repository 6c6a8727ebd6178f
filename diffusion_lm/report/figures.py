"""The figures, drawn by matplotlib from frames."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from diffusion_lm.control.control import CONTROLS
from diffusion_lm.evaluation.scores import METRICS
from diffusion_lm.report.data import YARDSTICK, Found
from diffusion_lm.report.paper import TABLE_2
from diffusion_lm.report.tables import percent

INK, MUTED, RULE, PAPER = "#1c2127", "#68727d", "#d9dee4", "#a9b2bc"
COLOURS = ("#2261a9", "#c0561c", "#1d8a60", "#8b4a9f", "#a68415", "#b2344b", "#3a8796", "#7a5c44")
MARKERS = "os^v"
"""Of every eight series one."""
STYLE: Any = {
    "font.size": 8.5, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": RULE, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.6, "lines.markersize": 5,
    "xtick.color": RULE, "xtick.labelcolor": MUTED, "xtick.major.size": 0, "lines.linewidth": 1.2,
    "ytick.color": RULE, "ytick.labelcolor": MUTED, "ytick.major.size": 0, "svg.hashsalt": "report",
    "text.parse_math": False,  # a name is no formula
}  # fmt: skip
HUMAN: dict[str, Any] = {"color": MUTED, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 0.9}
SHARE = (-3, 103)
"""Where axes of success end: panels can be compared, and no difference looks larger than it is."""
Styles = Mapping[str, Mapping[str, Any]]


class Chart(NamedTuple):
    """A figure, the name of its files, and what to read from it."""

    name: str
    caption: str
    figure: Figure

    def file(self, form: str) -> bytes:
        """The figure as "svg" or "png"; the same figure is the same file."""
        out = io.BytesIO()
        with rc_context(STYLE):
            metadata = {"Date": None} if form == "svg" else {"Software": None}
            self.figure.savefig(out, format=form, dpi=160, facecolor="white", metadata=metadata)
        return out.getvalue()


def panels(titles: Sequence[str], height: float, legend: Styles | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of axes, two abreast, of a height in inches, with a legend below all if it tells anything apart."""
    columns, legend = min(2, len(titles)), legend if legend and len(legend) > 1 else {}
    rows, abreast = math.ceil(len(titles) / columns), 3 if columns == 2 else 1
    below = 0.1 + 0.22 * math.ceil(len(legend) / abreast)
    figure = Figure(figsize=(3.7 * columns, rows * height + below), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title)
    for axes in grid[len(titles) :]:
        axes.remove()
    if legend:
        handles = [Line2D([], [], linestyle="", label=name, **style) for name, style in legend.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=abreast, frameon=False)
    return figure, grid


def styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each of several series: at most eight colours, then another marker."""
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i // len(COLOURS) % len(MARKERS)]}
        for i, name in enumerate(dict.fromkeys(names))
    }


def _by_task(found: Found, column: str) -> dict[str, pd.DataFrame]:
    """The rows of each single control that have a success and another figure."""
    rows = found.measured.dropna(subset=["success", column])
    return {task: rows[rows.task == task] for task in CONTROLS if (rows.task == task).any()}


@rc_context(STYLE)
def success(found: Found) -> list[Chart]:
    """Success by task and system, the paper's beside ours."""
    by_task, known = _by_task(found, "success"), styles(found.measured.system)
    paper = {t: {name: pairs[t].success for name, pairs in TABLE_2.items() if t in pairs} for t in by_task}
    if not by_task:
        return []
    most = max(len(rows) + len(paper[task]) for task, rows in by_task.items())
    figure, grid = panels(list(by_task), 0.75 + 0.3 * most)
    for axes, (task, rows) in zip(grid, by_task.items(), strict=False):
        _bars(axes, rows, paper[task], known)
    caption = (
        "Success of each system by task; the line is the 95 % interval over targets, the diamond the same texts as the paper's "
        "evaluator counts them. Grey: what the paper reports. Compare the diamonds with the grey bars, the bars with one another."
    )
    return [Chart("success", caption, figure)]


def _bars(axes: Axes, rows: pd.DataFrame, paper: Mapping[str, float], known: Styles) -> None:
    """Bars from 0 to 100, the first on top, their value at the right edge."""
    names = [*rows.system, *(f"paper: {name}" for name in paper)]
    values, colours = [*(100 * rows.success), *paper.values()], [known[name]["color"] for name in rows.system]
    axes.barh(range(len(names)), values, 0.62, color=[*colours, *[PAPER] * len(paper)])
    axes.hlines(range(len(rows)), 100 * rows.success_low, 100 * rows.success_high, color=INK, linewidth=1.4)
    axes.plot(100 * rows.success_paper, range(len(rows)), "D", ms=4, color=INK, mfc="none", clip_on=False)
    for place, value in enumerate(values):
        axes.annotate(percent(value / 100), (1.03, place), xycoords=("axes fraction", "data"), va="center")
    lines = [textwrap.fill(name, 24, max_lines=2, placeholder=" …") for name in names]
    axes.set_yticks(range(len(names)), lines, color=INK, linespacing=0.95)
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), xlabel="success, %")
    axes.grid(visible=False, axis="y")


SCATTERED = {
    "fluency": (
        "against_human",
        "nats a token against human text (dashed)",
        "Success against fluency: nats a token above human dev text, which is the dashed line. Up is better; left of the line is "
        "no better than right of it, but blander than people write. The paper's lm-score is of another judge, and so not here.",
    ),
    "cost": (
        "passes",
        "network passes",
        "Success against network passes, classifiers included, for a batch of texts. Up and to the left is better.",
    ),
}
"""By the name of a figure: what success is held against, its label, and the caption."""


@rc_context(STYLE)
def scatter(found: Found, name: str) -> list[Chart]:
    """Success against another figure, a key of `SCATTERED`."""
    column, label, caption = SCATTERED[name]
    by_task, known = _by_task(found, column), styles(found.measured.system)
    if not by_task:
        return []
    every = pd.concat(by_task.values())
    figure, grid = panels(list(by_task), 2.5, {who: known[who] for who in known if who in set(every.system)})
    low, high = min(0, every[column].min()), max(0, every[column].max())
    for axes, rows in zip(grid, by_task.values(), strict=False):
        for row in rows.itertuples():
            style, x = known[row.system], getattr(row, column)
            axes.vlines(x, 100 * row.success_low, 100 * row.success_high, color=style["color"], alpha=0.6)
            axes.plot(x, 100 * row.success, linestyle="", clip_on=False, **style)
        axes.set(xlabel=label, ylabel="success, %", ylim=SHARE)
        if column == "passes":
            _logarithmic(axes, every[column])
        else:
            axes.set_xlim(low - 0.08 * (high - low) - 0.05, high + 0.08 * (high - low) + 0.05)
            axes.axvline(0, **HUMAN)
    return [Chart(name, caption, figure)]


def _logarithmic(axes: Axes, values: pd.Series[float]) -> None:
    """A logarithmic x that holds values, its ticks at round numbers that are written out."""
    axes.set_xscale("log")
    axes.set_xlim(values.min() / 1.4, values.max() * 1.4)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.max() > 5 * values.min() else range(1, 10)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


ABLATED = {"nats": "human", "distinct_1": "human in vocabulary", "success": ""}
"""What a figure of an ablation shows, and the reference that it is held against."""


@rc_context(STYLE)
def ablations(found: Found) -> list[Chart]:
    """A chart for each figure that labels name: fluency, distinct words, and success where there is any."""
    charts = []
    for name, rows in found.ablations.items():
        shown = [metric for metric in ABLATED if rows[metric].notna().any()]
        figure, grid = panels([f"{name}: {METRICS[metric].head}" for metric in shown], 2.5, styles(rows.task))
        for axes, metric in zip(grid, shown, strict=False):
            human = found.references[found.references.task == ABLATED[metric]].merge(rows[YARDSTICK])
            _points(axes, rows, metric, human[metric][:1])
        caption = (
            f"{name[:1].upper()}{name[1:]}: each point is a run and all else is equal. The dashed line is human text, for words "
            "in the model's vocabulary: nearer to it is better, on either side."
        )
        file = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
        charts.append(Chart(f"ablation-{file}", caption, figure))
    return charts


def _points(axes: Axes, rows: pd.DataFrame, metric: str, human: Iterable[float]) -> None:
    """The points of an ablation, joined where they are numbers, and human text as a line."""
    factor, numbers = 100 if metric == "success" else 1, pd.to_numeric(rows.point, errors="coerce").notna().all()
    for (_, own), style in zip(rows.groupby("task", sort=False), styles(rows.task).values(), strict=True):
        line = "-" if numbers else ""
        axes.plot(own["at"], factor * own[metric].astype(float), linestyle=line, clip_on=False, **style)
    axes.set(xlabel=rows.figure.iloc[0], ylabel=METRICS[metric].head, **({"ylim": SHARE} if factor > 1 else {}))
    if not numbers:
        axes.set_xticks(range(rows.point.nunique()), [textwrap.fill(name, 10) for name in rows.point.unique()])
        axes.margins(x=0.15)
    elif 0 < rows["at"].min() <= rows["at"].max() / 8:
        _logarithmic(axes, rows["at"])
    for value in human:
        axes.axhline(value, **HUMAN)


@rc_context(STYLE)
def noise(found: Found) -> list[Chart]:
    """What is known of a text at which noise, of by_noise.json: {section: {"t": [...], curve: [...]}}."""
    curves = {
        (folder, f"{section}: {name}"): (each["t"], [100 * share for share in each[name]])
        for folder, sections in found.extras["by_noise"]
        for section, each in sections.items()
        for name in each.keys() - {"t"}
    }
    if not curves:
        return []
    known, folders = styles(sorted(name for _, name in curves)), sorted({folder for folder, _ in curves})
    figure, grid = panels(folders, 2.8, known)
    for (folder, name), (t, shares) in curves.items():
        grid[folders.index(folder)].plot(t, shares, clip_on=False, **known[name])
    for axes in grid[: len(folders)]:
        axes.set(xlabel="noise level t", ylabel="right, %", xlim=(0, 1), ylim=(0, 100))
    caption = (
        "How much a classifier can tell of a text by its noise level, from clean on the left to pure noise on the right: "
        "where a curve is high, guidance has something to follow."
    )
    return [Chart("noise", caption, figure)]
