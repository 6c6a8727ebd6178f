"""The constituency parser: features of words, scores of spans, the best tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.tagger import Parser, docs, load_spacy
from diffusion_lm.annotate.trees import tree_of
from diffusion_lm.store import MODELS, Kind, load, save

if TYPE_CHECKING:
    from nltk import Tree
    from spacy.tokens import Token


VECTOR = 96
"""Width of `doc.tensor`."""
FARTHEST = 12
"""A head's distance and a subtree's extent are clipped here, in words."""
UNKNOWN = 0
"""Class of a tag or a dependency that the vocabulary lacks."""


class Words(NamedTuple):
    """A sentence and its features: classes [L, 7] (int16), vectors [L, 96] (float16), and spaCy's tags."""

    words: list[str]
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


def features(sentences: Sequence[Sequence[str]], vocabulary: FeatureVocabulary) -> list[Words]:
    """The features of sentences given as words without joiner marks, in their order."""
    tag = {name: i + 1 for i, name in enumerate(vocabulary.tags)}
    dependency = {name: i + 1 for i, name in enumerate(vocabulary.dependencies)}

    def classes(token: Token) -> list[int]:
        return [
            tag.get(token.tag_, UNKNOWN),
            dependency.get(token.dep_, UNKNOWN),
            min(max(token.head.i - token.i, -FARTHEST), FARTHEST) + FARTHEST,
            tag.get(token.head.tag_, UNKNOWN),
            min(token.i - token.left_edge.i, FARTHEST),
            min(token.right_edge.i - token.i, FARTHEST),
            token.text[:1].isupper() + 2 * token.is_punct + 4 * token.text[:1].isdigit(),
        ]

    return [
        Words(
            [token.text for token in doc],
            torch.tensor([classes(token) for token in doc], dtype=torch.int16),
            torch.from_numpy(np.asarray(doc.tensor, np.float16)),
            [token.tag_ for token in doc],
        )
        for doc in docs(sentences, least=1)
    ]


