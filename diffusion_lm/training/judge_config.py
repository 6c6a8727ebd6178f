"""Settings of `train-judge`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_lm.errors import check_seed


@dataclass(frozen=True)
class JudgeTrainConfig:
    """How a judge is trained; the corpus is the caller's."""

    width: int = 256
    """Width of the residual stream; a multiple of `heads`."""
    layers: int = 4
    """Number of transformer blocks."""
    heads: int = 4
    """Attention heads a block."""
    max_length: int = 128
    """Longest sentence in tokens, START and END included."""
    dropout: float = 0.15
    """Dropout on the embedding and on every residual branch."""
    epochs: float = 12.0
    """Passes over the training sentences; the learning rate reaches zero at the end of the last."""
    minutes: float | None = None
    """Time limit; where it comes before the last epoch, the learning rate reaches zero with it."""
    batch_tokens: int = 4096
    """Positions a step, padding included."""
    lr: float = 1.5e-3
    """Highest learning rate, after the warm-up; it then falls along half a cosine to zero."""
    warmup: int = 200
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 0.1
    """AdamW's decoupled weight decay of the matrices; embeddings, gains and biases have none."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    seed: int = 0
    """Seed of the initial weights, the dropout and the order of the batches."""
    out: str | None = None
    """Folder that always holds the best judge so far; None keeps it in memory only."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)
