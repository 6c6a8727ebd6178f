"""Rows measured from outside, with stand-ins for the pretrained models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from diffusion_lm.evaluation.pretrained import OutsideJudge, SentenceEncoder, outside_figures
from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.scores import read_run, some_of
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.text.corpus import CorpusConfig, open_corpus

HUMAN = [f"dev {i}" for i in range(30)]


class FirstLetter:
    """A stand-in for the encoder: texts that begin alike point the same way."""

    def sentences(self, texts: Sequence[str]) -> Tensor:
        return torch.eye(26)[[ord(text[:1].lower() or "a") - ord("a") for text in texts]]


class Letters:
    """A stand-in for the outside judge: a nat a letter, a token a word."""

    def score(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.tensor([float(len(t)) for t in texts]), torch.tensor([len(t.split()) for t in texts])


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("diffusion_lm.evaluation.run.require", lambda *modules: None)
    made: dict[Any, Any] = {SentenceEncoder: FirstLetter(), OutsideJudge: Letters()}
    for measure, stand_in in made.items():
        monkeypatch.setattr(measure, "from_package", lambda device, it=stand_in: it)


def measured(folder: Path, dev: int, **texts: Sequence[str]) -> tuple[dict[str, Any], str]:
    (folder / "train.txt").write_text("\n".join(f"train {i}" for i in range(90)))
    (folder / "valid.txt").write_text("\n".join(f"dev {i}" for i in range(dev)))
    frame = pd.DataFrame([{"task": task, "text": text} for task, each in texts.items() for text in each])
    frame["success"] = [1.0 if task == "length" else None for task in frame["task"]]
    return outside_figures(frame, open_corpus(CorpusConfig(str(folder))), 5, 0, torch.device("cpu"))


def test_mauve_is_against_dev_and_train(tmp_path: Path) -> None:
    free = [*["d d"] * 15, *["t t"] * 15]
    found, note = measured(
        tmp_path, 60, human=HUMAN, judge=["to be"] * 30, unconditional=free, length=["dd"] * 3, blank=[""] * 30
    )
    assert found["human"]["mauve"] == pytest.approx(1) and found["human"]["mauve_train"] < 0.01
    assert found["judge"]["mauve"] < 0.01 and found["judge"]["mauve_train"] == pytest.approx(1)
    both = found["unconditional"]
    assert both["mauve"] == pytest.approx(both["mauve_train"]) and 0.1 < both["mauve"] < 0.95
    assert found["length"] == {"outside_nats": 2, "outside_n": 3}
    assert (found["judge"]["outside_nats"], found["judge"]["outside_n"]) == (2.5, 5)
    assert "outside_nats" not in found["blank"] and "it is 1.000" in note


def test_too_few_other_texts_give_no_ceiling(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, 59, human=HUMAN)
    assert found["human"]["mauve"] is None and found["human"]["mauve_train"] is not None


def test_some_texts_are_a_seeded_choice_in_their_order() -> None:
    texts = [str(i) for i in range(50)]
    assert some_of(texts, 50, 0) == texts
    assert some_of(texts, 5, 1) == some_of(texts, 5, 1) != some_of(texts, 5, 2)
    assert list(map(int, some_of(texts, 5, 1))) == sorted(map(int, some_of(texts, 5, 1)))


def test_an_evaluation_is_measured_from_outside(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FirstLetter, "sentences", lambda self, texts: torch.eye(4)[: len(texts)])
    config = replace(config, tasks=["unconditional", "length"])
    plain = evaluate(config)
    rows = evaluate(replace(config, outside=True, outside_n=2))
    figures = ["mauve", "mauve_train", "outside_nats"]
    assert list(rows["mauve_train"].notna()) == [True, True, True, True, False] and rows["outside_nats"].notna().all()
    pd.testing.assert_frame_equal(rows.drop(columns=figures), plain.drop(columns=figures))  # nothing was written anew
    run = read_run(config.out)
    assert (
        run["outside"]["human"]["outside_nats"] == rows["outside_nats"][0]
        and run["outside"]["length"]["outside_n"] == 2
    )
    assert any("MAUVE" in note for note in run["notes"])
    evaluate(config)  # what was measured stays
    assert read_run(config.out)["outside"] == run["outside"]
