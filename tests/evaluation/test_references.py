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
    matching,
    plain,
    reference_scores,
    remembered,
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
    pytest.importorskip("pycocoevalcap")
    perfect = reference_scores(TEXTS, [["Something else.", text] for text in TEXTS], letters)
    assert (perfect.bleu_4, perfect.rouge_l, perfect.bert_score, perfect.n) == (
        pytest.approx(100),
        pytest.approx(100),
        pytest.approx(100),
        3,
    )
    alone = reference_scores(TEXTS, [[text] for text in TEXTS], letters)
    assert alone.cider == pytest.approx(1000)
    foreign = reference_scores(["xx xx xx xx"] * 3, [[text] for text in TEXTS], letters)
    assert (foreign.bleu_4, foreign.rouge_l, foreign.cider, foreign.bert_score) == (0, 0, 0, 0)


def test_rouge_l_by_hand() -> None:
    pytest.importorskip("pycocoevalcap")
    found = reference_scores(["she ran home quickly"], [["she ran very far home"]], letters)
    precision, recall, beta = 3 / 4, 3 / 5, 1.2
    f = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert found.rouge_l == pytest.approx(100 * f) and found.cider == 0


def test_what_cannot_be_scored_is_one_sentence() -> None:
    for hypotheses, references in (([], []), (["a"], [[]]), (["a"], [["b"], ["c"]])):
        with pytest.raises(UserError, match="at least one"):
            reference_scores(hypotheses, references, letters)
