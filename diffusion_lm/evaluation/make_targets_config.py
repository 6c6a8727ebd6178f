"""Settings of `make-targets`."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_lm.errors import UserError, check_seed


@dataclass(frozen=True)
class MakeTargetsConfig:
    """Which sentences become targets."""

    labels: str = "runs/labels.jsonl"
    """The file of tags and trees, as annotate writes it."""
    n: int = 100
    """Number of sentences, each different."""
    seed: int = 0
    """Seed of the draw."""
    out: str = "runs/targets"
    """Folder for pos.jsonl, trees.jsonl, spans.jsonl and infill.jsonl, which evaluate reads."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)
        if self.n < 1:
            raise UserError(f"n must be at least 1, not {self.n}.")
