"""The flags of corpus annotation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diffusion_lm.errors import UserError
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class AnnotateConfig:
    """Which corpus gets tags and trees, from whom."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    split: str = "train"
    """Which split of it."""
    tagger: Literal["spacy", "stanza"] = "spacy"
    """Who gives universal parts of speech."""
    parser: Literal["ours", "benepar", "stanza"] = "ours"
    """Who gives constituency trees; ours comes with the package."""
    workers: int | None = None
    """Processes; null: one a core."""
    out: str = "runs/labels.jsonl"
    """The file of labels; the same inputs are not labelled twice."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers must be at least 1, not {self.workers}.")
