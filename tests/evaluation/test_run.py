"""An evaluation through its real files: what is written, continued, refused, and what the table says."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from diffusion_lm.common import UserError
from diffusion_lm.control.attribute import AttributeModel
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.scores import COLUMNS, Context, read_run, read_texts, scores_by_target, table
from diffusion_lm.evaluation.systems import Given, reservoir, spread, target_seed
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Generation
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, fluency
from diffusion_lm.report.page import ReportConfig, make_report
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.spacing import words_of

HUMAN = ["human", "human in vocabulary", "judge"]


def read(config: EvaluateConfig, task: str) -> pd.DataFrame:
    frame = read_texts(config.out)
    return frame[frame["task"] == task]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The controls of the calls of `generate`, as they are made."""
    made: list[str] = []
    original = DiffusionLM.generate

    def generate(lm: DiffusionLM, n: int, control: Any = None, **settings: Any) -> Generation:
        made.append(str(control or ""))
        return original(lm, n, control, **settings)

    monkeypatch.setattr(DiffusionLM, "generate", generate)
    return made


def test_texts_that_were_written_elsewhere_are_scored_as_the_models_own(config: EvaluateConfig, tmp_path: Path) -> None:
    tasks = ["unconditional", "attribute", "length"]
    own = evaluate(replace(config, tasks=tasks))
    file = Path(config.out) / "texts.jsonl"
    given = replace(config, tasks=tasks, texts=str(file), out=str(tmp_path / "given"), label="theirs")
    rows = evaluate(given, writer=Given(str(file)))
    assert list(rows["system"][3:]) == ["theirs"] * 3
    for column in ("success", "nats", "n", "passes"):
        assert list(rows[column][3:].fillna(-1)) == list(own[column][3:].fillna(-1))
    assert list(rows["seconds"][3:]) == pytest.approx(list(own["seconds"][3:]))
    with pytest.raises(UserError, match="no texts of the task pos; it has those of attribute"):
        evaluate(replace(given, tasks=["pos"]), writer=Given(str(file)))
    with pytest.raises(UserError, match=r"wrote 3 texts for .*, not the 4 asked for"):
        evaluate(
            replace(given, tasks=["attribute"], samples_per_target=4, out=str(tmp_path / "more")),
            writer=Given(str(file)),
        )
    (tmp_path / "broken.jsonl").write_text('{"task": "length", "text": "A pub."}\n')
    with pytest.raises(UserError, match=r"Line 1 of .* has not task, target and text"):
        Given(str(tmp_path / "broken.jsonl"))


def test_every_task_has_its_row_beside_human_text_and_the_judge(config: EvaluateConfig) -> None:
    rows = evaluate(replace(config, tasks=["unconditional", "attribute", "length"]))
    assert list(rows["task"]) == [*HUMAN, "unconditional", "attribute", "length"]
    assert list(rows["system"]) == ["human", "human", "judge", *[config.model] * 3]
    assert list(rows["name"][3:]) == ["unconditional", "attribute (4 targets x 3)", "length (3 targets x 3)"]
    assert list(rows["n"]) == [4, 4, 4, 4, 12, 9]
    assert rows["against_human"][0] == pytest.approx(0) and rows["verbatim"][0] == 0
    assert list(rows["success"].isna()) == [True, True, True, True, False, False]
    assert rows["success"][5] == 1  # the canvas makes a length exact
    # Three classifier passes after each denoiser pass but the last.
    assert list(rows["passes"][3:]) == [3, 9, 3]
    assert (rows["seconds"][2:] > 0).all()


