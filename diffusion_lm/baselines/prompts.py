"""A control written as symbols in front of a sentence: what a fine-tuned language model is conditioned on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final

from diffusion_lm.annotate.trees import is_tag, read_tree, spans_of
from diffusion_lm.control.span import read_span
from diffusion_lm.text.fields import says

if TYPE_CHECKING:
    from nltk import Tree

    from diffusion_lm.annotate.corpus_labels import Annotation
    from diffusion_lm.text.document import Document

CLOSE = ")"


class Symbol(NamedTuple):
    """One symbol of a prompt, and the word that it speaks of."""

    text: str
    place: int = 0
    """Number of words before that one; 0 too where it speaks of the whole sentence."""


Prompt = list[Symbol]


class Prompts(ABC):
    """How one task's targets, and the sentences that fulfil them, become symbols."""

    @abstractmethod
    def options(self, document: Document, labels: Annotation) -> list[Prompt]:
        """All prompts that a sentence of the corpus fulfils; training takes one of them at random."""

    @abstractmethod
    def of_target(self, target: Any) -> Prompt:
        """The prompt for a target of the task."""


@final
class AttributePrompts(Prompts):
    """A field and its value as one symbol; of a sentence, those that it says."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [[Symbol(f"{f}={v}")] for f, v in document.fields.items() if says(document.text, v)]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return [Symbol(f"{target.field}={target.value}")]


@final
class PosPrompts(Prompts):
    """The tags, each at the place of its word."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [self._symbols(labels.pos)]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return self._symbols(str(target.value).split())

    @staticmethod
    def _symbols(tags: Sequence[str]) -> Prompt:
        return [Symbol(tag, place) for place, tag in enumerate(tags)]


@final
class TreePrompts(Prompts):
    """The tree in brackets without its words: labels that open, tags, and closing brackets."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [brackets(read_tree(labels.tree))]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return brackets(read_tree(target.value))


@final
class SpanPrompts(Prompts):
    """Where a constituent begins and where it ends, one after another where several are wanted."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [self._symbols(*span) for span in spans_of(read_tree(labels.tree))]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return [symbol for text in target.value.split() for symbol in self._symbols(*read_span(text))]

    @staticmethod
    def _symbols(start: int, stop: int, label: str) -> Prompt:
        return [Symbol(f"{label} begins", start), Symbol(f"{label} ends", stop - 1)]


@final
class LengthPrompts(Prompts):
    """The end of the sentence, at its place."""

    def options(self, document: Document, labels: Annotation) -> list[Prompt]:  # noqa: D102
        return [self.of_target(len(labels.words))]

    def of_target(self, target: Any) -> Prompt:  # noqa: D102
        return [Symbol("end", int(target))]


def brackets(tree: Tree) -> Prompt:
    """Depth first: "(S", "(NP", the tags of words, and ")"; a bracket speaks of the word after it or, closing, before it."""
    return list(_brackets(tree, 0))


def _brackets(tree: Tree, place: int) -> Iterator[Symbol]:
    if is_tag(tree):
        yield Symbol(tree.label(), place)
        return
    yield Symbol(f"({tree.label()}", place)
    for child in tree:
        yield from _brackets(child, place)
        place += len(child.leaves())
    yield Symbol(CLOSE, place - 1)


PROMPTS: dict[str, Prompts] = {
    "attribute": AttributePrompts(),
    "pos": PosPrompts(),
    "tree": TreePrompts(),
    "span": SpanPrompts(),
    "length": LengthPrompts(),
}
"""The prompts by the name of their task."""
