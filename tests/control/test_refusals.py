"""What cannot be asked is refused at once, by one sentence that names it."""

import json
import operator
import shutil
from contextlib import nullcontext

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import Attribute, Infill, Keyword, Length, Pos, Regex, Reward, Said, Span, Tree
from diffusion_lm.control.attribute import AttributeModel
from diffusion_lm.control.leaves import LeafTable
from diffusion_lm.control.tables import TagTable
from diffusion_lm.diffusion.samplers import DDIM, DPMSolverPP2M
from diffusion_lm.generation.pipeline import DiffusionLM
from tests.control.conftest import programs

MANY = "9" * 5000
THAI, SPAN, TREE = Attribute("food", "Thai"), Span("1:2:NP"), "(S (NP (DT The) (NN _)) (VP _))"


@pytest.mark.parametrize(
    ("control", "named"),
    [
        (Attribute("colour", "red"), "'colour'; the known fields are food, Type, price"),
        (Attribute("food", "Thia"), "'Thia' (did you mean 'Thai'?)"),
        (Said("food", "Martian"), "'Martian'"),
        (Pos("DET NOUN") & Pos("NOUN DET"), "pos=DET NOUN and pos=NOUN DET contradict"),
        (Tree(TREE) & Length(3) & Tree("(S (NN _))"), "tree=(S (NN _)) contradict"),
        (Length(0), "0 is out of range; this model writes 1 to 30"),
        (Length(31), "31"),
        (Length(5) & Length(6), "5 and 6"),
        (Infill("xylophone ___"), "'xylophone'"),
        (Infill("the UNK ___"), "'UNK'"),
        (Infill("the TERN ___"), "(did you mean 'Tern'?)"),
        (Infill("no blank"), "'no blank'"),
        (Infill("___{0}"), "0 words"),
        (Infill(f"___{{{MANY}}}"), "9999..."),
        (Infill("___{31}"), "31 words"),
        (Length(2) & Infill("___{3}"), "exactly 3 words"),
        (Infill("___") & Infill("___"), "Two infills"),
        (Keyword("zebra"), "'zebra'"),
        (Keyword(" "), "' '"),
        (Keyword("cheap") & ~Keyword("cheap"), "keyword=cheap & avoid=cheap"),
        (Length(1) & Keyword("Tern Theatre"), "of 1 words"),
        (Infill("The ___{1}") & Keyword("Tern Theatre"), "drop one of the controls"),
        (Regex("The zebra"), "'zebra'"),
        (Regex("The The") & Length(3), "contradict each other"),
        (Regex(r"The \.") & Keyword("cheap"), "keyword=cheap"),
        (Pos("NOUN FOO"), "FOO; the tags are ADJ"),
        (Pos(" "), "No tag"),
        (Pos("NOUN " * 5000), "5000"),
        (Pos("NOUN FOO", by_classifier=True), "FOO"),
        (Span("3:2:NP"), "'3:2:NP'"),
        (Span(f"{MANY}:1:NP"), "'999"),
        (Span(""), "No span"),
        (Span("1:3:NP 2:4:VP"), "1:3:NP and 2:4:VP"),
        (Span("1:3:NP 1:3:VP"), "1:3:NP and 1:3:VP"),
        (Span("1:90:NP"), "word 90, but this model writes at most 30"),
        (Span("1:2:XX"), "XX; the constituents are ADJP"),
        (Span("1:9:NP") & Length(5), "of 5 words"),
        (Tree("(S (NP _ _)"), "'(S (NP _ _)' breaks at character"),
        (Tree("(S " + "(NP " * 5000 + "_" + ")" * 5001), "too large"),
        (Tree(f"(S {'(NP _)' * 5000})"), "too large"),
        (Tree("(S (NP (QQ _) (ZZ _)))"), "QQ, ZZ; the constituents are ADJP"),
        (Tree("(S (NP unheard _))"), "'unheard'"),
        (Tree("(S (NP _ _))") & Length(3), "2 and 3"),
        (Tree("(NN _)"), "(NP (NN _))"),
        (Tree(TREE) & Infill("There ___ ."), "Word 1 of the infill"),
        (Infill("___ .") & Tree("(S (NP (DT The) (NN _)) (VP is))"), "Word 3 of the infill"),
        (Tree("(S (XP _ _))", by_classifier=True), "XP"),
        # What no formula of probabilities speaks of.
        (~Length(5), "length=5"),
        (THAI | Pos("NOUN"), "pos=NOUN"),
        (Length(5) | THAI, "length=5"),
        (~Reward(lambda texts: [0.0] * len(texts)), "reward"),
        (2 * Keyword("cheap"), "2 * out"),
        (Reward(lambda texts: [0.0]), "one finite number for each of 2 texts"),
        (Reward(lambda texts: [float("nan")] * len(texts)), "2 that are not finite"),
        (2 * (THAI & Keyword("cheap")), "2 * out"),
        # A tree says all its constituents, and spans are one draw.
        (SPAN & Tree(TREE), "leave the span out"),
        (Tree(TREE) & SPAN, "leave the span out"),
        (2 * Tree(TREE) & SPAN, "leave the span out"),
        (Tree(TREE) & Length(3) & 2 * SPAN, "leave the span out"),
        (2 * SPAN & Span("4:5:PP"), "2 * (a & b)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_asked_is_one_sentence(lm, control, named):
    with pytest.raises(UserError) as refused:
        lm.generate(2, control, steps=2)
    assert named in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 1000


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_above_0_and_finite(weight):
    with pytest.raises(UserError, match=f"{weight:g}"):
        weight * THAI


@pytest.mark.parametrize("control", [Keyword("pub"), THAI, Length(5) & THAI, ~THAI], ids=str)
@pytest.mark.parametrize("combine", [operator.and_, operator.or_])
@pytest.mark.parametrize("other", ["a Thai bar", None, 3, Length])
def test_controls_are_combined_with_controls_only(control, combine, other):
    with pytest.raises(UserError) as refused:
        combine(control, other)
    assert repr(other) in str(refused.value)


def test_words_are_read_as_the_corpus_writes_them(bundled):
    for typed, written in (("Cafe\u0301 Rouge ___", "Café Rouge ___"), ("It’s ___", "It's ___")):
        assert programs(Infill(typed), bundled)[0].canvas == programs(Infill(written), bundled)[0].canvas
    with pytest.raises(UserError, match="did you mean 'Punter'"):
        programs(Infill("the punter ___"), bundled)


@pytest.mark.parametrize("sampler", [DPMSolverPP2M(), DDIM()])
def test_a_reward_needs_a_sampler_that_branches(lm, sampler):
    with pytest.raises(UserError, match="renoise or ddpm"):
        lm.generate(4, Reward(lambda texts: range(4)), steps=6, sampler=sampler)


def test_the_padded_layout_knows_no_languages(padded):
    with pytest.raises(UserError, match="padded"):
        padded.generate(1, Keyword("cheap"), steps=1)


# -- models and what is kept beside them -------------------------------------------------------------------------------


@pytest.fixture
def copied(lm, tmp_path):
    return shutil.copytree(lm.folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"format": 1, "model": {"colour": 1}}'),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b"123"),
        ("model.safetensors", None),
    ],
)
def test_a_broken_model_is_refused(copied, name, content):
    (copied / name).unlink()
    if content is not None:
        (copied / name).write_bytes(content)
    with pytest.raises(UserError, match=str(copied)):
        DiffusionLM.from_pretrained(copied)


def test_the_output_prior_that_older_files_speak_of_has_to_be_off(copied):
    config = json.loads((copied / "config.json").read_text())
    for value in (False, True):
        config["model"]["output_prior"] = value
        (copied / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="output prior") if value else nullcontext():
            DiffusionLM.from_pretrained(copied)


def test_a_missing_model_is_refused(tmp_path):
    for name in ("nonsense", tmp_path):
        with pytest.raises(UserError, match=str(name)):
            DiffusionLM.from_pretrained(name)


def test_what_was_learned_of_another_model_or_is_broken_is_refused(lm, copied):
    for kind in (AttributeModel, TagTable, LeafTable):
        folder = copied / "controls" / kind.name
        with pytest.raises(UserError, match="another language model"):
            kind.from_pretrained(folder, "x")
        (folder / "model.safetensors").write_bytes(b"cut")
        with pytest.raises(UserError, match=str(folder)):
            kind.from_pretrained(folder, lm.fingerprint)
        shutil.rmtree(folder)
        with pytest.raises(UserError, match=f"train-control {kind.name}"):
            kind.from_pretrained(folder, lm.fingerprint)
    with torch.no_grad():
        lm_of_others = DiffusionLM.from_pretrained(copied, "cpu")
        lm_of_others.denoiser.embedding.weight += 1
    lm_of_others.save_pretrained(copied)
    lm.asset(AttributeModel).save_pretrained(copied / "controls" / "attribute")
    with pytest.raises(UserError, match="another language model"):
        DiffusionLM.from_pretrained(copied, "cpu").generate(1, THAI)


def test_a_span_that_is_given_twice_is_one():
    assert len(Span("1:2:NP 1:2:NP").wanted()) == 1
