"""Constituency trees: brackets, charts, and how far two trees agree.

A chart names each span of words that is a constituent. Constituents above the same words are one entry, their labels
joined from the top: "S+VP" is an S whose only child is a VP. Pre-terminals, the tags above words, are in no chart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from diffusion_lm.common import UserError

if TYPE_CHECKING:
    from nltk import Tree


ANY_WORD = "_"
"""A leaf that stands for any word."""
CHAIN = "+"
"""Joins the labels of constituents above the same words."""
MOST_WORDS = 512
"""Of a sentence: its chart grows with the square of them."""
MOST_DEPTH = 100
"""Brackets within brackets: what walks a tree recurses."""
_ROOTS = frozenset(("", "ROOT", "TOP"))
_WORD_OF_LEAF = {"-LRB-": "(", "-RRB-": ")", "-BACKSLASH-": "\\"}
_LEAF_OF_WORD = str.maketrans({word: leaf for leaf, word in _WORD_OF_LEAF.items()})
_TOKEN = re.compile(r"\(\s*[^\s()]*|\)|[^\s()]+")
_SHOWN, _QUOTED = 40, 300


class Span(NamedTuple):
    """A constituent: the words from `start` up to but not including `stop`, and its label or chain of labels."""

    start: int
    stop: int
    label: str


def read_tree(text: str, most_leaves: int = MOST_WORDS) -> Tree:
    """Read a tree in Penn Treebank brackets; an unlabelled, ROOT or TOP bracket around the whole of it goes.

    Such as "(S (NP (DT the) (NN pub)) (VP (VBZ closes)))"; the leaf `_` stands for any word.

    Raises:
        UserError: if it has too many leaves or is deeper than `MOST_DEPTH`, the brackets do not match, or one has no label
            or no word.
    """
    from nltk import Tree

    _check_size(text, most_leaves)
    try:
        tree = Tree.fromstring(text)
    except ValueError as error:
        raise UserError(_broken(text, str(error))) from None
    if tree.label() in _ROOTS and len(tree) == 1 and isinstance(tree[0], Tree):
        tree = tree[0]
    for part in tree.subtrees():
        if not part.label() or CHAIN in part.label():
            found = f"The tree {quote(text)} has the label {quote(part.label())}"
            raise UserError(f"{found}; a label is a name without {CHAIN}.")
        if not len(part):
            raise UserError(f"{quote(part.label())} in the tree {quote(text)} holds no word; give one, or {ANY_WORD}.")
    return tree


def quote(text: str) -> str:
    """A text as an error shows it: what is long is cut."""
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}...")


def _check_size(text: str, most_leaves: int) -> None:
    """Refuse a tree by its number of leaves and its depth before anything is built of it."""
    leaves = depth = 0
    for found in _TOKEN.finditer(text):
        first = found[0][0]
        depth += (first == "(") - (first == ")")
        leaves += first not in "()"
        if leaves > most_leaves or depth > MOST_DEPTH:
            most = f"{most_leaves} words, {MOST_DEPTH} brackets deep"
            raise UserError(f"The tree {quote(text)} is too large; give at most {most}.")


def _broken(text: str, problem: str) -> str:
    found = re.search(r"expected (.+) but got (.+)\s+at index (\d+)", problem)
    if found is None:
        return f"{quote(text)} is no tree; give brackets such as (S (NP (DT the) (NN pub)) (VP (VBZ closes)))."
    expected, got, place = found[1], found[2].strip(), int(found[3])
    before, after = text[max(0, place - _SHOWN) : place], text[place : place + _SHOWN]
    where = f"The tree {quote(text)} breaks at character {place + 1}, {before!r} HERE {after!r}"
    return f"{where}: {expected} should stand there, not {got[:_SHOWN]}."


def without_words(tree: Tree) -> str:
    """A tree in brackets with every word free."""
    return re.sub(r" [^\s()]+", f" {ANY_WORD}", write_tree(tree))


def write_tree(tree: Tree) -> str:
    """The tree in brackets on one line; what `read_tree` reads."""
    return tree if isinstance(tree, str) else f"({tree.label()} {' '.join(map(write_tree, tree))})"


def word_of(leaf: str) -> str:
    """The word that a leaf stands for: the Penn Treebank's -LRB- and -RRB- are round brackets; a backslash would escape one."""
    return _WORD_OF_LEAF.get(leaf, leaf)


def split_chain(chain: str) -> list[str]:
    """The labels of a chain, the highest first."""
    return chain.split(CHAIN)