def equal_length_batches(
    lengths: Sequence[int], budget: int, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Split sentences by their lengths into batches of one length, and of at most `budget` words unless of one sentence.

    Without padding there is nothing to mask in the LSTM or in the chart. The generator shuffles; without one the order
    is that of length. Returns the numbers of sentences, a list a batch.
    """
    order = range(len(lengths)) if generator is None else torch.randperm(len(lengths), generator=generator).tolist()
    buckets: dict[int, list[int]] = {}
    for row in order:
        buckets.setdefault(lengths[row], []).append(row)
    batches = []
    for length, rows in sorted(buckets.items()):
        step = max(1, budget // max(1, length))
        batches += [rows[start : start + step] for start in range(0, len(rows), step)]
    if generator is None:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def best_splits(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Where the best binary tree splits each span, [B, L, L + 1], for sentences of one length; 0 for a span of one word.

    Scores [B, L, L + 1] are of each span as a constituent over as none; only start < stop counts. A span below 0 may stand
    as no constituent, which costs nothing; the best binary tree with such spans is the best tree with any number of
    children.
    """
    batch, size, _ = scores.shape
    gain = np.maximum(scores, 0)
    splits = np.zeros(scores.shape, np.intp)
    # The best sum of a span by start and width, and by stop and width: with both at hand, all splits of all spans of a
    # width are the sum of two slices.
    by_start = np.zeros((batch, size + 1, size + 1))
    by_stop = np.zeros((batch, size + 1, size + 1))
    starts = np.arange(size)
    by_start[:, :size, 1] = by_stop[:, 1:, 1] = gain[:, starts, starts + 1]
    for width in range(2, size + 1):
        first = starts[: size - width + 1]
        sums = by_start[:, : len(first), 1:width] + by_stop[:, width:, width - 1 : 0 : -1]
        best = sums.argmax(-1)
        splits[:, first, first + width] = first + best + 1
        total = np.take_along_axis(sums, best[..., None], -1)[..., 0] + gain[:, first, first + width]
        by_start[:, : len(first), width] = by_stop[:, width:, width] = total
    return splits


def best_spans(scores: NDArray[np.floating]) -> list[list[tuple[int, int]]]:
    """The spans (start, stop) of the best tree of each sentence by the scores of `best_splits`, a parent before its children.

    The whole sentence is always among them.
    """
    size = scores.shape[1]
    out = []
    for split, kept in zip(best_splits(scores).tolist(), (scores > 0).tolist(), strict=True):
        spans, todo = [], [(0, size)]
        while todo:
            start, stop = todo.pop()
            if kept[start][stop] or stop - start == size:
                spans.append((start, stop))
            if stop - start > 1:
                middle = split[start][stop]
                todo += [(middle, stop), (start, middle)]
        out.append(spans)
    return out


KIND = Kind("parser", "diffusion-lm train-parser")
NULL = 0
"""Class of a span that is no constituent; label i of the list is class i + 1."""
_WIDTHS = (64, 64, 32, 32, 16, 16, 8)
"""Widths of the embeddings, in the order of the features' classes."""
_NAMEABLE = (True, True, False, True, False, False, False)
"""Which of the features have an unknown class: tag, dependency, head's tag."""
_BATCH_WORDS = 1024
BUNDLED = MODELS / "parser"
"""The parser that comes with the package."""


@dataclass(frozen=True)
class SpanParserConfig:
    """What the parser knows and how large it is."""

    labels: list[str]
    vocabulary: FeatureVocabulary
    width: int = 192
    dropout: float = 0.3
    word_dropout: float = 0.1


def span_index(length: int) -> tuple[Tensor, Tensor]:
    """Starts and stops of all S = L (L + 1) / 2 spans of a sentence, [S] each, by start and then by stop."""
    starts, last = torch.triu_indices(length, length)
    return starts, last + 1


class SpanParser(nn.Module):
    """Embeddings and spaCy's vector, a 2-layer BiLSTM, and a perceptron on the difference of a span's fenceposts."""

    def __init__(self, config: SpanParserConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.vocabulary.sizes
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, _WIDTHS, strict=True))
        inputs = sum(_WIDTHS) + VECTOR
        self.lstm = nn.LSTM(inputs, config.width, 2, batch_first=True, bidirectional=True, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.forward_post = nn.Linear(config.width, config.width, bias=False)
        self.backward_post = nn.Linear(config.width, config.width, bias=False)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, len(config.labels) + 1)

    def forward(self, classes: Tensor, vectors: Tensor) -> Tensor:
        """Logits of the labels, "no constituent" first: classes [B, L, 7], vectors [B, L, 96] to [B, S, V + 1].

        All sentences are of one length; spans stand in the order of `span_index`.
        """
        classes, vectors = classes.long(), vectors.float()
        if self.training:
            # Tag and dependencies go together or the vector goes alone, so that neither is all that counts.
            keep = torch.rand(2, *classes.shape[:2], device=classes.device) >= self.config.word_dropout
            nameable = torch.tensor(_NAMEABLE, device=classes.device)
            classes = classes.masked_fill(~keep[0, ..., None] & nameable, UNKNOWN)
            vectors = vectors * keep[1, ..., None]
        parts = [embedding(classes[..., i]) for i, embedding in enumerate(self.embeddings)]
        hidden, _ = self.lstm(self.dropout(torch.cat([*parts, vectors], -1)))
        ahead, back = self.dropout(hidden).chunk(2, -1)
        # The perceptron's first layer on (f_j - f_i, b_i - b_j) is linear, so it is taken at the L + 1 fenceposts,
        # f_0 = b_L = 0, instead of at the S spans.
        posts = F.pad(self.forward_post(ahead), (0, 0, 1, 0)) - F.pad(self.backward_post(back), (0, 0, 0, 1))
        # A product, whose gradient is faster than that of a look-up.
        starts, stops = span_index(classes.shape[1])
        rows, differences = torch.arange(len(starts)), posts.new_zeros(len(starts), posts.shape[1])
        differences[rows, starts], differences[rows, stops] = -1.0, 1.0
        logits: Tensor = self.out(self.norm(differences @ posts).relu())
        return logits

    def logits(self, sentences: Sequence[Words]) -> Tensor:
        """The logits of sentences of one length, [B, S, V + 1]."""
        return self(
            torch.stack([each.classes for each in sentences]), torch.stack([each.vectors for each in sentences])
        )

    @torch.no_grad()
    def trees(self, sentences: Sequence[Words]) -> list[Tree]:
        """The best tree of each sentence, for a model in eval mode."""
        out: dict[int, Tree] = {}
        for rows in equal_length_batches([len(each.words) for each in sentences], _BATCH_WORDS):
            size = len(sentences[rows[0]].words)
            logits = self.logits([sentences[row] for row in rows])
            odds, labels = (logits[..., NULL + 1 :] - logits[..., NULL, None]).max(-1)
            starts, stops = span_index(size)
            scores = np.full((len(rows), size, size + 1), -np.inf)
            scores[:, starts.numpy(), stops.numpy()] = odds.numpy()
            best = np.zeros(scores.shape, np.intp)
            best[:, starts.numpy(), stops.numpy()] = labels.numpy()
            for row, spans, names in zip(rows, best_spans(scores), best.tolist(), strict=True):
                chart = {(i, j): self.config.labels[names[i][j]] for i, j in spans}
                out[row] = tree_of(sentences[row].words, sentences[row].tags, chart)
        return [out[row] for row in range(len(sentences))]

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        """The trees of sentences given as words, at least one each; pre-terminals are spaCy's fine tags."""
        return self.trees(features(sentences, self.config.vocabulary))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16), whole or not at all."""
        save(folder, KIND, asdict(self.config), {name: value.half() for name, value in self.state_dict().items()})

    @staticmethod
    def from_pretrained(folder: str | Path) -> SpanParser:
        """Load a parser, ready to use.

        Raises:
            UserError: if the folder holds none, or one that is damaged or of another format.
        """

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> SpanParser:
            model = SpanParser(SpanParserConfig(**{**config, "vocabulary": FeatureVocabulary(**config["vocabulary"])}))
            model.load_state_dict({name: value.float() for name, value in tensors.items()})
            return model

        return load(folder, KIND, build).eval().requires_grad_(False)


@cache
def parser() -> Parser:
    """The parser that comes with the package."""
    return SpanParser.from_pretrained(BUNDLED)
