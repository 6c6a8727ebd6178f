"""p(tag | word and the tags beside it), counted: what controls know of the tags of a model's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation, Progress, labelled_documents
from diffusion_lm.annotate.tagger import UPOS
from diffusion_lm.common import UserError, number
from diffusion_lm.control.program import Asset, AssetConfig, Host
from diffusion_lm.store import Kind
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.tokenizer import WordTokenizer

TENSORS = ("alone", "after", "before")
BACK_OFF = 2.0
"""Pseudo-counts of a word beside a certain tag, spread as the word's tags are anywhere."""


def smoothed(counts: Tensor, prior: Tensor, weight: float) -> Tensor:
    """Log-probabilities from counts [..., T], with `weight` pseudo-counts spread as the prior [..., T] says."""
    # What was never seen is as good as impossible, and still finite.
    pseudo = counts + weight * prior.clamp(min=1e-6)
    return (pseudo / pseudo.sum(-1, keepdim=True)).log()


def labelled(
    host: Host, corpus: CorpusConfig, labels: str, progress: Progress | None = None, split: str = "train"
) -> Iterator[tuple[list[int], Annotation]]:
    """The sentences of a split, without START and END, and their labels (see `labelled_documents`).

    Raises:
        UserError: if the corpus is unusable, or the model's tokens are no words.
    """
    if not isinstance(host.tokenizer, WordTokenizer):
        raise UserError("This model writes pieces of words, which have no labels; train one on words.")
    for document, label in labelled_documents(corpus, labels, progress, split):
        yield host.tokenizer.encode(document.text), label


@dataclass(frozen=True)
class CountConfig(AssetConfig):
    """Base: how labelled sentences are counted."""

    labels: str = "runs/labels.jsonl"
    """The file of labels that annotate writes; it is made if it does not hold those of this corpus."""


@dataclass(frozen=True)
class TagTrainConfig(CountConfig):
    """How p(tag | word) is counted."""

    smoothing: float = number(0.05, above=0)
    """Pseudo-counts a word, spread as the tags are in the whole corpus: a word with few occurrences keeps some of every
    tag, and none is impossible."""


@dataclass(frozen=True)
class TagTableConfig:
    """What was counted, and with what."""

    tags: list[str]
    tagger: str
    sentences: int
    certainty: float
    """Share of the corpus's words that have their word's most frequent tag."""
    smoothing: float
    lm: str


@dataclass(frozen=True)
class TagTable(Asset, name="pos"):
    """How often each word of a language model has each tag, alone and beside another tag.

    The tag beside a word is one of T tags, or T where the sentence begins or ends.
    """

    about = "count the tags of words behind --pos"
    kind = Kind("table of tags", "diffusion-lm train-control pos", format=2)
    Config = TagTrainConfig
    config: TagTableConfig
    alone: Tensor
    """Counts of word and tag, [V, T]."""
    after: Tensor
    """Tag in front, word, tag, count; one row for each that occurs, int32 [n, 4]."""
    before: Tensor
    """Tag behind, word, tag, count, int32 [n, 4]."""

    @cached_property
    def log_p(self) -> Tensor:
        """Log-probability of tag t for word w wherever it stands, [V, T]; rare words lean on all words."""
        counts = self.alone.float()
        return smoothed(counts, counts.sum(0) / counts.sum(), self.config.smoothing)

    def beside(self, counts: Tensor, neighbour: int) -> Tensor:
        """The same beside a word of tag `neighbour`, [V, T]; `counts` is `after` or `before`.

        Words that were rarely seen there lean on `log_p`.
        """
        rows = counts[counts[:, 0] == neighbour].long()
        seen = torch.zeros_like(self.log_p).index_put((rows[:, 1], rows[:, 2]), rows[:, 3].float())
        return smoothed(seen, self.log_p.exp(), BACK_OFF)

    def columns(self, tags: Sequence[str | None]) -> Tensor:
        """Log p(tag_i | w_i, tag_i-1, tag_i+1) of each word w at each position, [tags, V].

        The two neighbours count as independent given word and tag: p(t | w, l) p(t | w, r) / p(t | w), normalised over
        tags t. A tag that is None is free: it costs nothing, and says nothing of its neighbours.
        """
        edge = len(self.config.tags)
        index = [edge, *(None if tag is None else self.config.tags.index(tag) for tag in tags), edge]
        columns = torch.zeros(len(tags), len(self.alone))
        for i, (left, tag, right) in enumerate(zip(index, index[1:], index[2:], strict=False)):
            if tag is not None:
                of_tags = self.log_p
                for counts, neighbour in ((self.after, left), (self.before, right)):
                    if neighbour is not None:
                        of_tags = of_tags + self.beside(counts, neighbour) - self.log_p
                columns[i] = of_tags.log_softmax(-1)[:, tag]
        return columns

    @classmethod
    def make(cls, config: TagTrainConfig, host: Host, progress: Progress | None = None) -> TagTable:  # noqa: D102
        sentences = ((ids, label.pos) for ids, label in labelled(host, config.corpus, config.labels, progress))
        return count_tags(
            sentences, UPOS, host.tokenizer.vocab_size, tagger="spacy", smoothing=config.smoothing, lm=host.fingerprint
        )

    def summary(self) -> str:  # noqa: D102
        share = f"{self.config.certainty:.1%}"
        return f"{self.config.sentences:,} sentences; the likeliest tag of a word is right {share} of the time."

    def tensors(self) -> dict[str, Tensor]:  # noqa: D102
        return {name: getattr(self, name) for name in TENSORS}

    @classmethod
    def build(cls, config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> TagTable:  # noqa: D102
        return cls(TagTableConfig(**config), *(tensors[name] for name in TENSORS))


def count_tags(
    sentences: Iterable[tuple[Sequence[int], Sequence[str]]],
    tags: Sequence[str],
    vocab_size: int,
    *,
    tagger: str,
    smoothing: float,
    lm: str,
) -> TagTable:
    """Count the tags of a language model's words in sentences of token ids and tags, all of which are `tags`."""
    column, number = {tag: i for i, tag in enumerate(tags)}, 0
    edge, rows = len(column), list[tuple[int, ...]]()
    for ids, found in sentences:
        number += 1
        index = [edge, *(column[tag] for tag in found), edge]
        rows += zip(ids, index[:-2], index[1:-1], index[2:], strict=True)
    word, left, here, right = torch.tensor(rows).T
    alone = torch.bincount(word * edge + here, minlength=vocab_size * edge).view(vocab_size, edge).int()
    certainty = float(alone.amax(1).sum() / alone.sum())
    config = TagTableConfig(list(tags), tagger, number, certainty, smoothing, lm)
    return TagTable(config, alone, tally(left, word, here), tally(right, word, here))


def tally(*columns: Tensor) -> Tensor:
    """Each different row of some columns [n] and how often it occurs, int32 [rows, columns + 1]."""
    rows, counts = torch.stack(columns, dim=1).unique(dim=0, return_counts=True)
    return torch.cat([rows, counts[:, None]], dim=1).to(torch.int32)
