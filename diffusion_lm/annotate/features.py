"""What the parser sees of a word: spaCy's tag, its place in the dependency tree, and spaCy's own vector of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_lm.annotate.spacy_tagger import docs, load_spacy

if TYPE_CHECKING:
    from spacy.tokens import Doc

VECTOR = 96
"""Width of `doc.tensor`."""

FARTHEST = 12
"""A head's distance and a subtree's extent are clipped here, in words."""

UNKNOWN = 0
"""Class of a tag or a dependency that the vocabulary lacks."""


class Words(NamedTuple):
    """The features of one sentence: classes [L, 7] (int16), vectors [L, 96] (float16), and spaCy's tags."""

    classes: Tensor
    vectors: Tensor
    tags: list[str]


@dataclass(frozen=True)
class FeatureVocabulary:
    """The tags and dependency labels that have a class; saved with the parser."""

    tags: list[str]
    dependencies: list[str]

    @staticmethod
    def of_spacy() -> FeatureVocabulary:
        """Those of the installed model."""
        nlp = load_spacy()
        return FeatureVocabulary(list(nlp.pipe_labels["tagger"]), list(nlp.pipe_labels["parser"]))

    @property
    def sizes(self) -> list[int]:
        """How many classes each categorical feature has."""
        tags, dependencies = len(self.tags) + 1, len(self.dependencies) + 1
        return [tags, dependencies, 2 * FARTHEST + 1, tags, FARTHEST + 1, FARTHEST + 1, 8]


def features(sentences: Iterable[Sequence[str]], vocabulary: FeatureVocabulary) -> Iterator[Words]:
    """The features of sentences given as words without joiner marks, in their order."""
    tag = {name: i + 1 for i, name in enumerate(vocabulary.tags)}
    dependency = {name: i + 1 for i, name in enumerate(vocabulary.dependencies)}
    for doc in docs(sentences):
        classes = torch.tensor(_classes(doc, tag, dependency), dtype=torch.int16).view(-1, 7)
        vectors = torch.from_numpy(np.asarray(doc.tensor, np.float16))
        yield Words(classes, vectors, [token.tag_ for token in doc])


def _classes(doc: Doc, tag: dict[str, int], dependency: dict[str, int]) -> list[list[int]]:
    return [
        [
            tag.get(token.tag_, UNKNOWN),
            dependency.get(token.dep_, UNKNOWN),
            min(max(token.head.i - token.i, -FARTHEST), FARTHEST) + FARTHEST,
            tag.get(token.head.tag_, UNKNOWN),
            min(token.i - token.left_edge.i, FARTHEST),
            min(token.right_edge.i - token.i, FARTHEST),
            token.text[:1].isupper() + 2 * token.is_punct + 4 * token.text[:1].isdigit(),
        ]
        for token in doc
    ]


def equal_length_batches(
    lengths: Sequence[int], budget: int, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Split sentences into batches of one length and of at most `budget` words each.

    Without padding there is nothing to mask in the LSTM or in the chart. A longer sentence makes a batch of its own.

    Args:
        lengths: words a sentence.
        budget: the most words a batch.
        generator: source of the shuffle; None keeps the order of length.

    Returns:
        Sentence numbers, a list a batch.
    """
    order = (
        range(len(lengths))
        if generator is None
        else torch.randperm(len(lengths), generator=generator).tolist()
    )
    buckets: dict[int, list[int]] = {}
    for row in order:
        buckets.setdefault(lengths[row], []).append(row)
    batches = [
        rows[start : start + step]
        for length, rows in sorted(buckets.items())
        for step in (max(1, budget // max(1, length)),)
        for start in range(0, len(rows), step)
    ]
    if generator is None:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
