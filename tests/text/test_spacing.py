from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffusion_lm.text.spacing import JOINER, join_words, near_words, normal, split_words, words_of

# A text is words and marks with or without a space between them; two words always have one.
WORDS = st.sampled_from(
    ["a", "The", "café", "it", "don", "s", "S", "n", "re", "12", "3.50", "1,000", "END", "Д", "日本"]
)
MARKS = st.sampled_from([*"'\"-./,!?;:()[]£$€%_~—…•", "n't", "'s", "'re", "'", "\u0301"])
PIECES = st.lists(st.tuples(st.booleans(), WORDS | MARKS), min_size=1, max_size=12)


def text_of(pieces):
    text = ""
    for space, piece in pieces:
        both_words = bool(text) and text[-1].isalnum() and piece[0].isalnum()
        text += " " * (bool(text) and (space or both_words)) + piece
    return text


@given(PIECES)
@example([(True, "'"), (False, "a"), (True, "'"), (True, "s"), (False, "-"), (True, "-"), (False, "12")])
def test_joining_undoes_splitting(pieces):
    text = text_of(pieces)
    assert join_words(split_words(text)) == normal(text)


@given(st.text(max_size=40))
def test_any_text_comes_back_but_for_spaces(text):
    words = split_words(text)
    assert "".join(join_words(words).split()) == "".join(normal(text).replace(JOINER, "■").split())
    assert "".join(words_of(text)) == "".join(join_words(words).split())
    assert all(words) and not any(character.isspace() for word in words for character in word)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it's family-friendly.", "it 's family - friendly ."),
        ("It doesn't, they're", "It does n't , they 're"),
        ("£20-25 (cheap)", "£ 20 - 25 ( cheap )"),
        ("1,000 or 3.5 of 5%", "1,000 or 3.5 of 5 %"),
        ("'The Eagle', £20 - 25", "'~ The Eagle ~' , £ 20 ~~- 25"),
        ("food ,near", "food ,~ near"),
        ("food , near", "food ~~, near"),
        ("20£ now", "20 ~£ now"),
        ("rock'n'roll", "rock ~'~ n ~'~ roll"),
        ("5star", "5 star"),
    ],
)
def test_marks_carry_joiners_where_they_stand_unusually(text, words):
    assert split_words(text) == words.replace("~", JOINER).split()


def test_a_word_is_the_same_word_wherever_it_stands():
    for text in ("friendly", "family-friendly", "(friendly)", "friendly,", "'friendly'", "un_friendly"):
        assert "friendly" in split_words(text)


@pytest.mark.parametrize("words", [["that", "'s", "n't"], ["did", "n't", "n't"], ["x", "n't", "'s"]])
def test_clitics_in_a_row_keep_their_number(words):
    assert split_words(join_words(words)) == words


def test_white_space_is_normalised():
    assert join_words(split_words("  The\tEagle \n is  here . ")) == "The Eagle is here ."


def test_the_joiner_itself_can_stand_in_a_text():
    assert join_words(split_words(f"a{JOINER} b {JOINER}{JOINER}")) == "a■ b ■■"


def test_bare_is_what_a_reader_sees():
    assert words_of("'The' £20 - 25") == ["'", "The", "'", "£", "20", "-", "25"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Cafe\u0301 Rouge", "Café Rouge"),
        ("It’s ‘here’", "It's 'here'"),
        ("“here”", '"here"'),
        ("a\u00a0b\u202f c\u3000\u200bd\ufeff", "a b c d"),
    ],
)
def test_texts_are_read_as_the_corpus_writes_them(written, read):
    assert normal(written) == read
    assert split_words(written) == split_words(read)


@given(st.text(max_size=40))
def test_the_normal_form_is_its_own(text):
    assert normal(normal(text)) == normal(text)


def test_clitics_without_end_take_linear_time():
    start = perf_counter()
    split_words("n't" * 30_000)
    assert perf_counter() - start < 2


def test_near_words_are_those_of_another_case_first():
    known = ["Punters", "hunter", "Punter", "PUNTER", "pub"]
    assert near_words("punter", known) == ["Punter", "PUNTER", "hunter"]
    assert near_words("pubb", known) == ["pub"]
    assert near_words("zebra", known) == near_words("pub", ["pub"]) == []
