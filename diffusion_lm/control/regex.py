"""A regular expression over words that the whole text matches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import NEVER, Automaton, explore
from diffusion_lm.control.language import Language, check_known, vocabulary
from diffusion_lm.control.program import Host
from diffusion_lm.text.spacing import bare, split_words, words_of

ANY = None
"""The letter of `.`."""

MOST_REPEATS = 100
DEEPEST = 100
"""Brackets inside each other."""

_LEXER = re.compile(
    r"(?P<space>\s+)|(?P<mark>[()|.])|(?P<repeat>[*+?]|\{(\d+)(?:(,)(\d*))?\})|(?P<word>(?:\\.|[^\s()|.*+?{}\\])+)"
)

Place = int
"""A node of the graph."""


@dataclass
class WordGraph:
    """A nondeterministic automaton over words.

    Attributes:
        steps: for each place, the words that leave it (`ANY` for every word) and where they lead.
        jumps: for each place, places that are reached without a word.
        start: where it begins.
        stop: where it accepts.
    """

    steps: list[list[tuple[str | None, Place]]] = field(default_factory=list)
    jumps: list[list[Place]] = field(default_factory=list)
    start: Place = 0
    stop: Place = 0

    def place(self) -> Place:
        """A new place."""
        self.steps.append([])
        self.jumps.append([])
        return len(self.steps) - 1

    def closed(self, places: Iterable[Place]) -> frozenset[Place]:
        """The places and all that are reached from them without a word."""
        found, todo = set(places), list(places)
        while todo:
            for there in self.jumps[todo.pop()]:
                if there not in found:
                    found.add(there)
                    todo.append(there)
        return frozenset(found)

    def after(self, places: Iterable[Place], word: str) -> frozenset[Place]:
        """Where a word leads from any of the places."""
        return self.closed(
            {there for place in places for said, there in self.steps[place] if said is ANY or said == word}
        )

    def matches(self, words: Iterable[str]) -> bool:
        """Whether the words, all of them, match."""
        places = self.closed([self.start])
        for word in words:
            places = self.after(places, word)
        return self.stop in places

    def words(self) -> set[str]:
        """The words that it names."""
        return {word for steps in self.steps for word, _ in steps if word is not None}


def word_graph(pattern: str) -> WordGraph:
    """Read a pattern.

    Raises:
        UserError: if it is malformed; the place is named.
    """
    reader = _Reader(pattern)
    graph = reader.graph
    graph.start, graph.stop = reader.choice()
    if reader.peek() is not None:
        raise reader.error("a ) without its (")
    return graph


class _Reader:
    """Recursive descent; every method returns the first and the last place of what it has read."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.graph, self.depth = pattern, WordGraph(), 0
        self.tokens: list[re.Match[str]] = []
        self.index = position = 0
        while position < len(pattern):
            token = _LEXER.match(pattern, position)
            if token is None:
                raise UserError(
                    f"The regex {pattern!r} breaks at character {position + 1}, {pattern[position]!r}; "
                    "write \\ before a mark that is meant as it is."
                )
            position = token.end()
            if token.lastgroup != "space":
                self.tokens.append(token)
        if not self.tokens:
            raise UserError("The regex is empty; give words, such as 'The .* is (cheap|moderate) \\.'.")

    def error(self, problem: str) -> UserError:
        token = self.peek()
        where = f"at character {token.start() + 1}" if token else "at its end"
        return UserError(f"The regex {self.pattern!r} breaks {where}: {problem}.")

    def peek(self) -> re.Match[str] | None:
        return self.tokens[self.index] if self.index < len(self.tokens) else None

    def _at(self, text: str) -> bool:
        token = self.peek()
        return token is not None and token[0] == text

    def choice(self) -> tuple[Place, Place]:
        options = [self._sequence()]
        while self._at("|"):
            self.index += 1
            options.append(self._sequence())
        if len(options) == 1:
            return options[0]
        first, last = self.graph.place(), self.graph.place()
        for start, stop in options:
            self.graph.jumps[first].append(start)
            self.graph.jumps[stop].append(last)
        return first, last

    def _sequence(self) -> tuple[Place, Place]:
        first = last = self.graph.place()
        while (token := self.peek()) is not None and token[0] not in ("|", ")"):
            start, stop = self._repeated()
            self.graph.jumps[last].append(start)
            last = stop
        return first, last

    def _repeated(self) -> tuple[Place, Place]:
        begin = self.index
        piece = self._atom()
        token = self.peek()
        if token is None or token.lastgroup != "repeat":
            return piece
        end, (least, most) = self.index, self._bounds(token)
        first = last = self.graph.place()
        for count in range(max(least, most or 1, 1)):
            if count:  # every repetition has places of its own
                self.index = begin
                piece = self._atom()
            self.graph.jumps[last].append(piece[0])
            after = self.graph.place()
            self.graph.jumps[piece[1]].append(after)
            if count >= least:
                self.graph.jumps[last].append(after)
            last = after
        if most is None:
            self.graph.jumps[piece[1]].append(piece[0])
        if most == 0:
            first = last = self.graph.place()
        self.index = end + 1
        return first, last

    def _bounds(self, token: re.Match[str]) -> tuple[int, int | None]:
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if token[0] in simple:
            return simple[token[0]]
        least = int(token[4])
        most = least if token[5] is None else int(token[6]) if token[6] else None
        if most is not None and most < least:
            raise self.error(f"{token[0]} ends before it begins")
        if max(least, most or 0) > MOST_REPEATS:
            raise self.error(f"{token[0]} repeats more than {MOST_REPEATS} times")
        return least, most

    def _atom(self) -> tuple[Place, Place]:
        token = self.peek()
        assert token is not None
        if token.lastgroup == "repeat":
            raise self.error(f"{token[0]} stands behind nothing that it could repeat")
        self.index += 1
        if token[0] == "(":
            self.depth += 1
            if self.depth > DEEPEST:
                raise self.error(f"more than {DEEPEST} brackets inside each other")
            piece = self.choice()
            self.depth -= 1
            if not self._at(")"):
                raise self.error("a ( without its )")
            self.index += 1
            return piece
        words = [ANY] if token[0] == "." else self._spelled(token[0])
        first = last = self.graph.place()
        for word in words:
            after = self.graph.place()
            self.graph.steps[last].append((word, after))
            last = after
        return first, last

    @staticmethod
    def _spelled(text: str) -> list[str | None]:
        return [bare(word) for word in split_words(re.sub(r"\\(.)", r"\1", text))]


