"""Trees in SVG."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.app.drawing import sketch, svg_of


def texts_of(svg: str) -> list[tuple[str, str, float, float]]:
    """Kind, text and place of every label."""
    found = ElementTree.fromstring(svg).iter("text")
    return [(t.get("class", ""), t.text or "", float(t.get("x", "")), float(t.get("y", ""))) for t in found]


def test_every_node_is_drawn_once_and_words_stand_in_order_on_one_row() -> None:
    tree = read_tree("(S (NP (DT The) (NN _)) (VP (VBZ is) (ADJP (JJ good))) (. .))")
    labels = texts_of(svg_of(tree))
    assert sorted(text for _, text, _, _ in labels) == sorted(
        [*(node.label() for node in tree.subtrees()), *tree.leaves()]
    )
    words = [(text, x, y) for kind, text, x, y in labels if kind in ("word", "any")]
    assert [text for text, _, _ in words] == tree.leaves()
    assert len({y for _, _, y in words}) == 1 and all(a[1] < b[1] for a, b in pairwise(words))
    assert len(list(ElementTree.fromstring(svg_of(tree)).iter("line"))) == len(labels) - 1


def test_long_words_have_room() -> None:
    words = [("Supercalifragilistic", 0.0, 0.0)] * 2
    tree = read_tree(f"(NP (NN {words[0][0]}) (NN {words[1][0]}))")
    first, second = [x for kind, _, x, _ in texts_of(svg_of(tree)) if kind == "word"]
    assert second - first > 8 * len(words[0][0])


def test_a_sketch_is_a_drawing_or_the_sentence_of_the_error() -> None:
    assert sketch("  ") == ""
    assert "<svg" in sketch("(NP (NN pub))")
    broken = sketch("(S (NP (DT The)")
    assert "breaks at character" in broken and "<svg" not in broken
    assert "too large" in sketch(f"(S {'(NN pub) ' * 65})")


@pytest.mark.parametrize("tree", ["(S (NN <script>alert`1`</script>))", "(<b> (NN a&b))", "(S (NN \"'><svg>))", "<i"])
def test_what_is_typed_is_never_markup(tree: str) -> None:
    drawn = sketch(tree)
    ElementTree.fromstring(drawn)  # well-formed
    assert set(re.findall(r"<(\w+)", drawn)) <= {"div", "svg", "line", "text", "p"}