def test_without_a_corpus_the_judge_says_what_human_text_has(config: EvaluateConfig, tmp_path: Path) -> None:
    judge, known = JudgeLM.from_pretrained(config.judge), tmp_path / "judge"
    judge.human_nats = 1.25
    judge.save_pretrained(known)
    bare = replace(
        config, corpus=CorpusConfig(source="none"), judge=str(known), tasks=["unconditional", "length"], label="ours"
    )
    rows = evaluate(bare)
    assert list(rows["task"]) == ["judge", "unconditional", "length"] and rows["verbatim"].isna().all()
    assert list(rows["against_human"]) == pytest.approx(list(rows["nats"] - 1.25))
    assert any("1.250 nats" in note for note in read_run(bare.out)["notes"])
    written = make_report(ReportConfig(runs=[bare.out], out=str(tmp_path / "report")))[-1].read_text(encoding="utf-8")
    assert f"| length | ours | {rows['nats'].iloc[-1]:.3f} |" in written
    with pytest.raises(UserError, match="needs a corpus"):
        evaluate(replace(bare, tasks=["data2text"]))
    with pytest.raises(UserError, match="say where it is"):
        replace(bare, outside=True)


def test_a_quick_evaluation_takes_less_and_flags_beat_it() -> None:
    quick = EvaluateConfig(quick=True, samples_per_target=7)
    found = quick.tasks, quick.attribute_by, quick.n, quick.samples_per_target, quick.limit_targets
    assert found == (["unconditional", "attribute", "length"], "words", 200, 7, 10)


