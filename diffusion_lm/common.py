"""Bad input, the ranges of settings, and what the hardware multiplies in."""

from __future__ import annotations

import dataclasses
import math
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class UserError(ValueError):
    """Input that cannot be used; the message is one sentence that says what is wrong and what would be right.

    The command line prints the message alone and exits with code 2. Library users can catch it as a `ValueError`.
    """


MOST_SEED = 2**32 - 1
RANGE = "range"
"""Key of a field's metadata: what `check_range` is called with."""


def check_range(
    name: str,
    value: float,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """See that a number is finite and within its range; the `UserError` names the number, its range and the value."""
    bounds = [("above", above, gt), ("at least", least, ge), ("at most", most, le), ("below", below, lt)]
    for words, bound, fits in bounds:
        if bound is not None and not fits(value, bound):
            raise UserError(f"{name} must be {words} {bound:g}, not {value}.")
    if not math.isfinite(value):
        raise UserError(f"{name} must be finite, not {value}.")


def check_seed(seed: int) -> None:
    """See that a random generator takes a seed; a `UserError` if it is negative or too large."""
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"seed must be from 0 to {MOST_SEED}, not {seed}.")


def number(default: Any = dataclasses.MISSING, **bounds: float) -> Any:
    """A field of a `Settings` dataclass with a range (see `check_range`); None is in every range."""
    return dataclasses.field(default=default, metadata={RANGE: bounds})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of dataclasses of settings: every number that was declared with `number` is held to its range."""

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if RANGE in field.metadata and value is not None:
                check_range(field.name, value, **field.metadata[RANGE])
            if field.name == "seed":
                check_seed(value)


class _Outside:
    """How many blocks of `own_defaults` are open, and the default dtype before the first."""

    lock, blocks = threading.Lock(), 0
    dtype: Any = None


@contextmanager
def own_defaults() -> Iterator[None]:
    """New tensors are float32 and on the CPU inside the block, whatever the caller's defaults; also a decorator.

    The default dtype is one for all threads, so the first block that opens sets it and the last that closes puts it back.
    """
    import torch

    with _Outside.lock:
        if not _Outside.blocks:
            _Outside.dtype = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _Outside.blocks += 1
    try:
        with torch.device("cpu"):
            yield
    finally:
        with _Outside.lock:
            _Outside.blocks -= 1
            if not _Outside.blocks:
                torch.set_default_dtype(_Outside.dtype)


def device_named(name: str, option: str = "--device") -> torch.device:
    """The device of a name; auto: CUDA where there is one.

    Raises:
        UserError: it is CUDA and there is none; `option` is what was set to it.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"There is no CUDA device here; take {option} auto or {option} cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bf16 natively; elsewhere bf16 would be emulated and slow."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() in ("x86_64", "AMD64"):
        # oneDNN would also take bf16 on AVX-512 without bf16 instructions, and be slow.
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device) -> torch.autocast:
    """Autocast to bf16 where the device multiplies in it; elsewhere it does nothing."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bf16(device))


def ragged(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers from each `first` on, `count` of each, in one row, and which of the firsts each belongs to."""
    import torch

    which = torch.repeat_interleave(torch.arange(len(first), device=first.device), count)
    return first[which] + torch.arange(len(which), device=first.device) - (count.cumsum(0) - count)[which], which


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """An index of the last dimension by its weight, [...]: weights [..., V], not all 0, and uniform [...] from 0 to 1.

    One that weighs 0 is never taken.
    """
    import torch

    cumulative = weights.cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniform[..., None] * cumulative[..., -1:], right=True).squeeze(-1)
    return drawn.clamp_(max=weights.shape[-1] - 1)


@contextmanager
def same_noise(device: torch.device, seed: int = 0) -> Iterator[None]:
    """What is drawn inside the `with` block is the same every time, and what is drawn behind it as if there were no block."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
