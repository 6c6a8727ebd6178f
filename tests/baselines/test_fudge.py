"""FUDGE: what its discriminators are asked, how they reweight, and that training makes them right."""

import random

import pytest
import torch

from diffusion_lm.annotate.trees import Span
from diffusion_lm.baselines.fudge import WEIGHTS, Discriminator, Fudge, SpanHead, corrupted, reweighted
from diffusion_lm.baselines.questions import ENDED, OTHER, SaidFields, Sentence, SymbolsAhead, WordsToCome
from diffusion_lm.common import UserError
from diffusion_lm.control.control import CONTROLS, Target
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.model.causal import JudgeLM
from diffusion_lm.text.spacing import split_words


@pytest.fixture
def data(corpus, judge):
    """The first sentence is: The Mill is cheap."""
    return [Sentence.of(*each, judge.tokenizer.encode_sentence(each[0].text)) for each in corpus]


def test_a_sentence_fulfils_the_target_that_is_made_of_it(data, corpus, judge):
    """At every word, and at END, its own classes are those that the target wants."""
    sentence, model = data[0], Discriminator.of(judge, data)
    assert set(model.questions) == {"attribute", "length", "pos", "tree"}
    for task, questions in model.questions.items():
        right = questions.of_sentence(sentence)
        assert right.shape == (6, len(questions.sizes))
        assert (right < torch.tensor(questions.sizes)).all()
        for value in CONTROLS[task].fulfilled(*corpus[0]):
            wanted = questions.of_target(value)
            for place in range(6):
                assert all(right[place, n] == c for n, c in wanted[min(place, len(wanted) - 1)])


def test_what_is_not_said_is_none_and_what_is_rare_is_other(data):
    fields = SaidFields(4, {"name": ["Aromi"], "price": ["cheap", "dear"]})
    assert data[0].said == {"name": "The Mill", "price": "cheap"}
    assert fields.classes({"price": "cheap"}) == [0, 1]
    tags = SymbolsAhead(4, "pos", [["DET"]])
    assert tags.classes([("DET",), ("X",)]).tolist() == [
        [2, OTHER, ENDED, ENDED],
        [OTHER, ENDED, ENDED, ENDED],
        [ENDED] * 4,
    ]
    with pytest.raises(UserError, match="food=Thai"):
        fields.of_target("food=Thai")


def test_past_the_wanted_length_the_end_is_wanted_at_once():
    lengths = WordsToCome(4, 12)
    assert lengths.of_target("3") == [[(0, 3)], [(0, 2)], [(0, 1)], [(0, 0)]]
    with pytest.raises(UserError, match=r"10.*11"):
        lengths.of_target("11")


def test_softmaxes_beside_each_other_are_softmaxes():
    head, states = SaidFields(5, {"a": ["x"], "b": ["y", "z"]}), torch.randn(4, 5)
    each = [[head.log_p(states, [(s, c)]) for c in range(size)] for s, size in enumerate((2, 3))]
    for log_p in each:
        torch.testing.assert_close(torch.stack(log_p).exp().sum(0), torch.ones(4))
    torch.testing.assert_close(head.log_p(states, [(0, 1), (1, 2)]), each[0][1] + each[1][2])
    classes = torch.tensor([[1, 2]]).expand(4, -1)
    torch.testing.assert_close(head.nll(states, classes), -(each[0][1] + each[1][2]).mean() / 2)


def test_corrupted_spans_are_spans_and_mostly_others():
    rng, true = random.Random(0), Span(2, 4, "NP")
    found = [corrupted(true, ["NP", "VP", "PP"], rng) for _ in range(300)]
    assert all(0 <= span.start < span.stop for span in found)
    assert sum(span != true for span in found) > 250
    assert {span.label for span in found} == {"NP", "VP", "PP"}


def test_a_span_is_seen_from_the_word():
    """Moved together with the word, it looks the same."""
    head, states = SpanHead(8, ["NP", "VP"]), torch.randn(1, 1, 8)
    one, two = (head.log_p(states, place, [Span(place + 1, place + 3, "VP")]) for place in (0, 5))
    torch.testing.assert_close(one, two)
    assert not torch.allclose(one, head.log_p(states, 0, [Span(1, 4, "VP")]))


