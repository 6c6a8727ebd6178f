from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.metrics import Distinct, distinct, self_bleu

A = ["the", "cat", "sat", "on", "the", "mat"]
SENTENCES = st.lists(st.lists(st.sampled_from("abc"), max_size=7), min_size=2, max_size=6)


def library_self_bleu(sentences: list[list[str]]) -> float:
    """The definition, by sacrebleu alone."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True, tokenize="none", force=True)
    texts = [" ".join(words) for words in sentences]
    scores = [bleu.sentence_score(t, texts[:i] + texts[i + 1 :]).score for i, t in enumerate(texts)]
    return sum(scores) / len(scores)


def test_distinct_by_hand() -> None:
    assert distinct([A], 1) == Distinct(5, 5 / 6)
    assert distinct([A], 2) == Distinct(5, 1)
    assert distinct([A, A], 2) == Distinct(5, 5 / 10)
    assert distinct([["a"], ["b"]], 2) == Distinct(0, 0.0)
    assert distinct([], 1) == Distinct(0, 0.0)
    with pytest.raises(UserError):
        distinct([A], 0)


def test_n_grams_do_not_cross_sentences() -> None:
    assert distinct([["a", "b"], ["c", "a"], ["b", "c"]], 2).count == 3
    assert distinct([["a", "b", "c", "a", "b", "c"]], 2) == Distinct(3, 3 / 5)


def test_self_bleu_of_equal_and_of_unlike_sentences() -> None:
    assert self_bleu([A] * 5) == pytest.approx(100)
    assert self_bleu([["a", "b", "c", "d"], ["e", "f", "g", "h"], ["i", "j", "k", "l"]]) == 0


@given(SENTENCES)
def test_self_bleu_is_the_library_s(sentences: list[list[str]]) -> None:
    assert self_bleu(sentences) == pytest.approx(library_self_bleu(sentences), abs=1e-6)


def test_one_sentence_has_no_other() -> None:
    with pytest.raises(UserError, match="at least two"):
        self_bleu([A])
