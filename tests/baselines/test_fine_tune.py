"""The fine-tuned baseline: its prompts, its mathematics and its decoding."""

import math
from dataclasses import asdict

import pytest
import torch

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.baselines.fine_tuned import PADDING, FineTuneConfig, FineTuned, PromptedConfig, PromptedLM, product
from diffusion_lm.common import UserError
from diffusion_lm.control.control import CONTROLS, Target
from diffusion_lm.model.causal import Ends, JudgeConfig, JudgeLM, beam_search, sample
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import split_words
from diffusion_lm.text.tokenizer import build_word_tokenizer

TEXT = "The Mill is cheap."
TREE = "(S (NP (DT The) (NNP Mill)) (VP (VBZ is) (ADJP (JJ cheap))) (. .))"
LABELS = Annotation(["The", "Mill", "is", "cheap", "."], ["DET", "PROPN", "AUX", "ADJ", "PUNCT"], TREE)
DOCUMENT = Document(TEXT, {"name": "The Mill", "price": "cheap", "food": "Thai"})


@pytest.mark.parametrize(
    ("task", "target", "options"),
    [
        ("attribute", "price=cheap", ["name=The Mill@0", "price=cheap@0"]),
        ("pos", "DET PROPN AUX ADJ PUNCT", ["DET@0 PROPN@1 AUX@2 ADJ@3 PUNCT@4"]),
        ("tree", TREE, ["(S@0 (NP@0 DT@0 NNP@1 )@1 (VP@2 VBZ@2 (ADJP@3 JJ@3 )@3 )@3 .@4 )@4"]),
        (
            "span",
            "1:2:NP",
            ["S begins@0 S ends@4", "NP begins@0 NP ends@1", "VP begins@2 VP ends@3", "ADJP begins@3 ADJP ends@3"],
        ),
        ("length", "5", ["end@5"]),
    ],
)
def test_a_target_has_the_prompt_of_the_sentences_that_fulfil_it(task, target, options):
    control = CONTROLS[task]
    found = [control.prompt(value) for value in control.fulfilled(DOCUMENT, LABELS)]
    assert [" ".join(f"{text}@{place}" for text, place in prompt) for prompt in found] == options
    assert control.prompt(target) in found


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer([TEXT], 1)


@pytest.fixture
def shape(tokenizer):
    return JudgeConfig(tokenizer.vocab_size, width=16, layers=2, heads=2, max_length=10, dropout=0.0)


def prompted_lm(task, symbols, shape, tokenizer):
    """One whose random weights are so large that its prompts matter."""
    model = PromptedLM(PromptedConfig(task, [PADDING, *symbols], shape), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model.eval()


@pytest.fixture
def model(shape, tokenizer):
    return prompted_lm("length", ["end"], shape, tokenizer)


def test_words_read_the_prompt_and_the_words_before_them_alone(model):
    ids = torch.tensor([model.lm.tokenizer.encode_sentence(TEXT)])
    four, five = (model.encode([[("end", place)]]) for place in (4, 5))
    logits = model.logits(four, ids)
    changed = ids.clone()
    changed[0, 3] = ids[0, 4]
    torch.testing.assert_close(model.logits(four, changed)[:, :3], logits[:, :3])
    assert not torch.allclose(model.logits(five, ids), logits, atol=1e-4)


def test_prompts_are_padded_on_the_right(model):
    prompts = model.encode([[("end", 4)], [("end", 1), ("end", 2)]])
    assert prompts.tolist() == [[[1, 4], [0, 0]], [[1, 1], [1, 2]]]


def test_an_unseen_symbol_is_refused(model):
    with pytest.raises(UserError, match="'begin'"):
        model.encode([[("begin", 0)]])
    with pytest.raises(UserError, match=r"8.*10"):
        model.encode([[("end", 9)]])


def test_it_loads_as_it_was_saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = PromptedLM.from_pretrained(tmp_path)
    assert asdict(again.config) == asdict(model.config)
    ids = torch.tensor([[0, 4, 5]])
    prompt = model.encode([[("end", 3)]])
    torch.testing.assert_close(again.logits(prompt, ids), model.logits(prompt, ids))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="fine-tuned language model"):
        PromptedLM.from_pretrained(tmp_path)


def test_a_place_starts_as_the_position_that_predicts_its_word(shape, tokenizer):
    judge = JudgeLM(shape, tokenizer)
    ids = tokenizer.encode_sentence(TEXT)
    model = PromptedLM.of(judge, "length", {"end"})
    torch.testing.assert_close(model.places.weight, judge.positions.weight)
    # END is read nowhere and predicted at the place that the prompt names.
    ((_, place),) = model.encode([CONTROLS["length"].prompt("5")])[0].tolist()
    assert ids[place + 1] == tokenizer.end_id


COMPOSED = {"pos": Target("DET PROPN", 1), "attribute": Target("price=cheap")}


@pytest.fixture
def experts(shape, tokenizer, tmp_path):
    """Folders of experts for tags and for an attribute."""
    for task, symbols in (("pos", ["DET", "PROPN"]), ("attribute", ["price=cheap"])):
        prompted_lm(task, symbols, shape, tokenizer).save_pretrained(tmp_path / task)
    return [tmp_path / "pos", tmp_path / "attribute"]


def test_a_product_of_experts_is_their_geometric_mean():
    one, two = torch.randn(2, 3, 7)
    mean = (one.softmax(-1) * two.softmax(-1)).sqrt()
    torch.testing.assert_close(product([one, two]).exp(), mean / mean.sum(-1, keepdim=True))
    torch.testing.assert_close(product([one, one, one]).exp(), one.softmax(-1))


