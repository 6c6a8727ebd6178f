"""Beam search: what it finds against every text there is, what it holds to, and what it refuses."""

from __future__ import annotations

import math
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control import Attribute, CausalHead, Infill, Keyword, Length, Pos, Prompt, Regex
from diffusion_lm.control.canvas import Blank, Canvas
from diffusion_lm.control.control import Control
from diffusion_lm.control.head import HeadConfig, HeadTrainConfig
from diffusion_lm.diffusion.clamp import SampledClamp
from diffusion_lm.diffusion.process import Prediction
from diffusion_lm.generation import beams
from diffusion_lm.generation.layout import likeliest_layouts
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import Step
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer
from tests.control.test_prompt import build as build_prompted

WORDS = "abcd"
SPECIAL = 4
"""START, END, UNK and PAD, the first ids."""


def build(folder: Path, **settings: Any) -> DiffusionLM:
    """A model of random weights with a head of random weights, which knows four words."""
    torch.manual_seed(1)
    shape: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "max_length": 8, "given": 0.5}
    lengths = torch.tensor([0, 0, 0, 5, 9, 2, 1, 1, 0.0])
    lm = DiffusionLM.new(ModelConfig(**shape | settings), build_word_tokenizer([" ".join(WORDS)], 1), lengths)
    with torch.no_grad():
        torch.nn.init.normal_(lm.denoiser.head.out.weight, std=0.5)
        if lm.denoiser.knows_given:
            lm.denoiser.gap_words[-1].weight.normal_(std=0.2)
    return with_head(lm, folder)


def with_head(lm: DiffusionLM, folder: Path) -> DiffusionLM:
    """The model saved with a head of random weights."""
    head = CausalHead(HeadConfig(lm.tokenizer.vocab_size, lm.config.shape[0], 8, lm.fingerprint))
    torch.nn.init.normal_(head.out.weight)
    lm.save_pretrained(folder)
    head.save_pretrained(folder / "controls" / "head")
    return DiffusionLM.from_pretrained(folder, "cpu", torch.float32)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    return build(tmp_path_factory.mktemp("beams"))


@pytest.fixture
def said(lm: DiffusionLM, monkeypatch: pytest.MonkeyPatch) -> list[Prediction]:
    """What the denoiser is heard to say, a batch at a time."""
    heard, own = [], beams._said

    def hear(*args: Any) -> Prediction:
        heard.append(own(*args))
        return heard[-1]

    monkeypatch.setattr(beams, "_said", hear)
    return heard


@torch.no_grad()
def log_p(lm: DiffusionLM, said: Prediction, words: int) -> dict[tuple[int, ...], float]:
    """Log p of every text of so many words, by its definition."""
    texts = list(product(range(SPECIAL, SPECIAL + len(WORDS)), repeat=words))
    ids = torch.tensor([[lm.tokenizer.start_id, *text, lm.tokenizer.end_id] for text in texts])
    assert said.logits is not None and said.hidden is not None
    every = Prediction(said.x0, said.logits.expand(len(ids), -1, -1), said.hidden.expand(len(ids), -1, -1))
    logits = lm.asset(CausalHead)(every, ids)[:, :words]
    logits[..., :SPECIAL] = -torch.inf
    nats = logits.log_softmax(-1).gather(-1, ids[:, 1:-1, None])[..., 0].sum(1)
    return dict(zip(texts, nats.tolist(), strict=True))


def best(nats: dict[tuple[int, ...], float], n: int = 1) -> list[tuple[int, ...]]:
    return sorted(nats, key=nats.__getitem__, reverse=True)[:n]


def words_of(lm: DiffusionLM, ids: list[int]) -> tuple[int, ...]:
    assert (ids[0], ids[-1]) == (lm.tokenizer.start_id, lm.tokenizer.end_id)
    return tuple(ids[1:-1])


def test_as_many_beams_as_there_are_beginnings_find_the_likeliest_texts(
    lm: DiffusionLM, said: list[Prediction]
) -> None:
    found = lm.generate(5, Length(3), beams=16, seed=2)
    assert [words_of(lm, ids) for ids in found.ids] == best(log_p(lm, said[0], 3), 5)
    assert found.network_evaluations == beams.DRAWS
    # A single beam takes the likeliest word each time.
    greedy = lm.generate(1, Length(3), beams=1, seed=2)
    nats, taken = log_p(lm, said[1], 3), words_of(lm, greedy.ids[0])
    for i in range(3):
        chances = [sum(math.exp(p) for text, p in nats.items() if text[: i + 1] == (*taken[:i], w)) for w in range(8)]
        assert chances.index(max(chances)) == taken[i]


