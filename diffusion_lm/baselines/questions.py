"""What FUDGE's discriminators are asked about a sentence, as classes of softmaxes: one small class a control."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from diffusion_lm.annotate.trees import Leaf, leaves_of, read_tree
from diffusion_lm.baselines.common import Sentence, Wanted
from diffusion_lm.common import UserError
from diffusion_lm.text.fields import Document, says

OTHER, ENDED = 0, 1
"""Classes of what was too rare to have its own, and of all places after the last word."""
AHEAD = 4
"""Words that tags and leaves are asked of: the candidate itself and the next three."""
MOST = 150
"""Classes of one kind of symbol; the rarer ones are `OTHER`."""


class Known(NamedTuple):
    """A sentence and the leaves of its tree, which is read once since that takes longest."""

    sentence: Sentence
    leaves: list[Leaf]

    @staticmethod
    def of(sentence: Sentence) -> Known:
        """Read the tree."""
        return Known(sentence, leaves_of(read_tree(sentence.labels.tree)))


class Questions(ABC):
    """S questions about a sentence, asked at each of its words and at END."""

    sizes: list[int]
    """Classes of each."""

    @abstractmethod
    def of_sentence(self, known: Known) -> Tensor:
        """The right classes at each of the n words and at END, [n + 1, S]."""

    @abstractmethod
    def of_target(self, target: Any, place: int) -> Wanted:
        """The classes that a target wants at word `place`, counted from 0.

        Raises:
            UserError: if no sentence of the corpus could fulfil the target.
        """

    def words(self, target: Any) -> int | None:
        """The number of words that a target fixes; None where it fixes none."""
        return None


@final
class SaidFields(Questions):
    """Which value of each field the whole text says; class 0: none."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self.fields = fields
        self.sizes = [len(values) + 1 for values in fields.values()]

    @staticmethod
    def names(documents: Iterable[Document]) -> dict[str, list[str]]:
        """The values that are said, by field."""
        fields: dict[str, set[str]] = {}
        for document in documents:
            for name, value in document.fields.items():
                if says(document.text, value):
                    fields.setdefault(name, set()).add(value)
        return {name: sorted(values) for name, values in sorted(fields.items())}

    def classes(self, document: Document) -> list[int]:
        """The class of each field."""
        said = document.fields
        return [
            values.index(said[name]) + 1 if name in said and says(document.text, said[name]) else 0
            for name, values in self.fields.items()
        ]

    def of_sentence(self, known: Known) -> Tensor:  # noqa: D102
        row = self.classes(known.sentence.document)
        return torch.tensor([row]).expand(len(known.sentence.ids) - 1, -1)

    def of_target(self, target: Any, place: int = 0) -> Wanted:  # noqa: D102
        if target.value not in self.fields.get(target.field, ()):
            raise UserError(f"No text that the baseline was trained on says {target}.")
        return [(list(self.fields).index(target.field), self.fields[target.field].index(target.value) + 1)]


@final
class WordsToCome(Questions):
    """How many tokens follow, END counted: 0 at END itself."""

    def __init__(self, max_length: int) -> None:
        self.sizes = [max_length]

    def of_sentence(self, known: Known) -> Tensor:  # noqa: D102
        return torch.arange(len(known.sentence.ids) - 2, -1, -1)[:, None]

    def of_target(self, target: Any, place: int) -> Wanted:
        """Past the wanted length, END is wanted at once."""
        if target + 2 > self.sizes[0]:
            raise UserError(f"The baseline writes at most {self.sizes[0] - 2} words, not {target}.")
        return [(0, max(target - place, 0))]


class SymbolsAhead(Questions):
    """The symbols of a word and of the next three; after the last word, that it is over."""

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        self.index = [{name: i + 2 for i, name in enumerate(kind)} for kind in names]
        self.sizes = [len(kind) + 2 for kind in names] * AHEAD

    @staticmethod
    @abstractmethod
    def of_known(known: Known) -> list[tuple[str, ...]]:
        """The symbols of each word of a sentence, one of each kind."""

    @staticmethod
    @abstractmethod
    def read(text: str) -> list[tuple[str, ...]]:
        """The symbols that a target's text stands for."""

    @classmethod
    def names(cls, found: Iterable[Known]) -> list[list[str]]:
        """The most frequent symbols of each kind."""
        kinds: list[Counter[str]] = []
        for known in found:
            columns = list(zip(*cls.of_known(known), strict=True))
            kinds = kinds or [Counter() for _ in columns]
            for kind, column in zip(kinds, columns, strict=True):
                kind.update(column)
        return [[name for name, _ in kind.most_common(MOST)] for kind in kinds]

    def classes(self, symbols: Sequence[tuple[str, ...]]) -> Tensor:
        """The classes at each of n words and at END, [n + 1, S]."""
        rows = [[index.get(name, OTHER) for index, name in zip(self.index, row, strict=True)] for row in symbols]
        rows += [[ENDED] * len(self.index)] * AHEAD
        return torch.tensor(rows).unfold(0, AHEAD, 1).transpose(1, 2).flatten(1)

    def of_sentence(self, known: Known) -> Tensor:  # noqa: D102
        return self.classes(self.of_known(known))

    def of_target(self, target: Any, place: int) -> Wanted:  # noqa: D102
        classes = self.classes(self.read(target.value))
        return list(enumerate(classes[min(place, len(classes) - 1)].tolist()))

    def words(self, target: Any) -> int:  # noqa: D102
        return len(self.read(target.value))


@final
class TagsAhead(SymbolsAhead):
    """Universal tags."""

    @staticmethod
    def of_known(known: Known) -> list[tuple[str, ...]]:  # noqa: D102
        return [(tag,) for tag in known.sentence.labels.pos]

    @staticmethod
    def read(text: str) -> list[tuple[str, ...]]:  # noqa: D102
        return [(tag,) for tag in text.split()]


@final
class LeavesAhead(SymbolsAhead):
    """Of a tree, each leaf's tag, the labels that open before it and those that close after it."""

    @staticmethod
    def of_known(known: Known) -> list[tuple[str, ...]]:  # noqa: D102
        return [_symbols(leaf) for leaf in known.leaves]

    @staticmethod
    def read(text: str) -> list[tuple[str, ...]]:  # noqa: D102
        return [_symbols(leaf) for leaf in leaves_of(read_tree(text))]


def _symbols(leaf: Leaf) -> tuple[str, ...]:
    return leaf.tag or "", " ".join(leaf.opens), " ".join(leaf.closes)
