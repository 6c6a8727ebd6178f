"""The methods behind which every tagger stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Tagger(ABC):
    """Gives each word its universal part of speech."""

    labels: tuple[str, ...]
    """All tags that it can give."""

    @abstractmethod
    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The tags of words, sentence by sentence, one a word."""
