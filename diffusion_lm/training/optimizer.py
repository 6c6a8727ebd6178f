"""AdamW with warm-up and decay, and its state as plain tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_lm.training.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW; matrices are decayed, vectors and the embedding are not."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    decayed = [p for n, p in trained if p.ndim == 2 and "embedding" not in n]
    free = [p for n, p in trained if not (p.ndim == 2 and "embedding" not in n)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
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


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put a saved state back."""
    for name, parameter in model.named_parameters():
        keys = [k for k in tensors if k.rpartition("/")[0] == name]
        if keys:
            optimizer.state[parameter] = {
                k.rpartition("/")[2]: tensors[k].to(parameter.device if k.rpartition("/")[2] != "step" else "cpu")
                for k in keys
            }
