"""Syntax spans: certain words are a constituent (paper section 6.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.annotate import trees
from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.annotate.parser import parser
from diffusion_lm.annotate.tagger import Parser
from diffusion_lm.annotate.trees import read_tree, spans_of, split_chain
from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Target, words_of_record
from diffusion_lm.control.leaves import LeafTable
from diffusion_lm.control.program import Asset, Host, Program
from diffusion_lm.control.syntax import Syntactic, SyntaxModel, chart_energy
from diffusion_lm.control.tree import WEIGHT, Tree, parsed
from diffusion_lm.text.fields import Document

_FORM = re.compile(r"(\d{1,6}):(\d{1,6}):([^\s:]+)")

USUAL = 1 / 3
"""Share of the trees with the wanted constituents, the most usual ones, that sentences are drawn from."""


def read_span(text: str) -> trees.Span:
    """The span that "5:8:PP" stands for: words 5 to 8, counted from 1, are a PP; a `UserError` if it is none."""
    match = _FORM.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"A span is FIRST:LAST:LABEL, words counted from 1, such as 5:8:PP, not {text[:40]!r}.")
    return trees.Span(int(match[1]) - 1, int(match[2]), match[3])


def _written(span: trees.Span) -> str:
    return f"{span.start + 1}:{span.stop}:{span.label}"


class _Usual(NamedTuple):
    """A tree of the table to draw, and its number of words; None where it has the constituent `shift` words too early."""

    number: int
    words: int | None
    shift: int = 0

    def columns(self, table: LeafTable, wanted: Sequence[trees.Span]) -> Tensor:
        """What it says of words, [words, V]; where it is of another place, only of those of the constituent."""
        columns = table.columns(table.tree(self.number))
        if self.words is not None:
            return columns
        start, stop, _ = wanted[0]
        return F.pad(columns[start - self.shift : stop - self.shift], (0, 0, start, 0))


@final
@dataclass(frozen=True)
class Span(Syntactic, name="span"):
    """Certain words are a constituent in the text's parse; several spans at once where more are given.

    Ancestral sampling from p(words, tree | span) = p(tree | span) p(words | tree): each sentence draws one of the usual
    trees of the corpus with these constituents, and is held to it as `Tree` is. The tree also gives the length. Where no
    tree has the constituent just there, only the words of the span are held, to one of those that stand elsewhere.
    """

    help = "Words that are a constituent, FIRST:LAST:LABEL counted from 1, like 5:8:PP; may be repeated."
    repeats = True
    example = '{"spans": [[3, 5, "PP"]]}, words 3 to 5 counted from 0'
    counted: ClassVar[list[type[Asset]]] = [LeafTable]
    draws = True
    spans: str
    """FIRST:LAST:LABEL, words counted from 1: "5:8:PP", or a chain of labels above the same words, "5:8:S+VP"; more than
    one are separated by spaces."""
    by_classifier: bool = False
    """Whether the span is followed by the gradient of a latent classifier, as the paper does, and not by what is counted."""
    parser: Callable[[], Parser] = field(default=parser, repr=False, compare=False)
    """Makes the outside judge of success."""

    def wanted(self) -> list[trees.Span]:
        """The spans; a `UserError` if one is malformed, or two of them cross or name the same words."""
        texts = list(dict.fromkeys(self.spans.split()))
        if not texts:
            raise UserError("No span is given; a span is FIRST:LAST:LABEL, such as 5:8:PP.")
        found = [read_span(text) for text in texts]
        for one, other in combinations(sorted(found), 2):
            if one.start < other.start < one.stop < other.stop or one[:2] == other[:2]:
                both = f"The spans {_written(one)} and {_written(other)} cannot both be constituents"
                raise UserError(f"{both}: one has to lie inside the other or apart from it.")
        return found

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:
        """A tree for each sentence, among the usual ones that its canvas has room for; a `UserError` if there is none."""
        wanted, most = self.wanted(), host.max_words
        stop = max(span.stop for span in wanted)
        if stop > most:
            raise UserError(f"The span {self.spans} ends at word {stop}, but this model writes at most {most}.")
        longer = frozenset(range(stop, most + 1))
        if self.by_classifier:
            model = host.asset(SyntaxModel)
            energies, p = (chart_energy(model, wanted),), model.lengths_with(wanted)
            narrowed = [canvas.with_allowed(longer, str(self)) for canvas in canvases]
            fit = torch.tensor([[n in longer and canvas.fits(n) for n in range(len(p))] for canvas in narrowed])
            words = torch.multinomial(p * fit + 1e-9 * fit, 1, generator=generator).flatten().tolist()
            return [Program(c.with_words(n), energies=energies) for c, n in zip(narrowed, words, strict=True)]
        table = host.asset(LeafTable)
        usual = self._usual(table, wanted, most)
        possible = longer if usual[0].words is None else frozenset(tree.words for tree in usual if tree.words)
        narrowed = [canvas.with_allowed(possible, str(self)) for canvas in canvases]
        drawn = self._drawn(usual, narrowed, generator)
        columns = {tree: (WEIGHT * tree.columns(table, wanted),) for tree in dict.fromkeys(drawn)}
        return [
            Program(canvas if tree.words is None else canvas.with_words(tree.words), columns[tree])
            for canvas, tree in zip(narrowed, drawn, strict=True)
        ]

    def _usual(self, table: LeafTable, wanted: Sequence[trees.Span], max_words: int) -> list[_Usual]:
        unknown = [label for span in wanted for label in split_chain(span.label) if label not in table.labels]
        if unknown:
            known = ", ".join(table.labels)
            raise UserError(f"There is no constituent {', '.join(unknown)}; the constituents are {known}.")
        usual = [_Usual(number, int(table.lengths[number])) for number in table.trees_with(wanted)]
        if not usual and len(wanted) == 1:
            start, stop, label = wanted[0]
            for at in range(max_words - (stop - start) + 1):
                there = trees.Span(at, at + stop - start, label)
                usual += [_Usual(number, None, start - at) for number in table.trees_with([there])]
            usual.sort(key=lambda tree: -float(table.typical[tree.number]))
        if not usual:
            counted = f"{table.config.sentences:,} sentences that were counted"
            raise UserError(f"No tree of the {counted} has {self.spans}; move a span or give another label.")
        return usual

    @staticmethod
    def _drawn(usual: Sequence[_Usual], canvases: Sequence[Canvas], generator: torch.Generator) -> list[_Usual]:
        """A tree for each sentence; those of one canvas are drawn together."""
        drawn: list[Any] = [None] * len(canvases)
        for canvas in dict.fromkeys(canvases):
            rows = [row for row, other in enumerate(canvases) if other == canvas]
            fit = [tree for tree in usual if tree.words is None or canvas.fits(tree.words)]
            fit = fit[: max(1, round(USUAL * len(fit)))]
            for row, i in zip(rows, torch.randint(len(fit), (len(rows),), generator=generator).tolist(), strict=True):
                drawn[row] = fit[i]
        return drawn

    def merged(self, other: Control) -> Control | None:
        """Spans are wanted together of one tree; a `UserError` if the other one is a tree, which says all its spans."""
        if isinstance(other, Tree):
            raise UserError("A tree says all its constituents; leave the span out.")
        if isinstance(other, Span) and other.by_classifier == self.by_classifier:
            return replace(self, spans=f"{self.spans} {other.spans}")
        return None

    def parts(self) -> list[Control]:
        """Each span by itself."""
        return [replace(self, spans=text) for text in self.spans.split()]

    def success(self, texts: Sequence[str]) -> Tensor:
        """1 where the parse has all constituents, chains whole, [B]."""
        wanted, found = set(self.wanted()), parsed(self.parser(), texts)
        return torch.tensor([float(tree is not None and wanted <= set(spans_of(tree))) for tree in found])

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        return Tree.describe(host)

    @classmethod
    def target(cls, record: Any, line: int) -> Target:
        """From [first, last, label], both inclusive and from 0; a last word that is a line break is left out."""
        record = record if isinstance(record, dict) else {}
        spans, words = record.get("spans"), words_of_record(record)
        if not isinstance(spans, list) or not spans:
            raise ValueError("it has no list of spans under the key spans")
        parts = []
        for span in spans:
            if not isinstance(span, list) or [type(part) for part in span] != [int, int, str]:
                raise ValueError("a span is not [first, last, label]")
            first, last, label = span
            last = min(last, len(words) - 1) if words else last
            parts.append(f"{first + 1}:{last + 1}:{label.replace('::', '+')}")
        return Target(" ".join(parts), line, words)

    @classmethod
    def paper_success(cls, target: Target, texts: Sequence[str]) -> list[float]:
        """The strict measure: the original looks for a span in the parse of the text as it is, too."""
        return cls(target.value).success(texts).tolist()

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:  # noqa: D102
        return [_written(span) for span in spans_of(read_tree(labels.tree))]

    @classmethod
    def draw(cls, document: Document, labels: Annotation, rng: Random) -> dict[str, Any]:
        """A random constituent of the sentence, the whole of it excepted where there is another."""
        spans = spans_of(read_tree(labels.tree))
        inside = [span for span in spans if span.stop - span.start < len(labels.words)]
        start, stop, label = rng.choice(inside or spans)
        return {"spans": [[start, stop - 1, label]]}

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:
        """Where a constituent begins and where it ends, one after another where several are wanted."""
        spans = [read_span(text) for text in value.split()]
        ends = [[(f"{label} begins", start), (f"{label} ends", stop - 1)] for start, stop, label in spans]
        return [symbol for both in ends for symbol in both]
