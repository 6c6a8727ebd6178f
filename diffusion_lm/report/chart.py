"""A figure: panels that are drawn once and come out as SVG for a page with two colour schemes, or as one PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from diffusion_lm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        raise UserError(
            "The figures of a report need matplotlib: pip install 'diffusion-lm[plot]'."
        ) from None
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
        handles = [
            Line2D([], [], marker="o", linestyle="", color=colour, label=name)
            for name, colour in chart.legend
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=_legend_columns(columns), frameon=False
        )


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
