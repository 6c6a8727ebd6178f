"""Keywords, words to avoid, regular expressions and their algebra: never missed, on an untrained model."""

from itertools import product

import pytest
import torch

from diffusion_lm.control import Avoid, Infill, Keyword, Length, Regex, Said
from diffusion_lm.control.regex import word_graph
from tests.control.conftest import programs


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
    assert control.success(texts.texts).tolist() == [1.0] * 8


def test_the_automaton_of_a_pattern_agrees_with_its_graph(lm):
    control = Regex(r"The (. .|has)+ cheap")
    automaton = programs(control, lm)[0].automaton
    ids = {word: lm.tokenizer.encode(word)[0] for word in ["The", "has", "cheap", "a"]}
    for length in range(6):
        for text in product(ids, repeat=length):
            assert automaton.accepts(ids[word] for word in text) == word_graph(control.pattern).matches(text)


@pytest.mark.parametrize(
    ("template", "yes", "no"),
    [
        ("The ___{2} pub", ["The a b pub", "The pub pub pub"], ["The a pub", "The a b c pub", "A b c pub"]),
        ("___ a ___", ["a a a", "b a c a d"], ["a", "a a", "b a"]),
        ("___{1}", ["a"], ["", "a a"]),
        ("___ the " * 12 + "___", ["the " * 25, "a the " * 12 + "b c"], ["the a " * 12, "b " * 40 + "the " * 11]),
    ],
)
def test_a_context_is_kept_around_gaps_of_the_right_size(template, yes, no):
    for text in (*yes, *no):
        assert Infill(template).success([text]).tolist() == [text in yes], text


def test_lengths_are_drawn_among_those_that_are_possible(lm):
    lengths = torch.tensor([len(words) for words in lm.generate(30, Regex("The .* cheap"), steps=2, seed=0).words])
    assert lengths.min() >= 2 and lengths.unique().numel() > 1
