"""The training loop of every baseline: AdamW on batches of sentences of like length, on this machine's CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lm.baselines.config import BaselineTrainConfig
from diffusion_lm.hardware import autocast
from diffusion_lm.text.batches import token_batches
from diffusion_lm.training.clock import Clock

logger = logging.getLogger(__name__)


class FitProgress(NamedTuple):
    """What is reported after every epoch."""

    epoch: int
    loss: float
    """Mean of the epoch's batches, with dropout."""
    fraction: float
    """Share of the training done, in [0, 1]."""
    seconds: float


Report = Callable[[FitProgress], None]


def fit(
    model: nn.Module,
    lengths: Sequence[int],
    loss_of: Callable[[list[int]], Tensor],
    config: BaselineTrainConfig,
    progress: Report | None = None,
) -> None:
    """Train what of a model wants gradients, and leave it in evaluation mode.

    Args:
        model: to be trained.
        lengths: positions of each sentence.
        loss_of: from the numbers of a batch's sentences to its loss, [].
        config: how long, how fast.
        progress: called after every epoch.
    """
    order = torch.Generator().manual_seed(config.seed)
    sizes = torch.tensor(lengths)
    steps = len(token_batches(sizes, config.batch_tokens, None))
    clock = Clock(config.epochs, config.minutes, steps, config.lr, config.warmup)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    epoch = 0
    while clock.fraction() < 1:
        epoch += 1
        model.train()
        losses: list[float] = []
        for rows in token_batches(sizes, config.batch_tokens, order):
            # The first batch is always taken, so that an epoch has a mean.
            if losses and clock.fraction() >= 1:
                break
            with autocast(torch.device("cpu")):
                loss = loss_of(rows.tolist())
            clock.step(loss, model, optimizer)
            losses.append(float(loss.detach()))
        report = FitProgress(epoch, sum(losses) / len(losses), clock.fraction(), clock.seconds())
        logger.info("%s", report)
        if progress is not None:
            progress(report)
    model.eval()
