"""Counting of what tags and trees say of words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation, annotate
from diffusion_lm.annotate.tagger import UPOS
from diffusion_lm.annotate.trees import Leaf, leaves_of, read_tree
from diffusion_lm.common import UserError
from diffusion_lm.control.tables import LeafTable, LeafTableConfig, TagTable, TagTableConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import bare, split_words
from diffusion_lm.text.tokenizer import WordTokenizer

Progress = Callable[[int, int], None]


def labelled(
    lm: DiffusionLM,
    name: str,
    corpus: CorpusConfig,
    labels: str,
    progress: Progress | None = None,
    split: str = "train",
) -> Iterator[tuple[list[int], Annotation]]:
    """The sentences of a split as a language model reads them, and their labels.

    Args:
        lm: whose token ids are wanted.
        name: of the language model, for errors.
        corpus: where the sentences are.
        labels: the file of labels; it is made if it does not hold those of this corpus.
        progress: called with (sentences labelled, all sentences).
        split: which sentences.

    Raises:
        UserError: if the corpus is unusable, or the model's tokens are no words.
    """
    if not isinstance(lm.tokenizer, WordTokenizer):
        raise UserError(f"{name} writes pieces of words, which have no labels; train one on words.")
    for document, label in labelled_documents(corpus, labels, progress, split):
        yield lm.tokenizer.encode(document.text), label


def labelled_documents(
    corpus: CorpusConfig, labels: str, progress: Progress | None = None, split: str = "train"
) -> Iterator[tuple[Document, Annotation]]:
    """The same with the documents themselves; those without words are left out.

    Raises:
        UserError: if the corpus is unusable.
    """
    documents = [document for document in open_corpus(corpus).documents(split) if split_words(document.text)]
    words = [[bare(word) for word in split_words(document.text)] for document in documents]
    yield from zip(documents, annotate(words, labels, progress=progress), strict=True)


@dataclass(frozen=True)
class TagTrainConfig:
    """How p(tag | word) is counted."""

    model: str = "runs/lm"
    """The language model to be steered: a folder."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Texts to count in; the corpus that the model was trained on."""
    labels: str = "runs/labels.jsonl"
    """The file of labels that annotate writes; it is made if it does not hold those of this corpus."""
    out: str | None = None
    """Where the table goes; default controls/pos in the model's folder."""
    smoothing: float = 0.05
    """Pseudo-counts a word, spread as the tags are in the whole corpus: a word with few occurrences keeps some
    of every tag, and none is impossible."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.smoothing <= 0:
            raise UserError(f"smoothing must be above 0, not {self.smoothing}.")


def count_tags(
    sentences: Iterable[tuple[Sequence[int], Sequence[str]]],
    tags: Sequence[str],
    vocab_size: int,
    *,
    tagger: str,
    smoothing: float,
    lm: str,
) -> TagTable:
    """Count the tags of a language model's words.

    Args:
        sentences: token ids and their tags.
        tags: all tags, in the table's order.
        vocab_size: V.
        tagger: name of who gave the tags.
        smoothing: see `TagTableConfig`.
        lm: fingerprint of the language model.
    """
    column = {tag: i for i, tag in enumerate(tags)}
    edge, number = len(column), 0
    words: list[int] = []
    lefts: list[int] = []
    heres: list[int] = []
    rights: list[int] = []
    for ids, found in sentences:
        number += 1
        index = [edge, *(column[tag] for tag in found), edge]
        words += ids
        lefts += index[:-2]
        heres += index[1:-1]
        rights += index[2:]
    word, here = torch.tensor(words), torch.tensor(heres)
    alone = torch.zeros(vocab_size, len(column), dtype=torch.int32)
    alone.index_put_((word, here), torch.ones(len(word), dtype=torch.int32), accumulate=True)
    certainty = float(alone.amax(1).sum() / alone.sum())
    config = TagTableConfig(list(tags), tagger, number, certainty, smoothing, lm)
    after, before = (tally(torch.tensor(side), word, here) for side in (lefts, rights))
    return TagTable(config, alone, after, before)


def tally(*columns: Tensor) -> Tensor:
    """Each different row of some columns [n] and how often it occurs, int32 [rows, columns + 1]."""
    rows, counts = torch.stack(columns, dim=1).unique(dim=0, return_counts=True)
    return torch.cat([rows, counts[:, None]], dim=1).to(torch.int32)


def train_tags(config: TagTrainConfig, progress: Progress | None = None) -> TagTable:
    """Count the table and save it with its language model.

    Args:
        config: what to count in.
        progress: called with (sentences labelled, all sentences).

    Raises:
        UserError: if the model, the corpus or the labels are unusable, or the model's tokens are no words.
    """
    lm = DiffusionLM.from_pretrained(config.model)
    assert lm.folder is not None
    sentences = ((ids, label.pos) for ids, label in labelled(lm, config.model, config.corpus, config.labels, progress))
    table = count_tags(sentences, UPOS, lm.vocab_size, tagger="spacy", smoothing=config.smoothing, lm=lm.fingerprint)
    table.save_pretrained(Path(config.out) if config.out else lm.folder / "controls" / "pos")
    return table


@dataclass(frozen=True)
class TreeTrainConfig:
    """How the trees of a corpus are counted."""

    model: str = "runs/lm"
    """The language model to be steered: a folder."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Texts to count in; the corpus that the model was trained on."""
    labels: str = "runs/labels.jsonl"
    """The file of labels that annotate writes; it is made if it does not hold those of this corpus."""
    out: str | None = None
    """Where the table goes; default controls/tree in the model's folder."""
    smoothing: float = 0.1
    """Pseudo-counts a word, spread as the tags are in the whole corpus."""
    min_count: int = 3
    """Fewest times that a kind of leaf occurs to be counted; trees with a rarer one are not kept."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.smoothing <= 0 or self.min_count < 1:
            raise UserError(
                f"smoothing must be above 0 and min_count at least 1, not {self.smoothing} and {self.min_count}."
            )


BIGRAM_BACK_OFF = 5.0
"""Pseudo-counts of a leaf behind a certain leaf, spread as leaves are anywhere."""


class Sentence(NamedTuple):
    """A sentence of the corpus.

    Attributes:
        ids: its token ids.
        leaves: of its tree.
        tags: its universal tags.
    """

    ids: Sequence[int]
    leaves: Sequence[Leaf]
    tags: Sequence[str]


def count_leaves(
    sentences: Sequence[Sentence],
    universal: Sequence[str],
    vocab_size: int,
    *,
    parser: str,
    smoothing: float,
    min_count: int,
    lm: str,
) -> LeafTable:
    """Count the leaves of a language model's words.

    Args:
        sentences: token ids, leaves and tags.
        universal: all universal tags.
        vocab_size: V.
        parser: name of who gave the trees.
        smoothing: of the trees' own tags, see `TagTableConfig`.
        min_count: fewest times that a kind of leaf occurs to be counted.
        lm: fingerprint of the language model.
    """
    fine = sorted({leaf.tag for each in sentences for leaf in each.leaves if leaf.tag is not None})
    tagged = ((each.ids, [leaf.tag or "" for leaf in each.leaves]) for each in sentences)
    table = count_tags(tagged, fine, vocab_size, tagger=parser, smoothing=smoothing, lm=lm)

    often = Counter(leaf for each in sentences for leaf in each.leaves)
    known = [leaf for leaf, count in often.most_common() if count >= min_count]
    kinds = {leaf: kind for kind, leaf in enumerate(known)}
    edge, tag_index = len(known), {tag: i for i, tag in enumerate(universal)}
    words: list[tuple[int, int]] = []
    follows: list[tuple[int, int]] = []
    emits: list[tuple[int, int]] = []
    for each in sentences:
        found = [kinds.get(leaf, -1) for leaf in each.leaves]
        words += zip(each.ids, found, strict=True)
        emits += zip(found, (tag_index[tag] for tag in each.tags), strict=True)
        follows += zip([edge, *found], [*found, edge], strict=True)

    typical = _Bigrams(sentences, often)
    trees = {
        tuple(kinds[leaf] for leaf in each.leaves): typical(each.leaves)
        for each in sentences
        if all(leaf in kinds for leaf in each.leaves)
    }
    return LeafTable(
        LeafTableConfig(known, list(universal), parser, len(sentences), lm),
        table,
        _pairs(words),
        torch.tensor([kind for tree in trees for kind in tree], dtype=torch.int16),
        torch.tensor([len(tree) for tree in trees], dtype=torch.int16),
        torch.tensor(list(trees.values())),
        _pairs(follows),
        _pairs(emits),
    )


def _pairs(pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Each different pair without -1, which is a leaf too rare to be known, and how often it occurs."""
    known = torch.tensor(pairs)
    return tally(*known[(known >= 0).all(1)].T)


