"""The few kinds of axes that the figures of a report are made of."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_lm.report.chart import INK, MUTED
from diffusion_lm.report.numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
