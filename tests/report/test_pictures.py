from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from typing import Any

import pytest

from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.common import UserError
from diffusion_lm.report import figures
from diffusion_lm.report.data import Collection, collect, read_run
from diffusion_lm.report.figures import COLOURS, SERIES, Bar, Chart, Panel, bars, png, svgs
from diffusion_lm.report.samples import brackets, standalone, tree_svg

TREE = read_tree("(S (NP (DT the) (NN pub)) (VP (VBZ closes)) (. .))")


def found(*folders: str) -> Collection:
    return collect(map(read_run, folders))


def test_a_panel_is_svg_in_the_colours_of_the_page_and_a_chart_one_png() -> None:
    data = [Bar("ours & theirs", 99.99, SERIES[0], (90, 100), 98.0), Bar("paper", 50, SERIES[1])]
    panels = [Panel(title, partial(bars, data=data, label="success, %"), 1.2) for title in ("A", "B")]
    chart = Chart("success", "", panels, [("ours", SERIES[0]), ("paper", SERIES[1])])
    first, second = svgs(chart)
    ElementTree.fromstring(first)
    assert "var(--s1)" in first and "ours &amp; theirs" in first and ">99.9<" in first.replace("\n", "")
    assert not [light for light, _ in COLOURS.values() if light in first]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", first)) <= ids[0]
    assert png(chart).startswith(b"\x89PNG")


def test_the_same_chart_is_the_same_file() -> None:
    chart = Chart("a", "", [Panel("A", partial(bars, data=[Bar("x", 5, SERIES[0])], label=""), 1)])
    assert png(chart) == png(chart) and svgs(chart) == svgs(chart)


def test_figures_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'diffusion-lm\[plot\]'"):
        png(Chart("a", "", [Panel("A", lambda axes: None)]))


@pytest.mark.parametrize("passes", [(30,), (65, 70), (20, 2000), (1, 1)])
def test_an_axis_of_passes_has_numbers(runs: Any, passes: tuple[int, ...]) -> None:
    rows = [runs.row(str(i), "pos", success=0.5, evaluations=n) for i, n in enumerate(passes)]
    chart = figures.cost(found(runs.evaluation("a", *rows)))
    assert chart is not None
    (svg,) = svgs(chart)
    ticks = re.search(r'id="cost-0-matplotlib\.axis_1".*?(?=id="cost-0-matplotlib\.axis_2")', svg, re.DOTALL)
    assert ticks is not None and ticks[0].count("xtick_") >= 2


def test_a_point_for_each_system_and_task(runs: Any) -> None:
    rows = [
        runs.row(who, "pos", success=0.9, success_interval=[0.8, 1], evaluations=passes)
        for who, passes in (("a", 20), ("b", None))
    ]
    both = found(*(runs.evaluation(row["system"], row) for row in rows))
    fluency, cost = figures.fluency(both), figures.cost(both)
    assert fluency is not None and cost is not None
    (panel,) = fluency.panels
    assert [s.points for s in panel.draw.keywords["series"]] == [[(pytest.approx(0.1), 90.0)]] * 2  # type: ignore[attr-defined]
    assert [s.points for s in cost.panels[0].draw.keywords["series"]] == [[(20.0, 90.0)]]  # type: ignore[attr-defined]
    assert dict(fluency.legend) == {"a": SERIES[0], "b": SERIES[1]}
    assert len(svgs(cost)) == 1


def test_the_papers_bars_stand_below_ours(runs: Any) -> None:
    chart = figures.success(found(runs.evaluation("a", runs.row("ours", "length", success=1.0))))
    assert chart is not None
    names = [bar.name for bar in chart.panels[0].draw.keywords["data"]]  # type: ignore[attr-defined]
    assert names == ["ours", "paper: FUDGE", "paper: FT-sample", "paper: FT-search", "paper: Diffusion-LM"]


@pytest.mark.parametrize("points", [("20", "200"), ("soft", "hard")])
def test_an_ablation_is_one_chart_with_human_text_as_a_line(runs: Any, points: tuple[str, str]) -> None:
    folders = [runs.evaluation(p, runs.row("x", "unconditional"), config={"label": f"number: {p}"}) for p in points]
    (chart,) = figures.ablations(found(*folders))
    assert [panel.title for panel in chart.panels] == ["number: nats a token", "number: distinct words"]
    scales = [panel.draw.keywords["scales"] for panel in chart.panels]  # type: ignore[attr-defined]
    assert [s.x_reference or s.y_reference for s in scales] == [1.6, 492]
    assert all("dashed: human" in svg for svg in svgs(chart))


def test_curves_by_noise_are_those_of_the_benchmark(runs: Any) -> None:
    layout = {
        "attribute": {"t": [0.1, 0.9], "said": [0.9, 0.1]},
        "syntax": {"t": [0.1, 0.9], "tags": [1.0, 0.3]},
    }
    chart = figures.noise(found(runs.extra("a", "by_noise.json", layout)))
    assert chart is not None and len(svgs(chart)) == 1
    assert [name for name, _ in chart.legend] == ["attributes that the text says", "part-of-speech tags"]


# -- trees ---------------------------------------------------------------------------------------------------


def test_every_node_is_drawn_once_and_stands_above_its_words() -> None:
    root = ElementTree.fromstring(tree_svg(TREE, "a tree"))
    nodes = {(text.text, text.get("class")): text for text in root.iter("text")}
    assert [label for label, kind in nodes if kind == "label"] == ["S", "NP", "DT", "NN", "VP", "VBZ", "."]
    words = [float(nodes[word, "word"].get("x", "")) for word in ("the", "pub", "closes", ".")]
    assert words == sorted(words)
    assert float(nodes["NP", "label"].get("x", "")) == pytest.approx((words[0] + words[1]) / 2, abs=0.1)
    assert len({nodes[word, "word"].get("y") for word in ("the", "pub", "closes", ".")}) == 1
    assert all(0 < x < float(root.get("width", "")) for x in words)


def test_constituents_that_are_not_shared_are_marked() -> None:
    other = read_tree("(S (NP (DT the)) (VP (NN pub) (VBZ closes)) (. .))")
    shared = brackets(TREE) & brackets(other)
    assert shared == {(0, 4, "S")}
    marked = [
        t.text for t in ElementTree.fromstring(tree_svg(TREE, "", shared)).iter("text") if t.get("class") == "miss"
    ]
    assert marked == ["NP", "VP"]


def test_a_tree_as_a_file_is_whole() -> None:
    root = ElementTree.fromstring(standalone(tree_svg(read_tree("(S (-LRB- -LRB-) (NN a<b))"), "a & b")))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in ElementTree.tostring(root, "unicode")
