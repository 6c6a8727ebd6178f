"""The fine-tuned baseline: its prompts, its mathematics and its decoding."""

import math
from dataclasses import asdict

import pytest
import torch

from diffusion_lm.annotate.corpus_labels import Annotation
from diffusion_lm.baselines.fine_tune import PADDING
from diffusion_lm.baselines.prompted_lm import PromptedConfig, PromptedLM
from diffusion_lm.baselines.prompts import PROMPTS
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.decode import Ends, beam_search, sample
from diffusion_lm.evaluation.judge import JudgeConfig
from diffusion_lm.evaluation.sentence_targets import SentenceTarget
from diffusion_lm.evaluation.targets import AttributeTarget
from diffusion_lm.text.document import Document
from diffusion_lm.text.tokenizer import build_word_tokenizer

TEXT = "The Mill is cheap."
TREE = "(S (NP (DT The) (NNP Mill)) (VP (VBZ is) (ADJP (JJ cheap))) (. .))"
LABELS = Annotation(["The", "Mill", "is", "cheap", "."], ["DET", "PROPN", "AUX", "ADJ", "PUNCT"], TREE)
DOCUMENT = Document(TEXT, {"name": "The Mill", "price": "cheap", "food": "Thai"})


@pytest.mark.parametrize(
    ("task", "target", "options"),
    [
        ("attribute", AttributeTarget("price", "cheap"), [["name=The Mill"], ["price=cheap"]]),
        ("pos", SentenceTarget(1, "DET PROPN AUX ADJ PUNCT"), [["DET", "PROPN", "AUX", "ADJ", "PUNCT"]]),
        (
            "tree",
            SentenceTarget(1, TREE),
            [["(S", "(NP", "DT", "NNP", ")", "(VP", "VBZ", "(ADJP", "JJ", ")", ")", ".", ")"]],
        ),
        ("span", SentenceTarget(1, "1:2:NP"), None),
        ("length", 5, [["length=5"]]),
    ],
)
def test_a_target_has_the_prompt_of_the_sentences_that_fulfil_it(task, target, options):
    found = PROMPTS[task].options(DOCUMENT, LABELS)
    assert PROMPTS[task].of_target(target) in found
    assert options is None or found == options


def test_spans_are_prompts_one_by_one():
    found = PROMPTS["span"].options(DOCUMENT, LABELS)
    assert sorted(found) == sorted(
        [
            ["first=1", "last=5", "S"],
            ["first=1", "last=2", "NP"],
            ["first=3", "last=4", "VP"],
            ["first=4", "last=4", "ADJP"],
        ]
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer([TEXT], 1)
    shape = JudgeConfig(tokenizer.vocab_size, width=16, layers=2, heads=2, max_length=10, dropout=0.0)
    return PromptedLM(PromptedConfig("length", [PADDING, "length=4", "length=5"], 2, shape), tokenizer).eval()


def test_words_read_the_prompt_and_the_words_before_them_alone(model):
    ids = torch.tensor([model.lm.tokenizer.encode_sentence(TEXT)])
    logits = model.logits(torch.tensor([[1]]), ids)
    changed = ids.clone()
    changed[0, 3] = ids[0, 4]
    torch.testing.assert_close(model.logits(torch.tensor([[1]]), changed)[:, :3], logits[:, :3])
    assert not torch.allclose(model.logits(torch.tensor([[2]]), ids), logits, atol=1e-4)


def test_an_unseen_symbol_is_refused(model):
    with pytest.raises(UserError, match="never seen the symbol 'length=9'"):
        model.encode(["length=9"])
    with pytest.raises(UserError, match="never seen a prompt of 3 symbols"):
        model.encode(["length=4"] * 3)


def test_it_loads_as_it_was_saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = PromptedLM.from_pretrained(tmp_path)
    assert asdict(again.config) == asdict(model.config)
    ids = torch.tensor([[0, 4, 5]])
    torch.testing.assert_close(again.logits(torch.tensor([[1]]), ids), model.logits(torch.tensor([[1]]), ids))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no fine-tuned language model"):
        PromptedLM.from_pretrained(tmp_path)


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
