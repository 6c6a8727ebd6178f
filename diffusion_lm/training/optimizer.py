"""AdamW with warm-up and decay, and its state as plain tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_lm.training.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW; matrices are decayed, vectors and the word embedding are not."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    decayed = [p for n, p in trained if p.ndim == 2 and "embedding" not in n]
    free = [p for n, p in trained if not (p.ndim == 2 and "embedding" not in n)]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The learning rate of a step, counted from 0."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    if config.decay == "linear":
        return config.lr * (1 - done)
    if config.decay == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    return config.lr


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `parameter/key` tensors."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put a saved state back."""
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        # The fused optimiser keeps the count of steps on the parameter's device too.
        # A copy, because the tensors of a checkpoint are maps of its files.
        optimizer.state[parameters[name]][key] = value.to(parameters[name].device, copy=True)
