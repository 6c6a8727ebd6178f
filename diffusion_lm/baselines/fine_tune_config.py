"""Settings of `train-baseline`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diffusion_lm.errors import UserError, check_seed
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class FineTuneConfig:
    """Which control a language model is fine-tuned to, and how."""

    task: Literal["attribute", "pos", "tree", "span", "length"] = "attribute"
    """What its prompts say."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    judge: str = "runs/judge"
    """Folder of the language model to start from, as train-judge writes it."""
    labels: str = "runs/labels.jsonl"
    """The file of tags and trees, as annotate writes it; it is made if it does not hold those of this corpus."""
    epochs: float = 4.0
    """Passes over the training sentences."""
    batch_tokens: int = 4096
    """Symbols and words a step, padding included."""
    lr: float = 6e-4
    """Highest learning rate; warm-up over the first 5 %, then half a cosine to 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    seed: int = 0
    """Seed of new weights, dropout, prompts and batches."""
    out: str | None = None
    """Folder of the result; null: runs/ft-TASK."""

    @property
    def folder(self) -> str:
        """Where the result goes."""
        return self.out or f"runs/ft-{self.task}"

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)
        for name in ("epochs", "batch_tokens", "lr"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be above 0, not {getattr(self, name)}.")
