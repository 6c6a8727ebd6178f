"""Trees drawn as SVG; colours and fonts are the page's (style.css)."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from diffusion_lm.annotate.trees import ANY_WORD, is_tag, read_tree, word_of
from diffusion_lm.common import UserError

if TYPE_CHECKING:
    from nltk import Tree

ROW, GAP, LETTER, MARGIN = 40, 14, 8.2, 8
"""In pixels: from a node to its children, between words, the width of a letter, and around the tree."""
MOST_DRAWN = 64
"""Words of a tree that is drawn."""
SHOWN = 24
"""Letters of a label that are drawn."""


class _Node(NamedTuple):
    """A node that has its place: its middle, its row, and its children."""

    label: str
    kind: str
    x: float
    row: int
    children: tuple[_Node, ...]


def svg_of(tree: Tree) -> str:
    """A tree as an SVG element in a frame: labels above, words on the last row, each under its parent."""
    depth = _depth(tree)
    root, width = _placed(tree, float(MARGIN), 0, depth)
    height = depth * ROW + 2 * MARGIN + 12
    shapes = [*_lines(root), *_labels(root)]
    spoken = escape(" ".join(map(word_of, tree.leaves())))
    return (
        f'<div class="drawing"><svg class="tree" role="img" aria-label="Parse tree of: {spoken}" width="{width + MARGIN:.0f}" '
        f'height="{height}" viewBox="0 0 {width + MARGIN:.0f} {height}">{"".join(shapes)}</svg></div>'
    )


def sketch(brackets: str, most_words: int = MOST_DRAWN) -> str:
    """What a visitor types, drawn; the sentence of the error where it is no tree yet, and nothing where nothing is typed."""
    if not brackets.strip():
        return ""
    try:
        return svg_of(read_tree(brackets, most_words))
    except UserError as error:
        return f'<p class="note" role="status">{escape(str(error))}</p>'


def _depth(node: Tree | str) -> int:
    return 0 if isinstance(node, str) else 1 + max(map(_depth, node))


def _cut(label: str) -> str:
    return label if len(label) <= SHOWN else f"{label[: SHOWN - 1]}…"


def _placed(node: Tree | str, left: float, row: int, last: int) -> tuple[_Node, float]:
    """A node whose words begin at `left`, and where they end."""
    if isinstance(node, str):
        text = _cut(word_of(node))
        right = left + LETTER * len(text)
        return _Node(text, "any" if node == ANY_WORD else "word", (left + right) / 2, last, ()), right
    label, children, right = _cut(node.label()), [], left
    # A label that is wider than what is below it needs its room too.
    narrow = LETTER * len(label) - sum(LETTER * len(_cut(word_of(leaf))) + GAP for leaf in node.leaves()) + GAP
    right += max(0.0, narrow) / 2
    for number, child in enumerate(node):
        placed, right = _placed(child, right + GAP * (number > 0), row + 1, last)
        children.append(placed)
    right += max(0.0, narrow) / 2
    middle = (children[0].x + children[-1].x) / 2
    return _Node(label, "tag" if is_tag(node) else "label", middle, row, tuple(children)), right


def _y(row: int) -> int:
    return MARGIN + row * ROW + 12


def _lines(node: _Node) -> Iterator[str]:
    for child in node.children:
        yield f'<line x1="{node.x:.1f}" y1="{_y(node.row) + 5}" x2="{child.x:.1f}" y2="{_y(child.row) - 13}"/>'
        yield from _lines(child)


def _labels(node: _Node) -> Iterator[str]:
    yield f'<text class="{node.kind}" x="{node.x:.1f}" y="{_y(node.row)}">{escape(node.label)}</text>'
    for child in node.children:
        yield from _labels(child)
