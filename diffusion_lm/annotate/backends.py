"""Taggers and parsers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from diffusion_lm.annotate.base import Parser, Tagger
from diffusion_lm.annotate.spacy_tagger import UPOS, SpacyTagger
from diffusion_lm.annotate.trees import leaf_of, read_tree
from diffusion_lm.errors import UserError

if TYPE_CHECKING:
    from nltk import Tree

BUNDLED = Path(__file__).resolve().parents[1] / "models" / "parser"
"""The parser that comes with the package."""

T = TypeVar("T")


@final
class StanzaTagger(Tagger):
    """Universal tags by Stanza, the paper's tagger."""

    labels = UPOS

    def __init__(self) -> None:
        self.pipeline = _stanza("tokenize,pos")

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:  # noqa: D102
        if not sentences:
            return []
        found = self.pipeline([list(words) for words in sentences]).sentences
        return [[word.upos for word in sentence.words] for sentence in found]


@final
class StanzaParser(Parser):
    """Constituency trees by Stanza."""

    def __init__(self) -> None:
        self.pipeline = _stanza("tokenize,pos,constituency")

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:  # noqa: D102
        if not sentences:
            return []
        found = self.pipeline([list(words) for words in sentences]).sentences
        return [read_tree(str(sentence.constituency)) for sentence in found]


@final
class BeneparParser(Parser):
    """Constituency trees by the Berkeley neural parser, the paper's parser."""

    def __init__(self) -> None:
        self.module = _optional("benepar", "benepar")
        try:
            self.parser = self.module.Parser("benepar_en3")
        except Exception as error:
            raise UserError(
                f"benepar's English model cannot be loaded ({error}); fetch it with: "
                "python -c \"import benepar; benepar.download('benepar_en3')\"."
            ) from None

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:  # noqa: D102
        given = [self.module.InputSentence(words=[leaf_of(word) for word in words]) for words in sentences]
        return [read_tree(str(tree)) for tree in self.parser.parse_sents(given)]


def _optional(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"{module} is not installed; install it with: pip install {package}.") from None


def _stanza(processors: str) -> Any:
    stanza = _optional("stanza", "stanza")
    try:
        # The words are the caller's; nothing is fetched from the network behind the caller's back.
        return stanza.Pipeline(
            "en", processors=processors, tokenize_pretokenized=True, download_method=None, verbose=False
        )
    except Exception as error:
        raise UserError(
            f"Stanza's English models cannot be loaded ({error}); fetch them with: "
            "python -c \"import stanza; stanza.download('en')\"."
        ) from None


def _ours() -> Parser:
    from diffusion_lm.annotate.our_parser import OurParser

    return OurParser.from_pretrained(BUNDLED)


TAGGERS: dict[str, Callable[[], Tagger]] = {"spacy": SpacyTagger, "stanza": StanzaTagger}
"""What makes the tagger of a name."""

PARSERS: dict[str, Callable[[], Parser]] = {"ours": _ours, "benepar": BeneparParser, "stanza": StanzaParser}
"""What makes the parser of a name."""


def tagger(name: str = "spacy") -> Tagger:
    """The tagger of a name.

    Raises:
        UserError: if there is none of that name, or it or its model is not installed.
    """
    return _choose("tagger", TAGGERS, name)


def parser(name: str = "ours") -> Parser:
    """The parser of a name.

    Raises:
        UserError: if there is none of that name, or it or its model is not installed.
    """
    return _choose("parser", PARSERS, name)


def _choose(kind: str, factories: Mapping[str, Callable[[], T]], name: str) -> T:
    if name not in factories:
        raise UserError(f"There is no {kind} {name!r}; take {_either(factories)}.")
    return factories[name]()


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"
