"""What is counted of words: tags, leaves of trees, and which leaf follows which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.annotate.trees import Leaf, Span, spans_of_leaves, split_chain
from diffusion_lm.store import Kind, load, save


def smoothed(counts: Tensor, prior: Tensor, weight: float) -> Tensor:
    """Log-probabilities from counts [..., T], with `weight` pseudo-counts spread as the prior [..., T] says."""
    # What was never seen is as good as impossible, and still finite.
    pseudo = counts + weight * prior.clamp(min=1e-6)
    return (pseudo / pseudo.sum(-1, keepdim=True)).log()


KIND = Kind("table of tags", "diffusion-lm train-control pos", format=2)
TENSORS = ("alone", "after", "before")
BACK_OFF = 2.0
"""Pseudo-counts of a word beside a certain tag, spread as the word's tags are anywhere."""


@dataclass(frozen=True)
class TagTableConfig:
    """What was counted, and with what."""

    tags: list[str]
    tagger: str
    sentences: int
    certainty: float
    """Share of the corpus's words that have their word's most frequent tag."""
    smoothing: float
    """Pseudo-counts a word, spread as the tags are in the whole corpus."""
    lm: str


@dataclass(frozen=True)
class TagTable:
    """How often each word of a language model has each tag, alone and beside another tag.

    The tag beside a word is one of T tags, or T where the sentence begins or ends.

    Attributes:
        config: the tags in their order.
        alone: counts of word and tag, [V, T].
        after: tag in front, word, tag, count; one row for each that occurs, int32 [n, 4].
        before: tag behind, word, tag, count, int32 [n, 4].
    """

    config: TagTableConfig
    alone: Tensor
    after: Tensor
    before: Tensor

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

    def tensors(self) -> dict[str, Tensor]:
        """What is saved, by name."""
        return {name: getattr(self, name) for name in TENSORS}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        save(folder, KIND, asdict(self.config), self.tensors())

    @staticmethod
    def from_pretrained(folder: str | Path, lm: str) -> TagTable:
        """Load the table of a language model.

        Args:
            folder: where it is.
            lm: fingerprint of the language model that will be steered.

        Raises:
            UserError: if the folder is missing or damaged, or the table belongs to another language model.
        """
        return load(
            folder,
            KIND,
            lambda config, tensors: TagTable(TagTableConfig(**config), *(tensors[name] for name in TENSORS)),
            lm,
        )


LEAF_CHAIN_BACK_OFF = 1.0
"""Pseudo-counts of a leaf behind a certain leaf, spread as leaves are anywhere."""
OTHER_TAG = 0.02
"""Pseudo-count of each tag for each leaf."""


@dataclass(frozen=True)
class LeafChain:
    """p(leaf | leaf before) and p(tag | leaf), as probabilities.

    Attributes:
        follows: row and column K stand for the sentence's edge, [K + 1, K + 1].
        tags: [K, T].
    """

    follows: Tensor
    tags: Tensor

    @staticmethod
    def of_counts(follows: Tensor, tags: Tensor, kinds: int, number: int) -> LeafChain:
        """From rows (leaf, next leaf, count), the edge being leaf `kinds`, and rows (leaf, tag, count), int [n, 3]."""

        def dense(rows: Tensor, *shape: int) -> Tensor:
            rows = rows.long()
            return torch.zeros(shape).index_put((rows[:, 0], rows[:, 1]), rows[:, 2].float())

        pairs, emitted = dense(follows, kinds + 1, kinds + 1), dense(tags, kinds, number) + OTHER_TAG
        pairs = pairs + LEAF_CHAIN_BACK_OFF * pairs.sum(0) / pairs.sum()
        return LeafChain(pairs / pairs.sum(1, keepdim=True), emitted / emitted.sum(1, keepdim=True))

    def sample(self, tags: Tensor, n: int, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw sequences of leaves given their tags: backward messages, then forward sampling.

        Args:
            tags: the tag of each position, [L].
            n: number of sequences.
            temperature: of every draw; 1 is the exact posterior, below 1 prefers the usual.
            generator: source of the draws.

        Returns:
            Leaves, [n, L].
        """
        edge = len(self.tags)
        emitted = self.tags[:, tags].T
        # later[i]: p(tags behind i, the end | leaf i), up to a factor.
        later = [self.follows[:edge, edge]]
        for emission in emitted.flip(0)[:-1]:
            message = self.follows[:edge, :edge] @ (emission * later[0])
            later.insert(0, message / message.max())
        before, drawn = torch.full((n,), edge), []
        for emission, message in zip(emitted, later, strict=True):
            log_p = (self.follows[before, :edge] * emission * message).clamp(min=1e-30).log()
            before = torch.multinomial((log_p / temperature).softmax(-1), 1, generator=generator)[:, 0]
            drawn.append(before)
        return torch.stack(drawn, dim=1)


LEAF_TABLE_KIND = Kind("table of trees", "diffusion-lm train-control tree")
LEAF_TABLE_TENSORS = ("counts", "shapes", "lengths", "typical", "follows", "emits")
LEAF_TABLE_BACK_OFF = 3.0
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
        return LeafChain.of_counts(self.follows, self.emits, len(self.config.leaves), len(self.config.universal))

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
        return ((seen + LEAF_TABLE_BACK_OFF * seen.sum() / of.sum()) / (of + LEAF_TABLE_BACK_OFF)).log()

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
        return [self.config.leaves[kind] for kind in self.shapes[start : start + int(self.lengths[number])].tolist()]

    def _spans(self, number: int) -> list[Span]:
        return spans_of_leaves(self.tree(number))

    def tensors(self) -> dict[str, Tensor]:
        """What is saved, by name, without the tags."""
        return {name: getattr(self, name) for name in LEAF_TABLE_TENSORS}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, and the tags in a folder beside them."""
        save(
            folder,
            LEAF_TABLE_KIND,
            asdict(self.config),
            self.tensors(),
            extra=lambda partial: self.tags.save_pretrained(partial / "tags"),
        )

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
            config["leaves"] = [Leaf(tag, tuple(opens), tuple(closes)) for tag, opens, closes in config["leaves"]]
            tags = TagTable.from_pretrained(Path(folder) / "tags", lm)
            return LeafTable(LeafTableConfig(**config), tags, *(tensors[name] for name in LEAF_TABLE_TENSORS))

        return load(folder, LEAF_TABLE_KIND, build, lm)
