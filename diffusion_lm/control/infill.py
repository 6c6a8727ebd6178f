"""Text around gaps: the context is kept, the gaps are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.base import Control
from diffusion_lm.control.canvas import Blank, Canvas, Piece
from diffusion_lm.errors import UserError

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM

_BLANK = re.compile(r"_{3,}(?:\{(\d+)\})?")


@final
@dataclass(frozen=True)
class Infill(Control):
    """A template such as "The Punter ___ riverside.": each `___` is one word or more, `___{3}` exactly three.

    The paper's infilling (section 6.2) has ten words in every gap; here a gap's size is drawn, so that the sentence's
    length follows the corpus.
    """

    template: str
    pieces: tuple[Piece, ...] = ()

    def bind(self, lm: DiffusionLM) -> Control:  # noqa: D102
        if lm.config.layout == "padded":
            raise UserError("Infilling needs a model of the exact layout; this one is padded.")
        if not _BLANK.search(self.template):
            raise UserError(f"The infill {self.template!r} has no blank; write ___ where words are wanted.")
        unknown = lm.tokenizer.unknown_words(_BLANK.sub(" ", self.template))
        if unknown:
            raise UserError(
                f"{', '.join(map(repr, dict.fromkeys(unknown)))} in the infill: not in the model's vocabulary "
                f"of {lm.vocab_size} words; use other words."
            )
        pieces: list[Piece] = []
        position = 0
        for blank in _BLANK.finditer(self.template):
            pieces += [tuple(lm.tokenizer.encode(self.template[position : blank.start()]))]
            size = int(blank[1]) if blank[1] else None
            if size == 0:
                raise UserError("A blank of zero words is no blank; write ___{1} or more, or leave it out.")
            pieces += [Blank(size)]
            position = blank.end()
        pieces += [tuple(lm.tokenizer.encode(self.template[position:]))]
        return Infill(self.template, tuple(p for p in pieces if p != ()))

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return canvas.with_template(self.pieces)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        context = [r"\s+".join(map(re.escape, part.split())) for part in _BLANK.split(self.template)[::2]]
        pattern = re.compile(r"\s*" + r"\s*\S.*?\s*".join(context) + r"\s*")
        return torch.tensor([float(bool(pattern.fullmatch(text))) for text in texts])

    def __str__(self) -> str:
        return f"infill={self.template}"
