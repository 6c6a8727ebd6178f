"""What is known of a sentence before sampling: how many words it has, and which of them are given."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.process import UNKNOWN
from diffusion_lm.text.batches import padded
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

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], pad_id: int) -> Layout:
        """Sentences by the ids of their positions, what is short with PAD behind it."""
        lengths = torch.tensor([len(row) for row in rows])
        return cls(padded(rows, pad_id), torch.arange(int(lengths.max())) < lengths[:, None])


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
    source: tuple[int, ...] | None = None
    """Token ids of what the sentence is written from, None while there is nothing."""

    def _pieces(self) -> tuple[Piece, ...]:
        return (Blank(),) if self.template is None else self.template

    def _least(self) -> int:
        return sum(len(p) if isinstance(p, tuple) else p.words or 1 for p in self._pieces())

    def _is_elastic(self) -> bool:
        return any(map(_is_elastic, self._pieces()))

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

    def with_source(self, source: tuple[int, ...]) -> Canvas:
        """A sentence that is written from these ids; a `UserError` if it is written from others already."""
        if self.source is not None:
            raise UserError("Two prompts contradict each other; write one prompt with all that is to be said.")
        return replace(self, source=source)

    def with_allowed(self, allowed: frozenset[int], control: str) -> Canvas:
        """A sentence of one of these numbers of words; a `UserError` names the control if none suits what is known."""
        both = allowed if self.allowed is None else allowed & self.allowed
        canvas = replace(self, allowed=both)
        if not any(map(canvas.fits, both)):
            lengths = f"of {self.words} words" if self.words else f"of 1 to {self.max_words} words"
            raise UserError(f"No sentence {lengths} can do what {control} wants together with the rest.")
        return canvas

    def is_open(self) -> bool:
        """Whether chance decides how long the sentence or a gap is."""
        return self._is_elastic() and (self.words is None or sum(map(_is_elastic, self._pieces())) > 1)

    def outline(self, tokenizer: Tokenizer) -> list[int]:
        """START, the ids that are given with `UNKNOWN` for each gap, whatever its size, and END."""
        return self.row(self._of_pieces(repeat(1)), tokenizer)

    def row(self, sizes: Sequence[int], tokenizer: Tokenizer) -> list[int]:
        """START, the ids that are given with `UNKNOWN` for each word of a gap, and END; of the words of each piece."""
        parts = (
            piece if isinstance(piece, tuple) else (UNKNOWN,) * size
            for piece, size in zip(self._pieces(), sizes, strict=True)
        )
        return [tokenizer.start_id, *chain.from_iterable(parts), tokenizer.end_id]

    def lay_out(self, rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> Layout:
        """Place what is known of n sentences; a row has the words of each piece."""
        return Layout.of([self.row(sizes, tokenizer) for sizes in rows], tokenizer.pad_id)

    def sizes_by_corpus(self, n: int, length_counts: Tensor, generator: torch.Generator) -> list[list[int]]:
        """The words of each piece of n sentences: lengths as in the corpus, what is left over dealt to the gaps at random.

        `length_counts` says how often each total length (START and END included) is in the corpus, [max_length + 1].
        """
        return [self._dealt(words, generator) for words in self._draw_words(n, length_counts, generator).tolist()]

    def sizes_by_model(self, n: int, log_p: Tensor, generator: torch.Generator) -> list[list[int]]:
        """The words of each piece of n sentences, drawn from p(sizes of the gaps | the sentence fits all that is known).

        The gaps are independent but for that: log_p [gaps, S] says how likely each size is, 0 to S - 1, in nats. The backward
        algorithm finds how likely the gaps from one on have so many words together; sizes are then drawn one by one.
        """
        given, p = self._of_gaps(log_p)
        most = p.shape[1] - 1
        fits = torch.tensor([self.fits(given + words) for words in range(most + 1)])
        ahead = [torch.zeros(most + 1, dtype=torch.float64).index_fill_(0, torch.tensor(0), 1.0)]
        for gap in reversed(p):
            together = [(gap[: words + 1] * ahead[-1][: words + 1].flip(0)).sum() for words in range(most + 1)]
            ahead.append(torch.stack(together))
        left = torch.multinomial(ahead[-1] * fits, n, replacement=True, generator=generator)
        sizes = []
        for gap, rest in zip(p, reversed(ahead[:-1]), strict=True):
            # Of `left` words this gap has k, the gaps behind it left - k.
            behind = left[:, None] - torch.arange(len(gap))
            weights = gap * torch.where(behind >= 0, rest[behind.clamp(min=0)], 0.0)
            sizes.append(torch.multinomial(weights, 1, generator=generator)[:, 0])
            left = left - sizes[-1]
        return [self._of_pieces(own) for own in torch.stack(sizes, 1).tolist()]

    def likeliest_sizes(self, log_p: Tensor, k: int) -> list[tuple[float, list[int]]]:
        """The k likeliest of what `sizes_by_model` draws from and log p of each, in nats; fewer if there are fewer."""
        given, p = self._of_gaps(log_p)
        # By the words of the gaps so far: the k best ways to have so many.
        best: dict[int, list[tuple[float, tuple[int, ...]]]] = {0: [(0.0, ())]}
        for gap in p.log().tolist():
            ways: dict[int, list[tuple[float, tuple[int, ...]]]] = defaultdict(list)
            for words, own in best.items():
                for size, nats in enumerate(gap[: len(gap) - words]):
                    if nats > -math.inf:
                        ways[words + size] += [(before + nats, (*sizes, size)) for before, sizes in own]
            best = {words: heapq.nlargest(k, own) for words, own in ways.items()}
        fitting = chain.from_iterable(own for words, own in best.items() if self.fits(given + words))
        return [(nats, self._of_pieces(sizes)) for nats, sizes in heapq.nlargest(k, fitting)]

    def _of_gaps(self, log_p: Tensor) -> tuple[int, Tensor]:
        """The number of words that are given, and p(size) of each gap up to the most that fit, where known 1 at its size."""
        pieces = self._pieces()
        given = sum(len(piece) for piece in pieces if isinstance(piece, tuple))
        p = log_p.double().cpu().exp()[:, : self.max_words - given + 1]
        for gap, blank in zip(p, (piece for piece in pieces if isinstance(piece, Blank)), strict=True):
            if blank.words is not None:
                gap[:] = torch.nn.functional.one_hot(torch.tensor(blank.words), len(gap))
        return given, p

    def _of_pieces(self, sizes: Iterable[int]) -> list[int]:
        """The words of each piece, from those of the gaps."""
        left = iter(sizes)
        return [len(piece) if isinstance(piece, tuple) else next(left) for piece in self._pieces()]

    def _draw_words(self, n: int, length_counts: Tensor, generator: torch.Generator) -> Tensor:
        if (fixed := self._fixed()) is not None:
            return torch.full((n,), fixed)
        possible = torch.tensor([self.fits(total - 2) for total in range(len(length_counts))], device="cpu")
        weights = length_counts.double().cpu() * possible
        if not bool(weights.any()):
            # Lengths that the corpus does not have: the shortest that are possible, a word or a few for each blank.
            weights[possible.nonzero().flatten()[:4]] = 1
        return torch.multinomial(weights, n, replacement=True, generator=generator) - 2

    def _dealt(self, words: int, generator: torch.Generator) -> list[int]:
        pieces = self._pieces()
        sizes = [len(p) if isinstance(p, tuple) else p.words or 1 for p in pieces]
        elastic = [i for i, piece in enumerate(pieces) if _is_elastic(piece)]
        if elastic:
            for i in torch.randint(len(elastic), (words - sum(sizes),), generator=generator).tolist():
                sizes[elastic[i]] += 1
        return sizes


def _is_elastic(piece: Piece) -> bool:
    """Whether it is a gap of any number of words."""
    return isinstance(piece, Blank) and piece.words is None
