"""Train the judge (diffusion_lm/evaluation/judge.py) on an encoded corpus."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffusion_lm.common import UserError, autocast, check_seed
from diffusion_lm.model.causal import JudgeConfig, JudgeLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.training.trainer import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusion_lm.text.encoded import EncodedCorpus
    from diffusion_lm.text.tokenizer import Tokenizer


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


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeProgress:
    """What `train_judge` reports after each evaluation."""

    epoch: int
    """Passes finished."""
    steps: int
    """Optimiser steps taken."""
    seconds: float
    """Time since the start, evaluation included."""
    fraction: float
    """Share of the training done, in [0, 1]."""
    train_nats: float
    """Nats a token on this pass's batches, with dropout."""
    dev_nats: float
    """Nats a token on all of dev."""
    best_nats: float
    """Lowest `dev_nats` so far."""


def train_judge(
    encoded_train: EncodedCorpus,
    encoded_dev: EncodedCorpus,
    tokenizer: Tokenizer,
    config: JudgeTrainConfig,
    progress: Callable[[JudgeProgress], None] | None = None,
) -> JudgeLM:
    """Train a judge and return it as it was at its best evaluation on dev, in evaluation mode.

    Args:
        encoded_train: sentences to learn, each START words END.
        encoded_dev: sentences that choose the checkpoint; all of them are scored after every epoch.
        tokenizer: the one both were encoded with; it is saved with the judge.
        config: the shape and the schedule.
        progress: called after every evaluation.

    Raises:
        UserError: a split is empty, a sentence is longer than `max_length`, or the schedule has no steps.
    """
    train_lengths = _lengths(encoded_train, "train", config.max_length)
    _lengths(encoded_dev, "dev", config.max_length)
    device = _device(config.device)
    torch.manual_seed(config.seed)
    order = torch.Generator().manual_seed(config.seed)
    shape = JudgeConfig(
        tokenizer.vocab_size, config.width, config.layers, config.heads, config.max_length, config.dropout
    )
    model = JudgeLM(shape, tokenizer).to(device)
    batches = len(token_batches(train_lengths, config.batch_tokens, order))
    clock = Clock(config.epochs, config.minutes, batches, config.lr, config.warmup)
    optimizer = _optimizer(model, config)
    best_nats, best_weights, epoch = math.inf, _copy(model), 0
    while clock.fraction() < 1:
        epoch += 1
        shuffled = token_batches(train_lengths, config.batch_tokens, order)
        train_nats = _train_epoch(model, optimizer, clock, encoded_train, shuffled)
        dev_nats = corpus_nats(model, encoded_dev)
        if dev_nats < best_nats:
            best_nats, best_weights = dev_nats, _copy(model)
            if config.out is not None:
                model.save_pretrained(config.out)
        report = JudgeProgress(epoch, clock.steps, clock.seconds(), clock.fraction(), train_nats, dev_nats, best_nats)
        logger.info("%s", report)
        if progress is not None:
            progress(report)
    model.load_state_dict(best_weights)
    return model.eval()


@torch.no_grad()
def corpus_nats(model: JudgeLM, encoded: EncodedCorpus, batch_tokens: int = 8192) -> float:
    """Return the nats a token, END counted, over all of `encoded`, in the precision of training: for watching a training.

    Reported figures come from `diffusion_lm.model.causal.fluency`, which is float32.
    """
    device = model.embedding.weight.device
    model.eval()
    total, count = 0.0, 0
    for indices in token_batches(encoded.lengths, batch_tokens, None):
        ids, mask = gather(encoded, indices, model.tokenizer.pad_id)
        with autocast(device):
            total += float(model.nll(ids.to(device), mask.to(device)).double().sum())
        count += int(mask[:, 1:].sum())
    return total / count


def _train_epoch(
    model: JudgeLM,
    optimizer: torch.optim.Optimizer,
    clock: Clock,
    encoded: EncodedCorpus,
    batches: Sequence[Tensor],
) -> float:
    """Take one pass, or what the clock leaves of it; return the nats a token of its batches."""
    device = model.embedding.weight.device
    model.train()
    total, count = torch.zeros((), device=device), 0
    for indices in batches:
        if clock.fraction() >= 1:
            break
        ids, mask = gather(encoded, indices, model.tokenizer.pad_id)
        with autocast(device):
            nats = model.nll(ids.to(device), mask.to(device)).sum()
        tokens = int(mask[:, 1:].sum())
        clock.step(nats / tokens, model, optimizer)
        total, count = total + nats.detach(), count + tokens
    return float(total) / max(1, count)


def _optimizer(model: JudgeLM, config: JudgeTrainConfig) -> torch.optim.Optimizer:
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blocks")]
    others = [p for n, p in model.named_parameters() if not (p.dim() == 2 and n.startswith("blocks"))]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _lengths(encoded: EncodedCorpus, split: str, max_length: int) -> Tensor:
    lengths = encoded.lengths
    if len(lengths) == 0:
        raise UserError(f"The judge's {split} split is empty.")
    if int(lengths.max()) > max_length:
        raise UserError(
            f"A {split} sentence has {int(lengths.max())} tokens, more than max_length, {max_length}; "
            "raise it or leave the sentence out."
        )
    return lengths


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
