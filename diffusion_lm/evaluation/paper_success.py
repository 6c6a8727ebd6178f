"""Success as the paper's evaluator counts it, rewrites and all: what its tables can be compared with.

The original rewrites a text before it scores it (eval_control.py: it cuts or pads words and tags to the target's length).
Each function here is pure, (what is wanted, what is found) to [0, 1]; `Control.success` is the strict measure, of the text as
it is. A span has no function: the original looks for it in the parse of the text as it is, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffusion_lm.annotate.trees import bracket_f1

if TYPE_CHECKING:
    from nltk import Tree

PADDING = "."
"""The word that the original pads a text with before it parses it."""
TOLERANCE = 2
"""Words by which a length may be missed (paper section 6.1; the original's code asks for the exact one)."""


def attribute(value: Sequence[str], words: Sequence[str]) -> float:
    """1 where the value is a substring of the joined words, in their case, be it within a longer word."""
    return float(" ".join(value) in " ".join(words))


def pos(wanted: Sequence[str], tags: Sequence[str]) -> float:
    """Share of the wanted tags that stand in their place; tags beyond the wanted number are cut off."""
    return sum(a == b for a, b in zip(wanted, tags, strict=False)) / max(1, len(wanted))


def fitted(words: Sequence[str], length: int) -> list[str]:
    """The words cut to a length, or padded to it with full stops, as the original does before it parses them."""
    return [*words[:length], *[PADDING] * (length - len(words))]


def tree(wanted: Tree, found: Tree) -> float:
    """Labelled bracket F1 of the wanted tree and the parse of the fitted words; tags do not count."""
    return bracket_f1([wanted], [found])


def length(wanted: int, words: Sequence[str]) -> float:
    """1 where the text has the wanted number of words, or up to two more or fewer."""
    return float(abs(len(words) - wanted) <= TOLERANCE)
