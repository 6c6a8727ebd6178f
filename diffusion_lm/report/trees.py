"""Constituency trees as small SVG pictures, laid out by hand: words on one line, each node above the middle of its words."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from diffusion_lm.annotate.trees import is_tag
from diffusion_lm.report.chart import COLOURS

if TYPE_CHECKING:
    from nltk import Tree

CHARACTER, GAP, LEVEL, FONT = 6.4, 10.0, 27.0, 11
"""Pixels of a letter, between words and between levels, and of the font."""


class Node(NamedTuple):
    """A node where it stands."""

    label: str
    x: float
    level: int
    children: tuple[Node, ...]
    span: tuple[int, int]
    leaf: bool

    @property
    def tag(self) -> bool:
        """Whether it stands above one word and nothing else."""
        return len(self.children) == 1 and self.children[0].leaf


def tree_svg(tree: Tree, title: str, shared: frozenset[tuple[int, int, str]] | None = None) -> str:
    """Draw a tree.

    Args:
        tree: its leaves are words, or `_` for any word.
        title: what a screen reader says.
        shared: the constituents (start, stop, label) that it shares with the tree it is held against; the others are
            marked. None marks nothing.
    """
    widths = [CHARACTER * max(map(len, _column(tree, i))) + GAP for i in range(len(tree.leaves()))]
    centres = [sum(widths[:i]) + width / 2 for i, width in enumerate(widths)]
    root, _ = _place(tree, 0, 0, centres)
    depth = max(node.level for node in _walk(root))
    lines, names = [], []
    for node in _walk(root):
        y = _y(node, depth)
        missed = shared is not None and _inner(node) and (*node.span, node.label) not in shared
        kind = "word" if node.leaf else "miss" if missed else "label"
        names.append(f'<text x="{node.x:.1f}" y="{y:.1f}" class="{kind}">{escape(node.label)}</text>')
        lines += [
            f'<path d="M{node.x:.1f} {y + 4:.1f}V{y + 8:.1f}H{child.x:.1f}V{_y(child, depth) - FONT:.1f}"/>'
            for child in node.children
        ]
    width, height = sum(widths), LEVEL * depth + 2 * FONT
    return (
        f'<svg class="tree" role="img" aria-label="{escape(title)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">{"".join(lines)}{"".join(names)}</svg>'
    )


def standalone(svg: str) -> str:
    """The picture as a file of its own, which brings its style along."""
    light, dark = (
        f"text{{fill:{COLOURS['ink'][i]}}}.label{{fill:{COLOURS['muted'][i]}}}"
        f".miss{{fill:{COLOURS['s6'][i]}}}path{{fill:none;stroke:{COLOURS['paper'][i]}}}"
        for i in (0, 1)
    )
    style = (
        f"<style>text{{font:{FONT}px sans-serif;text-anchor:middle}}.miss{{font-weight:bold}}{light}"
        f"@media(prefers-color-scheme:dark){{{dark}}}</style>"
    )
    opening, rest = svg.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def brackets(tree: Tree) -> frozenset[tuple[int, int, str]]:
    """The constituents above tags: start, stop, label."""
    root, _ = _place(tree, 0, 0, [0.0] * len(tree.leaves()))
    return frozenset((*node.span, node.label) for node in _walk(root) if _inner(node))


def _inner(node: Node) -> bool:
    """Whether a node is neither a word nor a tag."""
    return not node.leaf and not node.tag


def _place(tree: Tree | str, start: int, level: int, centres: list[float]) -> tuple[Node, int]:
    """The node of a tree whose first word is number `start`, and the number of the word after it."""
    if isinstance(tree, str):
        return Node(tree, centres[start], level, (), (start, start + 1), True), start + 1
    children, stop = [], start
    for child in tree:
        node, stop = _place(child, stop, level + 1, centres)
        children.append(node)
    x = (children[0].x + children[-1].x) / 2
    return Node(tree.label(), x, level, tuple(children), (start, stop), False), stop


def _column(tree: Tree, leaf: int) -> list[str]:
    """The word number `leaf`, its tag, and every node above it alone: what needs room in its column."""
    path = tree.leaf_treeposition(leaf)
    nodes = [tree[path[:depth]] for depth in range(len(path))]
    alone = [node.label() for node in nodes if len(node.leaves()) == 1 or is_tag(node)]
    return [tree.leaves()[leaf], *alone]


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _y(node: Node, depth: int) -> float:
    """Words stand on one line at the bottom and their tags on one above it, whatever hangs above them."""
    return FONT + LEVEL * (depth if node.leaf else depth - 1 if node.tag else node.level)
