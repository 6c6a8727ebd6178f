"""Syntax tree: the text's parse is a given one (paper section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.annotate.trees import (
    ANY_WORD,
    Leaf,
    bracket_f1,
    leaves_of,
    read_tree,
    spans_of_leaves,
    tree_of,
    word_of,
)
from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import BANNED
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Latents
from diffusion_lm.control.language import check_known, vocabulary
from diffusion_lm.text.spacing import bare, split_words

if TYPE_CHECKING:
    from nltk import Tree as Brackets

    from diffusion_lm.annotate.tagger import Parser
    from diffusion_lm.control.tables import LeafTable
    from diffusion_lm.generation.pipeline import DiffusionLM


WEIGHT = 0.8
"""Power to which p(label | word) is taken. Both neighbours of a word and its constituents count as independent evidence
though they overlap, so the whole counts too much at 1: less success and less fluency (docs/log.md)."""


def our_parser() -> Parser:
    """The parser that comes with the package."""
    from diffusion_lm.annotate.parser import parser

    return parser()


def parsed(parser: Parser, texts: Sequence[str]) -> list[Brackets | None]:
    """The trees of texts; None for a text without words."""
    words = [[bare(word) for word in split_words(text)] for text in texts]
    trees = iter(parser.parse([sentence for sentence in words if sentence]))
    return [next(trees) if sentence else None for sentence in words]


def reweight_words(logits: Tensor, columns: Tensor) -> Tensor:
    """Add `columns` [n, V] to the logits [B, L, V] of words 1 to n, which follow START."""
    first, words, rest = logits.split([1, len(columns), logits.shape[1] - 1 - len(columns)], dim=1)
    return torch.cat([first, words + columns.to(logits), rest], dim=1)


def evidence_of_words(logits: Tensor, columns: Tensor) -> Tensor:
    """Log of the mean of exp(columns) [n, V] over p(w | z_t) of words 1 to n, summed over them: [B, L, V] to [B]."""
    log_p = logits[:, 1 : len(columns) + 1].log_softmax(-1)
    return (log_p + columns.to(log_p)).logsumexp(-1).sum(-1)


def named_words(given: Sequence[str], words: Sequence[str], what: str) -> tuple[tuple[int, frozenset[int]], ...]:
    """Place and token ids of the leaves that are a certain word; `words` is the vocabulary.

    Raises:
        UserError: if the vocabulary lacks one; the message names `what`.
    """
    check_known((word for word in given if word != ANY_WORD), words, what)
    # A mark has a token for each way to stick to its neighbours; any of them is the word.
    return tuple(
        (place, frozenset(i for i, token in enumerate(words) if bare(token) == word))
        for place, word in enumerate(given)
        if word != ANY_WORD
    )


def banned_beside(named: Sequence[tuple[int, frozenset[int]]], n: int, vocab_size: int) -> Tensor:
    """Columns [n, V] that leave nothing but the named words at their places."""
    columns = torch.zeros(n, vocab_size)
    for place, ids in named:
        columns[place] = BANNED
        columns[place, list(ids)] = 0.0
    return columns


def longer(least: int, canvas: Canvas) -> frozenset[int]:
    """All numbers of words from `least` on."""
    return frozenset(range(least, canvas.max_words + 1))


@final
@dataclass(frozen=True, eq=False)
class Held(Control):
    """What one sentence of a control is held to, where each sentence has drawn its own."""

    of: Control
    """The control that is wanted."""
    columns: Tensor
    """Added to the logits of the first words, [n, V]."""
    words: int | None
    """Number of words; None for any from n on."""
    evidence: float = 0.0
    """Power of p(control | z_t) by which sentences are resampled while they are open; 0 resamples none."""

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        if self.words is None:
            return canvas.with_allowed(longer(len(self.columns), canvas), str(self))
        return canvas.with_words(self.words)

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:  # noqa: D102
        return reweight_words(logits, self.columns)

    def log_evidence(self, logits: Tensor, latents: Latents) -> Tensor | None:  # noqa: D102
        return self.evidence * evidence_of_words(logits, self.columns) if self.evidence else None

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return self.of.success(texts)

    def __str__(self) -> str:
        return str(self.of)


@final
@dataclass(frozen=True)
class Tree(Control):
    """The text has this constituency tree.

    No classifier and no gradient: a tree is the sequence of its leaves' tags and of the constituents that begin and
    end at each leaf, so with p(w_i | z_t) factorised over positions Bayes' rule needs only
    p(tag_i, opens_i, closes_i | w_i, tag_i-1, tag_i+1), which `LeafTable` has counted.
    """

    tree: str
    """Brackets, "(S (NP (DT The) (NN _)) (VP (VBZ _) (ADJP (JJ _))) (. .))": `_` is any word, a word is that word, and a
    leaf without a tag, as in (NP _ _), may have any."""
    weight: float = WEIGHT
    """Power of the likelihood; 1 is Bayes' rule as it stands."""
    columns: Tensor | None = field(default=None, repr=False, compare=False)
    named: tuple[tuple[int, frozenset[int]], ...] = field(default=(), repr=False, compare=False)
    """The words that the tree names: place and token ids."""
    tags: frozenset[str] | None = field(default=None, repr=False, compare=False)
    """What is a tag and no constituent, so that `(NP _)` is a noun phrase; None: every bracket around one word."""
    parser: Callable[[], Parser] = field(default=our_parser, repr=False, compare=False)
    """Makes the outside judge of success."""

    def bind(self, lm: DiffusionLM) -> Control:
        """Look the tree up in the model's table.

        Raises:
            UserError: if the model has none, or does not know a tag, a label or a word; what is known is listed.
        """
        words = vocabulary(lm, f"The tree {self.tree!r}")
        table, tree = lm.leaf_table(), read_tree(self.tree)
        leaves = leaves_of(tree, table.tags.config.tags)
        check_labels(leaves, table)
        given = [word_of(leaf) for leaf in tree.leaves()]
        named = named_words(given, words, f"the tree {self.tree!r}")
        columns = table.columns(leaves) + banned_beside(named, len(given), len(words))
        return replace(self, columns=columns, named=named, tags=frozenset(table.tags.config.tags))

    def _columns(self) -> Tensor:
        if self.columns is None:
            raise ValueError("Bind the control to a model first: control.bind(lm).")
        return self.columns

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return canvas.with_words(len(self._columns())).with_named(self.named)

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:  # noqa: D102
        return reweight_words(logits, self.weight * self._columns())

    def success(self, texts: Sequence[str]) -> Tensor:
        """Labelled bracket F1 of each text's parse with the tree, [B]."""
        leaves = leaves_of(read_tree(self.tree), self.tags)
        labels = [leaf.tag or ANY_WORD for leaf in leaves]
        wanted = tree_of(labels, labels, {span[:2]: span.label for span in spans_of_leaves(leaves)})
        return torch.tensor(
            [0.0 if found is None else bracket_f1([wanted], [found]) for found in parsed(self.parser(), texts)]
        )

    def __str__(self) -> str:
        return f"tree={self.tree}"


def check_labels(leaves: Sequence[Leaf], table: LeafTable) -> None:
    """See that the table knows all tags and labels.

    Raises:
        UserError: if it does not; those that it knows are listed.
    """
    if not leaves[0].opens:
        raise UserError(f"A tag alone is no tree; put it into a constituent, (NP ({leaves[0].tag or 'NN'} _)).")
    labels = {label for leaf in leaves for label in leaf.opens}
    unknown = sorted(labels - set(table.labels))
    if unknown:
        raise UserError(
            f"There is no tag or constituent {', '.join(unknown)}; the constituents are {', '.join(table.labels)}, and "
            f"the tags {', '.join(table.tags.config.tags)}."
        )
