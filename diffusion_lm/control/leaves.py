"""p(what a tree says of a word | word), counted, the trees themselves without their words, and which leaf follows which."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Progress
from diffusion_lm.annotate.tagger import UPOS
from diffusion_lm.annotate.trees import Leaf, Span, leaves_of, read_tree, spans_of_leaves, split_chain
from diffusion_lm.common import number
from diffusion_lm.control.program import Asset, Host
from diffusion_lm.control.tables import CountConfig, TagTable, count_tags, labelled, tally
from diffusion_lm.store import Kind, save

TENSORS = ("counts", "shapes", "lengths", "typical", "follows", "emits")
BACK_OFF = 3.0
"""Pseudo-counts of a word with a certain tag, spread as the leaves of that tag are anywhere."""
CHAIN_BACK_OFF = 1.0
"""Pseudo-counts of a leaf behind a certain leaf in the chain, spread as leaves are anywhere."""
BIGRAM_BACK_OFF = 5.0
"""The same where it is counted how usual a tree is."""
OTHER_TAG = 0.02
"""Pseudo-count of each tag for each leaf."""


@dataclass(frozen=True)
class TreeTrainConfig(CountConfig):
    """How the trees of a corpus are counted."""

    smoothing: float = number(0.1, above=0)
    """Pseudo-counts a word, spread as the tags are in the whole corpus."""
    min_count: int = number(3, least=1)
    """Fewest times that a kind of leaf occurs to be counted; trees with a rarer one are not kept."""


@dataclass(frozen=True)
class LeafChain:
    """A hidden Markov model of leaves."""

    follows: Tensor
    """p(leaf | leaf before), [K + 1, K + 1]; row and column K stand for the sentence's edge."""
    tags: Tensor
    """p(tag | leaf), [K, T]."""

    def sample(self, tags: Tensor, n: int, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw n sequences of leaves given their tags, [L] to [n, L]: backward messages, then forward sampling.

        At temperature 1 they come from the exact posterior; below 1 the usual is preferred.
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
class LeafTable(Asset, name="tree"):
    """How often each word of a language model is each of K kinds of leaf, and which N trees there are."""

    about = "count what the trees of sentences say of their words, behind --tree and --span"
    kind = Kind("table of trees", "diffusion-lm train-control tree")
    Config = TreeTrainConfig
    config: LeafTableConfig
    tags: TagTable
    """The tags of words among the trees."""
    counts: Tensor
    """Word, kind, count; one row for each that occurs, int32 [n, 3]."""
    shapes: Tensor
    """The leaves of the trees one after another, int16."""
    lengths: Tensor
    """How many leaves each tree has, int16 [N]."""
    typical: Tensor
    """Log-probability a leaf of each tree under a bigram model of leaves, [N]: how usual it is."""
    follows: Tensor
    """Kind, kind behind it, count, where K is the sentence's edge, int32 [n, 3]."""
    emits: Tensor
    """Kind, universal tag, count, int32 [n, 3]."""

    @cached_property
    def labels(self) -> list[str]:
        """The labels of constituents, sorted."""
        return sorted({label for leaf in self.config.leaves for label in leaf.opens})

    @cached_property
    def chain(self) -> LeafChain:
        """Which leaves follow which, and what universal tags they have."""

        def dense(rows: Tensor, *shape: int) -> Tensor:
            rows = rows.long()
            return torch.zeros(shape).index_put((rows[:, 0], rows[:, 1]), rows[:, 2].float())

        kinds = len(self.config.leaves)
        pairs = dense(self.follows, kinds + 1, kinds + 1)
        pairs = pairs + CHAIN_BACK_OFF * pairs.sum(0) / pairs.sum()
        emitted = dense(self.emits, kinds, len(self.config.universal)) + OTHER_TAG
        return LeafChain(pairs / pairs.sum(1, keepdim=True), emitted / emitted.sum(1, keepdim=True))

    @cached_property
    def _kinds(self) -> dict[Leaf, int]:
        return {leaf: kind for kind, leaf in enumerate(self.config.leaves)}

    def columns(self, leaves: Sequence[Leaf]) -> Tensor:
        """Log p(leaf_i | w_i, tag_i-1, tag_i+1) of each word w at each position, up to a constant: [leaves, V].

        The tag by `TagTable.columns`, times p(opens, closes | w, tag).
        """
        contexts = [self._contexts(leaf) for leaf in leaves]
        return self.tags.columns([leaf.tag for leaf in leaves]) + torch.stack(contexts)

    def _contexts(self, leaf: Leaf) -> Tensor:
        """Log p(opens, closes | w, tag), [V]; 0 for what was never seen, of which the tag has to do."""
        if leaf.tag is None:
            kinds = [k for other, k in self._kinds.items() if other[1:] == leaf[1:]]
            of = self.tags.alone.float().sum(1)
        else:
            kinds = [self._kinds[leaf]] if leaf in self._kinds else []
            of = self.tags.alone[:, self.tags.config.tags.index(leaf.tag)].float()
        if not kinds:
            return torch.zeros(len(of))
        rows = self.counts[torch.isin(self.counts[:, 1], torch.tensor(kinds, dtype=torch.int32))].long()
        seen = torch.bincount(rows[:, 0], rows[:, 2].float(), len(of))
        return ((seen + BACK_OFF * seen.sum() / of.sum()) / (of + BACK_OFF)).log()

    def trees_with(self, spans: Sequence[Span]) -> list[int]:
        """The trees that have all these constituents, the most usual first."""
        fits = torch.ones(len(self.lengths), dtype=torch.bool)
        for span in spans:
            label, long_enough = split_chain(span.label)[0], self.lengths >= span.stop
            opens = torch.tensor([label in leaf.opens for leaf in self.config.leaves])
            closes = torch.tensor([label in leaf.closes for leaf in self.config.leaves])
            for place, has in ((span.start, opens), (span.stop - 1, closes)):
                at = self.shapes[torch.where(long_enough, self._starts + place, 0)].long()
                fits &= long_enough & has[at]
        likely = fits.nonzero().flatten().tolist()
        found = [tree for tree in likely if set(spans) <= set(spans_of_leaves(self.tree(tree)))]
        return sorted(found, key=lambda tree: -float(self.typical[tree]))

    @cached_property
    def _starts(self) -> Tensor:
        return torch.cumsum(self.lengths.long(), 0) - self.lengths.long()

    def tree(self, number: int) -> list[Leaf]:
        """The leaves of a tree."""
        start = int(self._starts[number])
        return [self.config.leaves[kind] for kind in self.shapes[start : start + int(self.lengths[number])].tolist()]

    @classmethod
    def make(cls, config: TreeTrainConfig, host: Host, progress: Progress | None = None) -> LeafTable:  # noqa: D102
        found = labelled(host, config.corpus, config.labels, progress)
        sentences = [Sentence(ids, leaves_of(read_tree(label.tree)), label.pos) for ids, label in found]
        how: dict[str, Any] = {"smoothing": config.smoothing, "min_count": config.min_count, "lm": host.fingerprint}
        return count_leaves(sentences, UPOS, host.tokenizer.vocab_size, parser="ours", **how)

    def summary(self) -> str:  # noqa: D102
        what = f"{len(self.config.leaves):,} kinds of leaf, {len(self.tags.config.tags)} tags"
        return f"{self.config.sentences:,} sentences; {what}, {len(self.lengths):,} different trees kept."

    def tensors(self) -> dict[str, Tensor]:  # noqa: D102
        return self._own() | {f"tags/{name}": tensor for name, tensor in self.tags.tensors().items()}

    def _own(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in TENSORS}

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, and the tags in a folder beside them."""
        save(folder, self.kind, asdict(self.config), self._own(), lambda part: self.tags.save_pretrained(part / "tags"))

    @classmethod
    def build(cls, config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> LeafTable:  # noqa: D102
        config["leaves"] = [Leaf(tag, tuple(opens), tuple(closes)) for tag, opens, closes in config["leaves"]]
        tags = TagTable.from_pretrained(folder / "tags", config["lm"])
        return cls(LeafTableConfig(**config), tags, *(tensors[name] for name in TENSORS))


class Sentence(NamedTuple):
    """A sentence of the corpus: its token ids, the leaves of its tree, its universal tags."""

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
    """Count the leaves of a language model's words; `parser` gave the trees, the other settings are those of the table."""
    fine = sorted({leaf.tag for each in sentences for leaf in each.leaves if leaf.tag is not None})
    tagged = ((each.ids, [leaf.tag or "" for leaf in each.leaves]) for each in sentences)
    table = count_tags(tagged, fine, vocab_size, tagger=parser, smoothing=smoothing, lm=lm)

    often = Counter(leaf for each in sentences for leaf in each.leaves)
    known = [leaf for leaf, count in often.most_common() if count >= min_count]
    kinds = {leaf: kind for kind, leaf in enumerate(known)}
    edge, tag_index = len(known), {tag: i for i, tag in enumerate(universal)}
    words, follows, emits = (list[tuple[int, int]]() for _ in range(3))
    typical, trees = _Bigrams(sentences, often), dict[tuple[int, ...], float]()
    for each in sentences:
        found = [kinds.get(leaf, -1) for leaf in each.leaves]
        words += zip(each.ids, found, strict=True)
        emits += zip(found, (tag_index[tag] for tag in each.tags), strict=True)
        follows += zip([edge, *found], [*found, edge], strict=True)
        if -1 not in found:
            trees[tuple(found)] = typical(each.leaves)
    config = LeafTableConfig(known, list(universal), parser, len(sentences), lm)
    shapes = torch.tensor([kind for tree in trees for kind in tree], dtype=torch.int16)
    lengths = torch.tensor([len(tree) for tree in trees], dtype=torch.int16)
    counts = [_pairs(words), shapes, lengths, torch.tensor(list(trees.values())), _pairs(follows), _pairs(emits)]
    return LeafTable(config, table, *counts)


def _pairs(pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Each different pair without -1, which is a leaf too rare to be known, and how often it occurs."""
    known = torch.tensor(pairs)
    return tally(*known[(known >= 0).all(1)].T)


class _Bigrams:
    """Log-probability a leaf of a tree under a bigram model of leaves."""

    def __init__(self, sentences: Sequence[Sentence], often: Counter[Leaf]) -> None:
        self.often, self.total = often, often.total()
        self.first, self.pairs = Counter[Leaf | None](), Counter[tuple[Leaf | None, Leaf]]()
        for _, leaves, _ in sentences:
            self.first.update((None, *leaves[:-1]))
            self.pairs.update(zip((None, *leaves), leaves, strict=False))

    def __call__(self, leaves: Sequence[Leaf]) -> float:
        nats = 0.0
        for before, leaf in zip((None, *leaves), leaves, strict=False):
            prior = BIGRAM_BACK_OFF * self.often[leaf] / self.total
            nats += math.log((self.pairs[before, leaf] + prior) / (self.first[before] + BIGRAM_BACK_OFF))
        return nats / len(leaves)
