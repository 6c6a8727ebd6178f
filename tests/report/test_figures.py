from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from diffusion_lm.report import figures
from diffusion_lm.report.data import read
from diffusion_lm.report.figures import COLOURS, Chart


def labels(chart: Chart) -> list[str]:
    """What stands beside the bars or points of the first panel."""
    return [label.get_text().replace("\n", " ") for label in chart.figure.axes[0].get_yticklabels()]


def test_a_chart_is_svg_and_png_and_the_same_chart_the_same_file(runs: Any) -> None:
    folder = runs.evaluation("a", *runs.obeying(r"ours & $\theirs$ <b>", "length", 1.0, 0.9))
    first, second = ([figures.success(read([folder]))[0].file(form) for form in ("svg", "png")] for _ in range(2))
    assert ElementTree.fromstring(first[0]).tag.endswith("svg") and first[1].startswith(b"\x89PNG")
    assert first == second


def test_the_papers_bars_stand_below_ours(runs: Any) -> None:
    (chart,) = figures.success(read([runs.evaluation("a", *runs.obeying("ours", "length", 1.0))]))
    papers = [f"paper: {name}" for name in ("FUDGE", "FT-sample", "FT-search", "Diffusion-LM")]
    assert labels(chart) == ["ours", *papers]
    assert [bar.get_width() for bar in chart.figure.axes[0].patches] == [100.0, 46.9, 98.1, 100.0, 99.9]


@pytest.mark.parametrize(("name", "x"), [("fluency", [0.1, 0.1]), ("cost", [20, 2000])])
def test_a_point_for_each_system_and_task(runs: Any, name: str, x: list[float]) -> None:
    systems = {"a": 20, "b": 2000}
    folders = [runs.evaluation(who, *runs.obeying(who, "pos", 0.9, 0.7, passes=n)) for who, n in systems.items()]
    (chart,) = figures.scatter(read(folders), name)
    points = [line for line in chart.figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in points] == pytest.approx(x)
    assert [float(line.get_ydata()[0]) for line in points] == pytest.approx([80, 80])
    assert [text.get_text() for text in chart.figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize("passes", [(30,), (65, 70), (20, 2000)])
def test_an_axis_of_passes_has_numbers(runs: Any, passes: tuple[int, ...]) -> None:
    texts = [line for i, n in enumerate(passes) for line in runs.obeying(str(i), "pos", 0.5, passes=n)]
    (chart,) = figures.scatter(read([runs.evaluation("a", *texts)]), "cost")
    axis = chart.figure.axes[0].xaxis
    low, high = chart.figure.axes[0].get_xlim()
    assert len([tick for tick in axis.get_majorticklocs() if low <= tick <= high]) >= 2


@pytest.mark.parametrize("points", [("20", "200"), ("soft", "hard")])
def test_an_ablation_is_one_chart_with_human_text_as_a_line(runs: Any, points: tuple[str, str]) -> None:
    labels = [f"number: {point}" for point in points]
    folders = [runs.evaluation(label, runs.text(label, "unconditional"), config={"label": label}) for label in labels]
    (chart,) = figures.ablations(read(folders))
    assert chart.name == "ablation-number"
    assert [axes.get_title(loc="left") for axes in chart.figure.axes] == ["number: nats/token", "number: distinct-1"]
    drawn, human = chart.figure.axes[0].lines
    assert list(drawn.get_ydata()) == [1.7, 1.7] and list(human.get_ydata()) == [1.6, 1.6]
    low, high = chart.figure.axes[0].get_ylim()
    assert low < 1.6 < 1.7 < high


def test_curves_by_noise_are_those_of_the_benchmark(runs: Any) -> None:
    layout = {"attribute": {"t": [0.1, 0.9], "said": [0.9, 0.1]}, "syntax": {"t": [0.1, 0.9], "tags": [1.0, 0.3]}}
    (chart,) = figures.noise(read([runs.extra("a", "by_noise.json", layout)]))
    assert sorted(list(line.get_ydata()) for line in chart.figure.axes[0].lines) == [[90.0, 10.0], [100.0, 30.0]]


def test_nothing_measured_is_no_figure_and_colours_are_at_most_eight(runs: Any) -> None:
    empty = read([runs.extra("a", "trace.json", {})])
    assert [figures.success(empty), figures.scatter(empty, "cost"), figures.ablations(empty), figures.noise(empty)] == [
        []
    ] * 4
    styles = figures.styles(map(str, range(20)))
    assert {style["color"] for style in styles.values()} == set(COLOURS) and len(COLOURS) == 8
    assert len({tuple(style.values()) for style in styles.values()}) == 20
