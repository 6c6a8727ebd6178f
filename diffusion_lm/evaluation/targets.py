"""Files of targets: how they are read, and how they are drawn from an annotated corpus."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from diffusion_lm.annotate.labels import read_annotations
from diffusion_lm.annotate.tagger import check_words
from diffusion_lm.common import Settings, UserError, number
from diffusion_lm.control.control import CONTROLS, words_of_record
from diffusion_lm.store import explain_full_disk, read_text, write_whole
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import join_words

T = TypeVar("T")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def read_records(path: str | Path, parse: Callable[[Any, int], T], example: str) -> list[T]:
    """Read a file of targets in its order: JSON lines, of which empty ones do not count, or one object of objects (aNLG).

    Args:
        path: the file; "-" is standard input.
        parse: from a record and its number to its target; a ValueError says why it is none.
        example: a line as it should look, for errors.

    Raises:
        UserError: the file cannot be read or has no target, or a record is malformed; the message gives its number.
    """
    text, found = read_text(path, "targets"), []
    for where, row, entry in _entries(text):
        try:
            record = json.loads(entry) if isinstance(entry, str) else entry
            _check_text(record)
            found.append(parse(record, row))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} {row} of {path} is no target ({error}); a line is {example}.") from None
    if not found:
        raise UserError(f"{path} has no target; a line is {example}.")
    return found


def _entries(text: str) -> list[tuple[str, int, Any]]:
    """What a record is called, its number from 1, and the record or its line."""
    with suppress(ValueError, RecursionError):  # what is no JSON as a whole is a file of lines
        whole = json.loads(text)
        if isinstance(whole, dict) and all(isinstance(value, dict) for value in whole.values()):
            return [("Entry", row, value) for row, value in enumerate(whole.values(), 1)]
    # Not splitlines, which would also split at separators that JSON leaves inside a text.
    return [("Line", row, line) for row, line in enumerate(text.split("\n"), 1) if line.strip()]


def _check_text(record: Any) -> None:
    """See that every text in a record is one."""
    rest = [record]
    while rest:
        match rest.pop():
            case dict() as each:
                rest += [*each, *each.values()]
            case list() as each:
                rest += each
            case str() as each if odd := _NO_TEXT.search(each):
                raise ValueError(f"it has the character {odd[0]!a}, which is no text")


def read_sentences(path: str | Path) -> list[tuple[str, ...]]:
    """The words of the sentences that the targets of a file were taken from; a `UserError` if a target has none."""

    def sentence(record: Any, row: int) -> tuple[str, ...]:
        words = words_of_record(record)
        check_words([words], least=1)
        return words

    return read_records(path, sentence, '{"words_": ["The", "pub", "closes"]}')


@dataclass(frozen=True)
class MakeTargetsConfig(Settings):
    """Which sentences become targets."""

    labels: str = "runs/labels.jsonl"
    """The file of tags and trees, as annotate writes it."""
    n: int = number(100, least=1)
    """Number of sentences, each different."""
    seed: int = 0
    """Seed of the draw."""
    out: str = "runs/targets"
    """Folder for a file NAME.jsonl of every control NAME that a sentence can fulfil, such as pos.jsonl."""


def make_targets(config: MakeTargetsConfig) -> dict[str, Path]:
    """Draw sentences, and write a file of what they fulfil for each control; the files by the name of their control.

    The files are of the same sentences in the same order; where a control says nothing of one, the next one takes its place,
    so that there are as many lines as are wanted or as there can be.

    Raises:
        UserError: the labels cannot be used, have fewer different sentences than are wanted, or `out` cannot be written to.
    """
    labels = list({tuple(label.words): label for label in read_annotations(config.labels)}.values())
    if len(labels) < config.n:
        raise UserError(f"{config.labels} has {len(labels)} different sentences, fewer than the {config.n} wanted.")
    labels = random.Random(config.seed).sample(labels, len(labels))
    files = {}
    for name, kind in CONTROLS.items():
        rng, lines = random.Random(f"{config.seed} {name}"), []
        for label in labels:
            if (record := kind.draw(Document(join_words(label.words)), label, rng)) is not None:
                lines.append(json.dumps({"words_": label.words, **record}, ensure_ascii=False) + "\n")
            if len(lines) == config.n:
                break
        if kind.example and lines:
            files[name] = Path(config.out) / f"{name}.jsonl"
            with explain_full_disk(files[name].parent):
                files[name].parent.mkdir(parents=True, exist_ok=True)
                write_whole(files[name], "".join(lines))
    return files
