"""What a training run is: flags, YAML keys and the saved run.yaml in one tree of dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diffusion_lm.errors import check_seed
from diffusion_lm.model.config import ModelConfig
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: Literal["word", "bpe"] = "word"
    """word: reversible words and marks; bpe: byte-level pieces, for any corpus."""
    min_count: int = 11
    """word: a word is kept if the training split has it at least so often (paper: more than 10)."""
    vocab_size: int = 8192
    """bpe: number of tokens."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    lr: float = 1.5e-3
    """Highest learning rate (paper: 1e-4)."""
    warmup: int = 200
    """Steps over which the learning rate rises from 0 (paper: 0)."""
    decay: Literal["cosine", "linear", "none"] = "cosine"
    """How it falls to 0 at the last step (paper: linear)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay (paper: 0)."""
    beta2: float = 0.99
    """AdamW's second-moment decay."""
    clip: float = 1.0
    """Largest gradient norm; 0 does not clip (paper: L_simple 0, L_vlb 1)."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that generate (paper: 0.9999)."""


@dataclass(frozen=True)
class RunConfig:
    """How long, how large, where to."""

    out: str = "runs/lm"
    """Folder of the run: the model, metrics.jsonl, TensorBoard events and checkpoints for resuming."""
    steps: int = 1000
    """Optimiser steps."""
    batch_tokens: int = 3072
    """Positions a step, padding included, over all processes; batches hold sentences of like length."""
    batch_sentences: int | None = None
    """Sentences a step instead of a token budget (the paper's 64)."""
    accumulate: int = 1
    """Parts into which each step's batch is split to save memory."""
    time_sampling: Literal["uniform", "importance"] = "uniform"
    """How t is drawn (paper: uniform for L_simple, importance for L_vlb)."""
    precision: Literal["auto", "bf16", "no"] = "auto"
    """auto: bf16 autocast where the hardware multiplies in bf16."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: an accelerator where there is one."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints."""
    validate_every: int = 1000
    """Steps between validations on the dev split."""
    sample_every: int = 2000
    """Steps between printed samples, always from the same seed."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes tokens."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What to train."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How to train it."""
    run: RunConfig = field(default_factory=RunConfig)
    """How long, how large, where to."""
