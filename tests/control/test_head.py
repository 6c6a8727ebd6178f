"""The causal head: what it says of whole sentences, text that is drawn with it, and where it is taken."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import CausalHead, Infill, Keyword, Length, PairTable
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.head import HeadConfig, HeadTrainConfig
from diffusion_lm.control.program import AssetConfig, Program
from diffusion_lm.diffusion.chain import Pairs, draw, messages
from diffusion_lm.diffusion.clamp import SampledClamp, SoftClamp
from diffusion_lm.diffusion.process import Prediction
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer
from tests.control.conftest import build

V, L = 3, 4
EVERY = torch.tensor([(0, *words) for words in product(range(V), repeat=L - 1)])
TOY = CorpusConfig("toy")


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    """A tiny model with a table of pairs and a head of the toy corpus."""
    folder = tmp_path_factory.mktemp("headed")
    lm = build("exact", folder)
    PairTable.make(AssetConfig(corpus=TOY), lm).save_pretrained(folder / "controls" / "pairs")
    config = HeadTrainConfig(corpus=TOY, width=32, steps=40, batch_tokens=2048)
    CausalHead.make(config, lm).save_pretrained(folder / "controls" / "head")
    return DiffusionLM.from_pretrained(folder, "cpu")


def said_by(seed: int = 0) -> tuple[CausalHead, Prediction]:
    """A head of random weights, and what a denoiser may have said of one sentence."""
    torch.manual_seed(seed)
    head = CausalHead(HeadConfig(V, 8, 8, "")).eval()
    torch.nn.init.normal_(head.out.weight)
    return head, Prediction(torch.zeros(1, L, 1), torch.randn(1, L, V), torch.randn(1, L, 8))


def repeated(said: Prediction, n: int) -> Prediction:
    assert said.logits is not None and said.hidden is not None
    return Prediction(said.x0, said.logits.expand(n, -1, -1), said.hidden.expand(n, -1, -1))


def log_p(head: CausalHead, said: Prediction) -> torch.Tensor:
    """Log p of every sentence, by its definition."""
    logits = head(repeated(said, len(EVERY)), EVERY).log_softmax(-1)
    return logits.gather(-1, EVERY[:, 1:, None])[..., 0].sum(1)


@torch.no_grad()
def test_all_sentences_have_probability_one_and_a_word_hears_those_before_it() -> None:
    head, said = said_by()
    assert float(log_p(head, said).exp().sum()) == pytest.approx(1, abs=1e-5)
    logits = head(repeated(said, len(EVERY)), EVERY)
    same = EVERY[:, 1] == EVERY[0, 1]
    # What comes later is not heard.
    torch.testing.assert_close(logits[same, 1], logits[:1, 1].expand(int(same.sum()), -1))
    assert not torch.allclose(logits[0, 1], logits[-1, 1], atol=1e-3)


@torch.no_grad()
def test_untrained_it_says_what_the_denoiser_says() -> None:
    torch.manual_seed(0)
    head, said = CausalHead(HeadConfig(V, 8, 8, "")), said_by()[1]
    assert said.logits is not None
    torch.testing.assert_close(head(said, EVERY[:1]), said.logits[:, 1:])


@torch.no_grad()
@pytest.mark.parametrize("power", [0.5, 2.0])
def test_words_are_drawn_as_the_chain_and_the_head_say(power: float) -> None:
    head, said = said_by(1)
    n, p = 20_000, torch.randn(1, L, V).softmax(-1)
    p[:, 0] = torch.tensor([1.0, 0.0, 0.0])
    p[:, 2, 1] = 0  # what is excluded stays so
    ties = Pairs(torch.tensor([[0, 1, 7], [1, 2, 5], [2, 2, 2]], dtype=torch.int32), V).ties(1.0)
    mask = torch.ones(1, L, dtype=torch.bool)
    opinion = head.opinion(repeated(said, n), power)
    found = draw(p.expand(n, -1, -1), mask.expand(n, -1), ties, torch.Generator().manual_seed(0), opinion)
    # By definition: each word's chances under the chain, given the word before, times the head's to the power.
    ahead, own = messages(p, mask, ties)[0], head(repeated(said, len(EVERY)), EVERY)
    wanted = torch.zeros(len(EVERY))
    for i in range(1, L):
        weights = (p[0, i] * ahead[0, i] * ties.behind(EVERY[:, i - 1])).log() + power * own[:, i - 1]
        wanted += weights.log_softmax(-1).gather(-1, EVERY[:, i : i + 1])[:, 0]
    often = torch.bincount((found[:, 1:] * torch.tensor([9, 3, 1])).sum(1), minlength=len(EVERY)) / n
    torch.testing.assert_close(often, wanted.exp(), atol=0.015, rtol=0)
    assert not (found[:, 2] == 1).any()


def test_it_learns_what_follows_what(headed: DiffusionLM) -> None:
    config = headed.asset(CausalHead).config
    assert all(own < alone for own, alone in zip(config.ordered[:2], config.nats[:2], strict=True))
    assert "nats a word of dev text" in headed.asset(CausalHead).summary()


def test_it_goes_on_from_the_head_that_the_model_has(headed: DiffusionLM) -> None:
    before = headed.asset(CausalHead)
    weights = {name: weight.clone() for name, weight in before.state_dict().items()}
    config = HeadTrainConfig(corpus=TOY, go_on=True, steps=20, heard=1.0, batch_tokens=2048)
    after = CausalHead.make(config, headed)
    assert (after.config.width, after.config.heard) == (32, 1.0)  # not the default width
    assert after.config.ordered[0] < before.config.ordered[0]
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, weights[name]) and not torch.equal(weight, after.state_dict()[name])


@pytest.mark.parametrize(
    ("flags", "head", "temperature"),
    [
        ({}, 0.0, 1.08),
        ({"steps": 7}, 0.0, 1.08),
        ({"quality": "best"}, 0.0, 1.0),
        ({"steps": 6}, 0.8, 1.3),
        ({"steps": 4, "head": 0.0}, 0.0, 1.08),
        ({"steps": 14, "head": 0.7}, 0.7, 1.0),
        ({"steps": 4, "clamp": SampledClamp(temperature=0.9)}, 0.8, 0.9),
        ({"steps": 4, "pairs": 0.0}, 0.0, 0.9),
    ],
)
def test_it_is_heard_in_few_steps(flags: dict[str, Any], head: float, temperature: float) -> None:
    programs = [Program(Canvas(9))]
    found = Decoding(**flags).fitted(programs, predicts_words=True, has_pairs=True, has_head=True)
    if flags.get("pairs") != 0:
        assert found.clamp == SampledClamp(temperature=temperature)
    assert found.head == head
    assert Decoding(steps=4).fitted(programs, predicts_words=True, has_pairs=True).head == 0


def test_a_head_may_want_to_be_heard_in_any_number_of_steps() -> None:
    programs = [Program(Canvas(9))]

    def found(**flags: Any) -> Decoding:
        return Decoding(**flags).fitted(programs, predicts_words=True, has_pairs=True, has_head=True, heard=1.2)

    for steps in (4, 10, 20):
        assert found(steps=steps).head == 1.2 and found(steps=steps).clamp == SampledClamp()
    assert found(steps=10, head=0.5).head == 0.5
    assert found(steps=50).head == found(pairs=0.0).head == 0  # nothing is drawn as a whole


def test_where_words_are_held_it_is_heard_in_place_of_averages_if_time_is_short() -> None:
    programs = [Program(Canvas(9), columns=(torch.zeros(9, 5),))]
    for flags, head, clamp, steps in (
        ({"quality": "fast"}, 0.8, SampledClamp(), 10),
        ({}, 0.0, SoftClamp(temperature=0.7), 76),
        ({"steps": 20, "quality": "fast"}, 0.0, SoftClamp(temperature=0.7), 20),
        ({"steps": 9, "clamp": SampledClamp()}, 0.8, SampledClamp(), 9),
        ({"clamp": SampledClamp()}, 0.0, SampledClamp(), 14),
    ):
        found = Decoding(**flags).fitted(programs, predicts_words=True, has_pairs=True, has_head=True)
        assert (found.head, found.clamp, found.steps) == (head, clamp, steps)
    without = Decoding(quality="fast").fitted(programs, predicts_words=True, has_pairs=True)
    assert (without.clamp, without.steps) == (SoftClamp(temperature=0.7), 20)


def test_controls_hold_with_it(headed: DiffusionLM) -> None:
    made = headed.generate(4, Keyword("the") & Length(6), steps=4, seed=3)
    assert made.decoding.head == 0.8 and all(len(words) == 6 and "the" in map(str.lower, words) for words in made.words)
    assert all(text.startswith("the") for text in headed.generate(4, Infill("the ___"), steps=3).texts)
    again = headed.generate(4, Keyword("the") & Length(6), steps=4, seed=3)
    assert again.texts == made.texts != headed.generate(4, Keyword("the") & Length(6), steps=4, seed=3, head=0).texts


def test_what_does_not_go_is_said(headed: DiffusionLM, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --pairs 1 too"):
        headed.generate(1, steps=4, pairs=0, head=1.0)
    lm = build("exact", tmp_path)
    PairTable.make(AssetConfig(corpus=TOY), lm).save_pretrained(tmp_path / "controls" / "pairs")
    with pytest.raises(UserError, match="no causal head; train one"):
        DiffusionLM.from_pretrained(tmp_path, "cpu").generate(1, steps=4, head=1.0)
    with pytest.raises(UserError, match="holds no causal head"):
        CausalHead.make(HeadTrainConfig(corpus=TOY, steps=1, go_on=True), DiffusionLM.from_pretrained(tmp_path, "cpu"))
    with pytest.raises(UserError, match="draws sentences as wholes"):
        CausalHead.make(HeadTrainConfig(corpus=TOY, steps=1), build("padded", tmp_path / "padded"))


def test_of_threes_the_middle_alone_is_learned_and_measured(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Around what is always the same stands what nobody could know.
    around = torch.randint(4, (60, 2, 5)).tolist()
    texts = [" ".join([*("abcd"[i] for i in one), ". b b .", *("abcd"[i] for i in two), "."]) for one, two in around]
    (tmp_path / "train.txt").write_text("\n".join(texts))
    (tmp_path / "valid.txt").write_text("\n".join(texts[:20]))
    config = ModelConfig(width=16, layers=1, heads=2, max_length=24, given=1.0)
    lm = DiffusionLM.new(config, build_word_tokenizer(texts, 1), torch.ones(25, dtype=torch.long))
    lm.save_pretrained(tmp_path)
    lm = DiffusionLM.from_pretrained(tmp_path, "cpu")
    for threes, known in ((True, True), (False, False)):
        corpus = CorpusConfig(str(tmp_path), threes=threes)
        head = CausalHead.make(HeadTrainConfig(corpus=corpus, width=16, steps=120, lr=2e-2), lm)
        assert (head.config.ordered[0] < 0.5) == known, head.config.ordered
