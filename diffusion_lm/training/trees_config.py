"""Settings of `train-control tree`."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_lm.errors import UserError
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class TreeTrainConfig:
    """How the trees of a corpus are counted."""

    model: str = "runs/lm"
    """The language model to be steered: a folder."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Texts to count in; the corpus that the model was trained on."""
    labels: str = "runs/labels.jsonl"
    """The file of labels that annotate writes; it is made if it does not hold those of this corpus."""
    out: str | None = None
    """Where the table goes; default controls/tree in the model's folder."""
    smoothing: float = 0.1
    """Pseudo-counts a word, spread as the tags are in the whole corpus."""
    min_count: int = 3
    """Fewest times that a kind of leaf occurs to be counted; trees with a rarer one are not kept."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.smoothing <= 0 or self.min_count < 1:
            raise UserError(
                f"smoothing must be above 0 and min_count at least 1, not {self.smoothing} and {self.min_count}."
            )
