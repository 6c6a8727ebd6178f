"""Settings of the parser's training."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_lm.errors import UserError, check_seed


@dataclass(frozen=True)
class ParserTrainConfig:
    """How the constituency parser is trained."""

    train: list[str] = field(default_factory=list)
    """Files of trees in Penn Treebank brackets, one a line."""
    dev: str | None = None
    """File of trees that decide which epoch is kept; without one the last is."""
    out: str = "runs/parser"
    """Where the parser goes: a folder."""
    epochs: int = 16
    """Times that every tree is seen."""
    batch_tokens: int = 1024
    """Words a step."""
    lr: float = 2e-3
    """Highest learning rate; warm-up over the first 5 %, then half a cosine to 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay of matrices."""
    ema: float = 0.998
    """Decay of the average of the weights that is kept."""
    width: int = 256
    """Width of the LSTM in each direction, and of the perceptron."""
    dropout: float = 0.35
    """Dropout at the LSTM's input, between its layers and at its output."""
    word_dropout: float = 0.1
    """How often a word loses its tags and dependency, and how often its vector."""
    min_label_count: int = 5
    """A label, or chain of labels, is learned if the training trees have it so often; a span with a rarer one is passed
    over."""
    max_words: int = 100
    """Longer sentences are skipped and counted."""
    seed: int = 0
    """Seed of weights, batches and dropout."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.train:
            raise UserError("Training a parser needs trees; name at least one file with --train.")
        for name in ("epochs", "batch_tokens", "width", "min_label_count", "max_words"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("dropout", "word_dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}.")
        check_seed(self.seed)
        if self.lr <= 0:
            raise UserError(f"lr must be above 0, not {self.lr}.")
