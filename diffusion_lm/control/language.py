"""Controls that are regular languages over words; `&`, `|` and `~` of them are exact too."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import NEVER, Automaton, combine, complement, explore
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control
from diffusion_lm.control.program import Host, Program
from diffusion_lm.text.fields import says
from diffusion_lm.text.spacing import bare, join_words, near_words, split_words
from diffusion_lm.text.tokenizer import SPECIALS, WordTokenizer


class Language(Control):
    """A set of sentences that a finite automaton accepts: no classifier, no gradient, never missed.

    The model gives p(w_i | z_t) for each position alone, so the automaton's backward algorithm conditions them on
    acceptance exactly (see `Automaton.constrain`). Two of them that are joined by `&` or `|` become one automaton; beside
    any other control, this one is applied last.
    """

    @abstractmethod
    def automaton(self, host: Host) -> Automaton:
        """The automaton over the model's vocabulary; a `UserError` if it lacks a word, or its layout is padded."""

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        automaton = self.automaton(host)
        allowed = automaton.lengths(host.max_words)
        return [Program(canvas.with_allowed(allowed, str(self)), automaton=automaton) for canvas in canvases]

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        return f"any of {len(vocabulary(host, f'The {cls.task}')) - len(SPECIALS):,} words"

    def __or__(self, other: Control) -> Control:
        return Union(self, other) if isinstance(other, Language) else super().__or__(other)

    def __invert__(self) -> Control:
        return Complement(self)


@final
@dataclass(frozen=True)
class Union(Language):
    """Either of two languages, as one automaton."""

    a: Language
    b: Language

    def automaton(self, host: Host) -> Automaton:  # noqa: D102
        return combine(self.a.automaton(host), self.b.automaton(host), operator.or_, str(self))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.maximum(self.a.success(texts), self.b.success(texts))

    def __str__(self) -> str:
        return f"({self.a} | {self.b})"


@final
@dataclass(frozen=True)
class Complement(Language):
    """All sentences but those of a language."""

    a: Language

    def automaton(self, host: Host) -> Automaton:  # noqa: D102
        return complement(self.a.automaton(host))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return 1 - self.a.success(texts)

    def __str__(self) -> str:
        return f"~{self.a}"


def vocabulary(host: Host, what: str) -> list[str]:
    """Every token with its joiners, special ones empty, [V]; a `UserError` names `what` if they are no words, or it is padded."""
    if not isinstance(host.tokenizer, WordTokenizer):
        raise UserError(f"{what} needs a model whose tokens are words; this one's are parts of words.")
    if host.padded:
        raise UserError(f"{what} needs a model of the exact layout; this one is padded.")
    return ["" if i < len(SPECIALS) else host.tokenizer.token(i) for i in range(host.tokenizer.vocab_size)]


def known_words(host: Host) -> Iterator[str]:
    """Every token but the special ones, with its joiners."""
    return (host.tokenizer.token(i) for i in range(len(SPECIALS), host.tokenizer.vocab_size))


def check_known(wanted: Iterable[str], known: Iterable[str], what: str) -> None:
    """See that words without joiners are in a vocabulary; a `UserError` names `what` has one that is not, and similar ones."""
    words = dict.fromkeys(bare(word) for word in known if word)
    for word in wanted:
        if word not in words:
            near = " or ".join(map(repr, near_words(word, words)))
            size = f"{len(words)} words{f' (did you mean {near}?)' if near else ''}"
            raise UserError(f"{word!r} in {what}: not in the model's vocabulary of {size}; use other words.")


def phrase_language(host: Host, phrase: str, what: str, *, said: bool = True) -> Automaton:
    """The sentences of a model's words that say a phrase in any case of letters, as `says` has it, or that do not.

    Every token that spells a word of the phrase in other letters or with other joiners counts, as far as the text
    then still says the phrase: "kid-friendly" is not said by "kid -friendly".

    Raises:
        UserError: if there is no word in the phrase, or one that the vocabulary lacks; the message names `what`.
    """
    tokens, pieces = vocabulary(host, what), split_words(phrase)
    if not pieces:
        raise UserError(f"{what} is empty; give a word or a phrase.")
    folded, words = [bare(token).casefold() for token in tokens], [bare(piece).casefold() for piece in pieces]
    check_known(words, folded, what)
    match = torch.tensor([[token == word for token in folded] for word in words])
    breaks = torch.zeros(len(tokens), dtype=torch.bool)
    if said:
        for i, v in match.nonzero().tolist():
            match[i, v] = says(join_words(["x", *pieces[:i], tokens[v], *pieces[i + 1 :], "x"]), phrase)
        # "does" is no whole word in "doesn't".
        breaks = torch.tensor([bool(token) and not says(join_words([*pieces, token]), phrase) for token in tokens])
        if not bool(match.any(1).all()):
            raise UserError(f"{what} cannot stand in a text as words of its own; use other words.")
    else:
        # "20.00" says 20, though it is one word; of a phrase, the first and the last word may be such.
        for i in {0, len(words) - 1}:
            spelled = (join_words([*words[:i], token, *words[i + 1 :]]) if token else "" for token in folded)
            match[i] |= torch.tensor([says(text, phrase) for text in spelled])
    classes, follow, ends = _phrase(match, breaks, what)
    never = torch.tensor([not token for token in tokens])
    return Automaton(classes.masked_fill(never, NEVER), follow, ends if said else ~ends)


def _phrase(match: Tensor, breaks: Tensor, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """An automaton of match [m, V] (which tokens are word i of the phrase) and breaks [V] (which undo its end).

    A state is the set of prefixes that the last words end with, as the Knuth-Morris-Pratt automaton has it where no two
    words of the phrase share a token; the whole phrase is final once a word that does not break it has followed.
    """
    kinds, classes = torch.cat([match, breaks[None]]).unique(dim=1, return_inverse=True)
    length, of, final = len(match), kinds.T.tolist(), frozenset([len(match) + 1])

    def step(state: frozenset[int], c: int) -> frozenset[int]:
        if state == final or (length in state and not of[c][length]):
            return final
        return frozenset([0, *(i + 1 for i in state if i < length and of[c][i])])

    states, follow = explore(frozenset([0]), step, len(of), what)
    return classes, follow, torch.tensor([max(state) >= length for state in states])


@final
@dataclass(frozen=True)
class Keyword(Language, name="keyword"):
    """The text says a word or a phrase, in any case of letters, as whole words."""

    help = "A word or phrase that each sentence says; may be repeated."
    example = '{"keyword": "pub"}'
    repeats = True
    phrase: str

    def automaton(self, host: Host) -> Automaton:  # noqa: D102
        return phrase_language(host, self.phrase, f"The keyword {self.phrase!r}")

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.tensor([float(says(text, self.phrase)) for text in texts])

    def __invert__(self) -> Control:
        """The texts that do not say it; not the complement, since some say it in a way that the automaton never writes."""
        return Avoid(self.phrase)


@final
@dataclass(frozen=True)
class Avoid(Language, name="avoid"):
    """The text does not say a word or a phrase."""

    help = "A word or phrase that no sentence says; may be repeated."
    repeats = True
    phrase: str

    def automaton(self, host: Host) -> Automaton:  # noqa: D102
        return phrase_language(host, self.phrase, f"The word to avoid, {self.phrase!r},", said=False)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return 1 - Keyword(self.phrase).success(texts)

    def __invert__(self) -> Control:
        return Keyword(self.phrase)
