"""p(what a tree says of a word | word), counted, and the trees themselves without their words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.annotate.leaves import Leaf, spans_of_leaves
from diffusion_lm.annotate.trees import Span, split_chain
from diffusion_lm.control.leaf_chain import LeafChain
from diffusion_lm.control.saved import Kind, load, save
from diffusion_lm.control.tag_table import TagTable

KIND = Kind("table of trees", "diffusion-lm train-control tree")
TENSORS = ("counts", "shapes", "lengths", "typical", "follows", "emits")
BACK_OFF = 3.0
"""Pseudo-counts of a word with a certain tag, spread as the leaves of that tag are anywhere."""


@dataclass(frozen=True)
class LeafTableConfig:
    """What was counted, and with what."""

    leaves: list[Leaf]
    """Every kind of leaf that was seen often enough."""
    universal: list[str]
    """Universal tags, in the order of `LeafTable.emits`."""
    parser: str
    sentences: int
    lm: str


@dataclass(frozen=True)
class LeafTable:
    """How often each word of a language model is each kind of leaf, and which trees there are.

    Attributes:
        config: the kinds of leaves, K of them, in their order.
        tags: the tags of words among the trees.
        counts: word, kind, count; one row for each that occurs, int32 [n, 3].
        shapes: the leaves of N different trees one after another, int16.
        lengths: how many leaves each tree has, int16 [N].
        typical: log-probability a leaf of each tree under a bigram model of leaves, [N]: how usual it is.
        follows: kind, kind behind it, count, where K is the sentence's edge, int32 [n, 3].
        emits: kind, universal tag, count, int32 [n, 3].
    """

    config: LeafTableConfig
    tags: TagTable
    counts: Tensor
    shapes: Tensor
    lengths: Tensor
    typical: Tensor
    follows: Tensor
    emits: Tensor

    @cached_property
    def labels(self) -> list[str]:
        """The labels of constituents, sorted."""
        return sorted({label for leaf in self.config.leaves for label in leaf.opens})

    @cached_property
    def chain(self) -> LeafChain:
        """Which leaves follow which, and what universal tags they have."""
        return LeafChain.of_counts(
            self.follows, self.emits, len(self.config.leaves), len(self.config.universal)
        )

    @cached_property
    def _kinds(self) -> dict[Leaf, int]:
        return {leaf: kind for kind, leaf in enumerate(self.config.leaves)}

    def columns(self, leaves: Sequence[Leaf]) -> Tensor:
        """Log p(leaf_i | w_i, tag_i-1, tag_i+1) of each word w at each position, up to a constant: [leaves, V].

        The tag by `TagTable.columns`, times p(opens, closes | w, tag).
        """
        columns = self.tags.columns([leaf.tag for leaf in leaves])
        for column, leaf in zip(columns, leaves, strict=True):
            column += self._contexts(leaf)
        return columns

    def columns_of(self, kinds: Sequence[int]) -> Tensor:
        """The same of leaves by their number."""
        return self.columns([self.config.leaves[kind] for kind in kinds])

    def _contexts(self, leaf: Leaf) -> Tensor:
        """Log p(opens, closes | w, tag), [V]; 0 for what was never seen, of which the tag has to do."""
        if leaf.tag is None:
            kinds = [k for other, k in self._kinds.items() if other[1:] == leaf[1:]]
            of = self.tags.alone.float().sum(1)
        else:
            kinds = [self._kinds[leaf]] if leaf in self._kinds else []
            of = self.tags.alone[:, self.tags.config.tags.index(leaf.tag)].float()
        seen = torch.zeros(len(of))
        if not kinds:
            return seen
        rows = self.counts[torch.isin(self.counts[:, 1], torch.tensor(kinds, dtype=torch.int32))].long()
        seen = seen.index_put((rows[:, 0],), rows[:, 2].float(), accumulate=True)
        return ((seen + BACK_OFF * seen.sum() / of.sum()) / (of + BACK_OFF)).log()

    def trees_with(self, spans: Sequence[Span]) -> list[int]:
        """The trees that have all these constituents, the most usual first."""
        fits = torch.ones(len(self.lengths), dtype=torch.bool)
        for span in spans:
            label = split_chain(span.label)[0]
            long_enough = self.lengths >= span.stop
            opens = torch.tensor([label in leaf.opens for leaf in self.config.leaves])
            closes = torch.tensor([label in leaf.closes for leaf in self.config.leaves])
            for place, has in ((span.start, opens), (span.stop - 1, closes)):
                at = self.shapes[torch.where(long_enough, self._starts + place, 0)].long()
                fits &= long_enough & has[at]
        found = [tree for tree in fits.nonzero().flatten().tolist() if set(spans) <= set(self._spans(tree))]
        return sorted(found, key=lambda tree: -float(self.typical[tree]))

    @cached_property
    def _starts(self) -> Tensor:
        return torch.cumsum(self.lengths.long(), 0) - self.lengths.long()

    def tree(self, number: int) -> list[Leaf]:
        """The leaves of a tree."""
        start = int(self._starts[number])
        return [
            self.config.leaves[kind]
            for kind in self.shapes[start : start + int(self.lengths[number])].tolist()
        ]

    def _spans(self, number: int) -> list[Span]:
        return spans_of_leaves(self.tree(number))

    def tensors(self) -> dict[str, Tensor]:
        """What is saved, by name, without the tags."""
        return {name: getattr(self, name) for name in TENSORS}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, and the tags in a folder beside them."""
        save(folder, KIND, asdict(self.config), self.tensors())
        self.tags.save_pretrained(Path(folder) / "tags")

    @staticmethod
    def from_pretrained(folder: str | Path, lm: str) -> LeafTable:
        """Load the table of a language model.

        Args:
            folder: where it is.
            lm: fingerprint of the language model that will be steered.

        Raises:
            UserError: if the folder is missing or damaged, or the table belongs to another language model.
        """

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> LeafTable:
            config["leaves"] = [
                Leaf(tag, tuple(opens), tuple(closes)) for tag, opens, closes in config["leaves"]
            ]
            tags = TagTable.from_pretrained(Path(folder) / "tags", lm)
            return LeafTable(LeafTableConfig(**config), tags, *(tensors[name] for name in TENSORS))

        return load(folder, KIND, lm, build)
