"""Patterns of words: what they match, what they refuse, and how soon."""

import re
import time
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lm import DiffusionLM
from diffusion_lm.common import UserError
from diffusion_lm.control import Regex
from diffusion_lm.control.automaton import MOST_STEPS, explore
from diffusion_lm.control.regex import regex_automaton, word_graph
from diffusion_lm.text.spacing import bare, split_words, words_of

VOCABULARY = ["", *split_words("a b c The the 20 5 25 £ '£' - . ! ? pub cheap eating is in Tern's don't")]


def accepts(pattern, text):
    automaton = regex_automaton(pattern, VOCABULARY, f"The regex {pattern!r}")
    known = [bare(word) for word in VOCABULARY]
    return automaton.accepts(known.index(word) for word in words_of(text))


REPEATS = ["", "*", "+", "?", "{2}", "{1,2}", "{2,}", "{,2}", "{0}", "*?", "{1,2}?"]
PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "."]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: f"({'|'.join(options)})"),
        st.tuples(inner, st.sampled_from(REPEATS)).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(PATTERNS.filter(bool))
def test_words_of_one_letter_are_matched_as_by_re(pattern):
    spaced = re.sub(r"(?<=[ab.])(?=[ab.])", " ", pattern)
    automaton = regex_automaton(spaced, ["", "a", "b", "c"], "The regex")
    for length in range(4):
        for ids in product((1, 2, 3), repeat=length):
            text = "".join(" abc"[i] for i in ids)
            assert automaton.accepts(ids) == bool(re.fullmatch(pattern, text)) == word_graph(spaced).matches(text)
    assert not automaton.accepts([0])


CLASSES = st.tuples(st.sampled_from(["a", "b", r"\d", "[ab]", "[^a]", r"\w"]), st.sampled_from(REPEATS))


@given(st.lists(CLASSES, min_size=1, max_size=4), st.text("ab1", min_size=1, max_size=6))
def test_a_word_with_classes_is_spelled_as_re_spells_it(pieces, word):
    pattern = r"[ab1]" + "".join(kind + repeat * (len(kind) > 1) for kind, repeat in pieces)
    assert word_graph(pattern).matches([word]) == bool(re.fullmatch(pattern, word))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a b", ["a b"], ["a", "a b b", "pub"]),
        ("a (b|c is) in", ["a b in", "a c is in"], ["a c in", "a b"]),
        ("a* b", ["b", "a a a b"], ["a", "b b"]),
        ("a+ b?", ["a", "a a b"], ["", "b", "a b b"]),
        ("(a b){2}", ["a b a b"], ["a b", "a b a b a b"]),
        ("a{1,3}", ["a", "a a", "a a a"], ["", "a a a a"]),
        ("a{2,}", ["a a", "a a a a a"], ["a"]),
        (". a .", ["b a c"], ["a b c", "b a"]),
        (r"a \.", ["a ."], ["a b"]),
        ("(|a) b", ["b", "a b"], ["a"]),
        (r".* \d+ .*", ["The 20 pub", "a 5 b", "20 20 20"], ["The pub is", "", "a b"]),
        (r"£\d+(-\d+)? \.", ["£20.", "£20-25."], ["20.", "£20-.", "£."]),
        (r"£\d{2}", ["£20"], ["£5"]),
        ("[Tt]he [A-Z][a-z]*", ["The Tern", "the The"], ["The pub"]),
        ("[a-z]+ing|[^a-z]", ["eating", "5", "!"], ["in", "pub", "is eating"]),
        (r"(\w\w)+", ["in", "20 is"], ["a", "20 a"]),
        (r"\w+'s \S+ [.!?]", ["pub's cheap."], ["pub cheap."]),
        (r"(a|\d*) b", ["a b", "5 b", "b"], ["pub b"]),
        (r"\W+", ["£", "-"], ["a", "5"]),
        (r"The\s+pub\s", ["The pub"], ["The"]),
        ("^The .*$", ["The", "The pub"], ["the", "pub The"]),
        ("(?:a b){,2}", ["", "a b", "a b a b"], ["a", "a b a b a b"]),
        ("a{0} b{,1}?", ["", "b"], ["a", "a b"]),
        (r"£ \?", ["£?"], ["£"]),
    ],
)
def test_a_pattern_matches_what_it_says(pattern, yes, no):
    graph = word_graph(pattern)
    for text in (*yes, *no):
        assert graph.matches(words_of(text)) == (text in yes), text
        assert accepts(pattern, text) == (text in yes), text


