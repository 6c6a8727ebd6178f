"""Settings of `train-control pos`."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_lm.errors import UserError
from diffusion_lm.text.corpus import CorpusConfig


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
