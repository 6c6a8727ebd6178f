"""The choice of least risk, on utilities made by hand."""

from __future__ import annotations

import logging

import pytest

from diffusion_lm.evaluation.metrics import choose, sentence_bleu


def nearness(hypothesis: str, reference: str) -> float:
    return -abs(float(hypothesis) - float(reference))


def test_the_medoid_is_chosen() -> None:
    assert choose(["0", "4", "5", "6", "100"], nearness) == 2
    assert choose(["0", "1", "3"], nearness) == 1  # -2.0, -1.5, -2.5


def test_the_others_are_the_references_and_twins_count_twice() -> None:
    def favourite(hypothesis: str, reference: str) -> float:
        return float(reference == "c")  # of the reference alone: whoever is not it gains

    assert choose(["c", "a", "b"], favourite) == 1  # 0.0, 0.5, 0.5
    assert choose(["c", "a", "c"], favourite) == 1  # 0.5, 1.0, 0.5
    assert choose(["0", "8", "9", "0", "0"], nearness) == 0


def test_the_first_of_equals_and_a_single_candidate() -> None:
    assert choose(["1", "2"], nearness) == 0
    assert choose(["1"], nearness) == 0


def test_sentence_bleu_is_smoothed_and_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert sentence_bleu("He lost his Phone.", "he lost his phone.") == pytest.approx(100)
        near, far = (sentence_bleu(text, "he lost his phone") for text in ("he lost a dog", "we met a dog"))
    # 2 of 4 words, and with one added 2 of 4 pairs, 1 of 3 and 1 of 2: the geometric mean.
    assert near == pytest.approx(100 * (2 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25)
    assert 0 <= far < near and not caplog.records


def test_by_default_the_text_that_shares_most_is_chosen() -> None:
    texts = ["it rained", "he lost his phone at the bar", "he lost the phone at a bar", "he lost his phone"]
    assert texts[choose(texts)].startswith("he lost")