def test_a_text_is_weighed_with_how_likely_its_size_is(lm: DiffusionLM, said: list[Prediction]) -> None:
    found = lm.generate(1, beams=64, candidates=6, seed=3)
    ways = likeliest_layouts(lm, [Canvas(lm.max_words)], 6, torch.Generator(), 1.0)[0]
    assert math.fsum(math.exp(nats) for nats, _ in ways) == pytest.approx(1, abs=1e-4)
    # All sizes are one batch, each read up to its own end.
    nats: dict[tuple[int, ...], float] = {}
    for row, (of_size, ids) in enumerate(sorted(ways, key=lambda way: len(way[1]))):
        words, every = len(ids) - 2, said[0]
        assert every.logits is not None and every.hidden is not None
        own = Prediction(every.x0, every.logits[row, None, : words + 2], every.hidden[row, None, : words + 2])
        if words <= 3:  # longer ones are less likely than the best of these
            nats |= {text: p + of_size for text, p in log_p(lm, own, words).items()}
    assert words_of(lm, found.ids[0]) == best(nats)[0]


def test_the_gaps_of_a_text_are_as_likely_as_their_sizes(lm: DiffusionLM) -> None:
    canvas = Canvas(6).with_template((Blank(), (5,), Blank(), (6,), Blank(1))).with_allowed(frozenset((5, 6)), "it")
    sizes = torch.randn(3, 7).index_fill(1, torch.tensor(0), -torch.inf).log_softmax(-1)
    wanted = sorted(
        (float(sizes[0, a] + sizes[1, b]), [a, 1, b, 1, 1]) for a in range(1, 5) for b in range(1, 5) if a + b in (2, 3)
    )[::-1]
    found = canvas.likeliest_sizes(sizes, 9)
    assert [own for _, own in found] == [own for _, own in wanted]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in wanted])
    assert canvas.likeliest_sizes(sizes, 2) == found[:2]


def test_what_is_given_stays_and_is_read(lm: DiffusionLM, said: list[Prediction]) -> None:
    found = lm.generate(3, Infill("c ___{2} a"), beams=4, seed=4)
    every = {text: p for text, p in log_p(lm, said[0], 4).items() if text[0] == 6 and text[3] == 4}
    # What is given is no news: the words of the gap alone are weighed.
    assert said[0].logits is not None and said[0].hidden is not None
    inner = {}
    for text in every:
        ids = torch.tensor([[0, *text, 1]])
        logits = lm.asset(CausalHead)(said[0], ids)[0, 1:3].index_fill(-1, torch.arange(SPECIAL), -torch.inf)
        inner[text] = float(logits.log_softmax(-1).gather(-1, ids[0, 2:4, None]).sum())
    assert [words_of(lm, ids) for ids in found.ids] == best(inner, 3)
    assert all(text.startswith("c ") and text.endswith(" a") for text in lm.generate(4, Infill("c ___ a"), beams=2))


def test_an_automaton_holds_every_beam(lm: DiffusionLM, said: list[Prediction]) -> None:
    found = lm.generate(4, Regex(".* b a .*") & Length(4), beams=64, seed=5)
    accepted = {text: p for text, p in log_p(lm, said[0], 4).items() if (5, 4) in pairwise(text)}
    assert [words_of(lm, ids) for ids in found.ids] == best(accepted, 4)
    # Few beams hold what they cannot look far enough ahead for by themselves.
    for word in WORDS:
        assert all(word in text.split() for text in lm.generate(3, Keyword(word) & Length(5), beams=3, seed=6))
    with pytest.raises(
        UserError, match="Only 2 texts that do what is asked were found, not 3; ask for fewer, or take more"
    ):
        lm.generate(3, Regex("a [bc]"), beams=4)


