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

from diffusion_lm.annotate.tagger import Parser, docs, load_spacy
from diffusion_lm.annotate.trees import tree_of
from diffusion_lm.store import Kind, load, save

if TYPE_CHECKING:
    from nltk import Tree
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


def features(sentences: Sequence[Sequence[str]], vocabulary: FeatureVocabulary) -> list[Words]:
    """The features of sentences given as words without joiner marks, in their order."""
    tag = {name: i + 1 for i, name in enumerate(vocabulary.tags)}
    dependency = {name: i + 1 for i, name in enumerate(vocabulary.dependencies)}
    return [
        Words(
            torch.tensor(_classes(doc, tag, dependency), dtype=torch.int16).view(-1, 7),
            torch.from_numpy(np.asarray(doc.tensor, np.float16)),
            [token.tag_ for token in doc],
        )
        for doc in docs(sentences, least=1)
    ]


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
    """Split sentences by their lengths into batches of one length, and of at most `budget` words unless of one sentence.

    Without padding there is nothing to mask in the LSTM or in the chart. The generator shuffles; without one the order
    is that of length. Returns the numbers of sentences, a list a batch.
    """
    order = range(len(lengths)) if generator is None else torch.randperm(len(lengths), generator=generator).tolist()
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


def best_splits(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Where the best binary tree splits each span, for sentences of one length.

    A span below 0 may stand as no constituent, which costs nothing; the best binary tree with such spans is the best tree
    with any number of children.

    Args:
        scores: of each span as a constituent over as none, [B, L, L + 1]; only start < stop counts.

    Returns:
        Splits, [B, L, L + 1]; the span of one word has none and keeps 0.
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
    """The constituents of the best tree of each sentence, the whole sentence always among them.

    Args:
        scores: as in `best_splits`.

    Returns:
        Spans (start, stop) of each sentence, a parent before its children.
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


@dataclass(frozen=True)
class SpanParserConfig:
    """What the parser knows and how large it is."""

    labels: list[str]
    vocabulary: FeatureVocabulary
    width: int = 192
    dropout: float = 0.3
    word_dropout: float = 0.1


def _differences(length: int) -> Tensor:
    """The matrix that turns fenceposts into spans, [S, L + 1], S = L (L + 1) / 2 spans in the order of `span_index`."""
    starts, stops = span_index(length)
    rows = torch.arange(len(starts))
    matrix = torch.zeros(len(starts), length + 1)
    matrix[rows, starts], matrix[rows, stops] = -1.0, 1.0
    return matrix


def span_index(length: int) -> tuple[Tensor, Tensor]:
    """Starts and stops of all spans of a sentence, [S] each, by start and then by stop."""
    starts, last = torch.triu_indices(length, length)
    return starts, last + 1


class SpanParser(nn.Module):
    """Embeddings and spaCy's vector, a 2-layer BiLSTM, and a perceptron on the difference of a span's fenceposts."""

    def __init__(self, config: SpanParserConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.vocabulary.sizes
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, _WIDTHS, strict=True))
        self.lstm = nn.LSTM(
            sum(_WIDTHS) + VECTOR, config.width, 2, batch_first=True, bidirectional=True, dropout=config.dropout
        )
        self.dropout = nn.Dropout(config.dropout)
        self.forward_post = nn.Linear(config.width, config.width, bias=False)
        self.backward_post = nn.Linear(config.width, config.width, bias=False)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, len(config.labels) + 1)

    def forward(self, classes: Tensor, vectors: Tensor) -> Tensor:
        """Logits of the labels, "no constituent" first: classes [B, L, 7], vectors [B, L, 96] to [B, S, V + 1].

        All sentences are of one length. S = L (L + 1) / 2 spans stand in the order of `span_index`.
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
        posts = nn.functional.pad(self.forward_post(ahead), (0, 0, 1, 0)) - nn.functional.pad(
            self.backward_post(back), (0, 0, 0, 1)
        )
        spans = _differences(classes.shape[1]).to(posts) @ posts
        logits: Tensor = self.out(self.norm(spans).relu())
        return logits

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16), whole or not at all."""
        save(folder, KIND, asdict(self.config), {name: value.half() for name, value in self.state_dict().items()})

    @staticmethod
    def from_pretrained(folder: str | Path) -> SpanParser:
        """Load a parser, ready to use.

        Raises:
            UserError: if the folder holds none, or one that is damaged or of another format.
        """
        return load(folder, KIND, _build).eval().requires_grad_(False)


def _build(config: dict[str, Any], tensors: dict[str, Tensor]) -> SpanParser:
    model = SpanParser(SpanParserConfig(**{**config, "vocabulary": FeatureVocabulary(**config["vocabulary"])}))
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    return model


@torch.no_grad()
def charts(model: SpanParser, sentences: Sequence[Words]) -> list[dict[tuple[int, int], str]]:
    """The best chart of each sentence, for a model in eval mode."""
    out: list[dict[tuple[int, int], str]] = [{} for _ in sentences]
    for rows in equal_length_batches([len(words.tags) for words in sentences], _BATCH_WORDS):
        logits = model(
            torch.stack([sentences[row].classes for row in rows]),
            torch.stack([sentences[row].vectors for row in rows]),
        )
        size = len(sentences[rows[0]].tags)
        odds, labels = (logits[..., NULL + 1 :] - logits[..., NULL, None]).max(-1)
        starts, stops = span_index(size)
        scores = np.full((len(rows), size, size + 1), -np.inf)
        scores[:, starts.numpy(), stops.numpy()] = odds.numpy()
        best = np.zeros(scores.shape, np.intp)
        best[:, starts.numpy(), stops.numpy()] = labels.numpy()
        for row, spans, names in zip(rows, best_spans(scores), best.tolist(), strict=True):
            out[row] = {(i, j): model.config.labels[names[i][j]] for i, j in spans}
    return out


class OurParser:
    """Parses whole lines of words; what it takes for the words' tags are spaCy's fine tags."""

    def __init__(self, model: SpanParser) -> None:
        self.model = model.eval()

    @staticmethod
    def from_pretrained(folder: str | Path) -> OurParser:
        """Load the parser in a folder; see `SpanParser.from_pretrained`."""
        return OurParser(SpanParser.from_pretrained(folder))

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        """The trees of sentences given as words; those of `check_words`, of at least one."""
        found = features(sentences, self.model.config.vocabulary)
        return [
            tree_of(words, each.tags, chart)
            for words, each, chart in zip(sentences, found, charts(self.model, found), strict=True)
        ]


BUNDLED = Path(__file__).resolve().parents[1] / "models" / "parser"
"""The parser that comes with the package."""


@cache
def parser() -> Parser:
    """The parser that comes with the package."""
    return OurParser.from_pretrained(BUNDLED)