class _Bigrams:
    """Log-probability a leaf of a tree under a bigram model of leaves."""

    def __init__(self, sentences: Sequence[Sentence], often: Counter[Leaf]) -> None:
        self.often, self.total = often, often.total()
        self.first: Counter[Leaf | None] = Counter()
        self.pairs: Counter[tuple[Leaf | None, Leaf]] = Counter()
        for _, leaves, _ in sentences:
            self.first.update((None, *leaves[:-1]))
            self.pairs.update(zip((None, *leaves), leaves, strict=False))

    def __call__(self, leaves: Sequence[Leaf]) -> float:
        nats = 0.0
        for before, leaf in zip((None, *leaves), leaves, strict=False):
            prior = BIGRAM_BACK_OFF * self.often[leaf] / self.total
            nats += math.log((self.pairs[before, leaf] + prior) / (self.first[before] + BIGRAM_BACK_OFF))
        return nats / len(leaves)


def train_trees(config: TreeTrainConfig, progress: Progress | None = None) -> LeafTable:
    """Count the table and save it with its language model.

    Args:
        config: what to count in.
        progress: called with (sentences labelled, all sentences).

    Raises:
        UserError: if the model, the corpus or the labels are unusable, or the model's tokens are no words.
    """
    lm = DiffusionLM.from_pretrained(config.model)
    assert lm.folder is not None
    table = count_leaves(
        [
            Sentence(ids, leaves_of(read_tree(label.tree)), label.pos)
            for ids, label in labelled(lm, config.model, config.corpus, config.labels, progress)
        ],
        UPOS,
        lm.vocab_size,
        parser="ours",
        smoothing=config.smoothing,
        min_count=config.min_count,
        lm=lm.fingerprint,
    )
    table.save_pretrained(Path(config.out) if config.out else lm.folder / "controls" / "tree")
    return table