def test_experts_stand_for_the_controls_of_the_task(experts):
    writer = FineTuned.open(experts)
    assert writer.name == "FT-PoE, sampled"
    writer.check("pos+attribute")
    assert writer.write(COMPOSED, 3, 1).texts != FineTuned.open(experts[:1]).write(COMPOSED, 3, 1).texts
    assert writer.write(COMPOSED, 3, 1) == writer.write(COMPOSED, 3, 1)
    for task in ("pos", "tree+attribute"):
        with pytest.raises(UserError, match=r"pos\+attribute"):
            writer.check(task)
    with pytest.raises(UserError, match="same control"):
        FineTuned.open([experts[0], experts[0]])


def test_experts_share_their_words(experts, tmp_path):
    other = build_word_tokenizer(["Other words."], 1)
    shape = JudgeConfig(other.vocab_size, width=8, layers=1, heads=1, max_length=10)
    prompted_lm("attribute", ["price=cheap"], shape, other).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="same words"):
        FineTuned.open([experts[0], tmp_path / "other"])


def test_training_learns_what_the_prompts_say(labelled, judge, tmp_path):
    judge.save_pretrained(tmp_path / "judge")
    rates = {"epochs": 12, "batch_tokens": 64, "lr": 3e-2, "warmup": 5}
    config = FineTuneConfig(judge=str(tmp_path / "judge"), task="length", out=str(tmp_path / "ft"), **rates)
    seen = []
    folder = FineTuned.train(config, seen.append)
    assert seen[-1].fraction == 1 and seen[-1].loss < seen[0].loss / 3
    for length in (4, 5):
        texts = FineTuned.open([folder]).write({"length": Target(str(length))}, 20, 0).texts
        assert sum(len(split_words(text)) == length for text in texts) >= 12


def chain(ids):
    """Word 2 or 3, then END (1) with 0.9 after 2 and 0.2 after 3; 0 is START."""
    p = {0: [0, 0, 0.6, 0.4], 2: [0, 0.9, 0.1, 0], 3: [0, 0.2, 0, 0.8]}
    return torch.tensor([p[last] for last in ids[:, -1].tolist()]).log()


def test_sampling_follows_the_probabilities():
    drawn = sample(chain, Ends(0, 1, 20), 4000, torch.Generator().manual_seed(0))
    assert all(s[0] == 0 and s[-1] == 1 and 1 not in s[:-1] for s in drawn)
    assert sum(s == [0, 2, 1] for s in drawn) / 4000 == pytest.approx(0.54, abs=0.03)
    assert max(map(len, sample(chain, Ends(0, 1, 4), 100, torch.Generator().manual_seed(0)))) == 4


def test_beam_search_finds_the_likeliest():
    best = beam_search(chain, Ends(0, 1, 6), 3)
    assert best[0] == [0, 2, 1] and len(best) == 3
    # By log-probability a word: two words at 0.54 against what three share.
    assert math.log(0.54) / 2 > math.log(0.6 * 0.1 * 0.9) / 3


def test_what_stands_for_unknown_words_is_never_written():
    ends = Ends(0, 1, 6, unknown=3)
    assert all(3 not in s for s in sample(chain, ends, 500, torch.Generator().manual_seed(0)))
    assert beam_search(chain, ends, 3) == [[0, 2, 1], [0, 2, 2, 1], [0, 2, 2, 2, 1]]


def test_words_of_a_prompt_that_is_a_text_start_as_the_words_of_the_model(shape, tokenizer):
    judge = JudgeLM(shape, tokenizer)
    model = PromptedLM.of(judge, "data2text", {"Mill", "=", "UNK"})
    start = {symbol: model.symbols.weight[i] for symbol, i in model.index.items()}
    torch.testing.assert_close(start["Mill"], judge.embedding.weight[tokenizer.id("Mill")])
    assert not torch.equal(start["="], start["Mill"])
    assert not torch.allclose(model.places.weight, judge.positions.weight)


@pytest.mark.parametrize(
    ("task", "document", "lessons"),
    [
        ("data2text", DOCUMENT, [("name = The Mill, price = cheap, food = Thai", TEXT)]),
        ("infill", Document("A left. B sat. C ran."), [("A left. ___ C ran.", "B sat.")]),
        (
            "infill",
            Document("A left. B sat. C ran. D hid."),
            [
                ("A left. ___ C ran.", "B sat."),
                ("A left. ___ D hid.", "B sat."),
                ("B sat. ___ D hid.", "C ran."),
                ("A left. ___ D hid.", "C ran."),
            ],
        ),
        ("length", DOCUMENT, [("5", TEXT)]),
    ],
)
def test_lessons_are_what_is_to_be_written(task, document, lessons):
    control = CONTROLS[task]
    assert control.lessons(document, LABELS) == lessons
    for value, text in lessons if task == "infill" else []:
        whole = control.completed(Target(value), text)
        assert whole == value.replace("___", text) and control.answer(Target(value), whole) == text


def test_what_a_text_is_written_from_needs_no_labels(shape, tokenizer, tmp_path):
    (tmp_path / "train.tsv").write_text(f"the mill\t{TEXT}\n" * 100)
    config = FineTuneConfig(task="data2text", corpus=CorpusConfig(str(tmp_path)), labels=str(tmp_path / "labels.jsonl"))
    lesson = FineTuned.lesson(config, JudgeLM(shape, tokenizer))
    assert sorted(lesson.model.index) == [PADDING, "UNK", "mill", "the"]
    assert set(lesson.lengths) == {2 + 7}
    assert lesson.loss([0, 1]).ndim == 0 and not (tmp_path / "labels.jsonl").exists()
