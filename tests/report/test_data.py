from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.report.data import read


def test_rows_and_texts_are_those_of_the_evaluation(runs: Any) -> None:
    texts = runs.obeying("ours", "pos", 1.0, 0.5)
    texts[0]["text"] = "A pub\u2028 closes."
    found = read([runs.evaluation("a", *texts, decoding={"pos": "50 steps"})])
    (row,) = found.measured.to_dict("records")
    assert (row["system"], row["task"], row["success"], row["n"], row["decoding"]) == (
        "ours",
        "pos",
        0.75,
        2,
        "50 steps",
    )
    assert row["against_human"] == pytest.approx(0.1) and set(found.references.task) == {
        "human", "human in vocabulary", "judge",
    }  # fmt: skip
    assert "A pub\u2028 closes." in set(found.lines.text)


def test_no_place_on_this_machine_is_shown(runs: Any) -> None:
    texts = runs.obeying("/srv/models/ours", "pos", 1.0)
    folder = runs.evaluation("a", *texts, config={"judge": "/srv/judge", "corpus": {"source": "/data/e2e"}})
    found = read([folder])
    assert found.measured[["system", "judge", "corpus"]].to_numpy().tolist() == [["ours", "judge", "e2e"]]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, r"run\.json"),
        ({"texts.jsonl": ""}, r"run\.json"),
        ({"run.json": "{}"}, r"texts\.jsonl"),
        ({"run.json": "{", "texts.jsonl": ""}, r"run\.json is no JSON"),
        ({"run.json": "{}", "texts.jsonl": ""}, r"run\.json"),
        ({"trace.json": "no"}, r"trace\.json is no JSON"),
        ({"trace.json": "[]"}, "object, not list"),
        ({"summary.json": "{}", "results.jsonl": ""}, r"older version.*evaluate anew"),
        ({"results.jsonl": ""}, r"older version.*evaluate anew"),
    ],
)
def test_a_folder_that_is_no_finished_evaluation_is_one_sentence(
    tmp_path: Path, files: dict[str, str], named: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=named):
        read([tmp_path])


def test_a_missing_folder_and_a_broken_line_are_named(runs: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        read([tmp_path / "nowhere"])
    folder = runs.evaluation("a", runs.text("ours", "unconditional"))
    with Path(folder, "texts.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="Line 5"):
        read([folder])


def test_the_later_of_two_runs_counts_and_a_warning_says_so(runs: Any, caplog: pytest.LogCaptureFixture) -> None:
    folders = [runs.evaluation(f"run-{s}", *runs.obeying("ours", "pos", s)) for s in (0.5, 0.7)]
    with caplog.at_level(logging.WARNING, "diffusion_lm"):
        found = read(folders)
    assert found.measured.success.tolist() == [0.7]
    assert "ours does pos" in caplog.text and "run-0.5" in caplog.text


def test_a_label_names_a_figure_and_points_that_are_numbers_are_in_order(runs: Any) -> None:
    labels = ("steps: 100", "steps: 20", "clamp: soft", "clamp: hard")
    folders = [
        runs.evaluation(str(i), runs.text(label, "unconditional"), config={"label": label})
        for i, label in enumerate(labels)
    ]
    found = read(folders)
    assert found.measured.empty and list(found.ablations) == ["steps", "clamp"]
    assert found.ablations["steps"]["at"].tolist() == [20, 100]
    assert found.ablations["clamp"].point.tolist() == ["soft", "hard"]


def test_a_reference_keeps_what_only_one_of_several_runs_measured(runs: Any) -> None:
    first = runs.evaluation("a", runs.text("ours", "unconditional"), outside={"judge": {"mauve": 0.5}})
    second = runs.evaluation("b", *runs.obeying("FT", "pos", 0.9))
    for folders in ((first, second), (second, first)):
        references = read(folders).references
        assert references[references.task == "judge"].mauve.tolist() == [0.5]


def test_human_text_is_in_the_vocabulary_of_the_model_that_writes_freely(runs: Any) -> None:
    free = runs.evaluation("a", runs.text("ours", "unconditional"))
    gaps = runs.evaluation("b", *runs.obeying("of another vocabulary", "infill", 0.9))
    texts = Path(gaps) / "texts.jsonl"
    texts.write_text(texts.read_text().replace("A pub by UNK.", "UNK UNK UNK UNK."))
    kept = [read(folders).references for folders in ((free,), (free, gaps), (gaps, free), (gaps,))]
    words = [each[each.task == "human in vocabulary"].distinct_1.item() for each in kept]
    assert words[0] == words[1] == words[2] > words[3]
