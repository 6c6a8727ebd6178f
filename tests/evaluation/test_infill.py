"""The infilling task: its files, what is scored of a text, and a whole evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control import Infill
from diffusion_lm.evaluation.pretrained import SentenceEncoder
from diffusion_lm.evaluation.run import evaluate, infill_scores
from diffusion_lm.evaluation.scores import Sample
from diffusion_lm.evaluation.targets import InfillTarget, read_infill_targets
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.text.spacing import words_of
from diffusion_lm.text.tokenizer import build_word_tokenizer

GAP = {"left": "Pavo is", "right": "Thai food.", "references": ["a pub. It serves", "cheap. It serves"]}


def lengths(texts: Sequence[str]) -> list[Tensor]:
    """A stand-in for the encoder: all words are alike."""
    return [torch.ones(len(words_of(text)), 1) for text in texts]


def write(path: Path, *records: Any) -> str:
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return str(path)


def samples(*texts: str) -> list[Sample]:
    return [SimpleNamespace(text=text) for text in texts]  # type: ignore[misc]


def test_lines_and_anlg_s_object_are_read_alike(tmp_path: Path) -> None:
    anlg = {"obs1": GAP["left"], "obs2": GAP["right"], "gold_labels": GAP["references"]}
    lines = read_infill_targets(write(tmp_path / "lines.jsonl", GAP, anlg))
    assert lines == [
        InfillTarget(line, "Pavo is", "Thai food.", ("a pub. It serves", "cheap. It serves")) for line in (1, 2)
    ]
    assert read_infill_targets(write(tmp_path / "dev.json", {"a-1": anlg, "b-1": anlg})) == lines
    assert read_infill_targets(write(tmp_path / "one.jsonl", {**GAP, "words_": ["Pavo", "is"]}))[0].words
    assert str(lines[1]) == "2: Pavo is ___ Thai food."


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        ({**GAP, "left": " ", "right": ""}, "no text under the keys left and right"),
        ({**GAP, "right": "a ___ b"}, "stands for the gap"),
        ({**GAP, "references": []}, "is empty"),
        ({**GAP, "references": "x"}, "no list of texts under the key references"),
        ({"obs1": "x", "obs2": "y"}, "no list of texts under the key gold_labels"),
        ({"text": "x"}, "no text under the keys left and right"),
    ],
)
def test_a_bad_target_is_one_sentence(tmp_path: Path, record: dict[str, Any], wrong: str) -> None:
    with pytest.raises(UserError, match=f"Line 2 .* is no target .*{wrong}"):
        read_infill_targets(write(tmp_path / "lines.jsonl", GAP, record))
    with pytest.raises(UserError, match=f"Entry 2 .* is no target .*{wrong}"):
        read_infill_targets(write(tmp_path / "dev.json", {"a": GAP, "b": record}))


def test_a_file_without_targets_is_one_sentence(tmp_path: Path) -> None:
    for path in (write(tmp_path / "empty.jsonl"), write(tmp_path / "object.json", {})):
        with pytest.raises(UserError, match="no target"):
            read_infill_targets(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_infill_targets(tmp_path / "absent")


def test_the_paper_s_targets_are_read(shared_data: Path) -> None:
    targets = read_infill_targets(shared_data / "anlg" / "dev.json")
    assert len(targets) == 1780 and targets[0].left == "Stephen was at a party."


@pytest.mark.parametrize("middle", ["a pub. It serves", "cheap, child-friendly -", "'", ""])
def test_the_middle_is_what_stands_between(middle: str) -> None:
    target = InfillTarget(1, "Pavo (the pub), is", '"good" at £20.', ("x",))
    assert target.middle(f"{target.left} {middle} {target.right}").split() == middle.split()
    one_side = InfillTarget(1, "", "Thai food.", ("x",))
    assert one_side.template == "___ Thai food." and one_side.middle("It serves Thai food.") == "It serves"


def test_unknown_words_of_the_context_are_unk_and_may_stand_in_an_infill() -> None:
    tokenizer = build_word_tokenizer(["Pavo is a pub. It serves Thai food."], min_count=1)
    target = InfillTarget(1, "Zebra is", "Thai food.", ("a pub. It serves",), ("Zebra", "is"))
    known = target.known_to(tokenizer)
    assert (known.left, known.right, known.words) == ("UNK is", "Thai food.", ())
    assert known.middle("UNK is a pub. It serves Thai food.") == "a pub. It serves"
    assert known.known_to(tokenizer) == known
    lm: Any = SimpleNamespace(config=SimpleNamespace(layout="exact"), tokenizer=tokenizer, vocab_size=9)
    bound = Infill(known.template).bind(lm)
    assert bound.success(["UNK is a pub near Thai food.", "Pavo is a pub near Thai food."]).tolist() == [1, 0]
    with pytest.raises(UserError, match="'Zebra' in the infill"):
        Infill(target.template).bind(lm)


def test_figures_are_of_the_gaps_and_by_least_risk() -> None:
    pytest.importorskip("pycocoevalcap")
    asked = {
        "a": InfillTarget(1, "Ann was late.", "She missed it.", ("She ran to the bus.", "She ran for the train.")),
        "b": InfillTarget(2, "It rained.", "They were wet.", ("We forgot the big umbrella.",)),
    }
    groups = {
        "a": samples(
            "Ann was late. The dog barks. She missed it.",
            "Ann was late. She ran to the bus. She missed it.",
            "Ann was late. She ran to a bus. She missed it.",
        ),
        "b": samples(*["It rained. We forgot the big umbrella. They were wet."] * 3),
    }
    scores = infill_scores(groups, asked, lengths)
    assert scores["mbr"].bleu_4 == pytest.approx(100) and scores["mbr"].n == 2
    assert 0 < scores["sample"].bleu_4 < 100 and scores["sample"].n == 2
    assert scores["human"].n == 1 and 0 < scores["human"].rouge_l < 100
    only = {"b": asked["b"]}
    assert set(infill_scores({"b": groups["b"][:1]}, only, lengths)) == {"mbr", "sample"}


def test_an_evaluation_scores_the_gaps(config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr("diffusion_lm.evaluation.run.require", lambda *modules: None)
    stand_in = SimpleNamespace(tokens=lengths)
    monkeypatch.setattr(SentenceEncoder, "from_package", lambda device: stand_in)
    targets = write(tmp_path / "gaps.jsonl", GAP, {**GAP, "left": "Zebra is"})
    config = replace(config, tasks=["infill"], infill_targets=targets)
    row = evaluate(config)[-1]
    assert (row.name, row.success, row.success_paper) == ("infill (2 targets x 3)", 1.0, None)
    summary = json.loads(Path(config.out, "summary.json").read_text(encoding="utf-8"))
    assert set(summary["references"]["infill"]) == {"mbr", "sample", "human"}
    assert set(summary["references"]["infill"]["mbr"]) == {"bleu_4", "rouge_l", "cider", "bert_score", "n"}
    assert [t["target"] for t in summary["targets"]["infill"]] == [
        "1: Pavo is ___ Thai food.",
        "2: UNK is ___ Thai food.",
    ]
    assert any("BLEU-4" in note and "mbr" in note and "(2 texts)" in note for note in summary["notes"])


def test_what_is_missing_is_said_before_anything_is_written(
    config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_lm.evaluation.pretrained.find_spec", lambda name: None)
    for wanting in (replace(config, tasks=["infill"]), replace(config, outside=True)):
        with pytest.raises(UserError, match="run: make metrics"):
            evaluate(wanting)
    assert not Path(config.out).exists()
