"""Texts against references: what is known by hand of BLEU, ROUGE-L, CIDEr, and greedy matching."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.metrics import (
    bert_score,
    bleu_4,
    cider,
    matching,
    plain,
    reference_scores,
    remembered,
    rouge_l,
    scores_by_way,
    scores_of_gaps,
)

TEXTS = ["He dropped his phone.", "The dog ran away from her.", "It rained all day."]


def letters(texts: Sequence[str]) -> list[Tensor]:
    """A stand-in for the encoder: each word is the unit vector of its first letter."""
    return [torch.eye(26)[[ord(word[0]) - ord("a") for word in plain(text).split()]] for text in texts]


def test_words_are_plain() -> None:
    assert plain("It's  £20-25, at The Eagle!") == "it 's 20 25 at the eagle"
    assert plain("...") == ""


def test_bleu_takes_any_number_of_references() -> None:
    assert bleu_4(["HE dropped his phone."], [TEXTS[:1]]) == pytest.approx(100)
    assert bleu_4(TEXTS, [TEXTS, TEXTS[1:2], TEXTS[1:]]) == pytest.approx(100)
    assert bleu_4(["a b c d e"], [["v w x y z"]]) == 0


def test_greedy_matching_by_hand() -> None:
    a, b, c = torch.eye(3)
    assert matching(torch.stack([a, b]), torch.stack([b, a, a])) == pytest.approx(1)
    # Precision 1 of 2, recall 1 of 1.
    assert matching(torch.stack([a, c]), torch.stack([a])) == pytest.approx(2 / 3)
    assert matching(torch.stack([a]), torch.stack([b])) == 0
    assert matching(torch.empty(0, 3), torch.stack([a])) == 0
    half = torch.tensor([[0.6, 0.8, 0.0]])
    assert matching(half, torch.stack([a])) == pytest.approx(0.6)


def test_bert_score_takes_the_best_reference() -> None:
    assert bert_score(["ant bee"], [["xylophone", "Apple, banana!"]], letters) == pytest.approx(100)
    assert bert_score(["ant cat", "ant"], [["ant"], ["bee"]], letters) == pytest.approx(100 * (2 / 3) / 2)


def test_a_text_is_encoded_once() -> None:
    asked: list[str] = []

    def spy(texts: Sequence[str]) -> list[Tensor]:
        asked.extend(texts)
        return letters(texts)

    vectors = remembered(spy)
    first = vectors(["ant", "bee", "ant"])
    assert torch.equal(first[0], first[2]) and torch.equal(vectors(["bee"])[0], first[1])
    assert asked == ["ant", "bee"]


def test_all_figures_of_perfect_and_of_foreign_texts() -> None:
    perfect = reference_scores(TEXTS, [["Something else.", text] for text in TEXTS], letters)
    figures = {"bleu_4": 100, "rouge_l": 100, "bert_score": 100, "n": 3, "cider": perfect["cider"]}
    assert perfect == pytest.approx(figures)
    assert reference_scores(TEXTS, [[text] for text in TEXTS], letters)["cider"] == pytest.approx(1000)
    foreign = reference_scores(["xx xx xx xx"] * 3, [[text] for text in TEXTS], letters)
    assert foreign == {"bleu_4": 0, "rouge_l": 0, "cider": 0, "bert_score": 0, "n": 3}


def test_rouge_l_by_hand() -> None:
    precision, recall, beta = 3 / 4, 3 / 5, 1.2
    f = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert rouge_l(["she", "ran", "home", "quickly"], [["she", "ran", "very", "far", "home"]]) == pytest.approx(f)
    assert rouge_l([], [["a"]]) == 0 == cider([["a", "b"]], [[["a", "b"]]])


def test_rouge_l_and_cider_are_the_original_s() -> None:
    """The figures of pycocoevalcap 1.2."""
    texts = [
        "she ran to the bus and then she ran home",
        "the dog barks",
        "it rained all day and they were wet",
        "he lost",
    ]
    references = [
        ["she ran to the bus", "she ran for the train and then went home"],
        ["the big dog barks at her", "dogs bark"],
        ["it rained and they were wet all day"],
        ["he lost his phone at the bar", "he lost it", "his phone was gone"],
    ]
    found, wanted = [text.split() for text in texts], [[text.split() for text in each] for each in references]
    original = [0.78540773, 0.62886598, 0.75, 0.7721519]
    assert list(map(rouge_l, found, wanted)) == pytest.approx(original)
    assert cider(found, wanted) == pytest.approx(2.890319354365206)


def test_figures_are_of_the_text_of_least_risk_of_samples_and_of_people() -> None:
    references = [("She ran to the bus.", "She ran for the train."), ("We forgot the big umbrella.",)]
    gaps = [["The dog barks.", "She ran to the bus.", "She ran to a bus."], ["We forgot the big umbrella."] * 3]
    values = ["", ""]
    scores = scores_by_way(
        gaps, {"mbr": ["She ran to the bus.", gaps[1][0]]}, references, values, scores_of_gaps(letters)
    )
    assert scores["mbr"]["bleu_4"] == pytest.approx(100) and scores["mbr"]["n"] == 2
    assert 0 < scores["sample"]["bleu_4"] < 100 and scores["sample"]["n"] == 2
    assert scores["human"]["n"] == 1 and 0 < scores["human"]["rouge_l"] < 100
    rest = scores_by_way(gaps[1:], {"mbr": gaps[1][:1]}, references[1:], values[1:], scores_of_gaps(letters))
    assert set(rest) == {"mbr", "sample"}


def test_what_cannot_be_scored_is_one_sentence() -> None:
    for hypotheses, references in (([], []), (["a"], [[]]), (["a"], [["b"], ["c"]])):
        with pytest.raises(UserError, match="at least one"):
            reference_scores(hypotheses, references, letters)
