"""Whether training multiplies in bf16."""

from __future__ import annotations

import platform

import torch

from diffusion_lm.training.config import RunConfig


def uses_cpu(config: RunConfig) -> bool:
    """Whether a run is on the CPU: because it asks for it, or has nothing else."""
    return config.device == "cpu" or not torch.accelerator.is_available()


def hardware_precision(config: RunConfig) -> str:
    """'bf16' where asked for, or where `auto` finds that the hardware multiplies in bf16; else 'no'."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if (_cpu_multiplies_bf16() if uses_cpu(config) else _gpu_multiplies_bf16()) else "no"


def _gpu_multiplies_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _cpu_multiplies_bf16() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() in ("x86_64", "AMD64"):
        # oneDNN would also take bf16 on AVX-512 without bf16 instructions, and be slow.
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
