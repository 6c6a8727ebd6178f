"""What is known of a sentence before sampling: how many words it has, and which of them are given."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Blank:
    """A gap in a template: of `words` words, or of any number from one on."""

    words: int | None = None


Piece = tuple[int, ...] | Blank
"""Given token ids, or a gap."""


@dataclass(frozen=True)
class Layout:
    """Positions of n sentences."""

    known: Tensor
    """The id of every position that is given, else `UNKNOWN`, [n, L]."""
    mask: Tensor
    """True at positions that exist, [n, L]."""


@dataclass(frozen=True)
class Canvas:
    """Facts about a sentence; controls add theirs."""

    max_words: int
    """Most words between START and END."""
    words: int | None = None
    """Their number, None while it is free."""
    template: tuple[Piece, ...] | None = None
    """Pieces that make up the whole sentence, None while nothing is given."""
    allowed: frozenset[int] | None = None
    """The numbers of words that are possible, None while all are."""
    named: tuple[tuple[int, frozenset[int]], ...] = ()
    """Words, counted from 0, that a control other than the template names, and the ids that they may have."""

    def _pieces(self) -> tuple[Piece, ...]:
        return (Blank(),) if self.template is None else self.template

    def _least(self) -> int:
        return sum(len(p) if isinstance(p, tuple) else p.words or 1 for p in self._pieces())

    def _is_elastic(self) -> bool:
        return any(isinstance(p, Blank) and p.words is None for p in self._pieces())

    def _fixed(self) -> int | None:
        """The number of words, if it is known."""
        return self.words or (None if self._is_elastic() else self._least())

    def _checked(self) -> Canvas:
        least = self._least()
        if least > self.max_words:
            raise UserError(f"The infill needs {least} words, but the model writes at most {self.max_words}.")
        if self.words is not None and (self.words < least or (self.words > least and not self._is_elastic())):
            wanted = f"at least {least}" if self._is_elastic() else f"exactly {least}"
            raise UserError(f"The length {self.words} contradicts the infill, which needs {wanted} words.")
        if self.allowed is not None and not any(map(self.fits, self.allowed)):
            raise UserError("The controls contradict each other: no number of words suits all of them.")
        given = self._given()
        for word, ids in self.named:
            if word in given and given[word] not in ids:
                raise UserError(f"Word {word + 1} of the infill is not the one that another control names there.")
        return self

    def _given(self) -> dict[int, int]:
        """The template's words whose place is known, counted from 0."""
        pieces, total = self._pieces(), self._fixed() or math.inf
        sizes = [len(p) if isinstance(p, tuple) else p.words or math.inf for p in pieces]
        given: dict[int, int] = {}
        for i, piece in enumerate(pieces):
            before = sum(sizes[:i])
            first = before if before < math.inf else total - sum(sizes[i:])  # as counted from either end
            if isinstance(piece, tuple) and math.isfinite(first):
                given.update(enumerate(piece, int(first)))
        return given

    def with_named(self, named: tuple[tuple[int, frozenset[int]], ...]) -> Canvas:
        """A sentence some of whose words are named; a `UserError` if the template has other words there."""
        return replace(self, named=self.named + named)._checked()

    def fits(self, words: int) -> bool:
        """Whether a sentence of this many words suits all that is known."""
        if self.allowed is not None and words not in self.allowed:
            return False
        fixed = self._fixed()
        return self._least() <= words <= self.max_words if fixed is None else words == fixed

    def with_words(self, words: int) -> Canvas:
        """A sentence of this many words; a `UserError` if it is out of range or contradicts what is known."""
        if not 1 <= words <= self.max_words:
            raise UserError(f"The length {words} is out of range; this model writes 1 to {self.max_words} words.")
        if self.words not in (None, words):
            raise UserError(f"Two lengths contradict each other: {self.words} and {words} words.")
        return replace(self, words=words)._checked()

    def with_template(self, template: tuple[Piece, ...]) -> Canvas:
        """A sentence made of these pieces; a `UserError` if it is of others already, or of another length."""
        if self.template is not None:
            raise UserError("Two infills contradict each other; write one template with all the blanks.")
        return replace(self, template=template)._checked()

    def with_allowed(self, allowed: frozenset[int], control: str) -> Canvas:
        """A sentence of one of these numbers of words; a `UserError` names the control if none suits what is known."""
        both = allowed if self.allowed is None else allowed & self.allowed
        canvas = replace(self, allowed=both)
        if not any(map(canvas.fits, both)):
            lengths = f"of {self.words} words" if self.words else f"of 1 to {self.max_words} words"
            raise UserError(f"No sentence {lengths} can do what {control} wants together with the rest.")
        return canvas

    def lay_out(self, n: int, length_counts: Tensor, tokenizer: Tokenizer, generator: torch.Generator) -> Layout:
        """Draw what is still free of n sentences (lengths from the corpus, the sizes of blanks) and place what is known.

        `length_counts` says how often each total length (START and END included) is in the corpus, [max_length + 1].
        """
        lengths = self._draw_words(n, length_counts, generator)
        width = int(lengths.max()) + 2
        known = torch.full((n, width), tokenizer.pad_id)
        for i, words in enumerate(lengths.tolist()):
            row = [tokenizer.start_id, *self._row(words, generator), tokenizer.end_id]
            known[i, : len(row)] = torch.tensor(row)
        return Layout(known, torch.arange(width) < (lengths + 2)[:, None])

    def _draw_words(self, n: int, length_counts: Tensor, generator: torch.Generator) -> Tensor:
        if (fixed := self._fixed()) is not None:
            return torch.full((n,), fixed)
        possible = torch.tensor([self.fits(total - 2) for total in range(len(length_counts))], device="cpu")
        weights = length_counts.double().cpu() * possible
        if not bool(weights.any()):
            # Lengths that the corpus does not have: the shortest that are possible, a word or a few for each blank.
            weights[possible.nonzero().flatten()[:4]] = 1
        return torch.multinomial(weights, n, replacement=True, generator=generator) - 2

    def _row(self, words: int, generator: torch.Generator) -> list[int]:
        """Known ids of a sentence of this many words; what is left over is dealt to the free blanks at random."""
        pieces = self._pieces()
        sizes = [len(p) if isinstance(p, tuple) else p.words or 1 for p in pieces]
        elastic = [i for i, p in enumerate(pieces) if isinstance(p, Blank) and p.words is None]
        if elastic:
            for i in torch.randint(len(elastic), (words - sum(sizes),), generator=generator).tolist():
                sizes[elastic[i]] += 1
        row: list[int] = []
        for piece, size in zip(pieces, sizes, strict=True):
            row += piece if isinstance(piece, tuple) else [UNKNOWN] * size
        return row
