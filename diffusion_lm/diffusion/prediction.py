"""The one contract that everything in this folder hangs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """What a denoiser says of z_t.

    Attributes:
        x0: the predicted clean latents x0_hat, [B, L, D].
        logits: of p(w | z_t) a position, [B, L, V]; None for a denoiser that has none.
    """

    x0: Tensor
    logits: Tensor | None = None


Denoise = Callable[[Tensor, Tensor], Prediction]
"""(z_t [B, L, D], t [B]) -> Prediction. Clamping, self-conditioning, infilling and control are wrappers around it."""
