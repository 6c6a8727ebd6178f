"""Keywords, words to avoid, regular expressions and their algebra: never missed, on an untrained model."""

from itertools import product

import pytest
import torch

from diffusion_lm.common import UserError
from diffusion_lm.control import Avoid, Infill, Keyword, Length, Regex, Said
from diffusion_lm.control.regex import word_graph


@pytest.mark.parametrize(
    "control",
    [
        Keyword("harbour"),
        Keyword("Harbour"),
        Avoid("the"),
        Keyword("harbour") & Avoid("the") & Length(6),
        Length(7) & Keyword("Tern Theatre") & Keyword("cheap"),
        Regex(r"The .* (cheap|steep) \.") & Length(8),
        Regex(r"(The|There) .{2,4} \. has .+ \."),
        Keyword("harbour") | Keyword("cheap"),
        ~(Keyword("the") | Keyword("a")),
        Infill("The ___{4} .") & Keyword("cheap"),
        Said("food", "Thai"),
    ],
    ids=str,
)
def test_a_language_is_never_missed(control, lm):
    texts = lm.generate(8, control, steps=3, seed=1)
    assert control.bind(lm).success(texts.texts).tolist() == [1.0] * 8


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a b", ["a b"], ["a", "a b b", "ab"]),
        ("a (b|c d) e", ["a b e", "a c d e"], ["a c e", "a b"]),
        ("a* b", ["b", "a a a b"], ["a", "b b"]),
        ("a+ b?", ["a", "a a b"], ["", "b", "a b b"]),
        ("(a b){2}", ["a b a b"], ["a b", "a b a b a b"]),
        ("a{1,3}", ["a", "a a", "a a a"], ["", "a a a a"]),
        ("a{2,}", ["a a", "a a a a a"], ["a"]),
        (". a .", ["x a y"], ["a x y", "x a"]),
        (r"a \.", ["a ."], ["a b"]),
        ("(|a) b", ["b", "a b"], ["a"]),
    ],
)
def test_a_pattern_matches_what_it_says(pattern, yes, no):
    graph = word_graph(pattern)
    assert all(graph.matches(text.split()) for text in yes)
    assert not any(graph.matches(text.split()) for text in no)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "is empty"),
        ("a (b", "a ( without its )"),
        ("(" * 1500 + "a" + ")" * 1500, "more than 100 brackets inside each other"),
        ("a ) b", "a ) without its ("),
        ("* a", "stands behind nothing"),
        ("a{3,1}", "ends before it begins"),
        ("a{1000}", "more than 100 times"),
        ("a{x}", "character 2"),
    ],
)
def test_a_malformed_pattern_is_refused(pattern, said):
    with pytest.raises(UserError) as error:
        word_graph(pattern)
    assert said in str(error.value)


def test_the_automaton_of_a_pattern_agrees_with_its_graph(lm):
    control = Regex(r"The (. .|has)+ cheap").bind(lm)
    words = ["The", "has", "cheap", "a"]
    ids = {word: lm.tokenizer.encode(word)[0] for word in words}
    for length in range(6):
        for text in product(words, repeat=length):
            accepted = control.automaton.accepts(ids[word] for word in text)
            assert accepted == word_graph(control.pattern).matches(text)


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (Keyword("zebra"), "'zebra' in The keyword 'zebra': not in the model's vocabulary"),
        (Keyword(" "), "is empty"),
        (Regex("The zebra"), "'zebra' in the regex 'The zebra': not in the model's vocabulary"),
        (Regex("The The") & Length(3), "No sentence of 3 words can do"),
        (Keyword("cheap") & Avoid("cheap"), "No sentence of 1 to"),
        (Regex(r"The \.") & Keyword("cheap"), "No sentence of 1 to"),
        (Length(1) & Keyword("Tern Theatre"), "No sentence of 1 words can do"),
        (Infill("The ___{1}") & Keyword("Tern Theatre"), "drop one of the controls"),
        (Said("food", "Martian"), "has no value 'Martian'"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_one_sentence(control, said, lm):
    with pytest.raises(UserError) as error:
        lm.generate(2, control, steps=2)
    assert said in str(error.value)


def test_draws_repeat_with_the_seed(lm):
    control = Keyword("harbour")
    first, second, other = (lm.generate(4, control, steps=3, seed=s).texts for s in (1, 1, 2))
    assert first == second != other


def test_an_unbound_language_says_what_to_do():
    with pytest.raises(ValueError, match="Bind the control"):
        Keyword("pub").automaton_of()


def test_weights_of_lengths_follow_what_is_possible(lm):
    texts = lm.generate(30, Regex("The .* cheap"), steps=2, seed=0)
    assert min(map(len, texts.words)) >= 2
    assert torch.tensor([len(w) for w in texts.words]).unique().numel() > 1
