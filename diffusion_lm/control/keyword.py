"""Words and phrases that a text has to say, or must not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.automaton import Automaton
from diffusion_lm.control.base import Control
from diffusion_lm.control.language import Language, vocabulary
from diffusion_lm.control.phrase import phrase_automaton, without_specials
from diffusion_lm.text.fields import says

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM


def phrase_language(lm: DiffusionLM, phrase: str, what: str, *, said: bool = True) -> Automaton:
    """The sentences of a model's words that say a phrase, or do not; `what` names the control in an error."""
    tokens = vocabulary(lm, what)
    return without_specials(phrase_automaton(phrase, tokens, what, said=said), tokens)


def _said(texts: Sequence[str], phrase: str) -> Tensor:
    return torch.tensor([float(says(text, phrase)) for text in texts])


@final
@dataclass(frozen=True)
class Keyword(Language):
    """The text says a word or a phrase, in any case of letters, as whole words."""

    phrase: str
    automaton: Automaton | None = field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Language:  # noqa: D102
        return replace(self, automaton=phrase_language(lm, self.phrase, f"The keyword {self.phrase!r}"))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return _said(texts, self.phrase)

    def __invert__(self) -> Control:
        """The texts that do not say it; not the complement, since some say it in a way that the automaton never writes."""
        return Avoid(self.phrase)

    def __str__(self) -> str:
        return f"keyword={self.phrase}"


@final
@dataclass(frozen=True)
class Avoid(Language):
    """The text does not say a word or a phrase."""

    phrase: str
    automaton: Automaton | None = field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Language:  # noqa: D102
        what = f"The word to avoid, {self.phrase!r},"
        return replace(self, automaton=phrase_language(lm, self.phrase, what, said=False))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return 1 - _said(texts, self.phrase)

    def __invert__(self) -> Control:
        """The texts that say it."""
        return Keyword(self.phrase)

    def __str__(self) -> str:
        return f"avoid={self.phrase}"