def test_the_files_say_all_that_the_table_says(config: EvaluateConfig) -> None:
    """The seam between evaluation and report: texts.jsonl and run.json alone give the table again."""
    config = replace(config, tasks=["attribute", "length"], label="ours")
    rows = evaluate(config)
    frame, run = read_texts(config.out), read_run(config.out)
    assert list(frame.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(table(frame, Context.of(run)), rows)
    assert run["system"] == "ours" and set(frame["system"]) == {"human", "judge", "ours"}
    assert run["targets"] == {"attribute": {"of": 4, "tried": 4}, "length": {"of": 3, "tried": 3}}
    assert f"torch {torch.__version__}" in run["hardware"][0] and len(run["hardware"]) == 1
    assert run["config"]["steps"] == 3 and run["decoding"]["length"].startswith("3 steps")
    low, high = rows[["success_low", "success_high"]].iloc[-2]
    assert low <= rows["success"].iloc[-2] <= high
    by_target = scores_by_target(frame)
    assert list(by_target.loc[by_target["task"] == "attribute", "target"]) == [
        "food=Thai", "food=Fast food", "price=cheap", "price=£20-25",
    ]  # fmt: skip
    assert by_target.loc[by_target["task"] == "attribute", "success"].mean() == pytest.approx(rows["success"].iloc[-2])
    pages = make_report(ReportConfig(runs=[config.out], out=str(Path(config.out).parent / "report")))
    written = pages[-1].read_text(encoding="utf-8")
    assert f"| length | ours | {rows['nats'].iloc[-1]:.3f} |" in written


def test_words_that_the_model_lacks_are_one_word_in_one_human_row_and_themselves_in_the_other(
    config: EvaluateConfig, parts: Path
) -> None:
    rows = evaluate(config).set_index("task")
    human = (parts / "corpus" / "valid.txt").read_text(encoding="utf-8").splitlines()
    raw = {word for text in human for word in words_of(text)}
    assert {"Zebra", "in", "Oslo"} <= raw
    assert list(rows["distinct_1"][:2]) == [len(raw), len(raw) - 3 + 1]
    # Judged by the same vocabulary, UNK is UNK.
    known = fluency(JudgeLM.from_pretrained(parts / "judge"), human)
    assert list(rows["nats"][:2]) == [pytest.approx(known)] * 2


def test_a_line_holds_all_that_is_known_of_a_text(config: EvaluateConfig, parts: Path) -> None:
    evaluate(replace(config, tasks=["length"]))
    found = read(config, "length")
    names = ["1: 3", "2: 4", "3: 5"]
    assert list(zip(found["target"], found["index"], strict=True)) == [(name, i) for name in names for i in range(3)]
    assert found["config"].nunique() == 1
    judge = JudgeLM.from_pretrained(parts / "judge")
    for row in found.to_dict("records"):
        assert row["nats"] / row["tokens"] == pytest.approx(fluency(judge, [row["text"]]), rel=1e-5)
        assert row["success"] == 1 and row["seconds"] > 0 and row["passes"] == 3 and row["copied"] is False
        assert row["paper_success"] == {"length": 1.0} and row["parts"] == {}


def test_the_recorded_seed_writes_the_text_again(config: EvaluateConfig) -> None:
    evaluate(config)
    found = read(config, "unconditional")
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    assert list(found["text"]) == lm.generate(4, steps=3, seed=int(found["seed"].iloc[0])).texts


def test_what_is_done_is_not_done_again(config: EvaluateConfig, calls: list[str]) -> None:
    config = replace(config, tasks=["length"])
    first, before = evaluate(config), read_texts(config.out)
    assert calls == ["length=3", "length=4", "length=5"]
    pd.testing.assert_frame_equal(evaluate(config), first)
    assert len(calls) == 3
    # One text of length=4 and all of length=5 are lost, the last in the middle of its line.
    path = Path(config.out, "texts.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-4]) + lines[-4][:20], encoding="utf-8")
    evaluate(config)
    assert calls[3:] == ["length=4", "length=5"]
    pd.testing.assert_frame_equal(read_texts(config.out).drop(columns="seconds"), before.drop(columns="seconds"))
    # Other tasks join what is there.
    rows = evaluate(replace(config, tasks=["unconditional"]))
    assert calls[5:] == [""] and list(rows["task"]) == [*HUMAN, "length", "unconditional"]
    assert set(read_run(config.out)["targets"]) == {"length", "unconditional"}


def test_a_limit_is_raised_and_other_targets_are_refused(config: EvaluateConfig, calls: list[str]) -> None:
    config = replace(config, tasks=["length"])
    evaluate(replace(config, limit_targets=1))
    evaluate(config)
    assert calls == ["length=3", "length=4", "length=5"]
    Path(config.targets["length"]).write_text('{"length": 6}\n')
    with pytest.raises(UserError, match="other settings or targets"):
        evaluate(config)


@pytest.mark.parametrize("change", [{"steps": 4}, {"seed": 1}, {"n": 3}, {"clamp": "hard"}, {"label": "other"}])
def test_a_folder_with_other_settings_is_refused(config: EvaluateConfig, change: dict[str, Any]) -> None:
    evaluate(config)
    with pytest.raises(UserError, match="give --out another folder"):
        evaluate(replace(config, **change))


def test_another_model_under_the_same_name_is_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    config = replace(config, model=str(tmp_path / "lm"))
    lm.save_pretrained(config.model)
    evaluate(config)
    with torch.no_grad():
        next(lm.denoiser.parameters()).add_(1)
    lm.save_pretrained(config.model)
    with pytest.raises(UserError, match="another model"):
        evaluate(config)


def test_only_a_task_with_a_classifier_minds_another_classifier(config: EvaluateConfig, tmp_path: Path) -> None:
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    config = replace(config, model=str(tmp_path / "lm"))
    lm.save_pretrained(config.model)
    for seed in (1, 2):
        torch.manual_seed(seed)
        other = AttributeModel(lm.asset(AttributeModel).config)
        other.save_pretrained(Path(config.model, "controls", "attribute"))
        evaluate(config)
        if seed == 1:
            evaluate(replace(config, tasks=["attribute"]))
    with pytest.raises(UserError, match="other settings"):
        evaluate(replace(config, tasks=["attribute"]))


def test_a_damaged_line_is_named(config: EvaluateConfig) -> None:
    evaluate(config)
    path = Path(config.out, "texts.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], '{"text": 1}\n', *lines[2:]]), encoding="utf-8")
    with pytest.raises(UserError, match=r"Line 2 of .*texts\.jsonl"):
        evaluate(config)


def test_a_limit_is_spread_over_the_targets_and_said(config: EvaluateConfig, calls: list[str]) -> None:
    out = io.StringIO()
    rows = evaluate(replace(config, tasks=["attribute"], limit_targets=2), Console(file=out, width=250))
    assert calls == ["food=Thai", "price=cheap"]
    assert rows["name"].iloc[-1] == "attribute (only 2 of 4 targets x 3)" and rows["n"].iloc[-1] == 6
    shown = " ".join(out.getvalue().split())
    assert (
        "only 2 of 4 targets were tried" in shown
        and "95 % interval" in shown
        and "random 4 texts of a row that has more" in shown
    )
    assert all(" ".join(note.split()) in shown for note in read_run(config.out)["notes"])
    assert "attribute: 3 steps" in shown


def test_targets_come_from_the_file(config: EvaluateConfig, tmp_path: Path, calls: list[str]) -> None:
    path = tmp_path / "targets.jsonl"
    path.write_text('["price", ":", "£", "20", "-", "25"]\n', encoding="utf-8")
    evaluate(replace(config, tasks=["attribute"], targets={"attribute": str(path)}))
    assert calls == ["price=£20-25"]


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        ({"tasks": ["unconditional", "poetry"]}, "poetry"),
        ({"tasks": ["length+length"]}, "length"),
        ({"tasks": ["keyword"]}, "keyword"),
        ({"targets": {"poetry": "x"}}, "poetry"),
        ({"tasks": []}, "No task"),
        ({"tasks": ["length"], "targets": {}}, "15"),
        ({"tasks": ["pos"]}, "--targets.pos FILE"),
        ({"tasks": ["length+attribute"]}, "--targets.length.attribute FILE"),
        ({"judge": "nowhere"}, "nowhere"),
        ({"model": "nowhere"}, "nowhere"),
        ({"tasks": ["attribute"], "targets": {"attribute": "nowhere"}}, "nowhere"),
        ({"tasks": ["attribute"], "targets": {"attribute": "no\0where"}}, "where"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    config: EvaluateConfig, calls: list[str], change: dict[str, Any], odd: str
) -> None:
    with pytest.raises(UserError, match=odd):
        evaluate(replace(config, **change))
    assert calls == [] and not Path(config.out).exists()


@pytest.mark.parametrize(
    "values", [{"n": 1}, {"samples_per_target": 0}, {"limit_targets": 0}, {"baseline_beams": 2}, {"out": __file__}]
)
def test_numbers_that_cannot_be_meant(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=str(next(iter(values)))[:3]):
        EvaluateConfig(**values)


def test_the_seed_of_a_target_depends_on_nothing_beside_it() -> None:
    seeds = [target_seed(0, "length", str(i)) for i in range(50)]
    assert len(set(seeds)) == 50 and target_seed(0, "length", "7") == seeds[7]
    assert target_seed(1, "length", "7") != seeds[7] != target_seed(0, "attribute", "7")


def test_a_limit_keeps_even_distances() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(3), None) == spread(range(3), 5) == [0, 1, 2]


def test_the_reservoir_is_seeded_and_fair() -> None:
    texts = [str(i) for i in range(20)]
    assert reservoir(texts, 5, 0) == reservoir(texts, 5, 0) != reservoir(texts, 5, 1)
    assert reservoir(texts[:3], 5, 0) == texts[:3]
    counts = torch.zeros(20)
    for seed in range(2000):
        counts[[int(text) for text in reservoir(texts, 5, seed)]] += 1
    assert (counts / 2000 - 0.25).abs().max() < 0.04  # four standard deviations


def test_human_sentences_that_the_judge_cannot_read_are_counted(config: EvaluateConfig, parts: Path) -> None:
    tokenizer = JudgeLM.from_pretrained(parts / "judge").tokenizer
    short = JudgeLM(JudgeConfig(tokenizer.vocab_size, width=8, layers=1, heads=2, max_length=8), tokenizer)
    folder = Path(config.out).parent / "judge"
    short.save_pretrained(folder)
    rows = evaluate(replace(config, judge=str(folder), tasks=["length"], limit_targets=1))
    # "Ida is a pub in Oslo." has seven words and marks; with START and END nine tokens.
    assert rows["n"][0] == 3 and read_run(config.out)["left_out"] == 1
