from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from diffusion_lm.common import UserError
from diffusion_lm.control.attribute import AttributeModel
from diffusion_lm.control.guidance import InnerLoop, Pull
from diffusion_lm.diffusion.clamp import SampledClamp, SoftClamp
from diffusion_lm.evaluation.run import IN_VOCABULARY, evaluate
from diffusion_lm.evaluation.scores import Row, copied, success_of
from diffusion_lm.evaluation.systems import reservoir, spread, target_seed
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Generation
from diffusion_lm.generation.settings import clamp_of, guidance_of
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, fluency
from diffusion_lm.text.spacing import words_of


def read(config: EvaluateConfig) -> list[dict[str, Any]]:
    lines = Path(config.out, "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


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


def test_every_task_has_its_row_beside_human_text_and_the_judge(config: EvaluateConfig) -> None:
    rows = evaluate(replace(config, tasks=["unconditional", "attribute", "length"]))
    assert [row.name for row in rows] == [
        "human (dev), as written",
        IN_VOCABULARY,
        "judge's own samples",
        "unconditional",
        "attribute (4 targets x 3)",
        "length (3 targets x 3)",
    ]
    assert [row.n for row in rows] == [4, 4, 4, 4, 12, 9]
    assert all(row.nats_per_token and row.human_nats_per_token == rows[0].nats_per_token for row in rows)
    assert rows[0].against_human == pytest.approx(0) and rows[0].verbatim == 0
    assert [row.success is None for row in rows] == [True, True, True, True, False, False]
    assert rows[5].success == 1  # the canvas makes a length exact
    assert [row.evaluations for row in rows[3:]] == [
        3,
        9,
        3,
    ]  # three classifier passes after each denoiser pass but the last
    assert all(row.seconds and row.seconds > 0 for row in rows[2:])


def test_words_that_the_model_lacks_are_one_word_in_one_human_row_and_themselves_in_the_other(
    config: EvaluateConfig, parts: Path
) -> None:
    rows = by_name(evaluate(config))
    human = (parts / "corpus" / "valid.txt").read_text(encoding="utf-8").splitlines()
    raw = {word for text in human for word in words_of(text)}
    assert {"Zebra", "in", "Oslo"} <= raw
    assert rows["human (dev), as written"].distinct_1 == len(raw)
    assert rows[IN_VOCABULARY].distinct_1 == len(raw) - 3 + 1
    # Judged by the same vocabulary, UNK is UNK.
    assert rows[IN_VOCABULARY].nats_per_token == pytest.approx(
        fluency(JudgeLM.from_pretrained(parts / "judge"), human).nats_per_token
    )


def test_a_line_of_the_results_holds_all_that_is_known_of_a_text(config: EvaluateConfig, parts: Path) -> None:
    evaluate(replace(config, tasks=["length"]))
    records = [r for r in read(config) if r["task"] == "length"]
    assert [(r["target"], r["index"]) for r in records] == [(t, i) for t in "345" for i in range(3)]
    assert len({record["config"] for record in records}) == 1
    judge = JudgeLM.from_pretrained(parts / "judge")
    for record in records:
        score = fluency(judge, [record["text"]])
        assert record["nats"] / record["tokens"] == pytest.approx(score.nats_per_token, rel=1e-5)
        assert record["success"] == 1 and record["seconds"] > 0 and record["network_evaluations"] == 3


def test_the_recorded_seed_writes_the_text_again(config: EvaluateConfig) -> None:
    evaluate(config)
    records = [r for r in read(config) if r["task"] == "unconditional"]
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    texts = lm.generate(4, steps=3, seed=records[0]["seed"]).texts
    assert [record["text"] for record in records] == texts


def test_what_is_done_is_not_done_again(config: EvaluateConfig, calls: list[str]) -> None:
    config = replace(config, tasks=["length"])
    first, before = evaluate(config), read(config)
    assert calls == ["length=3", "length=4", "length=5"]
    assert evaluate(config) == first and len(calls) == 3
    # One text of length=4 and all of length=5 are lost, the last in the middle of its line.
    path = Path(config.out, "results.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-4]) + lines[-4][:20], encoding="utf-8")
    evaluate(config)
    assert calls[3:] == ["length=4", "length=5"]
    after = read(config)
    assert [{**r, "seconds": 0} for r in after] == [{**r, "seconds": 0} for r in before]
    # More targets and other tasks join what is there.
    evaluate(replace(config, tasks=["length", "unconditional"], lengths=(3, 6)))
    assert calls[5:] == ["length=6", ""]


@pytest.mark.parametrize("change", [{"steps": 4}, {"seed": 1}, {"n": 3}, {"clamp": "hard"}])
def test_a_folder_with_other_settings_is_refused(config: EvaluateConfig, change: dict[str, Any]) -> None:
    evaluate(config)
    with pytest.raises(UserError, match="other settings"):
        evaluate(replace(config, **change))


def test_another_model_under_the_same_name_is_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    config = replace(config, model=str(tmp_path / "lm"))
    lm.save_pretrained(config.model)
    evaluate(config)
    with torch.no_grad():
        lm.transformer.get_parameter(next(iter(dict(lm.transformer.named_parameters())))).add_(1)
    lm.save_pretrained(config.model)
    with pytest.raises(UserError, match="another model"):
        evaluate(config)


def test_only_a_task_with_a_classifier_minds_another_classifier(config: EvaluateConfig, tmp_path: Path) -> None:
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    config = replace(config, model=str(tmp_path / "lm"))
    lm.save_pretrained(config.model)
    for seed in (1, 2):
        torch.manual_seed(seed)
        other = AttributeModel(lm.attribute_model().config)
        other.save_pretrained(Path(config.model, "controls", "attribute"))
        evaluate(config)
        if seed == 1:
            evaluate(replace(config, tasks=["attribute"]))
    with pytest.raises(UserError, match="other settings"):
        evaluate(replace(config, tasks=["attribute"]))


def test_a_damaged_line_is_named(config: EvaluateConfig) -> None:
    evaluate(config)
    path = Path(config.out, "results.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], '{"text": 1}\n', *lines[2:]]), encoding="utf-8")
    with pytest.raises(UserError, match=r"Line 2 of .*results\.jsonl"):
        evaluate(config)


def test_a_limit_is_spread_over_the_targets_and_said(config: EvaluateConfig, calls: list[str]) -> None:
    out = io.StringIO()
    config = replace(config, tasks=["attribute"], limit_targets=2)
    rows = evaluate(config, Console(file=out, width=250))
    assert calls == ["food=Thai", "price=cheap"]
    assert rows[-1].name == "attribute (only 2 of 4 targets x 3)" and rows[-1].n == 6
    assert "only 2 of 4 targets were tried" in out.getvalue()


def test_the_screen_and_the_summary_say_the_same(config: EvaluateConfig) -> None:
    out = io.StringIO()
    rows = evaluate(replace(config, tasks=["attribute"]), Console(file=out, width=250))
    shown = " ".join(out.getvalue().split())
    summary = json.loads(Path(config.out, "summary.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in summary["rows"]] == [row.name for row in rows]
    assert all(" ".join(note.split()) in shown for note in summary["notes"])
    assert [score["target"] for score in summary["targets"]["attribute"]] == [
        "food=Thai", "food=Fast food", "price=cheap", "price=£20-25",
    ]  # fmt: skip
    row = summary["rows"][-1]
    low, high = row["success_interval"]
    assert low <= row["success"] <= high
    assert row["diversity_n"] == 4 and "random 4 of its 12 texts" in shown
    assert summary["config"]["steps"] == 3 and "95 % interval" in shown
    assert row["against_human"] == pytest.approx(row["nats_per_token"] - row["human_nats_per_token"])


def test_targets_come_from_the_file(config: EvaluateConfig, tmp_path: Path, calls: list[str]) -> None:
    path = tmp_path / "targets.jsonl"
    path.write_text('["price", ":", "£", "20", "-", "25"]\n', encoding="utf-8")
    evaluate(replace(config, tasks=["attribute"], targets=str(path)))
    assert calls == ["price=£20-25"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tasks": ["unconditional", "poetry"]},
            "no task 'poetry'; the tasks are uncond",
        ),
        ({"tasks": []}, "No task is given"),
        ({"tasks": ["length"], "lengths": (3, 20)}, "length 15 is out of range"),
        ({"judge": "nowhere"}, "holds no judge"),
        ({"model": "nowhere"}, "no model 'nowhere'"),
        ({"tasks": ["attribute"], "targets": "nowhere"}, "nowhere cannot be read"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    config: EvaluateConfig, calls: list[str], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(replace(config, **change))
    assert calls == [] and not Path(config.out).exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n": 1}, "n must be at least 2"),
        ({"samples_per_target": 0}, "samples_per_target must be at least 1"),
        ({"limit_targets": 0}, "limit_targets must be"),
        ({"lengths": (5, 3)}, "shortest and the longest"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": 1.3, "clamp": "hard"}, "has no temperature"),
        ({"guidance": "paper", "guidance_rate": 2.0}, "belong to"),
    ],
)
def test_numbers_that_cannot_be_meant(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluateConfig(**values)


def test_success_is_a_mean_over_targets_with_an_interval_around_it() -> None:
    scores = [float(i < 8) for i in range(10)]
    mean, interval = success_of(scores, seed=0)
    assert mean == pytest.approx(0.8) and interval is not None
    # The bootstrap of 8 of 10 is binomial: its 2.5 and 97.5 % points are 5 and 10 of 10.
    assert interval == (pytest.approx(0.5), pytest.approx(1.0))
    assert success_of(scores[:1], seed=0) == (1.0, None)
    assert success_of([None], seed=0) == (None, None)


def test_copies_are_found_in_a_stream_whatever_their_white_space() -> None:
    assert copied(["a  b", "c"], iter(["a b", "d"])) == {"a b"}


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
    config = replace(config, judge=str(folder), tasks=["length"], lengths=(3, 3))
    rows = evaluate(config)
    # "Ida is a pub in Oslo." has seven words and marks; with START and END nine tokens.
    assert rows[0].n == 3
    assert "Left out: 1" in Path(config.out, "summary.json").read_text(encoding="utf-8")


Build = Callable[[EvaluateConfig], object]


@pytest.mark.parametrize(
    ("values", "build", "expected"),
    [
        ({}, lambda c: clamp_of(c), None),
        ({"temperature": 1.3}, lambda c: clamp_of(c), SampledClamp(temperature=1.3)),
        ({"clamp": "soft", "clamp_from": 0.5}, lambda c: clamp_of(c), SoftClamp(from_time=0.5)),
        ({}, lambda c: guidance_of(c, "attribute"), Pull()),
        ({"guidance_rate": 2.0}, lambda c: guidance_of(c, "attribute"), Pull(rate=2.0)),
    ],
)
def test_names_become_parts(values: dict[str, Any], build: Build, expected: object) -> None:
    assert build(EvaluateConfig(**values)) == expected


def test_the_papers_guidance() -> None:
    assert isinstance(guidance_of(EvaluateConfig(guidance="paper"), "length"), InnerLoop)
