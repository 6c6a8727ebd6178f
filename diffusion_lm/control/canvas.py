"""What is known of a sentence before sampling: how many words it has, and which of them are given."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.text.tokenizer import Tokenizer

UNKNOWN = -1


@dataclass(frozen=True)
class Blank:
    """A gap in a template: of `words` words, or of any number from one on."""

    words: int | None = None


Piece = tuple[int, ...] | Blank
"""Given token ids, or a gap."""


@dataclass(frozen=True)
class Layout:
    """Positions of n sentences.

    Attributes:
        known: the id of every position that is given, else `UNKNOWN`, [n, L].
        mask: True at positions that exist, [n, L].
    """

    known: Tensor
    mask: Tensor


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
        pieces = self._pieces()
        given: dict[int, int] = {}
        for backwards in (False, True) if self.words is not None or not self._is_elastic() else (False,):
            words = (self.words or self._least()) if backwards else 0
            for piece in reversed(pieces) if backwards else pieces:
                size = len(piece) if isinstance(piece, tuple) else piece.words
                if size is None:
                    break
                first = words - size if backwards else words
                if isinstance(piece, tuple):
                    given.update(enumerate(piece, first))
                words = first if backwards else first + size
        return given

    def with_named(self, named: tuple[tuple[int, frozenset[int]], ...]) -> Canvas:
        """A sentence some of whose words are named; a `UserError` if the template has other words there."""
        return replace(self, named=self.named + named)._checked()

    def fits(self, words: int) -> bool:
        """Whether a sentence of this many words suits all that is known."""
        if self.allowed is not None and words not in self.allowed:
            return False
        if self.words is not None or not self._is_elastic():
            return words == (self.words or self._least())
        return self._least() <= words <= self.max_words

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
        """Draw what is still free (lengths from the corpus, the sizes of blanks) and place what is known.

        Args:
            n: number of sentences.
            length_counts: how often each total length (START and END included) is in the corpus, [max_length + 1].
            tokenizer: whose START is first, END last and PAD behind it.
            generator: source of the draws.
        """
        lengths = self._draw_words(n, length_counts, generator)
        width = int(lengths.max()) + 2
        known = torch.full((n, width), tokenizer.pad_id)
        for i, words in enumerate(lengths.tolist()):
            row = [tokenizer.start_id, *self._row(words, generator), tokenizer.end_id]
            known[i, : len(row)] = torch.tensor(row)
        return Layout(known, torch.arange(width) < (lengths + 2)[:, None])

    def _draw_words(self, n: int, length_counts: Tensor, generator: torch.Generator) -> Tensor:
        if self.words is not None or not self._is_elastic():
            return torch.full((n,), self.words or self._least())
        weights = length_counts.double().clone().cpu()
        weights[: self._least() + 2] = 0
        weights[self.max_words + 3 :] = 0
        possible = torch.ones_like(weights, dtype=torch.bool)
        if self.allowed is not None:
            possible[:] = False
            possible[[words + 2 for words in self.allowed if self.fits(words)]] = True
        weights *= possible
        if not bool(weights.any()):
            # Lengths that the corpus does not have: the shortest that are possible, a word or a few for each blank.
            possible[: self._least() + 2] = possible[self.max_words + 3 :] = False
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
