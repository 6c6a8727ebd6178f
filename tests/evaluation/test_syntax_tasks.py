"""Tasks whose targets were taken from sentences: tags, trees, spans, gaps, and several controls at once."""

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
from diffusion_lm.evaluation.pretrained import SentenceEncoder
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.scores import read_run, read_texts
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.model.causal import JudgeConfig, JudgeLM
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.spacing import words_of
from diffusion_lm.text.tokenizer import build_word_tokenizer

TEXTS = ["The Punter is a cheap pub.", "Zizzi serves Italian food."]
WORDS = ["START", "The", "Punter", "is", "a", "cheap", "pub", ".", "\n", "END"]
TAGS = ["START", "DET", "PROPN", "AUX", "DET", "ADJ", "NOUN", "PUNCT", "PUNCT", "END"]
LINE = {"words_": WORDS, "pos": TAGS, "spans": [[0, 1, "NP"]], "attr": ["food", ":", "French"]}
TASKS = ["pos", "tree", "span", "pos+attribute", "tree+attribute"]
GAP = {"left": "Pavo is", "right": "Thai food.", "references": ["a pub. It serves", "cheap. It serves"]}


@pytest.fixture
def bundled(tmp_path: Path) -> EvaluateConfig:
    """The bundled model on a corpus of two sentences, with a tiny random judge."""
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text("\n".join(TEXTS), encoding="utf-8")
    tokenizer = build_word_tokenizer(TEXTS, min_count=1)
    judge = JudgeConfig(tokenizer.vocab_size, width=8, layers=1, heads=2, max_length=64)
    JudgeLM(judge, tokenizer).save_pretrained(tmp_path / "judge")
    targets = tmp_path / "targets.jsonl"
    targets.write_text(json.dumps(LINE) + "\n", encoding="utf-8")
    return EvaluateConfig(
        judge=str(tmp_path / "judge"),
        corpus=CorpusConfig(str(tmp_path)),
        targets=dict.fromkeys(TASKS, str(targets)),
        n=4,
        samples_per_target=4,
        steps=8,
        device="cpu",
        attribute_by="words",
        out=str(tmp_path / "out"),
    )


def test_every_syntax_task_is_scored_beside_the_sentences_that_it_came_from(bundled: EvaluateConfig) -> None:
    rows = evaluate(replace(bundled, tasks=TASKS))[3:]
    assert list(rows["name"]) == TASKS
    assert (rows["success"] > 0.4).all() and (rows["passes"] == 8).all()
    frame, run = read_texts(bundled.out), read_run(bundled.out)
    both = frame.loc[frame["task"] == "tree+attribute", "parts"]
    assert all(set(parts) == {"tree", "attribute"} and parts["attribute"] == 1 for parts in both)
    assert {found["found"] for found in run["originals"].values()} == {1} and set(run["originals"]) == set(TASKS)
    assert sum("; 1 of them stand in the training split" in note for note in run["notes"]) == len(TASKS)
    assert sum("attribute by itself 100.0%" in note for note in run["notes"]) == 2


def test_the_gradient_of_the_classifiers_is_the_papers_way(bundled: EvaluateConfig) -> None:
    config = replace(bundled, syntax_by="classifier", attribute_by="classifier", guidance="paper", steps=4)
    rows = evaluate(replace(config, tasks=["pos", "tree", "span"], samples_per_target=2))[3:]
    # Three inner updates at each of the three steps that another one follows.
    assert list(rows["passes"]) == [4 + 9] * 3
    assert "InnerLoop" in read_run(bundled.out)["decoding"]["pos"]


def test_a_gap_is_scored_against_what_people_wrote(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alike(texts: Sequence[str]) -> list[Tensor]:
        return [torch.ones(len(words_of(text)), 1) for text in texts]

    monkeypatch.setattr("diffusion_lm.evaluation.run.require", lambda *modules: None)
    monkeypatch.setattr(SentenceEncoder, "from_package", lambda device: SimpleNamespace(tokens=alike))
    path = tmp_path / "gaps.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in (GAP, GAP | {"left": "Zebra is"})))
    row = evaluate(replace(config, tasks=["infill"], targets={"infill": str(path)})).iloc[-1]
    assert row["name"] == "infill (2 targets x 3)" and row["success"] == 1 and row["success_paper"] is None
    run, frame = read_run(config.out), read_texts(config.out)
    assert set(run["references"]["infill"]) == {"mbr", "sample", "human"}
    assert set(run["references"]["infill"]["mbr"]) == {"bleu_4", "rouge_l", "cider", "bert_score", "n"}
    assert set(frame.loc[frame["task"] == "infill", "target"]) == {
        "1: Pavo is ___ Thai food.", "2: UNK is ___ Thai food.",
    }  # fmt: skip
    assert sum("of 2 texts against the references" in note for note in run["notes"]) == 3
    assert sum("BLEU-4 7.1" in note for note in run["notes"]) == 1


def test_what_is_missing_is_said_before_anything_is_written(
    config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_lm.evaluation.pretrained.find_spec", lambda name: None)
    path = tmp_path / "gaps.jsonl"
    path.write_text(json.dumps(GAP))
    wanting: list[dict[str, Any]] = [{"tasks": ["infill"], "targets": {"infill": str(path)}}, {"outside": True}]
    for change in wanting:
        with pytest.raises(UserError, match="run: make metrics"):
            evaluate(replace(config, **change))
    assert not Path(config.out).exists()
