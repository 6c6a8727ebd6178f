"""Files of targets that were taken from sentences: tags, trees, spans, and two controls at once; one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from diffusion_lm.annotate.base import Parser
from diffusion_lm.annotate.trees import read_tree, without_words
from diffusion_lm.errors import UserError

Record = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class SentenceTarget:
    """What is asked for, and the line that it stands on: two lines may ask for the same."""

    line: int
    value: str
    """Tags, a tree in brackets, or spans, as the flag of the control takes it."""
    words: tuple[str, ...] = ()
    """Of the sentence that it was taken from, where the file has them."""

    def __str__(self) -> str:
        return f"{self.line}: {self.value}"


def read_records(path: str | Path, parse: Callable[[Record, int], T], example: str) -> list[T]:
    """Read the targets of a file in its order; empty lines do not count.

    Args:
        path: the file.
        parse: from a line's object and number to its target; raises ValueError where it is none.
        example: a line as it should look, for errors.

    Raises:
        UserError: the file cannot be read or has no target, or a line is malformed; the message gives its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The targets {path} cannot be read ({error}).") from error
    targets = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("it is no JSON object")
                targets.append(parse(record, number))
            except (ValueError, UserError) as error:
                raise UserError(
                    f"Line {number} of {path} is no target ({error}); a line looks like {example}."
                ) from error
    if not targets:
        raise UserError(f"{path} has no target; a line looks like {example}.")
    return targets


def _strings(record: Record, key: str) -> list[str]:
    found = record.get(key)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"it has no list of strings under the key {key}")
    return found


def _words(record: Record) -> list[str]:
    """The words of a line's sentence; START, END and the line break that ends the original's texts are none."""
    words = _strings(record, "words_")
    if words[:1] == ["START"] and words[-1:] == ["END"]:
        words = words[1:-1]
    return [word for word in words if word != "\n"]


SENTENCE_EXAMPLE = '{"words_": ["The", "pub", "closes"]}'


def sentence_of(record: Record, line: int) -> tuple[str, ...]:
    """The words of the sentence that a target was taken from."""
    return tuple(_words(record))


POS_EXAMPLE = '{"pos": ["DET", "NOUN", "VERB", "PUNCT"]}'


def pos_target(record: Record, line: int) -> SentenceTarget:
    """Tags; those of START, END and a line break are dropped."""
    tags = _strings(record, "pos")
    words = _strings(record, "words_") if "words_" in record else tags
    if len(words) != len(tags):
        raise ValueError("it has not as many words as tags")
    kept = [
        tag for word, tag in zip(words, tags, strict=True) if tag not in ("START", "END") and word != "\n"
    ]
    if not kept:
        raise ValueError("it has no tag")
    return SentenceTarget(line, " ".join(kept), tuple(_words(record)) if "words_" in record else ())


TREE_EXAMPLE = '{"tree": "(S (NP (DT _) (NN _)) (VP (VBZ _)))"} or {"words_": ["The", "pub", "closes"]}'


def tree_target(record: Record, line: int) -> SentenceTarget:
    """A tree, or the words whose tree is wanted; `with_trees` then finds it."""
    words = tuple(_words(record)) if "words_" in record else ()
    if "tree" not in record and not words:
        raise ValueError("it has neither a tree nor words")
    tree = record.get("tree", "")
    if not isinstance(tree, str):
        raise ValueError("its tree is no string")
    if tree:
        read_tree(tree)
    return SentenceTarget(line, tree, words)


def with_trees(targets: Sequence[SentenceTarget], parser: Parser) -> list[SentenceTarget]:
    """The same with a tree where only words were given: their parse, its leaves free."""
    missing = [i for i, target in enumerate(targets) if not target.value]
    out = list(targets)
    for i, tree in zip(missing, parser.parse([targets[i].words for i in missing]), strict=True):
        out[i] = replace(targets[i], value=without_words(tree))
    return out


SPAN_EXAMPLE = '{"spans": [[3, 5, "PP"]]}, words 3 to 5 counted from 0'


def span_target(record: Record, line: int) -> SentenceTarget:
    """Spans as FIRST:LAST:LABEL from [first, last, label], both inclusive and from 0.

    A last word that is a line break is left out of them.
    """
    spans = record.get("spans")
    words = _words(record) if "words_" in record else []
    if not isinstance(spans, list) or not spans:
        raise ValueError("it has no list of spans under the key spans")
    parts = []
    for span in spans:
        if not (
            isinstance(span, list) and len(span) == 3 and [type(part) for part in span] == [int, int, str]
        ):
            raise ValueError(f"{json.dumps(span)} is not [first, last, label]")
        first, last, label = span
        last = min(last, len(words) - 1) if words else last
        parts.append(f"{first + 1}:{last + 1}:{label.replace('::', '+')}")
    return SentenceTarget(line, " ".join(parts), tuple(words))
