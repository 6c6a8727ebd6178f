"""The measures of the E2E challenge: NIST by hand, tokens, what must hold of all, and figures of the challenge's scorer."""

from __future__ import annotations

import math
import sys

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.evaluation import data2text
from diffusion_lm.evaluation.data2text import challenge_scores, meteor, meteor_command, mteval_words, nist, ptb_words

TEXTS = [
    "The Lantern is a family-friendly café by the harbour. It isn't cheap.",
    "Harbour Lights serves Thai food for £15-20 near the old mill.",
    "There is a quiet bar called Nine Elms in the north of town.",
    "Juniper has a rating of 4 out of 5",
]
REFERENCES = [
    [
        "The Lantern, by the harbour, is a café for families and isn't cheap.",
        "A family-friendly but expensive café, The Lantern lies at the harbour.",
    ],
    ["Near the Old Mill, Harbour Lights serves Thai food at £15-20."],
    [
        "Nine Elms is a quiet bar in the north of town.",
        "In the north there's Nine Elms, a bar.",
        "You can find the quiet bar Nine Elms north of the town.",
    ],
    ["Juniper is rated 4 out of 5.", "Juniper has a high rating."],
]
ORIGINAL = {"bleu": 47.28, "nist": 5.3967, "rouge_l": 65.28036473899135, "cider": 3.843465937266345, "n": 4}
"""What github.com/tuetschek/e2e-metrics gives for these texts; its BLEU and NIST have four digits."""
ORIGINAL_METEOR = 0.4786564842094944


@pytest.fixture
def no_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data2text, "find_spec", lambda name: None)


def test_words_are_those_of_each_measure() -> None:
    text = "It's £20-25.50; The Eagle isn't 5 out of 5, cannot be beaten in the city center., near A&B"
    words = "it 's # 20-25.50 the eagle is n't 5 out of 5 can not be beaten in the city center. near a&b"
    assert " ".join(ptb_words(text)) == words
    assert " ".join(ptb_words("“You’ll pay £-25,” it – says?!...")) == "you 'll pay # -25 it says ?!"
    assert ptb_words("") == ptb_words("...") == []
    assert " ".join(mteval_words("It's £20-25, 5.5!")) == "it's £20 - 25 , 5.5 !"


@pytest.mark.parametrize(
    ("hypothesis", "references", "bits"),
    [
        ("a b", ["a b"], 1.0),  # each word is one of two; after "a", "b" is certain
        ("a b a c", ["a b a c"], 1.5 + 2 / 3),  # "a" 1 bit, "b" and "c" 2; after "a" either is one of two
        ("a b c d", ["a b", "c d"], 2.0),  # each word is one of four, of either reference
        ("a b", ["a b c"], math.log2(3) / 2),  # two thirds of the length score half
        ("a a a a", ["a b c d"], 2 / 4),  # one "a" is in the reference
        ("x", ["a"], 0.0),
        ("", ["a"], 0.0),
        ("a", [""], 0.0),
    ],
)
def test_nist_by_hand(hypothesis: str, references: list[str], bits: float) -> None:
    assert nist([hypothesis.split()], [[each.split() for each in references]]) == pytest.approx(bits)


def test_the_length_of_a_reference_is_the_mean_over_all() -> None:
    # 7 words in 4 references: two texts are to have 3.5 words. A mean for each text would ask for 5.
    said = nist([["a"], ["b", "b", "b"]], [[["a"]] * 3, [["b"] * 4]])
    words, pairs, triples = math.log2(7 / 3) + 3 * math.log2(7 / 4), 2 * math.log2(4 / 3), math.log2(3 / 2)
    assert said == pytest.approx(words / 4 + pairs / 2 + triples / 1)


@pytest.mark.usefixtures("no_meteor")
def test_all_figures_are_those_of_the_challenge_s_scorer() -> None:
    scores = challenge_scores(TEXTS, REFERENCES)
    assert scores == pytest.approx(ORIGINAL, abs=5e-3, rel=0)
    assert scores["rouge_l"] == pytest.approx(ORIGINAL["rouge_l"]) and scores["cider"] == pytest.approx(
        ORIGINAL["cider"]
    )
    assert scores["nist"] == pytest.approx(ORIGINAL["nist"], abs=5e-5)


@pytest.mark.usefixtures("no_meteor")
def test_neither_case_nor_the_order_of_references_matters() -> None:
    turned = [[text.upper() for text in reversed(each)] for each in REFERENCES]
    assert challenge_scores(TEXTS, turned) == pytest.approx(challenge_scores(TEXTS, REFERENCES))


@pytest.mark.usefixtures("no_meteor")
def test_perfect_and_foreign_texts() -> None:
    perfect = challenge_scores(TEXTS, [[text] for text in TEXTS])
    assert perfect == pytest.approx({"bleu": 100, "nist": perfect["nist"], "rouge_l": 100, "cider": 10, "n": 4})
    assert perfect["nist"] > challenge_scores(TEXTS, REFERENCES)["nist"]
    foreign = challenge_scores(["xx yy zz xx yy"] * 4, REFERENCES)
    assert foreign == {"bleu": 0, "nist": 0, "rouge_l": 0, "cider": 0, "n": 4}


STAND_IN = """
import sys
for line in sys.stdin:
    kind, *rest = line.rstrip("\\n").split(" ||| ")
    if kind == "SCORE":
        *references, text = rest
        print(float(text in references), len(references), flush=True)
    else:
        scores = [float(each.split()[0]) for each in rest]
        print(*scores, sum(scores) / len(scores), sep="\\n", flush=True)
"""
"""A program that talks as METEOR does, of the share of texts that are one of their references."""


def test_meteor_hears_each_text_with_its_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data2text, "meteor_command", lambda: [sys.executable, "-c", STAND_IN])
    assert meteor([["a", "é"], ["b"]], [[["b"], ["a", "é"]], [["a"]]]) == 0.5
    assert meteor([["a"]] * 300, [[["a"]]] * 300) == 1
    assert challenge_scores(TEXTS, [[text] for text in TEXTS])["meteor"] == 100


def test_meteor_that_fails_or_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data2text, "meteor_command", lambda: [sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(UserError, match="METEOR gave no score"):
        meteor([["a"]], [[["a"]]])
    monkeypatch.setattr(data2text, "meteor_command", list)
    with pytest.raises(UserError, match="make metrics"):
        meteor([["a"]], [[["a"]]])


@pytest.mark.skipif(not meteor_command(), reason="METEOR is not installed")
def test_meteor_is_the_original_s() -> None:
    found, wanted = [ptb_words(text) for text in TEXTS], [[ptb_words(text) for text in each] for each in REFERENCES]
    assert meteor(found, wanted) == pytest.approx(ORIGINAL_METEOR)


def test_what_cannot_be_scored_is_one_sentence() -> None:
    for hypotheses, references in (([], []), (["a"], [[]]), (["a"], [["b"], ["c"]])):
        with pytest.raises(UserError, match="at least one"):
            challenge_scores(hypotheses, references)
