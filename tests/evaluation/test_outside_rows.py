"""Rows measured from outside, with stand-ins for the pretrained models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_lm.evaluation.pretrained import OutsideJudge, SentenceEncoder
from diffusion_lm.evaluation.run import OutsideRows, evaluate
from diffusion_lm.evaluation.scores import EvaluationRow, some_of
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.text.corpus import CorpusConfig, open_corpus


class FirstLetter:
    """A stand-in for the encoder: texts that begin alike point the same way."""

    def sentences(self, texts: Sequence[str]) -> Tensor:
        return torch.eye(26)[[ord(text[:1].lower() or "a") - ord("a") for text in texts]]


class Letters:
    """A stand-in for the outside judge: a nat a letter, a token a word."""

    def score(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.tensor([float(len(t)) for t in texts]), torch.tensor([len(t.split()) for t in texts])


@pytest.fixture
def outside(tmp_path: Path) -> OutsideRows:
    pytest.importorskip("sklearn")
    (tmp_path / "train.txt").write_text("\n".join(f"train {i}" for i in range(90)))
    (tmp_path / "valid.txt").write_text("\n".join(f"dev {i}" for i in range(60)))
    corpus = open_corpus(CorpusConfig(str(tmp_path)))
    human = [f"dev {i}" for i in range(30)]
    return OutsideRows(corpus, human, Letters(), FirstLetter(), n=5, seed=0)  # type: ignore[arg-type]


def test_mauve_is_against_dev_and_train(outside: OutsideRows) -> None:
    names = ("human", "judge", "unconditional", "length", "human in vocabulary")
    rows = [EvaluationRow(name=name, task=name) for name in names]
    rows[3] = replace(rows[3], success=1.0)
    texts = {
        "human": [f"dev {i}" for i in range(30)],
        "judge": ["to be"] * 30,
        "unconditional": [*["d d"] * 15, *["t t"] * 15],
        "length": ["dd"] * 3,
    }
    human, judge, free, length, skipped = outside.rows(rows, texts)
    assert human.mauve == pytest.approx(1) and human.mauve_train is not None and human.mauve_train < 0.01
    assert judge.mauve is not None and judge.mauve < 0.01 and judge.mauve_train == pytest.approx(1)
    assert free.mauve == pytest.approx(free.mauve_train) and 0.1 < (free.mauve or 0) < 0.95
    assert (length.mauve, length.mauve_train, length.outside_nats, length.outside_n) == (None, None, 2, 3)
    assert (judge.outside_nats, judge.outside_n) == (2.5, 5)
    assert skipped == rows[4]
    assert "it is 1.000" in outside.remark()


def test_too_few_other_texts_give_no_ceiling(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "train.txt").write_text("\n".join(f"train {i}" for i in range(90)))
    (tmp_path / "valid.txt").write_text("\n".join(f"dev {i}" for i in range(59)))
    human = [f"dev {i}" for i in range(30)]
    corpus = open_corpus(CorpusConfig(str(tmp_path)))
    outside = OutsideRows(corpus, human, Letters(), FirstLetter(), n=5, seed=0)  # type: ignore[arg-type]
    (row,) = outside.rows([EvaluationRow(name="human", task="human")], {"human": human})
    assert row.mauve is None and row.mauve_train is not None


def test_some_texts_are_a_seeded_choice_in_their_order() -> None:
    texts = [str(i) for i in range(50)]
    assert some_of(texts, 50, 0) == texts
    assert some_of(texts, 5, 1) == some_of(texts, 5, 1) != some_of(texts, 5, 2)
    assert list(map(int, some_of(texts, 5, 1))) == sorted(map(int, some_of(texts, 5, 1)))


def test_an_evaluation_is_measured_from_outside(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("diffusion_lm.evaluation.run.require", lambda *modules: None)
    stand_ins: dict[Any, Any] = {SentenceEncoder: FirstLetter(), OutsideJudge: Letters()}
    for measure, stand_in in stand_ins.items():
        monkeypatch.setattr(measure, "from_package", lambda device, it=stand_in: it)
    monkeypatch.setattr(FirstLetter, "sentences", lambda self, texts: torch.eye(4)[: len(texts)])
    plain = evaluate(replace(config, tasks=["unconditional", "length"]))
    again = evaluate(replace(config, tasks=["unconditional", "length"], outside=True, outside_n=2))
    rows: list[Any] = list(again)
    assert [row.outside_n for row in rows] == [2, None, 2, 2, 2]
    assert [row.mauve_train is not None for row in rows] == [True, False, True, True, False]
    blank = {"outside_nats": None, "outside_n": None, "mauve": None, "mauve_train": None}
    assert [replace(row, **blank) for row in rows] == plain  # nothing was written anew
    summary = json.loads(Path(config.out, "summary.json").read_text(encoding="utf-8"))
    assert summary["rows"][0]["outside_nats"] == rows[0].outside_nats
    assert any("MAUVE" in note for note in summary["notes"])
