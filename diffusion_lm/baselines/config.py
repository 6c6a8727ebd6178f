"""What the trainings of all baselines have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_lm.errors import UserError, check_seed
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class BaselineTrainConfig:
    """How a baseline is made of a small autoregressive language model."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    judge: str = "runs/judge"
    """Folder of the language model to start from, as train-judge writes it."""
    epochs: float = 4.0
    """Passes over the training sentences."""
    minutes: float | None = None
    """Time limit; where it comes before the last epoch, the learning rate reaches zero with it."""
    batch_tokens: int = 4096
    """Positions a step, padding included."""
    lr: float = 6e-4
    """Highest learning rate, after the warm-up; it then falls along half a cosine to zero."""
    warmup: int = 100
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    seed: int = 0
    """Seed of new weights, dropout and batches."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)
        for name in ("epochs", "minutes", "batch_tokens", "lr"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} must be above 0, not {value}.")


@dataclass(frozen=True)
class LabelledTrainConfig(BaselineTrainConfig):
    """How a baseline is made that reads the tags and trees of the corpus."""

    labels: str = "runs/labels.jsonl"
    """The file of tags and trees, as annotate writes it; it is made if it does not hold those of this corpus."""
