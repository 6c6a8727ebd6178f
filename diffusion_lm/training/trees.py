"""Counting of what trees say of words, over an annotated corpus."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from diffusion_lm.annotate.leaves import Leaf, leaves_of
from diffusion_lm.annotate.trees import read_tree
from diffusion_lm.control.leaf_table import LeafTable, LeafTableConfig
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.training.control_folder import save_control
from diffusion_lm.training.labels import Progress, labelled
from diffusion_lm.training.tags import count_tags, tally
from diffusion_lm.training.trees_config import TreeTrainConfig

BIGRAM_BACK_OFF = 5.0
"""Pseudo-counts of a leaf behind a certain leaf, spread as leaves are anywhere."""

Sentence = tuple[Sequence[int], Sequence[Leaf]]
"""Token ids, and the leaves of their tree."""


def count_leaves(
    sentences: Sequence[Sentence], vocab_size: int, *, parser: str, smoothing: float, min_count: int, lm: str
) -> LeafTable:
    """Count the leaves of a language model's words.

    Args:
        sentences: token ids and leaves.
        vocab_size: V.
        parser: name of who gave the trees.
        smoothing: of the tags, see `TagTableConfig`.
        min_count: fewest times that a kind of leaf occurs to be counted.
        lm: fingerprint of the language model.
    """
    tags = sorted({leaf.tag for _, leaves in sentences for leaf in leaves if leaf.tag is not None})
    tagged = ((ids, [leaf.tag or "" for leaf in leaves]) for ids, leaves in sentences)
    table = count_tags(tagged, tags, vocab_size, tagger=parser, smoothing=smoothing, lm=lm)

    often = Counter(leaf for _, leaves in sentences for leaf in leaves)
    known = [leaf for leaf, count in often.most_common() if count >= min_count]
    kinds = {leaf: kind for kind, leaf in enumerate(known)}
    pairs = [
        (w, kinds[leaf])
        for ids, leaves in sentences
        for w, leaf in zip(ids, leaves, strict=True)
        if leaf in kinds
    ]
    words, found = torch.tensor(pairs).T

    typical = _Bigrams(sentences, often)
    trees = {
        tuple(kinds[leaf] for leaf in leaves): typical(leaves)
        for _, leaves in sentences
        if all(leaf in kinds for leaf in leaves)
    }
    return LeafTable(
        LeafTableConfig(known, parser, len(sentences), lm),
        table,
        tally(words, found),
        torch.tensor([kind for tree in trees for kind in tree], dtype=torch.int16),
        torch.tensor([len(tree) for tree in trees], dtype=torch.int16),
        torch.tensor(list(trees.values())),
    )


class _Bigrams:
    """Log-probability a leaf of a tree under a bigram model of leaves."""

    def __init__(self, sentences: Sequence[Sentence], often: Counter[Leaf]) -> None:
        self.often, self.total = often, often.total()
        self.first: Counter[Leaf | None] = Counter()
        self.pairs: Counter[tuple[Leaf | None, Leaf]] = Counter()
        for _, leaves in sentences:
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
            (ids, leaves_of(read_tree(label.tree)))
            for ids, label in labelled(lm, config.model, config.corpus, config.labels, progress)
        ],
        lm.vocab_size,
        parser="ours",
        smoothing=config.smoothing,
        min_count=config.min_count,
        lm=lm.fingerprint,
    )
    save_control(table, Path(config.out) if config.out else lm.folder / "controls" / "tree")
    return table
