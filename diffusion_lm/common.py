"""Bad input, seeds, and what the hardware multiplies in."""

from __future__ import annotations

import platform

import torch


class UserError(ValueError):
    """Input that cannot be used; the message is one sentence that says what is wrong and what would be right.

    The command line prints the message alone and exits with code 2. Library users can catch it as a `ValueError`.
    """


MOST_SEED = 2**32 - 1


def check_seed(seed: int) -> None:
    """See that a random generator takes a seed.

    Raises:
        UserError: if it is negative or too large.
    """
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"seed must be from 0 to {MOST_SEED}, not {seed}.")


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
