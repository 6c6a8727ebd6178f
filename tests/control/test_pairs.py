"""The table of pairs: what is counted, how strong it is, and text that is drawn with it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_lm.cli import main
from diffusion_lm.common import UserError
from diffusion_lm.control import Infill, Keyword, Length, PairTable, Pos
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.program import AssetConfig, Program
from diffusion_lm.diffusion.clamp import SampledClamp, SoftClamp
from diffusion_lm.diffusion.samplers import Ancestral
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.corpus import CorpusConfig
from tests.control.conftest import build

TOY = AssetConfig(corpus=CorpusConfig("toy"))


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    """A tiny model with a table of the toy corpus."""
    folder = tmp_path_factory.mktemp("paired")
    lm = build("exact", folder)
    PairTable.make(TOY, lm).save_pretrained(folder / "controls" / "pairs")
    return DiffusionLM.from_pretrained(folder, "cpu")


def test_pairs_are_counted_and_as_strong_as_dev_text_likes_them(paired: DiffusionLM) -> None:
    table, start = paired.asset(PairTable), paired.tokenizer.start_id
    first, _, count = table.counts.T
    assert int(count[first == start].sum()) == table.config.sentences == 4000
    assert all(0 < k < 1.5 for k in table.config.strengths)
    # Weights are random, so the pairs tell much at every t.
    assert all(tied < nats for tied, nats in zip(table.config.tied, table.config.nats, strict=True))
    a, half, b = (table.ties(t).behind(torch.tensor([start])).log() for t in (0.4, 0.45, 0.5))
    torch.testing.assert_close(half, (a + b) / 2)
    torch.testing.assert_close(table.ties(0.4, temperature=0.5).behind(torch.tensor([start])).log(), 2 * a)


def test_words_that_are_drawn_together_go_together(paired: DiffusionLM) -> None:
    pairs = {(a, b) for a, b, _ in paired.asset(PairTable).counts.tolist()}

    def usual(strength: float) -> float:
        found = paired.generate(32, steps=4, seed=1, clamp=SampledClamp(), pairs=strength).ids
        every = [pair for ids in found for pair in pairwise(ids)]
        return sum(pair in pairs for pair in every) / len(every)

    assert usual(1.0) > 2 * usual(0.0)
    made = paired.generate(3, seed=1, steps=4)
    assert made.decoding.pairs == 1.5 and made.texts == paired.generate(3, seed=1, steps=4, pairs=1.5).texts
    assert paired.generate(3, seed=1, steps=4, pairs=0).texts != made.texts


@pytest.mark.parametrize("control", [Length(6), Keyword("cheap"), Infill("The ___ is ___ .")], ids=str)
def test_controls_hold(paired: DiffusionLM, control: Length | Keyword | Infill) -> None:
    texts = paired.generate(8, control, steps=4, seed=0, clamp=SampledClamp()).texts
    assert control.success(texts).min() == 1


@pytest.mark.parametrize(
    ("flags", "steps", "pairs"),
    [
        ({}, 10, 1.5),
        ({"quality": "fast"}, 8, 1.5),
        ({"quality": "best"}, 14, 1.0),
        ({"steps": 30}, 30, 1.0),
        ({"steps": 12}, 12, 1.5),
        ({"steps": 12, "pairs": 0.3}, 12, 0.3),
        ({"steps": 31}, 31, 0.0),
        ({"steps": 200, "pairs": 0.5}, 200, 0.5),
        ({"pairs": 0}, 200, 0.0),
        ({"clamp": SoftClamp()}, 200, 0.0),
        ({"sampler": Ancestral()}, 200, 0.0),
    ],
)
def test_few_steps_are_taken_where_words_are_drawn_together(flags: dict[str, Any], steps: int, pairs: float) -> None:
    found = Decoding(**flags).fitted([Program(Canvas(9))], predicts_words=True, has_pairs=True)
    assert (found.steps, found.pairs) == (steps, pairs)


def test_times_are_dense_where_words_are_decided(paired: DiffusionLM) -> None:
    seen: list[float] = []
    for power in (None, 1.0):
        paired.generate(1, steps=4, time_power=power, callback=lambda step: seen.append(step.t))
    assert seen == pytest.approx([(i / 4) ** power for power in (0.5, 1.0) for i in (4, 3, 2, 1)])
    assert paired.generate(1, steps=9).decoding.time_power == 0.75
    plain = {"steps": 4, "pairs": 0}, {"steps": 13}
    assert all(paired.generate(1, **flags).decoding.time_power == 1 for flags in plain)
    with pytest.raises(UserError, match="time_power must be at least"):
        paired.generate(1, time_power=0.01)


def test_one_by_one_where_words_are_averaged(paired: DiffusionLM) -> None:
    tags = Pos("DET NOUN VERB")
    assert paired.generate(1, tags, steps=1).decoding.pairs == 0
    assert paired.generate(1, tags, steps=1, clamp=SampledClamp()).decoding.pairs == 1.5
    with pytest.raises(UserError, match="--clamp sample"):
        paired.generate(1, steps=1, clamp=SoftClamp(), pairs=1)


def test_a_model_without_a_table_says_how_to_make_one(lm: DiffusionLM, padded: DiffusionLM, tmp_path: Path) -> None:
    assert lm.generate(1, steps=1).decoding.pairs == 0
    with pytest.raises(UserError, match="train-control pairs"):
        lm.generate(1, steps=1, pairs=1)
    with pytest.raises(UserError, match="exact layout"):
        PairTable.make(TOY, padded)
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "train.txt").write_text("A pub.\n" * 9)
    (folder / "valid.txt").write_text("a pub " * 40)
    with pytest.raises(UserError, match="as many as the model writes"):
        PairTable.make(AssetConfig(corpus=CorpusConfig(str(folder))), lm)


def test_the_command_makes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("exact", tmp_path)
    assert main(["train-control", "pairs", "--model", str(tmp_path), "--corpus.source", "toy"]) == 0
    assert "nats for" in capsys.readouterr().out
    assert main(["generate", "--model", str(tmp_path), "--steps", "3", "--pairs", "1.5", "-v"]) == 0
