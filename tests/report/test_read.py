from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.report.data import collect, read_run, tasks_of


def test_a_run_says_who_did_what(runs: Any) -> None:
    row = runs.row("ours", "pos", success=0.9, success_interval=[0.8, 1.0], parts={"pos": 0.9})
    run = read_run(runs.evaluation("a", row, texts=(runs.text("pos", "1: DET", "A pub\u2028 closes.", 0.5),)))
    (found,) = (row for row in run.rows if row.task == "pos")
    assert (found.system, found.number("success"), found.interval("success")) == ("ours", 0.9, (0.8, 1.0))
    assert found.against_human == pytest.approx(0.1) and found.number("mauve") is None
    assert found.parts() == {"pos": 0.9} and run.texts[0].text == "A pub\u2028 closes."


def test_no_place_on_this_machine_is_shown(runs: Any) -> None:
    folder = runs.evaluation("a", runs.row("/home/somebody/models/ours", "pos"), config={"judge": "/home/judge"})
    found = collect([read_run(folder)])
    assert found.systems == ["ours"] and next(iter(found.references)).judge == "judge"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no summary\.json, which diffusion-lm evaluate --out \S+ writes last\."),
        ({"results.jsonl": ""}, r"holds no summary\.json.*same command again"),
        ({"summary.json": "{}"}, r"holds no results\.jsonl; diffusion-lm evaluate --out"),
        ({"summary.json": "{", "results.jsonl": ""}, r"summary\.json is no JSON"),
        ({"summary.json": "[]", "results.jsonl": ""}, "must hold a JSON object, not list"),
        (
            {"summary.json": '{"rows": [{"name": "x"}]}', "results.jsonl": ""},
            "does not say 'system'.*evaluate again",
        ),
        (
            {"summary.json": '{"rows": [], "config": {}}', "results.jsonl": "{}\n"},
            "Line 1 of .* is no result",
        ),
        ({"trace.json": "no"}, r"trace\.json is no JSON"),
    ],
)
def test_a_folder_that_is_no_finished_evaluation_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_run(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        read_run(tmp_path / "nowhere")


def test_the_later_of_two_runs_counts_and_a_warning_says_so(runs: Any, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (runs.evaluation(f"run-{s}", runs.row("ours", "pos", success=s)) for s in (0.5, 0.7))
    with caplog.at_level(logging.WARNING, "diffusion_lm"):
        found = collect(map(read_run, (first, second)))
    kept = found.get("ours", "pos")
    assert kept is not None and kept.row.number("success") == 0.7
    assert "ours does pos in several runs" in caplog.text and "run-0.7" in caplog.text


def test_labels_of_figures_are_ablations_in_their_order(runs: Any) -> None:
    folders = [
        runs.evaluation(f"s{steps}", runs.row(f"steps: {steps}", "unconditional"), config={"label": f"steps: {steps}"})
        for steps in (100, 20)
    ]
    found = collect(map(read_run, folders))
    assert found.systems == [] and [point.name for point in found.ablations["steps"]] == ["20", "100"]


def test_the_tasks_of_a_point_may_come_in_several_folders(runs: Any) -> None:
    rows = {"a": runs.row("x", "pos"), "b": runs.row("x", "tree")}
    folders = [runs.evaluation(name, row, config={"label": "clamp: soft"}) for name, row in rows.items()]
    (point,) = collect(map(read_run, folders)).ablations["clamp"]
    assert {"pos", "tree", "human"} <= {row.task for row in point.rows}


def test_a_point_that_is_measured_twice_is_warned_of(runs: Any, caplog: pytest.LogCaptureFixture) -> None:
    folders = [
        runs.evaluation(name, runs.row("x", "pos", success=s), config={"label": "clamp: soft"})
        for name, s in (("a", 0.5), ("b", 0.7))
    ]
    (point,) = collect(map(read_run, folders)).ablations["clamp"]
    assert "x does pos in several runs" in caplog.text
    assert [row.number("success") for row in tasks_of(point.rows)] == [0.7]
