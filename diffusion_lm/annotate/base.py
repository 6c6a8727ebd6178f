"""The methods behind which every tagger and every parser stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nltk import Tree


class Tagger(ABC):
    """Gives each word its universal part of speech."""

    labels: tuple[str, ...]
    """All tags that it can give."""

    @abstractmethod
    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The tags of words, sentence by sentence, one a word."""


class Parser(ABC):
    """Gives each sentence its constituency tree."""

    @abstractmethod
    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        """The trees of sentences given as words; a leaf a word, with a pre-terminal above it."""