def test_what_is_known_of_single_words_counts(said: list[Prediction], tmp_path: Path) -> None:
    from tests.control.conftest import build as build_toy

    toy = with_head(build_toy("exact", tmp_path), tmp_path)
    control = Pos("DET NOUN", lean=0)  # with a lean chance has a part
    made = toy.generate(2, control, beams=toy.tokenizer.vocab_size, seed=1)
    program = control.compile(toy, [Canvas(toy.max_words)], torch.Generator())[0]
    columns = torch.stack([part[:2] for part in program.columns]).sum(0)
    assert said[0].logits is not None and said[0].hidden is not None
    v, head = toy.tokenizer.vocab_size, toy.asset(CausalHead)
    ids = torch.cartesian_prod(torch.arange(4, v), torch.arange(4, v))
    ids = torch.cat([torch.zeros(len(ids), 1, dtype=torch.long), ids, torch.ones(len(ids), 1, dtype=torch.long)], 1)
    every = Prediction(said[0].x0, *(part.expand(len(ids), -1, -1) for part in (said[0].logits, said[0].hidden)))
    logits = head(every, ids)[:, :2].index_fill(-1, torch.arange(4), -torch.inf).log_softmax(-1)
    joint: Tensor = (logits + columns).gather(-1, ids[:, 1:3, None])[..., 0].sum(1)
    assert toy.generate(2, Pos("DET NOUN"), beams=4).network_evaluations == beams.DRAWS  # chance has had a part in each
    assert [own[1:3] for own in made.ids] == ids[joint.topk(2).indices, 1:3].tolist()


def test_promises_are_kept(tmp_path: Path) -> None:
    lm = with_head(build_prompted(tmp_path), tmp_path)
    asked = "name = Aromi, food = Thai"
    texts = lm.generate(2, Prompt(asked, must_say=True), beams=2, candidates=4, seed=1)
    for text in texts:
        assert {"Aromi", "Thai"} <= {word.strip(".") for word in text.split()}
    assert texts.decoding.guide_scale == 2 and texts[0] != texts[1]


def test_a_callback_sees_one_step(lm: DiffusionLM) -> None:
    seen: list[Step] = []
    made = lm.generate(2, [Length(2), Length(3)], beams=2, batch_size=1, callback=seen.append)
    assert [(step.index, step.steps, step.t, step.rows) for step in seen] == [(0, 1, 1.0, [0]), (0, 1, 1.0, [1])]
    assert [step.ids[0].tolist() for step in seen] == made.ids
    assert lm.generate(2, [Length(2), Length(3)], beams=2, batch_size=1).ids == made.ids
    assert str(made.decoding) == "2 beams, guide scale 1.0, length temperature 1.0"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"steps": 4}, "neither draw nor step; leave --steps out, or --beams"),
        ({"clamp": SampledClamp()}, "leave --clamp and --temperature out"),
        ({"head": 1.0}, "leave --head out"),
        ({"beams": 0}, "beams must be at least 1"),
        ({"beams": 2, "n": 7}, "2 beams find at most 6 texts of which the same is asked, not 7; take more --beams, or"),
        ({"beams": 1.5}, "beams must be a whole number"),
    ],
)
def test_what_beams_have_no_part_for_is_said(lm: DiffusionLM, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        lm.generate(**{"n": 1, "beams": 4} | flags)


def test_what_it_cannot_hold_is_said(tmp_path: Path) -> None:
    from tests.control.conftest import build as build_toy

    toy: DiffusionLM = build_toy("exact", tmp_path)
    with pytest.raises(UserError, match=r"no causal head; train one .* or leave --beams out"):
        toy.generate(1, beams=2)
    toy = with_head(toy, tmp_path)
    classifier: Control = Attribute("food", "Thai")
    with pytest.raises(UserError, match="Beams take no steps that a classifier's gradient or a reward could steer"):
        toy.generate(1, classifier, beams=2)
    with pytest.raises(UserError, match="does not say how long gaps are; write ___"):
        toy.generate(1, Infill("the ___ ."), beams=2)
    # Without a gap it is the corpus that says how long texts are.
    assert len(toy.generate(3, beams=2, candidates=5)) == 3


def test_a_head_reads_sources(tmp_path: Path) -> None:
    # The source says which word there will be; of a text itself the first is anybody's guess.
    lines = [f"{word}\t{word} {word}\n" for word in ("Aromi", "pub", "cheap", "Thai")] * 20
    (tmp_path / "train.tsv").write_text("".join(lines))
    (tmp_path / "valid.tsv").write_text("".join(lines[:20]))
    lm = build_prompted(tmp_path / "lm", (), max_source=4, source_dropout=0.0)
    with torch.no_grad():  # an untrained network hardly looks at its source
        for block in lm.denoiser.transformer.blocks:
            block.attention_out.weight.normal_()
    config = HeadTrainConfig(corpus=CorpusConfig(str(tmp_path)), width=32, steps=300, lr=2e-2, batch_tokens=512)
    assert CausalHead.make(config, lm).config.ordered[0] < 0.75 * math.log(4) / 2
