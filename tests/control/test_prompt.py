"""Prompts: what is read of them, what is refused, and what must be said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import Infill, Length, Prompt
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.prompt import BESIDE, fields_of
from diffusion_lm.diffusion.clamp import SampledClamp
from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.fields import Document, parts_of
from diffusion_lm.text.slots import slot_errors
from diffusion_lm.text.tokenizer import build_word_tokenizer

TEXTS = ["Aromi is a cheap pub that serves Thai food.", "Pavo is a Greek cafe in the city centre near Aromi."]
MEANINGS = [
    {"name": "Aromi", "Type": "pub", "price": "cheap", "food": "Thai"},
    {"name": "Pavo", "Type": "cafe", "food": "Greek", "area": "city centre", "near": "Aromi"},
]
FIELDS = ("name", "Type", "food", "area", "near", "price")


def build(folder: Path, fields: tuple[str, ...] = FIELDS, **settings: Any) -> DiffusionLM:
    """A model with random weights, large enough that a source matters."""
    torch.manual_seed(0)
    parts = [part for meaning in MEANINGS for part in parts_of(Document("", meaning))]
    tokenizer = build_word_tokenizer([*TEXTS, *parts], 1)
    shape: dict[str, Any] = {"width": 32, "layers": 1, "heads": 2, "max_length": 24, "given": 0.5, "max_source": 20}
    lm = DiffusionLM.new(ModelConfig(**shape | settings), tokenizer, torch.ones(25), fields)
    with torch.no_grad():
        lm.denoiser.marks.normal_()
        torch.nn.init.normal_(lm.denoiser.head.out.weight, std=0.5)
    lm.save_pretrained(folder)
    return DiffusionLM.from_pretrained(folder, "cpu")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> DiffusionLM:
    return build(tmp_path_factory.mktemp("prompted"))


def test_a_prompt_is_read_as_training_reads_the_fields(lm: DiffusionLM) -> None:
    wanted = [token for part in parts_of(Document("", MEANINGS[0])) for token in lm.tokenizer.encode(part)]
    for text in (
        "name = Aromi, Type = pub, price = cheap, food = Thai",
        "NAME=Aromi,eatType=pub, priceRange=cheap,food=Thai,",
    ):
        assert list(Prompt(text).source(lm)) == wanted


def test_the_fields_of_a_model_stay_with_it(lm: DiffusionLM, tmp_path: Path) -> None:
    assert lm.fields == FIELDS
    lm.save_pretrained(tmp_path)
    assert DiffusionLM.from_pretrained(tmp_path, "cpu").fields == FIELDS


def test_a_prompt_changes_what_is_written_and_a_guide_scale_of_nothing_undoes_it(lm: DiffusionLM) -> None:
    prompt = Prompt("name = Aromi, food = Thai") & Length(9)
    asked: dict[str, Any] = {"steps": 5, "seed": 1, "clamp": SampledClamp()}
    free = lm.generate(3, Length(9), **asked)
    assert lm.generate(3, prompt, **asked).texts != free.texts
    assert lm.generate(3, prompt, **asked, guide_scale=0.0).texts == free.texts
    guided = lm.generate(3, prompt, **asked, guide_scale=2.0)
    assert guided.network_evaluations == 2 * free.network_evaluations
    plain = lm.generate(3, prompt, **asked, guide_scale=1.0)
    assert plain.network_evaluations == free.network_evaluations


def test_defaults_fit_what_is_written_from_a_source(lm: DiffusionLM) -> None:
    found = lm.generate(1, Prompt("name = Aromi")).decoding
    assert (found.steps, found.clamp, found.guide_scale) == (40, SampledClamp(temperature=0.5), 2.0)
    assert lm.generate(1, steps=1).decoding.guide_scale == 1.0


def test_a_source_is_a_prompt(lm: DiffusionLM) -> None:
    one, other = "name = Aromi, food = Thai", "name = Pavo, food = Greek"
    asked: dict[str, Any] = {"steps": 3, "seed": 4}
    assert lm.generate(2, source=one, **asked).texts == lm.generate(2, Prompt(one), **asked).texts
    both = lm.generate(2, Length(7), source=[one, other], **asked).texts
    assert both == lm.generate(2, [Prompt(one) & Length(7), Prompt(other) & Length(7)], **asked).texts
    with pytest.raises(UserError, match="1 sources and 2 controls are given for 2"):
        lm.generate(2, source=[one])


def test_a_sentence_does_not_see_its_neighbours_prompt(lm: DiffusionLM) -> None:
    one, other = Prompt("name = Aromi") & Length(6), Prompt("name = Pavo, food = Greek, area = city centre") & Length(6)
    assert lm.denoiser.config.self_conditioning
    z, t = torch.randn(2, 8, 16), torch.tensor([0.5, 0.5])
    assert one.parts()[0].source(lm) != other.parts()[0].source(lm)
    from diffusion_lm.diffusion.process import Given
    from diffusion_lm.text.batches import padded

    known = torch.full((2, 8), UNKNOWN)
    sources = [part.parts()[0].source(lm) for part in (one, other)]
    both = lm.denoiser(z, t, None, None, Given(known, lm.denoiser.read(padded(sources, UNKNOWN)))).x0
    for i, source in enumerate(sources):
        alone = lm.denoiser(z[[i]], t[[i]], None, None, Given(known[[i]], lm.denoiser.read(torch.tensor([source])))).x0
        torch.testing.assert_close(alone[0], both[i], atol=1e-4, rtol=1e-4)


def test_what_must_be_said_is_said(lm: DiffusionLM) -> None:
    prompt = Prompt("name = Aromi, food = Thai, price = cheap", must_say=True)
    texts = lm.generate(8, prompt, steps=3, seed=0).texts
    assert prompt.success(texts).tolist() == [1.0] * 8
    for text in texts:
        assert {"Aromi", "Thai", "cheap"} <= set(text.replace(".", " ").split())


def test_what_was_not_asked_breaks_a_promise_that_no_automaton_keeps(lm: DiffusionLM) -> None:
    (program,) = Prompt("name = Aromi", must_say=True).compile(lm, [Canvas(lm.max_words)], torch.Generator())
    (promise,) = program.promises
    assert list(promise.broken("Aromi is there.")) == []
    assert list(promise.broken("Aromi is in the city centre.")) == [BESIDE]
    assert promise.way(BESIDE, torch.Generator()) is None and promise.way("name", torch.Generator()) is not None
    texts = lm.generate(8, Prompt("name = Aromi", must_say=True), steps=3, seed=0).texts
    assert not any(slot_errors({"name": "Aromi"}, text) != (0, 0, 0) for text in texts)


def test_lengths_are_drawn_at_a_temperature(lm: DiffusionLM) -> None:
    with torch.no_grad():
        lm.denoiser.gap_words[1].bias[5] += 3
    prompt, free = Prompt("name = Aromi"), Infill("Aromi ___.")
    drawn = {t: [*map(len, lm.generate(64, free, steps=1, length_temperature=t).words)] for t in (0.2, 1.0, 50.0)}
    often = {t: lengths.count(5 + 2) for t, lengths in drawn.items()}
    assert often[0.2] == 64 > often[1.0] > often[50.0]
    assert lm.generate(1, prompt, steps=1).decoding.length_temperature == 0.25
    assert lm.generate(1, free, steps=1).decoding.length_temperature == 1
    with pytest.raises(UserError, match="length_temperature"):
        lm.generate(1, prompt, steps=1, length_temperature=0.01)


def test_success_is_the_share_of_values_that_is_said() -> None:
    prompt = Prompt("name = Aromi, food = Thai")
    assert prompt.success([TEXTS[0], TEXTS[1], "It is a pub."]).tolist() == [1.0, 0.5, 0.0]
    assert Prompt("Any text.").success(["x"]).tolist() == [1.0]
    assert fields_of("a = b, c = d,") == {"a": "b", "c": "d"}


def test_candidates_are_chosen_by_the_bound(lm: DiffusionLM) -> None:
    prompt = Prompt("name = Aromi, food = Thai")
    all_of_them = lm.generate(6, [prompt] * 6, steps=3, seed=2)
    best = lm.generate(2, [prompt] * 2, steps=3, seed=2, candidates=3)
    assert len(best) == 2
    assert all(text in all_of_them.texts[3 * i : 3 * i + 3] for i, text in enumerate(best.texts))
    assert (
        lm.generate(2, None, steps=2, seed=0, candidates=2).texts
        == lm.generate(2, None, steps=2, seed=0, candidates=2).texts
    )


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (Prompt("colour = red"), "'colour'; the known fields are name, Type, food, area, near, price"),
        (Prompt("name Aromi"), "FIELD = VALUE"),
        (Prompt("name = Aromi, name = Pavo"), "the field name twice"),
        (Prompt("name = ___"), "has a gap"),
        (Prompt("food = Martian"), "'Martian' in the prompt"),
        (Prompt("near = Aromi Aromi Aromi Aromi Aromi Aromi Aromi, name = Aromi, area = city centre, food = Thai"), "at most 20"),
        (Prompt("name = Aromi") & Prompt("name = Pavo"), "Two prompts"),
    ],
)  # fmt: skip
def test_bad_prompts_are_refused(lm: DiffusionLM, prompt: Prompt, named: str) -> None:
    with pytest.raises(UserError, match=re.escape(named)):
        lm.generate(1, prompt, steps=1)


def test_a_model_without_a_source_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="writes from no prompt"):
        build(tmp_path, max_source=0).generate(1, Prompt("name = Aromi"), steps=1)


def test_where_sources_are_texts_nothing_can_be_held_to_be_said(tmp_path: Path) -> None:
    lm = build(tmp_path, ())
    assert lm.generate(1, Prompt("Aromi is a pub that serves Thai food."), steps=1).texts
    with pytest.raises(UserError, match="must_say"):
        lm.generate(1, Prompt("Aromi is a pub.", must_say=True), steps=1)


def test_a_prompt_and_a_gap_go_together(lm: DiffusionLM) -> None:
    (text,) = lm.generate(1, Prompt("name = Aromi, food = Thai") & Infill("Pavo is ___ near Aromi."), steps=3)
    assert text.startswith("Pavo is ") and text.endswith(" near Aromi.")
