"""p(tag | word and the tags beside it), counted: what controls know of the tags of a model's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lm.control.counts import smoothed
from diffusion_lm.control.saved import Kind, load, save

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
            lm,
            lambda config, tensors: TagTable(TagTableConfig(**config), *(tensors[name] for name in TENSORS)),
        )
