"""Controls that are regular languages over words; `&`, `|` and `~` of them are exact too."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.automaton import Automaton, combine, complement
from diffusion_lm.control.base import Control, Latents
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.errors import UserError
from diffusion_lm.text.spacing import bare
from diffusion_lm.text.tokenizer import SPECIALS, WordTokenizer

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM


class Language(Control):
    """A set of sentences that a finite automaton accepts: no classifier, no gradient, never missed.

    The model gives p(w_i | z_t) for each position alone, so the automaton's backward algorithm conditions them on
    acceptance exactly (see `Automaton.constrain`). Two of them that are joined by `&` or `|` become one automaton; beside
    any other control, this one is applied last.
    """

    automaton: Automaton | None
    reweights_last = True

    def automaton_of(self) -> Automaton:
        """The automaton.

        Raises:
            ValueError: if the control is not bound to a model.
        """
        if self.automaton is None:
            raise ValueError("Bind the control to a model first: control.bind(lm).")
        return self.automaton

    @abstractmethod
    def bind(self, lm: DiffusionLM) -> Language:
        """The control with its automaton over the model's vocabulary.

        Raises:
            UserError: if the model lacks a word, or does not write whole words on a canvas of fixed length.
        """

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return canvas.with_allowed(self.automaton_of().lengths(canvas.max_words), str(self))

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:  # noqa: D102
        return self.automaton_of().constrain(logits, latents.mask, latents.generator)

    def joined(self, other: Control) -> Control | None:
        """One automaton for both, where the other one is a language too."""
        return Joint(self, other, True) if isinstance(other, Language) else None

    def __or__(self, other: Control) -> Control:
        """Either; exact where the other one is a language too."""
        return Joint(self, other, False) if isinstance(other, Language) else super().__or__(other)

    def __invert__(self) -> Control:
        """All other sentences."""
        return Complement(self)


@final
@dataclass(frozen=True)
class Joint(Language):
    """Both of two languages, or either, as one automaton."""

    a: Language
    b: Language
    both: bool
    automaton: Automaton | None = field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Language:  # noqa: D102
        a, b = self.a.bind(lm), self.b.bind(lm)
        how = operator.and_ if self.both else operator.or_
        automaton = combine(a.automaton_of(), b.automaton_of(), how, str(self))
        return replace(self, a=a, b=b, automaton=automaton)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        a, b = self.a.success(texts), self.b.success(texts)
        return a * b if self.both else torch.maximum(a, b)

    def parts(self) -> list[Control]:  # noqa: D102
        return self.a.parts() + self.b.parts() if self.both else [self]

    def __str__(self) -> str:
        return f"{self.a} & {self.b}" if self.both else f"({self.a} | {self.b})"


@final
@dataclass(frozen=True)
class Complement(Language):
    """All sentences but those of a language."""

    a: Language
    automaton: Automaton | None = field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Language:  # noqa: D102
        a = self.a.bind(lm)
        return replace(self, a=a, automaton=complement(a.automaton_of()))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return 1 - self.a.success(texts)

    def __str__(self) -> str:
        return f"~({self.a})" if isinstance(self.a, Joint) else f"~{self.a}"


def vocabulary(lm: DiffusionLM, what: str) -> list[str]:
    """Every token as the tokenizer writes it, joiners included; special ones are empty, [V].

    Raises:
        UserError: if the model's tokens are no words, or its layout is padded; the message names `what`.
    """
    if not isinstance(lm.tokenizer, WordTokenizer):
        raise UserError(f"{what} needs a model whose tokens are words; this one's are parts of words.")
    if lm.config.layout == "padded":
        raise UserError(f"{what} needs a model of the exact layout; this one is padded.")
    return ["" if i < len(SPECIALS) else lm.tokenizer.token(i) for i in range(lm.vocab_size)]


def check_known(wanted: Iterable[str], known: Iterable[str], what: str) -> None:
    """See that all words are in the vocabulary.

    Args:
        wanted: words without joiners.
        known: the vocabulary.
        what: where the words were found.

    Raises:
        UserError: if one is not; similar words are named.
    """
    words = {bare(word) for word in known if word}
    for word in wanted:
        if word not in words:
            near = get_close_matches(word, words, n=3)
            hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
            raise UserError(
                f"{word!r} in {what}: not in the model's vocabulary of {len(words)} words{hint}; use other words."
            )
