"""Syntax spans: certain words are a constituent (paper section 6.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, final

import torch
from torch import Tensor

from diffusion_lm.annotate import trees
from diffusion_lm.annotate.trees import spans_of, split_chain
from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control
from diffusion_lm.control.tree import WEIGHT, Held, Tree, longer, our_parser, parsed

if TYPE_CHECKING:
    from diffusion_lm.annotate.tagger import Parser
    from diffusion_lm.control.tables import LeafTable
    from diffusion_lm.generation.pipeline import DiffusionLM

_FORM = re.compile(r"(\d+):(\d+):([^\s:]+)")
USUAL = 1 / 3
"""Share of the trees with the wanted constituents, the most usual ones, that sentences are drawn from."""


def read_span(text: str) -> trees.Span:
    """The span that "5:8:PP" stands for: words 5 to 8, counted from 1, are a PP.

    Raises:
        UserError: if it is not of this form.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(
            f"A span is FIRST:LAST:LABEL, such as 5:8:PP for words 5 to 8, counted from 1; {text!r} is not."
        )
    return trees.Span(int(match[1]) - 1, int(match[2]), match[3])


def _cross(one: trees.Span, other: trees.Span) -> bool:
    return one.start < other.start < one.stop < other.stop


def _elsewhere(table: LeafTable, span: trees.Span, max_words: int) -> list[_Usual]:
    """Trees that have such a constituent at another place; only its own leaves are to be taken."""
    size = span.stop - span.start
    found = [
        _Usual(number, None, start, span.start)
        for start in range(max_words - size + 1)
        for number in table.trees_with([trees.Span(start, start + size, span.label)])
    ]
    return sorted(found, key=lambda tree: -float(table.typical[tree.number]))


class _Usual(NamedTuple):
    """A tree to draw."""

    number: int
    """Where it is in the table."""
    words: int | None
    """How many words a sentence with it has; None where only the constituent itself is taken from it."""
    first: int = 0
    """The first of its leaves that counts."""
    offset: int = 0
    """The word that this leaf is for, from 0."""


@final
@dataclass(frozen=True)
class Span(Control):
    """Certain words are a constituent in the text's parse; several spans at once where more are given.

    Ancestral sampling from p(words, tree | span) = p(tree | span) p(words | tree): each sentence draws one of the usual
    trees of the corpus with these constituents, and is held to it as `Tree` is. The tree also gives the length. Where no
    tree has the constituent just there, only the words of the span are held, to one of those that stand elsewhere.
    """

    spans: str
    """FIRST:LAST:LABEL, words counted from 1: "5:8:PP", or a chain of labels above the same words, "5:8:S+VP"; more than
    one are separated by spaces."""
    table: LeafTable | None = field(default=None, repr=False, compare=False)
    usual: tuple[_Usual, ...] = field(default=(), repr=False, compare=False)
    parser: Callable[[], Parser] = field(default=our_parser, repr=False, compare=False)
    """Makes the outside judge of success."""

    def wanted(self) -> list[trees.Span]:
        """The spans.

        Raises:
            UserError: if one is malformed, or two of them cross or name the same words.
        """
        texts = self.spans.split()
        if not texts:
            raise UserError("No span is given; a span is FIRST:LAST:LABEL, such as 5:8:PP.")
        found = [read_span(text) for text in texts]
        for (one, text), (other, text_of_other) in combinations(zip(found, texts, strict=True), 2):
            if _cross(one, other) or _cross(other, one) or one[:2] == other[:2]:
                raise UserError(
                    f"The spans {text} and {text_of_other} cannot both be constituents: one has to lie inside "
                    "the other or apart from it."
                )
        return found

    def bind(self, lm: DiffusionLM) -> Control:
        """Find the trees that have the constituents.

        Raises:
            UserError: if a span is malformed, past the model's length or has an unknown label, spans cross, the model
                has no table of trees, or no tree of the corpus has these constituents.
        """
        wanted, table = self.wanted(), lm.leaf_table()
        for span in wanted:
            if span.stop > lm.max_words:
                raise UserError(
                    f"The span {self.spans} ends at word {span.stop}, but the model writes at most {lm.max_words} words."
                )
            unknown = [label for label in split_chain(span.label) if label not in table.labels]
            if unknown:
                raise UserError(
                    f"There is no constituent {', '.join(unknown)}; the constituents are {', '.join(table.labels)}."
                )
        usual = [_Usual(number, int(table.lengths[number])) for number in table.trees_with(wanted)]
        if not usual and len(wanted) == 1:
            usual = _elsewhere(table, wanted[0], lm.max_words)
        if not usual:
            raise UserError(
                f"No tree of the {table.config.sentences:,} sentences that were counted has {self.spans}; "
                "move a span or give another label."
            )
        return replace(self, table=table, usual=tuple(usual))

    def joined(self, other: Control) -> Control | None:
        """Spans are wanted together of one tree.

        Raises:
            UserError: if the other one is a tree, which says all its spans.
        """
        if isinstance(other, Tree):
            raise UserError("A tree says all its constituents; leave the span out.")
        return replace(self, spans=f"{self.spans} {other.spans}") if isinstance(other, Span) else None

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        if any(tree.words is None for tree in self.usual):
            return canvas.with_allowed(longer(self.wanted()[0].stop, canvas), str(self))
        return canvas.with_allowed(frozenset(tree.words for tree in self.usual if tree.words), str(self))

    def drawn(self, n: int, canvas: Canvas, generator: torch.Generator) -> Sequence[Control]:
        """A tree for each of n sentences, among the usual ones that the canvas has room for."""
        fit = [tree for tree in self.usual if tree.words is None or canvas.fits(tree.words)]
        fit = fit[: max(1, round(USUAL * len(fit)))]
        trees = [fit[i] for i in torch.randint(len(fit), (n,), generator=generator).tolist()]
        held = {tree: Held(self, WEIGHT * self._columns(tree), tree.words) for tree in dict.fromkeys(trees)}
        return [held[tree] for tree in trees]

    def _columns(self, tree: _Usual) -> Tensor:
        if self.table is None:
            raise ValueError("Bind the control to a model first: control.bind(lm).")
        columns = self.table.columns(self.table.tree(tree.number))
        if tree.words is not None:
            return columns
        stop = tree.first + self.wanted()[0].stop - tree.offset
        return torch.nn.functional.pad(columns[tree.first : stop], (0, 0, tree.offset, 0))

    def parts(self) -> list[Control]:
        """Each span by itself."""
        return [replace(self, spans=text) for text in self.spans.split()]

    def success(self, texts: Sequence[str]) -> Tensor:
        """1 where the parse has all constituents, chains whole, [B]."""
        wanted = set(self.wanted())
        return torch.tensor(
            [float(found is not None and wanted <= set(spans_of(found))) for found in parsed(self.parser(), texts)]
        )

    def __str__(self) -> str:
        return f"span={self.spans}"
