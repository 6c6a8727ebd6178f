"""A control written as symbols in front of a sentence: what a fine-tuned language model is conditioned on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from diffusion_lm.annotate.trees import read_tree, spans_of
from diffusion_lm.control.span import read_span
from diffusion_lm.text.fields import says

if TYPE_CHECKING:
    from nltk import Tree

    from diffusion_lm.annotate.corpus_labels import Annotation
    from diffusion_lm.text.document import Document

CLOSE = ")"


class Prompts(ABC):
    """How one task's targets, and the sentences that fulfil them, become symbols."""

    @abstractmethod
    def options(self, document: Document, labels: Annotation) -> list[list[str]]:
        """All prompts that a sentence of the corpus fulfils; training takes one of them at random."""

    @abstractmethod
    def of_target(self, target: Any) -> list[str]:
        """The prompt for a target of the task."""

    def place(self, symbol: str) -> int | None:
        """The position, START's being 0, of the word that a symbol names; None where it names none."""
        return None


@final
class AttributePrompts(Prompts):
    """A field and its value as one symbol; of a sentence, those that it says."""

    def options(self, document: Document, labels: Annotation) -> list[list[str]]:  # noqa: D102
        return [[f"{f}={v}"] for f, v in document.fields.items() if says(document.text, v)]

    def of_target(self, target: Any) -> list[str]:  # noqa: D102
        return [f"{target.field}={target.value}"]


@final
class PosPrompts(Prompts):
    """The tags."""

    def options(self, document: Document, labels: Annotation) -> list[list[str]]:  # noqa: D102
        return [list(labels.pos)]

    def of_target(self, target: Any) -> list[str]:  # noqa: D102
        return str(target.value).split()


@final
class TreePrompts(Prompts):
    """The tree in brackets without its words: labels that open, tags, and closing brackets."""

    def options(self, document: Document, labels: Annotation) -> list[list[str]]:  # noqa: D102
        return [brackets(read_tree(labels.tree))]

    def of_target(self, target: Any) -> list[str]:  # noqa: D102
        return brackets(read_tree(target.value))


@final
class SpanPrompts(Prompts):
    """First word, last word and label of a constituent, one after another where several are wanted."""

    def options(self, document: Document, labels: Annotation) -> list[list[str]]:  # noqa: D102
        return [self._symbols(*span) for span in spans_of(read_tree(labels.tree))]

    def of_target(self, target: Any) -> list[str]:  # noqa: D102
        return [symbol for text in target.value.split() for symbol in self._symbols(*read_span(text))]

    def place(self, symbol: str) -> int | None:  # noqa: D102
        return _number(symbol)

    @staticmethod
    def _symbols(start: int, stop: int, label: str) -> list[str]:
        return [f"first={start + 1}", f"last={stop}", label]


@final
class LengthPrompts(Prompts):
    """The number of words as one symbol."""

    def options(self, document: Document, labels: Annotation) -> list[list[str]]:  # noqa: D102
        return [[f"length={len(labels.words)}"]]

    def of_target(self, target: Any) -> list[str]:  # noqa: D102
        return [f"length={target}"]

    def place(self, symbol: str) -> int | None:
        """The last word's position: END is predicted there."""
        return _number(symbol)


def _number(symbol: str) -> int | None:
    """The number n of "name=n"."""
    number = symbol.partition("=")[2]
    return int(number) if number else None


def brackets(tree: Tree | str) -> list[str]:
    """Depth first: "(S", "(NP", the tags of words, and ")"."""
    if isinstance(tree, str):
        return []
    inside: Sequence[list[str]] = [brackets(child) for child in tree]
    if not any(inside):
        return [tree.label()]
    return [f"({tree.label()}", *(symbol for part in inside for symbol in part), CLOSE]


PROMPTS: dict[str, Prompts] = {
    "attribute": AttributePrompts(),
    "pos": PosPrompts(),
    "tree": TreePrompts(),
    "span": SpanPrompts(),
    "length": LengthPrompts(),
}
"""The prompts by the name of their task."""
