r"""A regular expression over words that the whole text matches.

It is read as Python's `re` reads letters, but for words and marks, which spaces (or `\s`) only part: `.` is any word,
`\.` a full stop, `|`, `()` and `(?:)` stand around words, `* + ? {3} {2,} {,5}` repeat the word or bracket before them,
`^` first and `$` last say what is so anyway. What cannot be asked word by word, such as `\b`, `\1` or `(?=`, is refused.

Where letters touch classes of letters, `\d \w \D \W \S [a-z] [^a-z]`, they are one word, any that is so spelled. A
quantifier right behind a class repeats its letters, not the word; behind a plain letter of such a word it is refused.
Marks outside classes are words of their own, as they are for the model: "£20-25" is four words.

    The .* is (cheap|moderate) \.      (very )?[a-z]+ing      [Tt]he [A-Z]\w*      £\d+(-\d+)?      ([A-Z]\w*)+ \.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from operator import or_
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import NEVER, Automaton, explore
from diffusion_lm.control.language import Language, check_known, vocabulary
from diffusion_lm.control.program import Host
from diffusion_lm.text.spacing import bare, words_of

MOST_REPEATS = 100
MOST_PLACES = 1000  # words of a pattern, or letters of one, each as often as it is repeated
DEEPEST = 100  # brackets inside each other

Label: TypeAlias = "str | re.Pattern[str] | WordGraph | None"

_REPEAT = r"(?:[*+?]|\{(?:[0-9]{1,9},?[0-9]{0,9}|,[0-9]{0,9})\})\??"  # a lazy one matches the same whole texts
_CLASS = r"(?:\\[dDwWS]|\[\^?\]?(?:\\.|(?!--|&&|~~|\|\|)[^\]\\\[])*\])"  # without what Python warns of, as [a--b]
_SPELLED = rf"[^\W_]*(?:{_CLASS}(?:{_REPEAT})?[^\W_]*)+"
_LETTERS = re.compile(rf"(?P<repeat>{_REPEAT})|(?P<letter>{_CLASS}|.)|(?P<end>\Z)", re.DOTALL)
_WORDS = re.compile(
    rf"(?P<space>\A\s*\^|\$\s*\Z|\\?\s|\\s(?:{_REPEAT})?)|(?P<open>\((?:\?:|(?!\?)))|(?P<close>[)|])|(?P<any>\.)"
    rf"|(?P<repeat>{_REPEAT})|(?P<spelled>{_SPELLED})|(?P<end>\Z)"
    rf"|(?P<plain>(?:(?!{_SPELLED})(?:[^\W_]+|\\[^a-zA-Z0-9\s]|[^\s().|*+?{{}}\\^$\[]))+)|(?P<other>\(\?.?|\\.|.)",
    re.DOTALL,
)
_HINTS = {
    r"\(\?": "of brackets there are ( and (?: only; what must hold too is a control of its own",
    r"\\[bB]": "words begin and end of themselves; leave it out",
    r"\\[0-9]": "nothing can be said again by its number; write the words out",
    r"\\\w": "of letters behind a \\ there are d, w, s, D, W and S only",
    r"[$^]": "the ends of the text stand first and last in a pattern; write \\ before a mark that is meant as it is",
    r"": "write \\ before a mark that is meant as it is",
}


class _Part(NamedTuple):
    """The places at which a part of a pattern begins and ends, and whether it matches no words at all."""

    first: int
    last: int
    empty: bool


class WordGraph:
    """Glushkov's automaton of a pattern: a place for every word of it, and which places may come behind each.

    A set of places is an int, a bit each; place 0 is the start. The label of a place is the word that is read there, None
    for any, or the graph of a word with classes, which reads letters as this one reads words.
    """

    def __init__(self, source: str) -> None:
        self.source, self.last, self._follow = source, 1, [0]
        self.places: dict[Label, int] = {}
        self.labels: list[Label] = [""]
        self.reads, self.behind = cache(self._reads), cache(self._behind)

    def _grow(self, labels: list[Label], follow: list[int]) -> None:
        self.labels += labels
        self._follow += follow
        if len(self.labels) > MOST_PLACES:
            raise UserError(f"The regex {self.source!r} has more than {MOST_PLACES} words or letters; repeat less.")

    def place(self, label: Label) -> _Part:  # noqa: D102
        bit = 1 << len(self.labels)
        self._grow([label], [0])
        return _Part(bit, bit, isinstance(label, WordGraph) and label.matches(""))

    def join(self, parts: Sequence[_Part]) -> _Part:
        """One behind another."""
        first, last, empty = 0, 0, True
        for part in reversed(parts):
            for place in _bits(part.last):
                self._follow[place] |= first
            first = part.first | first * part.empty
            last |= part.last * empty
            empty &= part.empty
        return _Part(first, last, empty)

    def repeat(self, part: _Part, since: int, least: int, most: int | None) -> _Part:
        """A part whose places are those from `since` on, repeated; every copy has places of its own."""
        size, copies = len(self.labels) - since, [part]
        for _ in range(1, max(least, most or 1)):
            begin = len(self.labels) - size
            self._grow(self.labels[begin:], [places << size for places in self._follow[begin:]])
            copies.append(_Part(copies[-1].first << size, copies[-1].last << size, part.empty))
        if most is None:
            self.join(copies[-1:] * 2)
        return self.join([copy._replace(empty=copy.empty or i >= least) for i, copy in enumerate(copies) if most != 0])

    def end(self, part: _Part) -> None:
        """Called once the whole pattern is read."""
        self._follow[0], self.last = part.first, part.last | part.empty
        for place, label in enumerate(self.labels):
            self.places[label] = self.places.get(label, 0) | 1 << place

    def _reads(self, word: str) -> int:
        """The places at which a word is read; words of the same places are of one class."""
        return reduce(or_, (places for label, places in self.places.items() if _fits(label, word)), 0)

    def _behind(self, places: int) -> int:
        """The places at which the next word may be read."""
        return reduce(or_, (self._follow[place] for place in _bits(places)), 0)

    def matches(self, words: Iterable[str]) -> bool:
        """Whether the words, all of them, match."""
        return bool(reduce(lambda places, word: self.behind(places) & self.reads(word), words, 1) & self.last)


def _bits(places: int) -> list[int]:
    return [place for place, bit in enumerate(f"{places:b}"[::-1]) if bit == "1"]


def _fits(label: Label, word: str) -> bool:
    if isinstance(label, str | None):
        return label is None or label == word
    return bool(label.fullmatch(word) if isinstance(label, re.Pattern) else label.matches(word))


@lru_cache(64)
def word_graph(pattern: str, lexer: re.Pattern[str] = _WORDS) -> WordGraph:
    """Read a pattern of words, or of letters; a `UserError` says where it is malformed, or that it is too long."""
    return _Reader(pattern, lexer).graph


class _Reader:
    """Recursive descent through words, or through the letters of one; what is read becomes a part of the graph."""

    def __init__(self, pattern: str, lexer: re.Pattern[str]) -> None:
        self.pattern, self.graph, self.depth = pattern, WordGraph(pattern), 0
        self.tokens = [token for token in lexer.finditer(pattern) if token.lastgroup != "space"][::-1]
        if len(self.tokens) == 1:
            raise UserError("The regex is empty; give words, such as 'The .* is (cheap|moderate) \\.'.")
        part = self._choice()
        if self.tokens[-1][0]:
            raise self.error("a ) without its (")
        self.graph.end(part)

    def error(self, problem: str) -> UserError:
        token = self.tokens[-1]
        where = f"at character {token.start() + 1}, {token[0]!r}" if token[0] else "at its end"
        return UserError(f"The regex {self.pattern!r} breaks {where}: {problem}.")

    def _choice(self) -> _Part:
        part = self._sequence()
        while self.tokens[-1][0] == "|":
            self.tokens.pop()
            other = self._sequence()
            part = _Part(part.first | other.first, part.last | other.last, part.empty or other.empty)
        return part

    def _sequence(self) -> _Part:
        parts = []
        while self.tokens[-1][0] not in ("|", ")", ""):
            since = len(self.graph.labels)
            spelled = self.tokens[-1].lastgroup == "spelled"
            part = self._atom()
            if self.tokens[-1].lastgroup == "repeat":
                if spelled:
                    raise self.error("write ([a-z]s)+ if it repeats a word with classes, [a-z][s]+ if its last letter")
                part = self.graph.repeat(part, since, *self._bounds(self.tokens[-1][0]))
                self.tokens.pop()
            parts.append(part)
        return self.graph.join(parts)

    def _bounds(self, repeat: str) -> tuple[int, int | None]:
        low, comma, high = {"*": "0,", "+": "1,", "?": "0,1"}.get(repeat[0], repeat.strip("{}?")).partition(",")
        least = int(low or 0)
        most = (int(high) if high else None) if comma else least
        if most is not None and most < least:
            raise self.error("it ends before it begins")
        if max(least, most or 0) > MOST_REPEATS:
            raise self.error(f"more than {MOST_REPEATS} times")
        return least, most

    def _atom(self) -> _Part:
        text = self.tokens[-1][0]
        match self.tokens[-1].lastgroup:
            case "plain":
                part = self.graph.join([self.graph.place(word) for word in words_of(re.sub(r"\\(.)", r"\1", text))])
            case "spelled":
                part = self.graph.place(word_graph(text, _LETTERS))
            case "letter":
                try:
                    part = self.graph.place(re.compile(text))
                except re.error as error:
                    raise self.error(error.msg) from None
            case "any":
                part = self.graph.place(None)
            case "open":
                self.depth += 1
                if self.depth > DEEPEST:
                    raise self.error(f"more than {DEEPEST} brackets inside each other")
                self.tokens.pop()
                part = self._choice()
                self.depth -= 1
                if self.tokens[-1][0] != ")":
                    raise self.error("a ( without its )")
            case "repeat":
                raise self.error("it stands behind nothing that it could repeat")
            case _:
                raise self.error(next(hint for form, hint in _HINTS.items() if re.match(form, text)))
        self.tokens.pop()
        return part


def regex_automaton(pattern: str, tokens: Sequence[str], what: str) -> Automaton:
    """The automaton of a pattern over a vocabulary [V], whose special tokens are empty; `what` names it in an error.

    Raises:
        UserError: if it is malformed or too large, or asks for a word that the vocabulary lacks.
    """
    graph, words = word_graph(pattern), [bare(token) for token in tokens]
    named = sorted(label for label in graph.places if label and isinstance(label, str))
    check_known(named, words, f"the regex {pattern!r}")
    for label in graph.places:
        if isinstance(label, WordGraph) and not any(label.matches(word) for word in words if word):
            raise UserError(f"{what} asks for {label.source!r}, which no word of the model's vocabulary matches.")
    number: dict[int, int] = {}
    for word in sorted(set(words) - {""}, key=lambda word: (word in graph.places, word)):  # the unnamed are class 0
        number.setdefault(graph.reads(word), len(number))
    reads = list(number)
    states, follow = explore(1, lambda places, c: graph.behind(places) & reads[c], len(reads), what)
    accept = torch.tensor([bool(places & graph.last) for places in states], device="cpu")
    classes = [number[graph.reads(word)] if word else NEVER for word in words]
    return Automaton(torch.tensor(classes, device="cpu"), follow, accept)


@final
@dataclass(frozen=True)
class Regex(Language, name="regex"):
    r"""The whole text matches a pattern of words, such as "The .* is (cheap|moderate) \."; this file's head has its syntax."""

    help = 'What the whole sentence matches, word by word: "The .* is (cheap|moderate) ." with a backslash before a full stop.'
    example = r'{"regex": "The .* is (cheap|moderate) \\."}'
    pattern: str

    def automaton(self, host: Host) -> Automaton:  # noqa: D102
        what = f"The regex {self.pattern!r}"
        return regex_automaton(self.pattern, vocabulary(host, what), what)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        graph = word_graph(self.pattern)
        return torch.tensor([float(graph.matches(words_of(text))) for text in texts])
