"""What discriminators are asked about a sentence, as classes of softmaxes: one small class a control."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.annotate.trees import Leaf, Span, leaves_of, read_tree, spans_of_leaves
from diffusion_lm.common import UserError
from diffusion_lm.control.attribute import said_fields
from diffusion_lm.text.fields import Document

OTHER, ENDED = 0, 1
"""Classes of what was too rare to have its own, and of all places after the last word."""
AHEAD = 4
"""Words that tags and leaves are asked of: the candidate itself and the next three."""
MOST = 150
"""Classes of one kind of symbol; the rarer ones are `OTHER`."""

Symbols = list[tuple[str, ...]]
"""Of each word of a sentence: one symbol of each kind."""
Wanted = Sequence[tuple[int, int]]
"""The number of a softmax and a class of it, for each fact that is wanted."""


def of_leaves(leaves: Iterable[Leaf]) -> Symbols:
    """Each leaf's tag, the labels that open before it and those that close after it."""
    return [(leaf.tag or "", " ".join(leaf.opens), " ".join(leaf.closes)) for leaf in leaves]


READ: dict[str, Callable[[str], Symbols]] = {
    "pos": lambda value: [(tag,) for tag in value.split()],
    "tree": lambda value: of_leaves(leaves_of(read_tree(value))),
}
"""From a target to the symbols that it stands for, by the name of its control."""


class Sentence(NamedTuple):
    """A sentence, and what is known of it."""

    said: dict[str, str]
    """The fields whose value it says."""
    ids: list[int]
    """START words END."""
    symbols: dict[str, Symbols]
    """By the name of the control that speaks of them."""
    spans: list[Span]
    """The constituents."""

    @staticmethod
    def of(document: Document, labels: Annotation, ids: list[int]) -> Sentence:
        """Read the tree once, since that takes longest."""
        leaves = leaves_of(read_tree(labels.tree))
        symbols: dict[str, Symbols] = {"pos": [(tag,) for tag in labels.pos], "tree": of_leaves(leaves)}
        return Sentence(said_fields(document), ids, symbols, spans_of_leaves(leaves))


class Questions(nn.Module, ABC):
    """S questions about a sentence, asked at each of its words and at END: S softmaxes of `sizes`, linear in a state [H]."""

    def __init__(self, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.linear = nn.Linear(width, sum(sizes))

    @abstractmethod
    def of_sentence(self, sentence: Sentence) -> Tensor:
        """The right classes at each of the n words and at END, [n + 1, S]."""

    @abstractmethod
    def of_target(self, value: str) -> list[Wanted]:
        """The classes that a target wants at each word, the last from there on; a `UserError` if no sentence fulfils it."""

    def nll(self, states: Tensor, classes: Tensor) -> Tensor:
        """Mean -log p of the classes [N, S] at states [N, H], over both, in nats, []."""
        pairs = zip(self._logits(states), classes.long().T, strict=True)
        return torch.stack([F.cross_entropy(logits, right) for logits, right in pairs]).mean()

    def log_p(self, states: Tensor, wanted: Wanted) -> Tensor:
        """Sum of the log-probabilities of the wanted classes, [...], at states [..., H]."""
        logits = self._logits(states)
        return torch.stack([logits[number].log_softmax(-1)[..., right] for number, right in wanted]).sum(0)

    def _logits(self, states: Tensor) -> tuple[Tensor, ...]:
        return self.linear(states).float().split(self.sizes, -1)


@final
class SaidFields(Questions):
    """Which value of each field the whole text says; class 0: none."""

    def __init__(self, width: int, fields: dict[str, list[str]]) -> None:
        super().__init__(width, [len(values) + 1 for values in fields.values()])
        self.fields = fields

    def classes(self, said: Mapping[str, str]) -> list[int]:
        """The class of each field of a text that says so."""
        return [values.index(said[name]) + 1 if name in said else 0 for name, values in self.fields.items()]

    def of_sentence(self, sentence: Sentence) -> Tensor:  # noqa: D102
        return torch.tensor([self.classes(sentence.said)]).expand(len(sentence.ids) - 1, -1)

    def of_target(self, value: str) -> list[Wanted]:  # noqa: D102
        name, _, said = value.partition("=")
        if said not in self.fields.get(name, ()):
            raise UserError(f"No text that the baseline was trained on says {value}.")
        return [[(list(self.fields).index(name), self.fields[name].index(said) + 1)]]


@final
class WordsToCome(Questions):
    """How many tokens follow, END counted: 0 at END itself."""

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__(width, [max_length])

    def of_sentence(self, sentence: Sentence) -> Tensor:  # noqa: D102
        return torch.arange(len(sentence.ids) - 2, -1, -1)[:, None]

    def of_target(self, value: str) -> list[Wanted]:
        """Past the wanted length, END is wanted at once."""
        if int(value) + 2 > self.sizes[0]:
            raise UserError(f"The baseline writes at most {self.sizes[0] - 2} words, not {value}.")
        return [[(0, left)] for left in range(int(value), -1, -1)]


@final
class SymbolsAhead(Questions):
    """The symbols of which a task speaks, of a word and of the next three; after the last word, that it is over.

    Of each kind, those in `names` have a class.
    """

    def __init__(self, width: int, task: str, names: Sequence[Sequence[str]]) -> None:
        super().__init__(width, [len(kind) + 2 for kind in names] * AHEAD)
        self.task, self.index = task, [{name: i + 2 for i, name in enumerate(kind)} for kind in names]

    @staticmethod
    def names(found: Sequence[Symbols]) -> list[list[str]]:
        """The most frequent symbols of each kind in some sentences."""
        kinds = zip(*(word for symbols in found for word in symbols), strict=True)
        return [[name for name, _ in Counter(kind).most_common(MOST)] for kind in kinds]

    def classes(self, symbols: Symbols) -> Tensor:
        """The classes at each of n words and at END, [n + 1, S]."""
        rows = [[index.get(name, OTHER) for index, name in zip(self.index, row, strict=True)] for row in symbols]
        rows += [[ENDED] * len(self.index)] * AHEAD
        return torch.tensor(rows).unfold(0, AHEAD, 1).transpose(1, 2).flatten(1)

    def of_sentence(self, sentence: Sentence) -> Tensor:  # noqa: D102
        return self.classes(sentence.symbols[self.task])

    def of_target(self, value: str) -> list[Wanted]:  # noqa: D102
        return [list(enumerate(row)) for row in self.classes(READ[self.task](value)).tolist()]
