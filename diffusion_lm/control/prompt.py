"""A source that the text is written from, and the promise that its values are said."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from random import Random
from typing import Any, final

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import Automaton, combine
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Target, Ways
from diffusion_lm.control.infill import BLANK
from diffusion_lm.control.language import check_known, known_words, phrase_language
from diffusion_lm.control.program import Host, Program
from diffusion_lm.text.fields import FIELDS, Document, parse_fields, parts_of, says
from diffusion_lm.text.slots import sayings, slot_errors
from diffusion_lm.text.spacing import words_of


@final
@dataclass(frozen=True)
class Prompt(Control, name="data2text", flag="prompt"):
    """What the text is written from: `name = The Punter, food = Italian`, or any text where the model's sources are texts.

    The source is a segment of its own that is always given (docs/given.md). With `must_say`, each of its values is held by an
    automaton too, so that none is left out.
    """

    help = 'What is written from: "name = The Punter, food = Italian", or a text where the model\'s sources are texts.'
    prompts_are_texts = True
    example = '{"data2text": "name = Aromi, Type = pub", "references": ["Aromi is a pub."]}'
    text: str
    must_say: bool = False

    @classmethod
    def of_text(cls, text: str, ways: Ways) -> Control:  # noqa: D102
        return cls(text, ways.must_say)

    @classmethod
    def of_target(cls, target: Target, ways: Ways) -> Control:
        """As the flag has it."""
        return cls.of_text(target.value, ways)

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        source = self.source(host)
        promises = self._promises(host) if self.must_say else ()
        return [Program(canvas.with_source(source), promises=promises) for canvas in canvases]

    def source(self, host: Host) -> tuple[int, ...]:
        """The ids that a model reads.

        Raises:
            UserError: the model has no sources, or the prompt has a gap, a field or a word that it does not know, or is longer
                than it reads.
        """
        most = host.denoiser.config.max_source
        if not most:
            raise UserError(
                "This model writes from no prompt; train one with --model.max_source, on a corpus with sources."
            )
        if BLANK in self.text:
            raise UserError(f"The prompt {self.text!r} has a gap; write ___ in --infill, where words are wanted.")
        document = Document("", parse_fields(self.text, host.fields)) if host.fields else Document("", source=self.text)
        parts = parts_of(document)
        if unknown := [word for part in parts for word in host.tokenizer.unknown_words(part)]:
            check_known(unknown, known_words(host), "the prompt")
        ids = tuple(token for part in parts for token in host.tokenizer.encode(part))
        if len(ids) > most:
            raise UserError(f"The prompt has {len(ids)} tokens, but the model reads at most {most}; ask for less.")
        return ids

    def _promises(self, host: Host) -> tuple[Automaton, ...]:
        """For each value the texts that say it."""
        if not host.fields:
            raise UserError("--must_say holds the values of fields, and this model's prompts are texts; leave it out.")
        known: Any = host
        return tuple(_saying(known, *pair) for pair in parse_fields(self.text, host.fields).items())

    def success(self, texts: Sequence[str]) -> Tensor:
        """The share of the values that the text says, [B]; 1 where the prompt has no fields."""
        fields = fields_of(self.text)
        return torch.tensor([_said(fields, text) for text in texts])

    @classmethod
    def describe(cls, host: Host) -> str:  # noqa: D102
        if not host.denoiser.config.max_source:
            return "no: it was trained without sources"
        return f"of the fields {', '.join(host.fields)}" if host.fields else "any text"

    @classmethod
    def targets_of(cls, documents: Callable[[], Iterable[Document]]) -> list[Target]:
        """The sources of a corpus's split, each once, with all that people wrote from it."""
        found: dict[str, list[str]] = defaultdict(list)
        for document in documents():
            if source := " ".join(parts_of(document)).rstrip(","):
                found[source].append(document.text)
        if not found:
            raise UserError("The task data2text needs a corpus with sources, such as E2E.")
        return [Target(source, references=tuple(texts)) for source, texts in found.items()]

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:  # noqa: D102
        source = " ".join(parts_of(document)).rstrip(",")
        return [source] if source else []

    @classmethod
    def draw(cls, document: Document, labels: Annotation, rng: Random) -> dict[str, Any] | None:
        """None: the sources of a corpus stand in the corpus."""
        return None

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:
        """Its words, each with its place in the source."""
        return [(word, i) for i, word in enumerate(words_of(value))]

    @classmethod
    def target(cls, record: Any, line: int) -> Target:
        """A source and what people wrote from it."""
        target, texts = super().target(record, line), record.get("references", [])
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError("it has no list of texts under the key references")
        return replace(target, references=tuple(texts))


@lru_cache(maxsize=256)
def _saying(host: Host, field: str, value: str) -> Automaton:
    """The texts that say a value in one of the ways for which the model has words; a `UserError` if it has none for any."""
    ways, refused = [], []
    for phrase in sayings(field, value):
        try:
            ways.append(phrase_language(host, phrase, f"{field} = {value}"))
        except UserError as error:
            refused.append(error)
    if not ways:
        raise refused[0]
    return reduce(lambda a, b: combine(a, b, operator.or_, f"{field} = {value}"), ways)


def _said(fields: Mapping[str, str], text: str) -> float:
    """The share of the fields whose value a text says."""
    if not fields:
        return 1.0
    if not fields.keys() <= set(FIELDS):
        return sum(says(text, value) for value in fields.values()) / len(fields)
    found = slot_errors(fields, text)
    return 1 - (found.missing + found.wrong) / len(fields)


def fields_of(text: str) -> dict[str, str]:
    """The fields of a prompt, none where it is a text."""
    pairs = [part.partition("=") for part in text.strip(" ,").split(",")]
    if not all(equals for _, equals, _ in pairs):
        return {}
    return {name.strip(): value.strip() for name, _, value in pairs}
