"""A sentence of so many words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Latents
from diffusion_lm.text.spacing import split_words

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM


def _matches(texts: Sequence[str], words: int, split: Callable[[str], Sequence[object]]) -> Tensor:
    return torch.tensor([float(len(split(text)) == words) for text in texts])


@final
@dataclass(frozen=True)
class Length(Control):
    """Exactly `words` tokens between START and END; exact by the canvas in the `exact` layout.

    Bound to a model of the `padded` layout it becomes `PaddedLength`, the paper's version.
    """

    words: int
    split: Callable[[str], Sequence[object]] = field(default=split_words, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Control:  # noqa: D102
        if lm.config.layout == "padded":
            Canvas(lm.max_words).with_words(self.words)
            return PaddedLength(self.words, lm.tokenizer.start_id, lm.tokenizer.end_id, lm.tokenizer.encode)
        return replace(self, split=lm.tokenizer.encode)

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return canvas.with_words(self.words)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return _matches(texts, self.words, self.split)

    def __str__(self) -> str:
        return f"length={self.words}"


@final
@dataclass(frozen=True)
class PaddedLength(Control):
    """The paper's length control (appendix C): |x0_hat - Emb|^2 at START (position 0) and END (position words + 1).

    The gradient goes through the denoiser; END is what ends the text, so PAD behind it is free.
    """

    words: int
    start_id: int
    end_id: int
    split: Callable[[str], Sequence[object]] = field(default=split_words, repr=False, compare=False)
    reads_prediction = True

    def energy(self, latents: Latents) -> Tensor:  # noqa: D102
        at_start = latents.x0_hat[:, 0] - latents.vectors[self.start_id]
        at_end = latents.x0_hat[:, self.words + 1] - latents.vectors[self.end_id]
        return at_start.square().sum(-1) + at_end.square().sum(-1)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return _matches(texts, self.words, self.split)

    def __str__(self) -> str:
        return f"length={self.words}"
