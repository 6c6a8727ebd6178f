"""Samples with their targets, trees and traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from diffusion_lm.annotate.trees import bracket_f1, is_tag, read_tree
from diffusion_lm.common import UserError
from diffusion_lm.report.data import Collection, Measured, Text
from diffusion_lm.report.figures import COLOURS
from diffusion_lm.text.spacing import bare, join_words, split_words, words_of

if TYPE_CHECKING:
    from nltk import Tree


T = TypeVar("T")

TARGETS, TEXTS = 3, 2


@dataclass(frozen=True)
class Sample:
    """A target and texts for it, the one that misses most first."""

    target: str
    texts: Sequence[Text]


@dataclass(frozen=True)
class Samples:
    """What a system wrote for a task."""

    system: str
    task: str
    targets: Sequence[Sample]


def samples(found: Collection) -> list[Samples]:
    """For each system and task the targets with the lowest, the middle and the highest success.

    Of each the text with the lowest success and the one with the highest. Free text has one target: texts at even distances.
    """
    return [
        Samples(system, task, _targets(each))
        for system in found.systems
        for (name, task), each in found.measured.items()
        if name == system and each.texts
    ]


def _targets(each: Measured) -> list[Sample]:
    groups = by_target(each.texts)
    chosen = spread(sorted(groups, key=lambda target: mean_success(groups[target])), TARGETS)
    count = TEXTS * TARGETS // len(chosen)
    return [Sample(target, spread(sorted(groups[target], key=success_of), count)) for target in chosen]


def by_target(texts: Sequence[Text]) -> dict[str, list[Text]]:
    """Texts by what was asked for."""
    groups: dict[str, list[Text]] = {}
    for text in texts:
        groups.setdefault(text.target, []).append(text)
    return groups


def mean_success(texts: Sequence[Text]) -> float:
    """Of the texts of one target."""
    return sum(map(success_of, texts)) / len(texts)


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at even distances, the first and the last among them; all if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, count - 1))] for i in range(count)]


def success_of(text: Text) -> float:
    """How far a text does what is wanted; one that nothing is wanted of cannot miss."""
    return 1.0 if text.success is None else text.success


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


TASK = "tree"
MOST_WORDS, TREES = 14, 3


@dataclass(frozen=True)
class TreePair:
    """A target and a text, both drawn, and the labelled bracket F1 of the two in [0, 1]."""

    system: str
    text: str
    f1: float
    wanted: str
    found: str


def tree_pairs(found: Collection) -> list[TreePair]:
    """The targets with the lowest, the middle and the highest success of the first system that did trees.

    Of each the text that misses most.

    Only targets of at most `MOST_WORDS` words, which can be read, or the shortest if there are none.
    """
    done = [each for each in found.of_task(TASK) if each.texts]
    if not done:
        return []
    groups = by_target(done[0].texts)
    wanted = {target: read_tree(target.partition(": ")[2]) for target in groups}
    shortest = min(len(tree.leaves()) for tree in wanted.values())
    small = [target for target in groups if len(wanted[target].leaves()) <= max(MOST_WORDS, shortest)]
    chosen = spread(sorted(small, key=lambda target: mean_success(groups[target])), TREES)
    texts = [min(groups[target], key=success_of).text for target in chosen]

    # The only part of a report that needs torch, and so as late as can be.
    from diffusion_lm.control.tree import our_parser

    parses = our_parser().parse([words_of(text) for text in texts])
    out = []
    for target, text, parse in zip(chosen, texts, parses, strict=True):
        tree = wanted[target]
        shared = brackets(tree) & brackets(parse)
        out.append(
            TreePair(
                done[0].row.system,
                text,
                bracket_f1([tree], [parse]),
                tree_svg(tree, "the tree that was asked for", shared),
                tree_svg(parse, "the tree of the text", shared),
            )
        )
    return out


MOST_STEPS, MOST_TEXTS = 12, 3


class Word(NamedTuple):
    """A word with the space before it, and whether it is the final one at its place."""

    text: str
    settled: bool


@dataclass(frozen=True)
class Trace:
    """A sentence by step: time and words."""

    title: str
    steps: Sequence[tuple[float, Sequence[Word]]]


def traces_of(record: Mapping[str, Any]) -> list[Trace]:
    """The first few sentences of a trace.json: {"title": str, "steps": [{"t": float, "texts": [str, ...]}, ...]}.

    Raises:
        UserError: it is laid out otherwise.
    """
    try:
        steps = [(float(step["t"]), list(step["texts"])) for step in record["steps"]]
        title = str(record.get("title", ""))
        count = min(MOST_TEXTS, *(len(texts) for _, texts in steps))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            'A trace.json holds {"title": TEXT, "steps": [{"t": NUMBER, "texts": [TEXT, ...]}, ...]}; '
            f"this one does not ({error})."
        ) from error
    titles = [title if count == 1 else f"{title}, sentence {i + 1}" for i in range(count)]
    return [_trace(name, [(t, texts[i]) for t, texts in steps]) for i, name in enumerate(titles)]


def _trace(title: str, steps: Sequence[tuple[float, str]]) -> Trace:
    last = words_of(steps[-1][1])
    return Trace(title, [(t, _words(text, last)) for t, text in spread(steps, MOST_STEPS)])


def _words(text: str, last: Sequence[str]) -> list[Word]:
    words = split_words(text)
    joined = [join_words(words[:i]) for i in range(len(words) + 1)]
    return [
        Word(joined[i + 1][len(joined[i]) :], i < len(last) and bare(word) == last[i]) for i, word in enumerate(words)
    ]