def test_success_reads_words_that_the_vocabulary_lacks():
    texts = ["The 1999 pub", "The nineties pub", "The Ünlü pub"]
    assert Regex(r"The \d+ .*").success(texts).tolist() == [1, 0, 0]
    assert Regex(r"The [^\W\d]+ pub").success(texts).tolist() == [0, 1, 1]


def test_numbers_are_drawn_where_a_pattern_asks_for_them():
    control = Regex(r"[A-Z]\w* .* £\d+(-\d+)? .* \.")
    texts = DiffusionLM.from_pretrained("e2e-small", "cpu").generate(4, control, steps=2, seed=0).texts
    assert control.success(texts).tolist() == [1.0] * 4
    assert all(re.fullmatch(r"[A-Z].*£ ?\d+.*\.", text) for text in texts)


@pytest.mark.parametrize(
    ("pattern", "right"),
    [
        (r"a \b b", "leave it out"),
        (r"(a) \1", "write the words out"),
        (r"a (?=b)", "a control of its own"),
        (r"a (?P<x>b)", "a control of its own"),
        (r"a \q", "d, w, s, D, W and S"),
        ("a ^ b", "first and last"),
        ("(a$)", "first and last"),
        ("a[b", "write \\ before"),
        ("a\\", "write \\ before"),
        ("a {} b", "write \\ before"),
        ("[z-a]", "bad character range"),
        (r"\d[[a]", "write \\ before"),
        (r"[a-z]+s?", "([a-z]s)+"),
        (r"\d++", "([a-z]s)+"),
        (r"\d{3,1}", "ends before it begins"),
        ("a++", "behind nothing"),
        ("^$", "is empty"),
        ("", "is empty"),
        ("a (b", "without its )"),
        ("a ) b", "without its ("),
        ("(" * 1500 + "a" + ")" * 1500, "100 brackets"),
        ("* a", "behind nothing"),
        ("a{3,1}", "ends before it begins"),
        ("a{1000}", "more than 100 times"),
        ("a{" + "9" * 5000 + "}", "write \\ before"),
    ],
)
def test_what_has_no_meaning_over_words_is_refused(pattern, right):
    with pytest.raises(UserError) as error:
        word_graph(pattern)
    assert right in str(error.value)


@given(st.text(r"ab1 .|()[]{}*+?^$\\-&~,:=d!", max_size=12))
def test_whatever_is_typed_is_read_or_refused(pattern):
    with suppress(UserError):
        word_graph(pattern).matches(["a", "b1"])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("pub [x-z]+", "'[x-z]+', which no word"), ("The zebra", "'zebra'"), (r"\d+th", r"'\\d+th', which no word")],
)
def test_a_word_that_the_vocabulary_lacks_is_refused(pattern, said):
    with pytest.raises(UserError) as error:
        regex_automaton(pattern, VOCABULARY, "The regex")
    assert said in str(error.value)


@pytest.mark.parametrize(
    "pattern",
    [
        "(((.{100}){100}){100}){100}",
        "a{100}" * 11,
        r"(\d{100} a{95}){100}",
        ".*a.{60}",
        "(.*a.*b.*|.*c.*){30}",
        "(.*a.{9}|.*b.{9}|.*c.{9})+",
    ],
)
def test_a_pattern_that_is_too_large_is_refused_at_once(pattern):
    start = time.process_time()
    with pytest.raises(UserError, match="more than"):
        regex_automaton(pattern, VOCABULARY, "The regex")
    assert time.process_time() - start < 1


@pytest.mark.parametrize("pattern", ["(" * 4 + ")" + "{100})" * 3 + "{100}", "((a|b|.)*){100}", r"\w*\w*\w*\w*\w*\w*1"])
def test_a_small_pattern_in_a_large_dress_is_read_at_once(pattern):
    start = time.process_time()
    word_graph(pattern).matches(["a" * 10_000])
    assert time.process_time() - start < 1


def test_many_classes_leave_room_for_fewer_states():
    classes = MOST_STEPS // 10
    with pytest.raises(UserError, match="more than 10 states"):
        explore(0, lambda state, c: state + 1, classes, "It")
    states, follow = explore(0, lambda state, c: (state + 1) % 10, classes, "It")
    assert (len(states), follow.shape) == (10, (10, classes))
