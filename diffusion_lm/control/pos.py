"""Parts of speech: a tag for every word (paper section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Latents
from diffusion_lm.control.tables import TagTable
from diffusion_lm.control.tree import Held, evidence_of_words, reweight_words
from diffusion_lm.text.spacing import bare, split_words

if TYPE_CHECKING:
    from diffusion_lm.annotate.tagger import Tagger
    from diffusion_lm.control.tables import LeafTable
    from diffusion_lm.generation.pipeline import DiffusionLM


def spacy_tagger() -> Tagger:
    """The tagger that comes with the package."""
    from diffusion_lm.annotate.tagger import SpacyTagger

    return SpacyTagger()


@final
@dataclass(frozen=True)
class Pos(Control):
    """The words have these universal part-of-speech tags, one each, punctuation marks included.

    No classifier and no gradient: with p(w_i | z_t) factorised over positions, Bayes' rule gives
    p(w_i | z_t, tags) ~ p(w_i | z_t) p(tag_i | w_i, tag_i-1, tag_i+1) exactly for tags that depend on their
    word and on the tags beside it, which are known here; `TagTable` has counted them.

    Tags alone leave the syntax open, and a word that is an adjective by itself is none where it heads a phrase. With a
    table of trees beside it each sentence therefore draws leaves of a tree that have these tags (`LeafChain`), and
    leans towards them.

    Bayes' rule by words makes each position right and not the sentence: in some, the tags force words on a model that
    wants others. While sentences are open, those of which the same tags are wanted are resampled by p(tags | z_t), the
    twisted particles of Wu et al. 2023 ("Practical and Asymptotically Exact Conditional Sampling in Diffusion Models").
    """

    tags: str
    """The tags in order, "PROPN AUX DET NOUN PUNCT"."""
    weight: float = 0.7
    """Power of the tags' likelihood; 1 is Bayes' rule as it stands."""
    lean: float = 0.1
    """Power of the drawn leaves' likelihood; 0 draws none."""
    temperature: float = 0.1
    """Of the draw: below 1, the usual syntax of such tags."""
    evidence: float = 0.6
    """Power of p(tags | z_t) by which sentences are resampled while they are open; 0 resamples none."""
    table: TagTable | None = field(default=None, repr=False, compare=False)
    trees: LeafTable | None = field(default=None, repr=False, compare=False)
    tagger: Callable[[], Tagger] = field(default=spacy_tagger, repr=False, compare=False)
    """Makes the outside judge of success."""

    @property
    def sequence(self) -> list[str]:
        """The tags one by one."""
        return self.tags.split()

    def bind(self, lm: DiffusionLM) -> Control:
        """Load the model's table of tags.

        Raises:
            UserError: if the model has none, or does not know a tag.
        """
        table = lm.tag_table()
        unknown = [tag for tag in self.sequence if tag not in table.config.tags]
        if unknown or not self.sequence:
            wrong = f"There is no tag {', '.join(dict.fromkeys(unknown))}" if unknown else "No tag is given"
            raise UserError(f"{wrong}; the tags are {', '.join(table.config.tags)}.")
        return replace(self, table=table, trees=lm.leaf_table() if lm.has_control("tree") else None)

    def drawn(self, n: int, canvas: Canvas, generator: torch.Generator) -> Sequence[Control] | None:
        """The same tags for each of n sentences, with leaves of its own."""
        if self.trees is None or not self.lean:
            return None
        tags = torch.tensor([self.trees.config.universal.index(tag) for tag in self.sequence])
        leaves = self.trees.chain.sample(tags, n, self.temperature, generator)
        tags_alone = self.weight * self._columns
        return [
            Held(self, tags_alone + self.lean * self.trees.columns_of(row), len(row), self.evidence)
            for row in leaves.tolist()
        ]

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return canvas.with_words(len(self.sequence))

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:  # noqa: D102
        return reweight_words(logits, self.weight * self._columns)

    def log_evidence(self, logits: Tensor, latents: Latents) -> Tensor | None:  # noqa: D102
        return self.evidence * evidence_of_words(logits, self.weight * self._columns) if self.evidence else None

    @cached_property
    def _columns(self) -> Tensor:
        if self.table is None:
            raise ValueError("Bind the control to a model first: control.bind(lm).")
        return self.table.columns(self.sequence)

    def success(self, texts: Sequence[str]) -> Tensor:
        """Share of words with the right tag, [B]; a word too many or too few counts as a wrong one.

        The paper cuts or pads the text to the wanted length first (paper-compatible); with as many words as
        wanted, which the canvas sees to, both are the same.
        """
        found = self.tagger().tag([[bare(word) for word in split_words(text)] for text in texts])
        return torch.tensor([self._share(tags) for tags in found])

    def _share(self, found: Sequence[str]) -> float:
        right = sum(a == b for a, b in zip(self.sequence, found, strict=False))
        return right / max(len(self.sequence), len(found), 1)

    def __str__(self) -> str:
        return f"pos={self.tags}"
