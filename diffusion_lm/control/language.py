"""Controls that are regular languages over words; `&`, `|` and `~` of them are exact too."""

from __future__ import annotations

import dataclasses
import operator
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import NEVER, Automaton, combine, complement, explore
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Latents
from diffusion_lm.text.fields import canonical_field, canonical_value, says
from diffusion_lm.text.spacing import bare, join_words, split_words
from diffusion_lm.text.tokenizer import SPECIALS, WordTokenizer

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM


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


def phrase_automaton(phrase: str, tokens: Sequence[str], what: str, *, said: bool = True) -> Automaton:
    """The sentences whose text says a phrase in any case of letters, by `diffusion_lm.text.fields.says`.

    Every token that spells a word of the phrase in other letters or with other joiners counts, as far as the text
    then still says the phrase: "kid-friendly" is not said by "kid -friendly".

    Args:
        phrase: a word or more, punctuation marks included.
        tokens: the vocabulary with joiners, special tokens empty.
        what: names the control in an error.
        said: False for the sentences that do not say it.

    Raises:
        UserError: if there is no word in the phrase, or one that the vocabulary lacks.
    """
    pieces = split_words(phrase)
    if not pieces:
        raise UserError(f"{what} is empty; give a word or a phrase.")
    folded = [bare(token).casefold() for token in tokens]
    check_known([bare(piece).casefold() for piece in pieces], folded, what)
    match = torch.tensor([[word == bare(piece).casefold() for word in folded] for piece in pieces], device="cpu")
    breaks = torch.zeros(len(tokens), dtype=torch.bool, device="cpu")
    if said:
        for i in range(len(pieces)):
            for v in match[i].nonzero().flatten().tolist():
                match[i, v] = says(join_words(["x", *pieces[:i], tokens[v], *pieces[i + 1 :], "x"]), phrase)
        # "does" is no whole word in "doesn't".
        broken = [bool(token) and not says(join_words([*pieces, token]), phrase) for token in tokens]
        breaks = torch.tensor(broken, device="cpu")
        if not bool(match.any(1).all()):
            raise UserError(f"{what} cannot stand in a text as words of its own; use other words.")
    else:
        # "20.00" says 20, though it is one word; of a phrase, the first and the last word may be such.
        for i in {0, len(pieces) - 1}:
            around = [bare(piece) for piece in pieces]
            match[i] |= torch.tensor(
                [
                    bool(token) and says(join_words([*around[:i], bare(token), *around[i + 1 :]]), phrase)
                    for token in tokens
                ]
            )
    automaton = _build(match, breaks, what)
    if said:
        return automaton
    return Automaton(automaton.classes, automaton.next, ~automaton.accept)


def _build(match: Tensor, breaks: Tensor, what: str) -> Automaton:
    """The automaton of match [m, V] (which tokens are word i of the phrase) and breaks [V] (which undo its end).

    A state is the set of prefixes that the last words end with, as the Knuth-Morris-Pratt automaton has it where no two
    words of the phrase share a token; the whole phrase is final once a word that does not break it has followed.
    """
    length, columns = len(match), torch.cat([match, breaks[None]])
    kinds, classes = columns.unique(dim=1, return_inverse=True)
    of = kinds.T.tolist()
    final = frozenset([length + 1])

    def step(state: frozenset[int], c: int) -> frozenset[int]:
        if state == final or (length in state and not of[c][length]):
            return final
        return frozenset([0, *(i + 1 for i in state if i < length and of[c][i])])

    states, follow = explore(frozenset([0]), step, len(of), what)
    accept = torch.tensor([max(state) >= length for state in states], device="cpu")
    return Automaton(classes, follow, accept)


def without_specials(automaton: Automaton, tokens: Sequence[str]) -> Automaton:
    """The automaton with the special tokens, which are empty in `tokens`, banned."""
    words = torch.tensor([bool(token) for token in tokens], device="cpu")
    return Automaton(torch.where(words, automaton.classes, NEVER), automaton.next, automaton.accept)


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


@final
@dataclass(frozen=True)
class Said(Language):
    """The text says the value itself, as the paper counts success: exact, without a classifier.

    `Attribute` knows that a value has many surface forms; this one has one, and never misses it.
    """

    field: str
    value: str
    automaton: Automaton | None = dataclasses.field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Language:
        """Look the field and the value up in the model's attribute classifier, which is not run.

        Raises:
            UserError: if the field or value is unknown, or its words are not in the vocabulary.
        """
        fields = lm.attribute_model().config.fields
        name = canonical_field(self.field, fields)
        value = canonical_value(name, self.value, fields[name])
        automaton = phrase_language(lm, value, f"{name}={value}")
        return dataclasses.replace(self, field=name, value=value, automaton=automaton)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.tensor([float(says(text, self.value)) for text in texts])

    def __str__(self) -> str:
        return f"{self.field}={self.value}"
