"""Paper-compatible success on hand-made cases, where it is to differ from the strict one and where it is not."""

from __future__ import annotations

import pytest

from diffusion_lm.control.control import CONTROLS, Target
from diffusion_lm.control.length import Length
from diffusion_lm.control.pos import Pos
from diffusion_lm.text.fields import says

TREE = "(S (NP (DT _) (NN _)) (VP (VBZ _) (PP (IN _) (NP (DT _) (NN _)))) (. _))"
TEXT = "The pub is near the river."


def paper(task: str, value: str, *texts: str) -> list[float] | None:
    return CONTROLS[task].paper_success(Target(value), texts)


def test_an_attribute_is_a_substring_and_may_be_part_of_a_longer_word() -> None:
    assert paper("attribute", "price=price", "It is priceless.") == [1] and not says("It is priceless.", "price")
    assert paper("attribute", "price=Price", "It is priceless.") == [0]


def test_tags_beyond_the_wanted_number_are_cut_off_and_missing_ones_are_wrong() -> None:
    text = "The pub is cheap and it is very nice."
    assert paper("pos", "DET NOUN AUX ADJ", text) == [1]
    assert float(Pos("DET NOUN AUX ADJ").success([text])[0]) == pytest.approx(0.4)
    assert paper("pos", "DET NOUN AUX ADJ PUNCT PUNCT", "The pub is cheap.") == [pytest.approx(5 / 6)]


def test_a_text_of_the_right_length_has_the_same_success_both_ways() -> None:
    text, tags = "The pub is cheap.", "DET NOUN AUX NOUN PUNCT"
    assert paper("pos", tags, text) == [pytest.approx(0.8)] == [pytest.approx(float(Pos(tags).success([text])[0]))]


def test_words_are_cut_to_a_tree_or_padded_with_full_stops() -> None:
    assert paper("tree", TREE, TEXT, f"{TEXT} Go.", "The pub is near the river") == [1, 1, 1]


@pytest.mark.parametrize("words, wanted", [(7, 0), (8, 1), (10, 1), (12, 1), (13, 0)])
def test_a_length_may_be_missed_by_two(words: int, wanted: float) -> None:
    text = " ".join(["a"] * words)
    assert paper("length", "10", text) == [wanted] and float(Length(10).success([text])[0]) == (words == 10)


def test_a_span_is_looked_for_as_it_is_and_a_gap_has_no_such_judge() -> None:
    assert paper("span", "5:6:NP", TEXT, "Go.") == [1, 0]
    assert paper("infill", "The ___ .", TEXT) is None
