"""Counting of what trees say of words, over an annotated corpus."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lm.annotate.leaves import Leaf, leaves_of
from diffusion_lm.annotate.spacy_tagger import UPOS
from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.control.leaf_table import LeafTable, LeafTableConfig
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.training.control_folder import save_control
from diffusion_lm.training.labels import Progress, labelled
from diffusion_lm.training.tags import count_tags, tally
from diffusion_lm.training.trees_config import TreeTrainConfig

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
    save_control(table, Path(config.out) if config.out else lm.folder / "controls" / "tree")
    return table
