"""FUDGE: what its discriminators are asked, how they reweight, and that training makes them right."""

import random

import pytest
import torch

from diffusion_lm.annotate.trees import Span
from diffusion_lm.baselines.common import Sentence, Softmaxes
from diffusion_lm.baselines.fudge import (
    WEIGHTS,
    Discriminator,
    Fudge,
    FudgeConfig,
    SpanHead,
    corrupted,
    reweighted,
    train_fudge,
)
from diffusion_lm.baselines.questions import (
    ENDED,
    OTHER,
    Known,
    LeavesAhead,
    SaidFields,
    TagsAhead,
    WordsToCome,
)
from diffusion_lm.common import UserError
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.evaluation.targets import AttributeTarget, SentenceTarget
from diffusion_lm.evaluation.tasks import Composed
from diffusion_lm.model.causal import JudgeLM
from diffusion_lm.text.spacing import split_words


@pytest.fixture
def data(corpus, judge):
    """The first sentence is: The Mill is cheap."""
    return [Known.of(Sentence(*each, judge.tokenizer.encode_sentence(each[0].text))) for each in corpus]


def test_a_sentence_fulfils_the_target_that_is_made_of_it(data):
    """At every word, and at END, its own classes are those that the target wants."""
    known = data[0]
    tree, tags = known.sentence.labels.tree, " ".join(known.sentence.labels.pos)
    asked = [
        (
            SaidFields(SaidFields.names(each.sentence.document for each in data)),
            AttributeTarget("price", "cheap"),
        ),
        (WordsToCome(12), 5),
        (TagsAhead(TagsAhead.names(data)), SentenceTarget(1, tags)),
        (LeavesAhead(LeavesAhead.names(data)), SentenceTarget(1, tree)),
    ]
    for questions, target in asked:
        right = questions.of_sentence(known)
        assert right.shape == (6, len(questions.sizes))
        assert (right < torch.tensor(questions.sizes)).all()
        for place in range(6):
            wanted = questions.of_target(target, place)
            assert all(right[place, number] == value for number, value in wanted)


def test_what_is_not_said_is_none_and_what_is_rare_is_other(data):
    fields = SaidFields(SaidFields.names(each.sentence.document for each in data))
    assert fields.fields == {"name": ["Aromi", "The Mill"], "price": ["cheap", "dear"]}
    tags = TagsAhead([["DET"]])
    assert tags.classes([("DET",), ("X",)]).tolist() == [
        [2, OTHER, ENDED, ENDED],
        [OTHER, ENDED, ENDED, ENDED],
        [ENDED] * 4,
    ]
    with pytest.raises(UserError, match="says food=Thai"):
        fields.of_target(AttributeTarget("food", "Thai"))


def test_past_the_wanted_length_the_end_is_wanted_at_once():
    lengths = WordsToCome(12)
    assert [lengths.of_target(3, place)[0][1] for place in range(6)] == [3, 2, 1, 0, 0, 0]
    with pytest.raises(UserError, match="at most 10 words, not 11"):
        lengths.of_target(11, 0)


def test_softmaxes_beside_each_other_are_softmaxes():
    head, states = Softmaxes(5, [2, 3]), torch.randn(4, 5)
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
    train_fudge(FudgeConfig(judge=learned, out=out, **rates), seen.append)
    return out, [report.loss for report in seen]


def test_training_leaves_the_language_model_alone(trained, learned):
    folder, losses = trained
    assert losses[-1] < losses[0] / 4
    lm, before = Discriminator.from_pretrained(folder).lm, JudgeLM.from_pretrained(learned)
    assert weights_hash(lm) == weights_hash(before)


TAGS = "PROPN AUX ADJ PUNCT"
CHEAP = AttributeTarget("price", "cheap")


@pytest.mark.parametrize(
    ("target", "fulfilled"),
    [
        (CHEAP, lambda words: "cheap" in words),
        (5, lambda words: len(words) == 5),
        (SentenceTarget(1, TAGS), lambda words: words[0] == "Aromi" and len(words) == 4),
        (
            SentenceTarget(1, "(S (NP (NNP _)) (VP (VBZ _) (ADJP (JJ _))) (. _))"),
            lambda words: words[0] == "Aromi" and len(words) == 4,
        ),
        (SentenceTarget(1, "1:2:NP"), lambda words: words[0] == "The"),
        (
            Composed(SentenceTarget(1, TAGS), CHEAP),
            lambda words: words[0] == "Aromi" and "cheap" in words,
        ),
    ],
    ids=["attribute", "length", "pos", "tree", "span", "pos+attribute"],
)
def test_what_is_asked_for_is_written(trained, target, fulfilled):
    """The language model writes a sentence that fulfils it every fourth or second time."""
    writer, free = Fudge(trained[0]), Fudge(trained[0], dict.fromkeys(WEIGHTS, 0.0), after=200)
    held, drifting = ([split_words(t) for t in w.write(target, 40, 0).texts] for w in (writer, free))
    assert sum(map(fulfilled, held)) >= 34 > 30 > sum(map(fulfilled, drifting)) > 3
    assert writer.write(target, 2, 1) == writer.write(target, 2, 1)


def test_impossible_requests_are_refused(trained, learned):
    writer = Fudge(trained[0])
    writer.check("tree+attribute")
    with pytest.raises(UserError, match="no discriminator for unconditional"):
        writer.check("unconditional")
    with pytest.raises(UserError, match="No text that the baseline was trained on says price=free"):
        writer.write(AttributeTarget("price", "free"), 1, 0)
    with pytest.raises(UserError, match="constituent QP"):
        writer.write(SentenceTarget(1, "1:2:QP"), 1, 0)
    with pytest.raises(UserError, match="holds no language model with future discriminators"):
        Fudge(learned)
