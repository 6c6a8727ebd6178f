"""Whether training multiplies in bf16."""

from __future__ import annotations

import torch

from diffusion_lm.hardware import cpu_multiplies_bf16, gpu_multiplies_bf16
from diffusion_lm.training.config import RunConfig


def uses_cpu(config: RunConfig) -> bool:
    """Whether a run is on the CPU: because it asks for it, or has nothing else."""
    return config.device == "cpu" or not torch.accelerator.is_available()


def hardware_precision(config: RunConfig) -> str:
    """'bf16' where asked for, or where `auto` finds that the hardware multiplies in bf16; else 'no'."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if (cpu_multiplies_bf16() if uses_cpu(config) else gpu_multiplies_bf16()) else "no"