def is_tag(node: Tree | str) -> bool:
    """Whether a node is a pre-terminal: one bracket around one word."""
    return not isinstance(node, str) and len(node) == 1 and isinstance(node[0], str)


def spans_of(tree: Tree) -> list[Span]:
    """The constituents above pre-terminals, a unary chain as one; a parent stands before its children."""
    return sorted(spans_of_leaves(leaves_of(tree)), key=lambda span: (span.start, -span.stop))


def chart_of(tree: Tree) -> dict[tuple[int, int], str]:
    """The chart of a tree: (start, stop) to the chain of labels there."""
    return {(start, stop): label for start, stop, label in spans_of(tree)}


def tree_of(words: Sequence[str], tags: Sequence[str], chart: Mapping[tuple[int, int], str]) -> Tree:
    """The tree of a chart, which has (0, L), over L words; their tags become pre-terminals: the inverse of `chart_of`.

    Raises:
        UserError: if words and tags differ in number, a span is outside the sentence or crosses another, or none covers it.
    """
    from nltk import Tree

    if len(words) != len(tags):
        raise UserError(f"{len(words)} words have {len(tags)} tags; give one for each word.")
    size = len(words)
    if (0, size) not in chart or not size:
        raise UserError(f"No constituent covers all {size} words; a chart needs one at (0, {size}).")
    for start, stop in chart:
        if not 0 <= start < stop <= size:
            raise UserError(f"The span ({start}, {stop}) is not one of a sentence of {size} words.")
    # A parent before its children, taken from the end. `path` leads from the root, above all, to here.
    left = sorted(chart, key=lambda span: (-span[0], span[1]))
    path = [(size, Tree("", []))]
    for place, (word, tag) in enumerate(zip(words, tags, strict=True)):
        while left and left[-1][0] == place:
            start, stop = left.pop()
            if stop > path[-1][0]:
                raise UserError(f"The span ({start}, {stop}) crosses one that ends at {path[-1][0]}.")
            for label in split_chain(chart[start, stop]):
                path[-1][1].append(node := Tree(label, []))
                path.append((stop, node))
        path[-1][1].append(Tree(tag, [word.translate(_LEAF_OF_WORD)]))
        while len(path) > 1 and path[-1][0] == place + 1:
            path.pop()
    return path[0][1][0]


def bracket_f1(gold: Iterable[Tree], predicted: Iterable[Tree]) -> float:
    """Labelled bracket F1 over as many trees, as EVALB counts, but with punctuation left in; pre-terminals are no brackets.

    Each label of a unary chain is a bracket of its own.
    """
    pairs = [tuple(map(_brackets, trees)) for trees in zip(gold, predicted, strict=True)]
    shared = sum((right & guess).total() for right, guess in pairs)
    total = sum(right.total() + guess.total() for right, guess in pairs)
    return 2 * shared / total if total else 1.0


def _brackets(tree: Tree) -> Counter[tuple[int, int, str]]:
    return Counter((start, stop, label) for start, stop, chain in spans_of(tree) for label in split_chain(chain))


class Leaf(NamedTuple):
    """What a tree says of one word: its tag, None if free, and the constituents it opens and closes, highest first."""

    tag: str | None
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()


def leaves_of(tree: Tree, tags: Collection[str] | None = None) -> list[Leaf]:
    """The leaves of a tree in order; its words may stand in constituents without a pre-terminal.

    Tags say what is one: `(NP _)` is then a constituent of one word whose tag is free. Without them every bracket around
    one word is a pre-terminal.
    """
    if isinstance(tree, str):
        return [Leaf(None)]
    if is_tag(tree) and (tags is None or tree.label() in tags):
        return [Leaf(tree.label())]
    leaves = [leaf for child in tree for leaf in leaves_of(child, tags)]
    leaves[0] = leaves[0]._replace(opens=(tree.label(), *leaves[0].opens))
    leaves[-1] = leaves[-1]._replace(closes=(tree.label(), *leaves[-1].closes))
    return leaves


def spans_of_leaves(leaves: Sequence[Leaf]) -> list[Span]:
    """The constituents that leaves open and close, a unary chain as one, in the order of their ends."""
    chains: dict[tuple[int, int], list[str]] = {}
    starts: list[int] = []
    for i, leaf in enumerate(leaves):
        starts += [i] * len(leaf.opens)
        for label in reversed(leaf.closes):
            chains.setdefault((starts.pop(), i + 1), []).insert(0, label)
    return [Span(start, stop, CHAIN.join(labels)) for (start, stop), labels in chains.items()]
