"""Rows of figures and the intervals around them, from frames made by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from diffusion_lm.common import UserError
from diffusion_lm.evaluation import scores
from diffusion_lm.evaluation.scores import METRICS, Context, bootstrap, metric, print_table, read_texts, table
from diffusion_lm.store import append_line

LINE = {
    "system": "ours", "task": "pos", "target": "", "index": 0, "text": "A pub.", "success": None, "parts": {},
    "paper_success": {}, "nats": 2.0, "tokens": 2, "seed": 0, "seconds": None, "passes": None, "copied": None, "config": "x",
}  # fmt: skip


def frame(folder: Path, *lines: dict[str, Any]) -> pd.DataFrame:
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.get("target", "")] = index = counts.get(line.get("target", ""), -1) + 1
        append_line(folder / "texts.jsonl", LINE | {"index": index} | line)
    return read_texts(folder)


def row(texts: pd.DataFrame, of: int = 1, **values: Any) -> dict[str, Any]:
    task = texts["task"].iloc[0]
    return table(texts, Context(targets={task: {"of": of}}, **values)).to_dict("records")[0]


def test_the_bootstrap_covers_the_standard_error_of_a_mean() -> None:
    low, high = bootstrap([0.0, 1.0] * 200, None, seed=0)
    # 1.96 standard errors of a fair coin that was thrown 400 times.
    assert low == pytest.approx(0.5 - 0.049, abs=0.006) and high == pytest.approx(0.5 + 0.049, abs=0.006)
    assert bootstrap([1.0], None, seed=0) == bootstrap([], None, seed=0) == (None, None)


def test_success_is_a_mean_over_targets_with_an_interval_around_it(tmp_path: Path) -> None:
    lines = [{"target": str(i), "success": float(i < 8), "paper_success": {"pos": 1.0}} for i in range(10)]
    found = row(frame(tmp_path, *lines, *lines[:3]), of=20)
    assert found["success"] == pytest.approx(0.8) and found["success_paper"] == 1
    # The bootstrap of 8 of 10 is binomial: its 2.5 and 97.5 % points are 5 and 10 of 10.
    assert (found["success_low"], found["success_high"]) == (pytest.approx(0.5), pytest.approx(1.0))
    assert (found["targets"], found["of"], found["n"]) == (10, 20, 13)


def test_fluency_is_drawn_anew_by_targets_or_else_by_texts(tmp_path: Path) -> None:
    two = [{"target": target, "nats": nats} for target, nats in (("a", 2.0), ("a", 2.0), ("b", 6.0), ("b", 6.0))]
    found = row(frame(tmp_path / "two", *two), human_nats=1.5)
    assert (found["nats_low"], found["nats_high"]) == (pytest.approx(1.0), pytest.approx(3.0))
    assert found["against_human"] == pytest.approx(0.5)
    free = row(frame(tmp_path / "free", *[{"nats": 2.0}] * 50, *[{"nats": 12.0, "tokens": 4}] * 50))
    assert free["nats"] == pytest.approx(14 / 6) and free["nats_low"] < free["nats"] < free["nats_high"] < 3
    assert row(frame(tmp_path / "one", {}))["nats_low"] is None


def test_each_of_several_controls_has_an_interval(tmp_path: Path) -> None:
    lines = [{"target": str(i), "success": 0.0, "parts": {"pos": 1.0, "attribute": float(i)}} for i in range(2)]
    found = row(frame(tmp_path, *({**line, "task": "pos+attribute"} for line in lines)))
    assert found["parts"] == {"pos": 1.0, "attribute": 0.5}
    assert found["parts_low"] == {"pos": 1.0, "attribute": 0.0} and found["parts_high"] == {
        "pos": 1.0,
        "attribute": 1.0,
    }


def test_notes_are_short_and_what_holds_for_several_rows_is_said_once(tmp_path: Path) -> None:
    human, tree = [{"task": "human"}] * 3, f"1: (S {'(NP (DT _) (NN _)) ' * 9})"
    asked = [{"task": task, "target": tree, "success": 0.5} for task in ("tree", "span")]
    texts, context = frame(tmp_path, *human, *asked), Context(targets={"tree": {"of": 1}, "span": {"of": 1}})
    said = list(scores.notes(table(texts, context), scores.scores_by_target(texts), context))
    assert [note for note in said if "self-BLEU" in note] == [
        "Distinct counts and self-BLEU are of 3 texts of human (dev), as written, but of other numbers of tree: 1; span: 1: do "
        "not compare them."
    ]
    assert next(note for note in said if "lowest" in note).endswith(f"lowest: {tree[:60]}… 50%.")


def test_a_metric_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lm.evaluation.scores.METRICS", METRICS.copy())

    @metric("letters", "{:.1f}")
    def letters(rows: pd.DataFrame, context: Context) -> float:
        return float(rows["text"].str.len().mean())

    found = table(frame(tmp_path, {}, {"text": "A bar .."}), Context(targets={"pos": {"of": 1}}))
    assert found["letters"].iloc[0] == 7
    stream = io.StringIO()
    print_table(Console(file=stream, width=200), found, "Title")
    shown = stream.getvalue()
    assert "Title" in shown and "letters" in shown and "7.0" in shown and "success" not in shown


def test_texts_are_read_whatever_happened_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    whole = frame(tmp_path, {"text": "a\u2028b"}, {})
    with path.open("a") as file:
        file.write(json.dumps(LINE) + "\n" + json.dumps(LINE)[:30])  # the first again, and a line that was cut short
    pd.testing.assert_frame_equal(read_texts(tmp_path), whole)
    assert whole["text"][0] == "a\u2028b"


@pytest.mark.parametrize("line", ["{", "[" * 100_000, "[]", "{}", json.dumps(LINE | {"nats": "2"})])
def test_a_line_that_is_no_text_is_named(tmp_path: Path, line: str) -> None:
    frame(tmp_path, {})
    with (tmp_path / "texts.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match="Line 2 of"):
        read_texts(tmp_path)


def test_a_folder_without_texts_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"texts\.jsonl"):
        read_texts(tmp_path)
