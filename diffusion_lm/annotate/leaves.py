"""A tree seen from its leaves: for each word its tag, and the constituents that begin and end there.

The sequence of these says the whole tree, and each of them is a fact about one word, which is what a model that predicts
each position alone can be conditioned on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from diffusion_lm.annotate.trees import CHAIN, Span, is_tag

if TYPE_CHECKING:
    from nltk import Tree


class Leaf(NamedTuple):
    """What a tree says of one word.

    Attributes:
        tag: label of its pre-terminal; None where the tree does not say.
        opens: labels of the constituents that begin with it, the highest first.
        closes: labels of the constituents that end with it, the highest first.
    """

    tag: str | None
    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()


def leaves_of(tree: Tree, tags: Collection[str] | None = None) -> list[Leaf]:
    """The leaves of a tree in order.

    Args:
        tree: with a pre-terminal above each word, or words directly in constituents.
        tags: what is a tag: `(NP _)` is then a constituent of one word whose tag is free; None: every bracket around
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
    """The constituents that leaves open and close, a unary chain as one; the inverse of `leaves_of` but for the tags."""
    chains: dict[tuple[int, int], list[str]] = {}
    open_: list[int] = []
    for i, leaf in enumerate(leaves):
        open_ += [i] * len(leaf.opens)
        for label in reversed(leaf.closes):
            chains.setdefault((open_.pop(), i + 1), []).insert(0, label)
    return [Span(start, stop, CHAIN.join(labels)) for (start, stop), labels in chains.items()]
