"""What the hardware multiplies in natively."""

from __future__ import annotations

import platform

import torch


def gpu_multiplies_bf16() -> bool:
    """Whether there is a GPU that multiplies in bf16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """Autocast to bf16 where the device multiplies in it; elsewhere, where bf16 would be emulated and slow, it does nothing."""
    enabled = gpu_multiplies_bf16() if device.type == "cuda" else cpu_multiplies_bf16()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU multiplies in bf16 natively."""
    if not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() in ("x86_64", "AMD64"):
        # oneDNN would also take bf16 on AVX-512 without bf16 instructions, and be slow.
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