def test_without_evidence_it_is_the_language_model_among_its_likeliest_words():
    logits = torch.randn(4, 30)
    p = reweighted(logits, torch.zeros_like, before=20, after=10).softmax(-1)
    kept = logits.topk(10)
    wanted = torch.zeros(4, 30).scatter(1, kept.indices, kept.values.softmax(-1))
    torch.testing.assert_close(p, wanted)


def test_evidence_is_bayes_rule():
    logits, evidence = torch.randn(3, 8), torch.randn(3, 8)
    p = reweighted(logits, lambda words: 2 * evidence.gather(1, words), 8, 8).softmax(-1)
    torch.testing.assert_close(p, (logits + 2 * evidence).softmax(-1))
    # Among the four likeliest of the language model, whatever the evidence for others.
    p = reweighted(logits, lambda words: 9 * evidence.gather(1, words), 4, 8).softmax(-1)
    assert ((p > 0).sum(-1) <= 4).all()


def test_a_discriminator_that_knows_one_word_forces_it(judge):
    ids = torch.tensor([[0, 4], [0, 5]])
    logits = judge.logits(judge.hidden(ids)[:, -1]).detach()
    p = reweighted(logits, lambda words: torch.where(words == 7, 0.0, -1e4), 200, 10).softmax(-1)
    assert p[:, 7].tolist() == [1.0, 1.0]


@pytest.fixture(scope="module")
def trained(labelled, learned, tmp_path_factory):
    """Folder of trained discriminators, and the losses on the way."""
    seen = []
    rates = {"epochs": 25, "batch_tokens": 64, "lr": 2e-2, "warmup": 5}
    out = str(tmp_path_factory.mktemp("fudge"))
    Fudge.train(Fudge.Config(judge=learned, out=out, **rates), seen.append)
    return out, [report.loss for report in seen]


def test_training_leaves_the_language_model_alone(trained, learned):
    folder, losses = trained
    assert losses[-1] < losses[0] / 4
    lm, before = Discriminator.from_pretrained(folder).lm, JudgeLM.from_pretrained(learned)
    assert weights_hash(lm) == weights_hash(before)


TAGS = "PROPN AUX ADJ PUNCT"


@pytest.mark.parametrize(
    ("asked", "fulfilled"),
    [
        ({"attribute": "price=cheap"}, lambda words: "cheap" in words),
        ({"length": "5"}, lambda words: len(words) == 5),
        ({"pos": TAGS}, lambda words: words[0] == "Aromi" and len(words) == 4),
        (
            {"tree": "(S (NP (NNP _)) (VP (VBZ _) (ADJP (JJ _))) (. _))"},
            lambda words: words[0] == "Aromi" and len(words) == 4,
        ),
        ({"span": "1:2:NP"}, lambda words: words[0] == "The"),
        ({"pos": TAGS, "attribute": "price=cheap"}, lambda words: words[0] == "Aromi" and "cheap" in words),
    ],
    ids=["attribute", "length", "pos", "tree", "span", "pos+attribute"],
)
def test_what_is_asked_for_is_written(trained, asked, fulfilled):
    """The language model writes a sentence that fulfils it every fourth or second time."""
    model, asked = Discriminator.from_pretrained(trained[0]), {task: Target(value) for task, value in asked.items()}
    writer, free = Fudge(model), Fudge(model, dict.fromkeys(WEIGHTS, 0.0), after=200)
    held, drifting = ([split_words(t) for t in w.write(asked, 40, 0).texts] for w in (writer, free))
    assert sum(map(fulfilled, held)) >= 34 > 30 > sum(map(fulfilled, drifting)) > 3
    assert writer.write(asked, 2, 1) == writer.write(asked, 2, 1)


def test_impossible_requests_are_refused(trained, learned):
    writer = Fudge.open([trained[0]])
    writer.check("tree+attribute")
    with pytest.raises(UserError, match="unconditional"):
        writer.check("unconditional")
    for task, value, named in (("attribute", "price=free", "price=free"), ("span", "1:2:QP", "QP")):
        with pytest.raises(UserError, match=named):
            writer.write({task: Target(value)}, 1, 0)
    with pytest.raises(UserError, match="future discriminators"):
        Fudge.open([learned])
