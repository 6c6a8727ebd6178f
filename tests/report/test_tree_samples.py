from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from nltk import Tree

from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.control import tree
from diffusion_lm.report.data import collect, read_run
from diffusion_lm.report.samples import MOST_WORDS, tree_pairs

WANTED = "(S (NP (DT _) (NN _)) (VP (VBZ _)))"


class Flat:
    """Every sentence is a flat S, and is kept."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        self.seen += map(list, sentences)
        return [read_tree("(S " + " ".join(f"(X {word})" for word in words) + ")") for words in sentences]


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Flat:
    flat = Flat()
    monkeypatch.setattr(tree, "our_parser", lambda: flat)
    return flat


def test_the_lowest_the_middle_and_the_highest_are_drawn_by_the_text_that_misses_most(runs: Any, parser: Flat) -> None:
    long = "(S " + "(NN _) " * (MOST_WORDS + 1) + ")"
    texts = [
        runs.text(
            "tree",
            f"{target}: {long if target == 5 else WANTED}",
            f"pub {target} {part}",
            target / 10 + part / 100,
        )
        for target in range(6)
        for part in (2, 1)
    ]
    found = collect([read_run(runs.evaluation("a", runs.row("ours", "tree"), texts=tuple(texts)))])
    pairs = tree_pairs(found)
    assert [pair.text for pair in pairs] == ["pub 0 1", "pub 2 1", "pub 4 1"]
    assert parser.seen == [pair.text.split() for pair in pairs]
    # Of S, NP and VP only S is in both: 2 x 1 of 3 + 1.
    assert [pair.f1 for pair in pairs] == [0.5] * 3
    assert pairs[0].wanted.count('class="miss"') == 2 and 'class="miss"' not in pairs[0].found


def test_where_nobody_wrote_for_trees_no_parser_is_loaded(runs: Any, parser: Flat) -> None:
    assert tree_pairs(collect([read_run(runs.evaluation("a", runs.row("ours", "pos")))])) == []
    assert parser.seen == []
