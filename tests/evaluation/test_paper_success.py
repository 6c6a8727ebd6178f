"""Paper-compatible success on hand-made cases, where it is to differ from the strict one and where it is not."""

from __future__ import annotations

import pytest

from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.control.length import Length
from diffusion_lm.control.pos import Pos
from diffusion_lm.evaluation import tasks as paper_success
from diffusion_lm.evaluation.targets import AttributeTarget, SentenceTarget
from diffusion_lm.evaluation.tasks import PAPER_JUDGES
from diffusion_lm.text.fields import says

WANTED = read_tree("(S (NP (DT _) (NN _)) (VP (VBZ _)) (. _))")


def test_an_attribute_is_a_substring_and_may_be_part_of_a_longer_word() -> None:
    words = ["It", "is", "priceless", "."]
    assert paper_success.attribute(["price"], words) == 1 and not says("It is priceless.", "price")
    assert paper_success.attribute(["Price"], words) == 0


def test_tags_beyond_the_wanted_number_are_cut_off_and_missing_ones_are_wrong() -> None:
    assert paper_success.pos(["DET", "NOUN"], ["DET", "NOUN", "VERB"]) == 1
    assert paper_success.pos(["DET", "NOUN", "VERB", "PUNCT"], ["DET", "NOUN", "ADJ"]) == 0.5


@pytest.mark.parametrize("words, wanted", [(["a", "b", "c"], ["a", "b"]), (["a"], ["a", "."]), ([], [".", "."])])
def test_words_are_cut_or_padded_to_the_length(words: list[str], wanted: list[str]) -> None:
    assert paper_success.fitted(words, 2) == wanted


def test_the_brackets_of_a_tree_count_and_its_tags_do_not() -> None:
    other_tags = read_tree("(S (NP (JJ the) (JJ pub)) (VP (JJ closes)) (JJ .))")
    assert paper_success.tree(WANTED, other_tags) == 1
    assert paper_success.tree(WANTED, read_tree("(S (NP (DT the) (NN pub)) (ADJP (JJ x)) (. .))")) == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize("words, wanted", [(7, 0), (8, 1), (10, 1), (12, 1), (13, 0)])
def test_a_length_may_be_missed_by_two(words: int, wanted: float) -> None:
    assert paper_success.length(10, ["a"] * words) == wanted
    assert float(Length(10).success([" ".join(["a"] * words)])[0]) == (words == 10)


def test_a_text_that_is_too_long_is_right_for_the_paper_and_wrong_as_it_stands() -> None:
    text, target = "The pub is cheap and it is very nice.", SentenceTarget(1, "DET NOUN AUX ADJ")
    assert PAPER_JUDGES["pos"](target, [text]) == [1]
    assert float(Pos(target.value).success([text])[0]) == pytest.approx(0.4)


def test_a_text_of_the_right_length_has_the_same_success_both_ways() -> None:
    text, target = "The pub is cheap.", SentenceTarget(1, "DET NOUN AUX NOUN PUNCT")
    assert PAPER_JUDGES["pos"](target, [text])[0] == pytest.approx(0.8) == float(Pos(target.value).success([text])[0])


def test_each_task_has_its_judge() -> None:
    text, tree = (
        "The pub is near the river.",
        "(S (NP (DT _) (NN _)) (VP (VBZ _) (PP (IN _) (NP (DT _) (NN _)))) (. _))",
    )
    assert PAPER_JUDGES["attribute"](AttributeTarget("eatType", "pub"), [text, "A bar."]) == [1, 0]
    assert PAPER_JUDGES["length"](5, [text, "Go."]) == [1, 0]
    assert PAPER_JUDGES["span"](SentenceTarget(1, "5:6:NP"), [text, "Go."]) == [1, 0]
    whole, cut = PAPER_JUDGES["tree"](SentenceTarget(1, tree), [text, f"{text} Go."])
    assert whole == cut == 1
