"""The table of trigrams: what is counted, how strong it is, and text that is drawn with it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_lm.cli import main
from diffusion_lm.common import UserError
from diffusion_lm.control import Infill, Keyword, Length, Pos, TrigramTable
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.program import AssetConfig, Program
from diffusion_lm.control.trigrams import counted
from diffusion_lm.diffusion.clamp import SampledClamp, SoftClamp
from diffusion_lm.diffusion.samplers import Ancestral
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.corpus import CorpusConfig
from tests.control.conftest import build

TOY = AssetConfig(corpus=CorpusConfig("toy"))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    """A tiny model with a table of the toy corpus."""
    folder = tmp_path_factory.mktemp("tied")
    lm = build("exact", folder)
    TrigramTable.make(TOY, lm).save_pretrained(folder / "controls" / "trigrams")
    return DiffusionLM.from_pretrained(folder, "cpu")


def test_words_in_a_row_are_counted_and_as_strong_as_dev_text_likes_them(tied: DiffusionLM) -> None:
    table, start = tied.asset(TrigramTable), tied.tokenizer.start_id
    first, _, count = table.counts.pairs.T
    assert int(count[first == start].sum()) == table.config.sentences == 4000
    assert all(0 < k < 1.5 for k in table.config.strengths)
    # Weights are random, so the words before tell much at every t.
    assert all(tied < nats for tied, nats in zip(table.config.tied, table.config.nats, strict=True))
    assert table.strength(0.45) == pytest.approx((table.strength(0.4) + table.strength(0.5)) / 2)
    assert table.strength(1.0) == table.config.strengths[-1]


def test_a_triple_is_a_pair_and_the_word_behind_it() -> None:
    rows = [torch.tensor([0, 2, 3, 1])] * 2 + [torch.tensor([0, 2, 1]), torch.tensor([0, 3, 1])]
    found = counted(rows, 4)
    assert found.pairs.tolist() == [[0, 2, 3], [0, 3, 1], [2, 1, 1], [2, 3, 2], [3, 1, 3]]
    # 0 2 1 and 0 3 1 stand there once: too rare.
    assert found.triples.tolist() == [[0, 3, 2], [3, 1, 2]]


def test_words_that_are_drawn_together_go_together(tied: DiffusionLM) -> None:
    pairs = {(a, b) for a, b, _ in tied.asset(TrigramTable).counts.pairs.tolist()}

    def usual(strength: float) -> float:
        found = tied.generate(32, steps=4, seed=1, clamp=SampledClamp(), trigrams=strength).ids
        every = [pair for ids in found for pair in pairwise(ids)]
        return sum(pair in pairs for pair in every) / len(every)

    assert usual(1.0) > 2 * usual(0.0)
    made = tied.generate(3, seed=1, steps=4)
    assert made.decoding.trigrams == 1.5 and made.texts == tied.generate(3, seed=1, steps=4, trigrams=1.5).texts
    assert tied.generate(3, seed=1, steps=4, trigrams=0).texts != made.texts


@pytest.mark.parametrize("control", [Length(6), Keyword("cheap"), Infill("The ___ is ___ .")], ids=str)
def test_controls_hold(tied: DiffusionLM, control: Length | Keyword | Infill) -> None:
    texts = tied.generate(8, control, steps=4, seed=0, clamp=SampledClamp()).texts
    assert control.success(texts).min() == 1


@pytest.mark.parametrize(
    ("flags", "steps", "trigrams"),
    [
        ({}, 10, 1.5),
        ({"steps": 30}, 30, 1.5),
        ({"steps": 31}, 31, 0.0),
        ({"steps": 200, "trigrams": 0.5}, 200, 0.5),
        ({"trigrams": 0}, 200, 0.0),
        ({"clamp": SoftClamp()}, 200, 0.0),
        ({"sampler": Ancestral()}, 200, 0.0),
    ],
)
def test_few_steps_are_taken_where_words_are_drawn_together(flags: dict[str, Any], steps: int, trigrams: float) -> None:
    found = Decoding(**flags).fitted([Program(Canvas(9))], predicts_words=True, has_trigrams=True)
    assert (found.steps, found.trigrams) == (steps, trigrams)


def test_times_are_dense_where_words_are_decided(tied: DiffusionLM) -> None:
    seen: list[float] = []
    for power in (None, 1.0):
        tied.generate(1, steps=4, time_power=power, callback=lambda step: seen.append(step.t))
    assert seen == pytest.approx([(i / 4) ** power for power in (0.9, 1.0) for i in (4, 3, 2, 1)])
    assert tied.generate(1, steps=1, trigrams=0).decoding.time_power == 1
    with pytest.raises(UserError, match="time_power must be at least"):
        tied.generate(1, time_power=0.01)


def test_one_by_one_where_words_are_averaged(tied: DiffusionLM) -> None:
    tags = Pos("DET NOUN VERB")
    assert tied.generate(1, tags, steps=1).decoding.trigrams == 0
    assert tied.generate(1, tags, steps=1, clamp=SampledClamp()).decoding.trigrams == 1.5
    with pytest.raises(UserError, match="--clamp sample"):
        tied.generate(1, steps=1, clamp=SoftClamp(), trigrams=1)


def test_a_model_without_a_table_says_how_to_make_one(lm: DiffusionLM, padded: DiffusionLM, tmp_path: Path) -> None:
    assert lm.generate(1, steps=1).decoding.trigrams == 0
    with pytest.raises(UserError, match="train-control trigrams"):
        lm.generate(1, steps=1, trigrams=1)
    with pytest.raises(UserError, match="exact layout"):
        TrigramTable.make(TOY, padded)
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "train.txt").write_text("A pub.\n" * 9)
    (folder / "valid.txt").write_text("a pub " * 40)
    with pytest.raises(UserError, match="as many as the model writes"):
        TrigramTable.make(AssetConfig(corpus=CorpusConfig(str(folder))), lm)


def test_the_command_makes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("exact", tmp_path)
    assert main(["train-control", "trigrams", "--model", str(tmp_path), "--corpus.source", "toy"]) == 0
    assert "nats for" in capsys.readouterr().out
    assert main(["generate", "--model", str(tmp_path), "--steps", "3", "--trigrams", "1.5", "-v"]) == 0
