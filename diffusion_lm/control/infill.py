"""Text around gaps: the context is kept, the gaps are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Blank, Canvas, Piece
from diffusion_lm.control.control import Control
from diffusion_lm.text.spacing import bare, split_words
from diffusion_lm.text.tokenizer import UNK

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM

_BLANK = re.compile(r"_{3,}(?:\{(\d+)\})?")
_FIRST_LETTER = 0xF0000
"""Of a plane of private use: none is special in a regular expression."""


class WordLetters:
    """A letter for each word, given out as words come."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def spell(self, text: str) -> str:
        """The words of a text, marks included, as one letter each."""
        words = map(bare, split_words(text))
        return "".join(self._letters.setdefault(word, chr(_FIRST_LETTER + len(self._letters))) for word in words)


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
        # UNK is what a word is called that the vocabulary lacks: whoever writes it means it.
        unknown = [w for w in lm.tokenizer.unknown_words(_BLANK.sub(" ", self.template)) if w != UNK]
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

    def success(self, texts: Sequence[str]) -> Tensor:
        """1 where the words of the context stand in order around blanks of the right size, [B]; spacing does not count."""
        # One letter a word, so that a regular expression over letters matches words.
        words = WordLetters()
        pattern, position = "", 0
        for blank in _BLANK.finditer(self.template):
            pattern += words.spell(self.template[position : blank.start()])
            pattern += f".{{{blank[1]}}}" if blank[1] else ".+"
            position = blank.end()
        whole = re.compile(pattern + words.spell(self.template[position:]), re.DOTALL)
        return torch.tensor([float(bool(whole.fullmatch(words.spell(text)))) for text in texts])

    def __str__(self) -> str:
        return f"infill={self.template}"
