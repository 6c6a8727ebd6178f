"""Generation: facts hold, seeds repeat, every sentence has its own control, defaults fit, and the model is where it was put."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import Attribute, Infill, Keyword, Length, Pos, Reward, Span, Tree
from diffusion_lm.control.attribute import AttributeModel
from diffusion_lm.control.automaton import Automaton
from diffusion_lm.control.canvas import UNKNOWN, Canvas
from diffusion_lm.control.guidance import InnerLoop, Proximal, Pull
from diffusion_lm.control.program import Program
from diffusion_lm.diffusion.clamp import HardClamp, NoClamp, SampledClamp, SoftClamp
from diffusion_lm.diffusion.samplers import DDIM, Ancestral, DPMSolverPP2M, Renoise
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.layout import FREE, compiled, lay_out
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.sampling import _batches
from diffusion_lm.model.denoiser import ModelConfig
from tests.control.conftest import Unjudged, programs


def test_the_same_seed_gives_the_same_text_and_another_another(lm):
    for control in (None, Keyword("harbour")):
        first, again, other = (lm.generate(5, control, steps=4, seed=seed).texts for seed in (1, 1, 2))
        assert first == again != other


def test_no_special_word_stands_between_start_and_end(lm):
    for ids in lm.generate(16, steps=3).ids:
        assert (ids[0], ids[-1]) == (lm.tokenizer.start_id, lm.tokenizer.end_id)
        assert min(ids[1:-1]) > lm.tokenizer.pad_id


def test_lengths_follow_the_corpus(lm):
    lengths = torch.tensor([len(ids) for ids in lm.generate(64, steps=1).ids])
    assert bool((lm.lengths[lengths] > 0).all())
    assert len(lengths.unique()) > 3


@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(), DPMSolverPP2M()])
@pytest.mark.parametrize("clamp", [HardClamp(), SoftClamp(), NoClamp()])
def test_length_and_infill_hold_with_every_sampler_and_clamp(lm, sampler, clamp):
    word = lm.tokenizer.token(10)
    control = Infill(f"{word} ___{{2}} {word} ___") & Length(9)
    made = lm.generate(3, control, steps=3, sampler=sampler, clamp=clamp)
    assert control.success(made.texts).tolist() == [1.0] * 3
    assert all(len(words) == 9 and words[0] == words[3] == word for words in made.words)


def test_the_callback_sees_every_step(lm):
    seen = []
    lm.generate(3, steps=4, batch_size=2, callback=seen.append)
    assert [step.index for step in seen] == [0, 1, 2, 3] * 2
    assert sorted(row for step in seen[::4] for row in step.rows) == [0, 1, 2]


# -- a control of its own for each sentence --------------------------------------------------------------------------


def test_every_sentence_does_what_its_own_control_wants(lm):
    pub = Keyword("cheap") & Length(9)
    controls = [Length(5), pub, None, Infill("The ___{2}"), pub, Length(12), Attribute("food", "Thai") & Length(4)]
    written = lm.generate(7, controls, steps=3, seed=0, batch_size=4)
    for control, text in zip(controls[:6], written.texts, strict=False):
        assert control is None or control.success([text])[0] == 1
    assert [len(written.words[i]) for i in (0, 1, 4, 5, 6)] == [5, 9, 9, 12, 4]


def test_one_control_for_all_is_the_control_itself_and_a_list_says_whose_place_may_be_taken(lm):
    one, other = Length(6), Length(7)
    assert lm.generate(4, [one] * 4, steps=3).texts == lm.generate(4, one, steps=3).texts
    assert compiled(lm, 5, [one, other, one, None, other], torch.Generator()).groups == [0, 1, 0, FREE, 1]
    with pytest.raises(UserError, match="2 controls are given for 3"):
        lm.generate(3, [one, None])


class Growing(Unjudged):
    """Each sentence is a word longer than the one before."""

    def compile(self, host, canvases, generator):
        return [Program(canvas.with_words(6 + i)) for i, canvas in enumerate(canvases)]


def test_what_all_sentences_share_is_done_once(lm, monkeypatch):
    calls, original = [], Automaton.constrain

    def counted(self, logits, mask, generator=None):
        calls.append(len(logits))
        return original(self, logits, mask, generator)

    monkeypatch.setattr(Automaton, "constrain", counted)
    wanted = Keyword("cheap") & Keyword("the")
    out = lm.generate(5, Growing() & wanted, steps=3, seed=0)
    assert calls == [5, 5, 5]
    assert wanted.success(out.texts).tolist() == [1.0] * 5
    assert [len(words) for words in out.words] == [6, 7, 8, 9, 10]


class Columns(Unjudged):
    """What it knows of words, [V] or [words, V], and nothing else."""

    def __init__(self, columns):
        self.columns = columns

    def compile(self, host, canvases, generator):
        return [Program(canvas, (self.columns,)) for canvas in canvases]


def test_columns_of_every_word_add_to_those_of_the_first_words(lm):
    v, the, cheap = lm.tokenizer.vocab_size, *lm.tokenizer.encode("the cheap")
    every, first = torch.zeros(v), torch.zeros(2, v)
    every[the], first[1, cheap] = 500.0, 3000.0
    for control in (Columns(every) & Columns(first), 0.5 * (Columns(first) & Columns(every)) & Length(5)):
        for words in lm.generate(3, control & Length(5), steps=2).words:
            assert words == ["the", "cheap", "the", "the", "the"]
    # Columns of more words than there are, and a given word that they forbid.
    assert len(lm.generate(1, Columns(torch.zeros(9, v)) & Length(2), steps=2).words[0]) == 2
    every[the] = -torch.inf
    assert lm.generate(2, Columns(every) & Infill("the ___{2}"), steps=2).words[0][0] == "the"
    (weighted,) = programs(0.5 * (Columns(every) & Columns(first)), lm)
    torch.testing.assert_close(weighted.columns, (0.5 * every, 0.5 * first))


def test_batches_are_cut_where_it_takes_the_least_time() -> None:
    lengths = torch.tensor([9, 30] * 20 + [31] * 8)
    parts = list(_batches(lengths, 48, overhead=12))
    assert sorted(torch.cat(parts).tolist()) == list(range(48))
    assert [lengths[part].unique().tolist() for part in parts] == [[9], [30, 31]]
    assert [len(part) for part in _batches(lengths, 48, overhead=math.inf)] == [48]
    assert [len(part) for part in _batches(lengths, 48, overhead=0)] == [20, 20, 8]
    assert [len(part) for part in _batches(torch.full((70,), 12), 48, overhead=12)] == [48, 22]
    # Every way to cut four lengths, by hand.
    lengths = torch.tensor([3, 4, 9, 10])
    cuts = [[0, *(i for i in (1, 2, 3) if which >> i & 1), 4] for which in range(0, 16, 2)]
    costs = [sum(int(lengths[b - 1]) * (b - a + 1.5) for a, b in pairwise(cut)) for cut in cuts]
    found = [len(part) for part in _batches(lengths, 9, overhead=1.5)]
    assert found == [b - a for a, b in pairwise(cuts[costs.index(min(costs))])]


# -- how texts are drawn where nothing is said of it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "steps", "clamp"),
    [
        (None, 200, SampledClamp()),
        (Pos("DET NOUN"), 76, SoftClamp(temperature=0.7)),
        (Tree("(S (NP _) (VP _))") & Keyword("cheap"), 76, SoftClamp(temperature=0.7)),
        (Span("1:2:NP"), 76, SoftClamp(temperature=0.7)),
        (Keyword("cheap") & Length(6), 50, SampledClamp(temperature=0.7)),
        (Attribute("food", "Thai"), 100, SampledClamp()),
        (Pos("DET NOUN", by_classifier=True), 100, SampledClamp()),
        (Reward(lambda texts: [0.0] * len(texts)), 100, SampledClamp()),
        (Length(6), 100, SampledClamp(temperature=0.9)),
        (Infill("The ___"), 100, SampledClamp(temperature=0.9)),
    ],
    ids=str,
)
def test_defaults_fit_what_is_asked_and_flags_beat_them(lm, control, steps, clamp):
    asked = compiled(lm, 1, control, torch.Generator().manual_seed(0)).programs
    found = Decoding().fitted(asked, predicts_words=True)
    assert (found.steps, found.clamp, type(found.sampler)) == (steps, clamp, Renoise)
    paper = Decoding().fitted(asked, predicts_words=False)
    assert (paper.steps, type(paper.clamp), type(paper.sampler)) == (200, HardClamp, Ancestral)
    assert isinstance(paper.guidance, Proximal) and isinstance(found.guidance, Pull)
    followed = Decoding(guidance=InnerLoop()).fitted(asked, predicts_words=True)
    assert (followed.steps, type(followed.clamp), type(followed.sampler)) == (200, HardClamp, Ancestral)
    quick = Decoding(quality="fast").fitted(asked, predicts_words=True)
    best = Decoding(quality="best").fitted(asked, predicts_words=True)
    assert quick.steps < found.steps <= best.steps and (quick.clamp, best.clamp) == (clamp, clamp)
    own = Decoding(7, 0.5, DDIM(), NoClamp(), InnerLoop(), 1.5, 0.5, 0.0, 0.0, "fast")
    assert own.fitted(asked, predicts_words=True) == own


def test_a_model_is_asked_what_fits_it(lm):
    assert lm.generate(1, Length(3)).decoding.steps == 100
    assert lm.generate(1, Length(3), quality="fast").decoding.steps == 50
    with pytest.raises(UserError, match="no quality 'good'"):
        lm.generate(1, quality="good")
    config = ModelConfig(width=16, layers=1, heads=2, objective="simple")
    assert DiffusionLM.new(config, lm.tokenizer, lm.lengths).generate(1, steps=1).decoding.clamp == HardClamp()


@pytest.mark.parametrize("clamp", [SoftClamp, SampledClamp])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_temperature_is_above_0_and_a_time_from_0_to_1(clamp, number):
    with pytest.raises(UserError, match=f"temperature .* not {number}"):
        clamp(temperature=number)
    with pytest.raises(UserError, match=f"from_time .* not {number or 2.0}"):
        clamp(from_time=number or 2.0)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"n": 0}, "0"),
        ({"n": 2.5}, "2.5"),
        ({"steps": 1.5}, "1.5"),
        ({"seed": -1}, "-1"),
        ({"batch_size": 0}, "0"),
        ({"control": "food"}, "'food'"),
        ({"control": [Length]}, "Length"),
    ],
)
def test_what_is_no_number_or_no_control_is_refused(lm, asked, named):
    with pytest.raises(UserError, match=named):
        lm.generate(**{"n": 1, "steps": 1, **asked})
    for words in (5.5, "12"):
        with pytest.raises(UserError, match=f"{words}"):
            Length(words)


# -- the model ------------------------------------------------------------------------------------------------------

MIXED = [Attribute("food", "Thai"), Keyword("cheap"), Pos("DET NOUN VERB"), Span("1:2:NP") & Length(9), None]


def mixed(lm):
    return lm.generate(5, MIXED, steps=2, seed=5).texts


def test_what_a_control_has_learned_moves_with_the_model(lm):
    moved = copy.deepcopy(lm)
    model = moved.asset(AttributeModel)
    assert moved.to("meta") is moved and moved.device.type == "meta"
    assert moved.asset(AttributeModel) is model and {p.device.type for p in model.parameters()} == {"meta"}
    assert lm.asset(AttributeModel).pool.weight.device.type == "cpu"


def test_the_weights_stay_in_float32(lm):
    for change in (lm.half, lm.double, lambda: lm.to(torch.float16), lambda: lm.to(dtype=torch.float64)):
        with pytest.raises(UserError, match=r"not in torch\.float"):
            change()
    assert lm.denoiser.embedding.weight.dtype == torch.float32


def test_the_callers_defaults_change_nothing(lm):
    wanted = mixed(lm)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        loaded = DiffusionLM.from_pretrained(lm.folder, "cpu")
        assert mixed(loaded) == mixed(lm) == wanted
        assert torch.get_default_dtype() == torch.float64 and torch.empty(0).is_meta
        with pytest.raises(UserError):
            loaded.generate(1, Length(99))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_a_copy_and_four_threads_write_what_the_model_writes(lm):
    wanted = mixed(lm)
    fresh = DiffusionLM.from_pretrained(lm.folder, "cpu")  # the threads load its assets
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(mixed, [fresh] * 4)) == [wanted] * 4
    assert mixed(copy.deepcopy(fresh)) == wanted


def test_in_the_padded_layout_a_fixed_number_of_words_is_end_and_pad_that_are_known(padded):
    t, canvas = padded.tokenizer, Canvas(30).with_words(4)
    layout = lay_out(padded, [canvas] * 2, torch.Generator().manual_seed(0))
    assert layout.mask.shape == (2, 32) and bool(layout.mask.all())
    assert layout.known.tolist() == [[t.start_id, *[UNKNOWN] * 4, t.end_id, *[t.pad_id] * 26]] * 2
    for ids in padded.generate(2, Pos("DET NOUN ADP NOUN", by_classifier=True), steps=3).ids:
        assert ids[0] == t.start_id and ids[5:] == [t.end_id, *[t.pad_id] * 26]
    assert len(padded.generate(2, Length(6), steps=3)) == 2


def test_unk_is_never_written_in_the_padded_layout_either(padded):
    made = padded.generate(16, steps=2, seed=0)
    drawn = torch.tensor(made.ids).flatten().bincount(minlength=padded.tokenizer.vocab_size)
    t = padded.tokenizer
    assert drawn[t.unk_id] == 0 < drawn[t.pad_id] and drawn[t.end_id] > 0


def test_in_the_padded_layout_a_gap_has_slots_of_words_or_pads(padded):
    text = Infill("The ___ cheap.")
    made = padded.generate(6, text, steps=4, seed=0)
    assert all(each.startswith("The ") and each.endswith(" cheap.") for each in made.texts)
    assert all(len(words) <= 3 + 10 for words in made.words)
    assert {ids.index(1) for ids in made.ids} == {1 + 1 + 10 + 2}  # END stands behind the context, whatever the gap has
