"""One training loop for all that is trained but the language model (`training.trainer`), which shares what it is made of."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from diffusion_lm.common import Settings, UserError, number


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """What follows the gradient, and its schedule."""

    blocks: Literal["adamw", "muon"] = "adamw"
    """What the matrices of the transformer blocks follow: AdamW as all else does (paper), or Muon (Jordan et al. 2024), whose
    step is the momentum with all its singular values made about 1, and which learns more from the same text."""
    lr: float = number(1.5e-3, above=0)
    """Highest learning rate (paper: 1e-4); of Muon the root mean square of a step, which AdamW's reaches at most."""
    warmup: int = number(200, least=0)
    """Steps over which the learning rate rises from 0 (paper: 0)."""
    decay: Literal["cosine", "linear", "none"] = "cosine"
    """How it falls to 0 at the last step (paper: linear)."""
    weight_decay: float = number(0.0, least=0)
    """Decoupled weight decay of matrices (paper: 0), of those that follow Muon five times as much."""
    beta2: float = number(0.99, least=0, below=1)
    """AdamW's second-moment decay."""
    clip: float = number(1.0, least=0)
    """Largest gradient norm; 0 does not clip (paper: L_simple 0, L_vlb 1)."""
    ema: float = number(0.999, least=0, below=1)
    """Decay of the averaged weights, which are the ones that generate; 0 does not average (paper: 0.9999)."""


MUON_SCALE = 5
"""torch's Muon takes steps of root mean square .2 lr."""


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW on what wants gradients, and Muon beside it if the matrices of blocks are to follow that.

    Matrices are decayed, vectors and the word embedding are not.
    """
    inner: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim == 2 and "embedding" not in name
            of_block = config.blocks == "muon" and "blocks." in name
            (free if not is_matrix else inner if of_block else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)
    if not inner:
        return [adamw]
    blocks = {"params": inner, "weight_decay": config.weight_decay, "scale": MUON_SCALE}
    return [adamw, torch.optim.Muon([blocks], lr=config.lr * MUON_SCALE, adjust_lr_fn="match_rms_adamw")]


def learning_rate(step: int, steps: float, config: OptimizerConfig) -> float:
    """The learning rate of a step, counted from 0, of `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    if config.decay == "linear":
        return config.lr * (1 - done)
    if config.decay == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    return config.lr


class EMA:
    """shadow <- decay shadow + (1 - decay) weight, after every step.

    The decay of the first steps is smaller, (1 + n) / (10 + n), so that the average forgets the initial weights.
    Parameters that want no gradient have no average. With `first`, the initial weights have that share again where the
    average is put into the model, without being part of it.
    """

    def __init__(self, model: nn.Module, decay: float, first: float = 0.0) -> None:
        self.decay, self.first, self.steps = decay, first, 0
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._names, self._live = list(trained), list[Tensor](trained.values())
        self._shadow = [parameter.detach().clone() for parameter in self._live]
        self._initial = [shadow.clone() for shadow in self._shadow] if first else []

    @torch.no_grad()
    def update(self) -> None:
        """Take the newest weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._shadow, self._live, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(zip(self._names, self._shadow, strict=True))

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Take up a saved average of so many steps."""
        for name, shadow in self.state().items():
            shadow.copy_(state[name])
        self.steps = steps

    @torch.no_grad()
    def put(self) -> None:
        """Give the model the averaged weights."""
        torch._foreach_copy_(self._live, self._shadow)
        if self._initial:
            torch._foreach_lerp_(self._live, self._initial, self.first)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averaged weights are the model's inside the `with` block."""
        kept = [live.detach().clone() for live in self._live]
        self.put()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._live, kept)


@dataclass(frozen=True)
class Limits(Settings):
    """Where a training ends: at the nearest of those that are given, at least one."""

    steps: int | None = number(None, above=0)
    """Optimiser steps."""
    epochs: float | None = number(None, above=0)
    """Passes over the batches."""
    minutes: float | None = number(None, above=0)
    """Time, evaluation included."""

    def __post_init__(self) -> None:
        """Refuse a training that would have no step, or no end."""
        super().__post_init__()
        if self.steps is self.epochs is self.minutes is None:
            raise UserError("A training needs a limit: steps, epochs or minutes.")

    def fraction(self, steps: int, steps_per_epoch: int, seconds: float) -> float:
        """Share of the training done, in [0, 1]."""
        by_steps = steps / self.steps if self.steps else 0.0
        by_epochs = steps / math.ceil(self.epochs * steps_per_epoch) if self.epochs else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_epochs, by_time))


@dataclass(frozen=True)
class Progress:
    """How far a training is: the pass, counted from 1, steps taken, and seconds since the start, evaluation included."""

    epoch: int
    steps: int
    fraction: float
    """Share of the training done, in [0, 1], by whichever limit is nearer."""
    seconds: float
    loss: float
    """Of the step; after a pass, the mean of its steps."""


Batch = TypeVar("Batch")


def fit(
    model: nn.Module,
    batches: Callable[[], Sequence[Batch]],
    loss_of: Callable[[Batch], Tensor],
    limits: Limits,
    config: OptimizerConfig,
    *,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[Progress], None] | None = None,
) -> None:
    """Train what of a model wants gradients; it is left in evaluation mode, with averaged weights if they are wanted.

    `batches` gives those of one pass, shuffled anew at each call; every pass has as many. `loss_of` is from a batch to its
    loss, []. `on_epoch` is called after every pass, or what the limits left of it, with the model as `fit` would leave it.

    Raises:
        UserError: there is no batch, or a loss is not finite.
    """
    optimizers = build_optimizers(model, config)
    average = EMA(model, config.ema) if config.ema else None
    started, epoch, steps, todo = time.monotonic(), 1, 0, batches()
    if not todo:
        raise UserError("There is nothing to train on; give more sentences.")

    def progress(loss: float = math.nan) -> Progress:
        seconds = time.monotonic() - started
        return Progress(epoch, steps, limits.fraction(steps, len(todo), seconds), seconds, loss)

    while (at := progress()).fraction < 1:
        model.train()
        losses: list[float] = []
        for batch in todo:
            # Where time is the limit, the number of all steps is estimated from the pace.
            rate = learning_rate(steps, steps / at.fraction if at.fraction else math.inf, config)
            losses.append(_step(model, optimizers, loss_of(batch), rate, config.clip))
            if not math.isfinite(losses[-1]):
                raise UserError(f"The loss is not finite at step {steps + 1}; take a lower lr.")
            steps += 1
            if average is not None:
                average.update()
            at = progress(losses[-1])
            if on_step is not None:
                on_step(at)
            if at.fraction >= 1:
                break
        model.eval()
        if on_epoch is not None:
            with average.in_place() if average else nullcontext():
                on_epoch(progress(sum(losses) / len(losses)))
        epoch, todo = epoch + 1, batches()
    if average is not None:
        average.put()


def follow(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Take a step at a learning rate, and forget the gradients."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1)
        optimizer.step()
        optimizer.zero_grad()


def _step(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], loss: Tensor, rate: float, clip: float
) -> float:
    """Follow the gradient of a loss, if it is finite; return its value."""
    value = float(loss.detach())
    if math.isfinite(value):
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
        follow(optimizers, rate)
    return value
