"""A source that the text is written from, and the promise that its values are said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any, final

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import Automaton
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.control import Control, Target, Ways
from diffusion_lm.control.infill import BLANK
from diffusion_lm.control.language import check_known, known_words, phrase_language
from diffusion_lm.control.program import Host, Program, Promise
from diffusion_lm.text.fields import (
    FIELDS,
    Document,
    canonical_field,
    parse_fields,
    parts_of,
    says,
    source_of,
    split_fields,
)
from diffusion_lm.text.slots import are_e2e, fields_said, sayings, slot_errors
from diffusion_lm.text.spacing import words_of

BESIDE = ""
"""What breaks a promise by saying a value that was not asked; the name of no field."""


@final
@dataclass(frozen=True)
class Prompt(Control, name="data2text", flag="prompt"):
    """What the text is written from: `name = The Punter, food = Italian`, or any text where the model's sources are texts.

    The source is a segment of its own that is always given (docs/given.md). With `must_say`, a text that leaves a value out is
    written anew, held to it by an automaton, and so is one that says a value of E2E that was not asked. Where `unknown`, words
    that the model lacks are read as UNK, and what is too long is cut.
    """

    help = 'What is written from: "name = The Punter, food = Italian", or a text where the model\'s sources are texts.'
    prompts_are_texts = True
    example = '{"data2text": "name = Aromi, Type = pub", "references": ["Aromi is a pub."]}'
    text: str
    must_say: bool = False
    unknown: bool = False

    @classmethod
    def of_text(cls, text: str, ways: Ways) -> Control:  # noqa: D102
        return cls(text, ways.must_say)

    @classmethod
    def of_target(cls, target: Target, ways: Ways) -> Control:
        """As the flag has it, but no text of a corpus is refused."""
        return cls(target.value, ways.must_say, unknown=True)

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
        if not self.text.strip():
            raise UserError("The prompt is empty; say what to write from, or leave it out.")
        if BLANK in self.text and not self.unknown:
            raise UserError(f"The prompt {self.text!r} has a gap; write ___ in --infill, where words are wanted.")
        document = Document("", parse_fields(self.text, host.fields)) if host.fields else Document("", source=self.text)
        parts = parts_of(document)
        unknown = [word for part in parts for word in host.tokenizer.unknown_words(part)]
        if unknown and not self.unknown:
            check_known(unknown, known_words(host), "the prompt")
        ids = tuple(token for part in parts for token in host.tokenizer.encode(part))
        if self.unknown:
            return ids[:most]
        if len(ids) > most:
            raise UserError(f"The prompt has {len(ids)} tokens, but the model reads at most {most}; ask for less.")
        return ids

    def _promises(self, host: Host) -> tuple[Promise, ...]:
        """That every value is said, and no other of E2E's fields."""
        if not host.fields:
            raise UserError("--must_say holds the values of fields, and this model's prompts are texts; leave it out.")
        fields = parse_fields(self.text, host.fields)

        def broken(text: str) -> list[str]:
            said = _said(fields, text)
            beside = [BESIDE] if are_e2e(fields) and slot_errors(fields, text).added else []
            return [field for field in fields if field not in said] + beside

        def way(field: str, generator: torch.Generator) -> Automaton | None:
            return None if field == BESIDE else _way(host, field, fields[field], generator)

        return (Promise(broken, way),)

    def success(self, texts: Sequence[str]) -> Tensor:
        """The share of the values that the text says, [B]; 1 where the prompt has no fields."""
        fields = fields_of(self.text)
        shares = [len(_said(fields, text)) / len(fields) if fields else 1.0 for text in texts]
        return torch.tensor(shares)

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
            if source := source_of(document):
                found[source].append(document.text)
        if not found:
            raise UserError("The task data2text needs a corpus with sources, such as E2E.")
        return [Target(source, references=tuple(texts)) for source, texts in found.items()]

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:  # noqa: D102
        return [source] if (source := source_of(document)) else []

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


def _way(host: Host, field: str, value: str, generator: torch.Generator) -> Automaton:
    """The texts that say a value by one phrase; the first for which the model has words in one half of all draws, and so on.

    Raises:
        UserError: the model has words for none.
    """
    ways, refused = [], []
    for phrase in sayings(field, value):
        try:
            ways.append(phrase_language(host, phrase, f"{field} = {value}"))
        except UserError as error:
            refused.append(error)
    if not ways:
        raise refused[0]
    halves = torch.tensor([0.5**i for i in range(len(ways))])
    return ways[int(torch.multinomial(halves, 1, generator=generator))]


def _said(fields: Mapping[str, str], text: str) -> set[str]:
    """The fields whose value a text says."""
    if are_e2e(fields):
        return fields_said(fields, text)
    return {field for field, value in fields.items() if says(text, value)}


def fields_of(text: str) -> dict[str, str]:
    """The fields of a prompt, none where it is a text."""
    pairs = split_fields(text)
    if not all(equals for _, equals, _ in pairs):
        return {}
    fields = {}
    for name, _, value in pairs:
        with suppress(UserError):  # of a corpus that has others than E2E
            name = canonical_field(name, FIELDS)
        fields[name] = value
    return fields