@final
@dataclass(frozen=True)
class Regex(Language, name="regex"):
    r"""The whole text matches a regular expression over words, such as "The .* is (cheap|moderate) \.".

    The head of this file has its syntax. Words match letter by letter, capitals included.
    """

    help = 'What the whole sentence matches, word by word: "The .* is (cheap|moderate) ." with a backslash before a full stop.'
    pattern: str

    def automaton(self, host: Host) -> Automaton:  # noqa: D102
        what = f"The regex {self.pattern!r}"
        tokens = [bare(token) for token in vocabulary(host, what)]
        graph = word_graph(self.pattern)
        named = sorted(graph.words())
        check_known(named, tokens, f"the regex {self.pattern!r}")
        # Class 0 is every word that the pattern does not name.
        number = {word: i + 1 for i, word in enumerate(named)}
        spelled = ["\0", *named]
        start = graph.closed([graph.start])
        states, follow = explore(start, lambda s, c: graph.after(s, spelled[c]), len(spelled), what)
        accept = torch.tensor([graph.stop in state for state in states], device="cpu")
        classes = [number.get(token, 0) if token else NEVER for token in tokens]
        return Automaton(torch.tensor(classes, device="cpu"), follow, accept)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        graph = word_graph(self.pattern)
        return torch.tensor([float(graph.matches(words_of(text))) for text in texts])

    def __str__(self) -> str:
        return f"regex={self.pattern}"
