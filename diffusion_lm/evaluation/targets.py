"""Files of attribute targets: one JSON list of tokens a line, `["food", ":", "Fast", "food"]`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffusion_lm.annotate.labels import Annotation, read_annotations
from diffusion_lm.annotate.tagger import Parser
from diffusion_lm.annotate.trees import read_tree, spans_of, without_words
from diffusion_lm.common import UserError, check_seed
from diffusion_lm.store import write_whole
from diffusion_lm.text.fields import canonical_field, canonical_value
from diffusion_lm.text.spacing import join_words, split_words

if TYPE_CHECKING:
    from diffusion_lm.text.tokenizer import Tokenizer


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
    kept = [tag for word, tag in zip(words, tags, strict=True) if tag not in ("START", "END") and word != "\n"]
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
        if not (isinstance(span, list) and len(span) == 3 and [type(part) for part in span] == [int, int, str]):
            raise ValueError(f"{json.dumps(span)} is not [first, last, label]")
        first, last, label = span
        last = min(last, len(words) - 1) if words else last
        parts.append(f"{first + 1}:{last + 1}:{label.replace('::', '+')}")
    return SentenceTarget(line, " ".join(parts), tuple(words))


@dataclass(frozen=True)
class AttributeTarget:
    """A field and the value that a text should say."""

    field: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}"


def read_attribute_targets(path: str | Path, known: Mapping[str, Sequence[str]]) -> list[AttributeTarget]:
    """Read the targets of a file in its order; empty lines do not count.

    Args:
        path: the file.
        known: the values of each field that can be asked for; case and spacing do not matter.

    Raises:
        UserError: the file cannot be read or has no target, or a line is malformed, repeated, or asks for
            what is not known; the message gives the line's number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The targets {path} cannot be read ({error}).") from error
    first: dict[AttributeTarget, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            target = _parse(line, known)
            if target in first:
                raise UserError(f"it repeats line {first[target]}.")
        except UserError as error:
            raise UserError(f"Line {number} of {path} is no target: {error}") from error
        first[target] = number
    if not first:
        raise UserError(f"{path} has no target; a line looks like {_EXAMPLE}.")
    return list(first)


_EXAMPLE = '["food", ":", "Fast", "food"]'


def _parse(line: str, known: Mapping[str, Sequence[str]]) -> AttributeTarget:
    try:
        tokens = json.loads(line)
    except ValueError as error:
        raise UserError(f"it is not JSON ({error}); a line looks like {_EXAMPLE}.") from error
    return parse_attribute(tokens, known)


def parse_attribute(tokens: object, known: Mapping[str, Sequence[str]]) -> AttributeTarget:
    """The target that a list of tokens stands for.

    Args:
        tokens: the field's words, ":", and the value's.
        known: the values of each field that can be asked for.

    Raises:
        UserError: they are no such list, or ask for what is not known.
    """
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{tokens!r} is not a list of strings such as {_EXAMPLE}.")
    colon = tokens.index(":") if ":" in tokens else -1
    if not 0 < colon < len(tokens) - 1:
        raise UserError(f'{tokens!r} is not a field, ":" and a value, such as {_EXAMPLE}.')
    field = canonical_field(" ".join(tokens[:colon]), known)
    return AttributeTarget(field, canonical_value(field, join_words(tokens[colon + 1 :]), known[field]))


BLANK = "___"
INFILL_EXAMPLE = '{"left": "Ann was late.", "right": "She missed it.", "references": ["She ran to the bus."]}'
LAYOUTS = (("left", "right", "references"), ("obs1", "obs2", "gold_labels"))
"""The keys of a target: ours, and those of aNLG (Bhagavatula et al. 2020)."""


@dataclass(frozen=True)
class InfillTarget:
    """A text with a gap, and the line that it stands on; one side may be empty."""

    line: int
    left: str
    right: str
    references: tuple[str, ...]
    """What people wrote into the gap, once or more."""
    words: tuple[str, ...] = ()
    """Of the human sentence that it was taken from, where the file has them."""

    @property
    def template(self) -> str:
        """As the infill control takes it."""
        return f"{self.left} {BLANK} {self.right}".strip()

    def __str__(self) -> str:
        return f"{self.line}: {self.template}"

    def known_to(self, tokenizer: Tokenizer) -> InfillTarget:
        """The same with UNK for each word of the context that a vocabulary lacks, as the paper's model reads it.

        It then has no `words`: the human sentence does not have this context.
        """
        left, right = (tokenizer.decode(tokenizer.encode(side)) for side in (self.left, self.right))
        as_written = (left, right) == (self.left, self.right)
        return replace(self, left=left, right=right, words=self.words if as_written else ())

    def middle(self, text: str) -> str:
        """What a text has in the gap: its words but for as many as the context has on either side."""
        words = split_words(text)
        return join_words(words[len(split_words(self.left)) : len(words) - len(split_words(self.right))])


def infill_target(record: Record, line: int) -> InfillTarget:
    """The target of a line in one of `LAYOUTS`; "words_" says which sentence it was taken from."""
    keys = next((keys for keys in LAYOUTS if keys[0] in record), LAYOUTS[0])
    left, right, references = (record.get(key) for key in keys)
    if not isinstance(left, str) or not isinstance(right, str) or not (left.strip() or right.strip()):
        raise ValueError(f"it has no text under the keys {keys[0]} and {keys[1]}")
    if BLANK in left + right:
        raise ValueError(f"its context holds {BLANK}, which stands for the gap")
    if not isinstance(references, list) or not all(isinstance(each, str) and each.strip() for each in references):
        raise ValueError(f"it has no list of texts under the key {keys[2]}")
    if not references:
        raise ValueError(f"the list under the key {keys[2]} is empty")
    words = sentence_of(record, line) if "words_" in record else ()
    return InfillTarget(line, left.strip(), right.strip(), tuple(references), words)


def read_infill_targets(path: str | Path) -> list[InfillTarget]:
    """Read the targets of a file in its order: one JSON object a line, or aNLG's one object of them by name.

    Raises:
        UserError: the file cannot be read or has no target, or a target is malformed; the message gives its number.
    """
    found = []
    for number, record in enumerate(_by_name(path), start=1):
        try:
            found.append(infill_target(record, number))
        except ValueError as error:
            raise UserError(f"Entry {number} of {path} is no target ({error}).") from error
    return found or read_records(path, infill_target, INFILL_EXAMPLE)


def _by_name(path: str | Path) -> list[Record]:
    """The objects within the one object of a file; none where its lines are objects of their own."""
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # read line by line it is a file of lines, or the error names the line
        return []
    values = list(whole.values()) if isinstance(whole, dict) else []
    return values if all(isinstance(value, dict) for value in values) else []


@dataclass(frozen=True)
class MakeTargetsConfig:
    """Which sentences become targets."""

    labels: str = "runs/labels.jsonl"
    """The file of tags and trees, as annotate writes it."""
    n: int = 100
    """Number of sentences, each different."""
    seed: int = 0
    """Seed of the draw."""
    out: str = "runs/targets"
    """Folder for pos.jsonl, trees.jsonl, spans.jsonl and infill.jsonl, which evaluate reads."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)
        if self.n < 1:
            raise UserError(f"n must be at least 1, not {self.n}.")


LEAST_WORDS = 8
"""Of a sentence that a gap is made in."""


def make_targets(config: MakeTargetsConfig) -> dict[str, Path]:
    """Draw sentences and write a file of targets for each task; all but gaps are of the same sentences, in the same order.

    A span is a random constituent of its sentence, the whole sentence excepted where there is another. Gaps are in
    sentences of at least `LEAST_WORDS` words, as many as are wanted or as there are; without one, there is no file of gaps.

    Returns:
        The files by their task.

    Raises:
        UserError: if the labels cannot be used, have fewer different sentences than are wanted, or `out` cannot be written to.
    """
    found = {tuple(label.words): label for label in read_annotations(config.labels)}
    if len(found) < config.n:
        raise UserError(
            f"{config.labels} has {len(found)} different sentences, fewer than the {config.n} that are wanted."
        )
    rng = random.Random(config.seed)
    drawn = rng.sample(list(found.values()), config.n)
    records: dict[str, list[dict[str, Any]]] = {
        "pos": [{"words_": label.words, "pos": label.pos} for label in drawn],
        "trees": [{"words_": label.words, "tree": without_words(read_tree(label.tree))} for label in drawn],
        "spans": [{"words_": label.words, "spans": [_span(label, rng)]} for label in drawn],
    }
    long = [label for label in found.values() if len(label.words) >= LEAST_WORDS]
    if long:
        records["infill"] = [_gap(label.words, rng) for label in rng.sample(long, min(config.n, len(long)))]
    return {task: _write(Path(config.out) / f"{task}.jsonl", lines) for task, lines in records.items()}


def _span(label: Annotation, rng: random.Random) -> list[Any]:
    """First word, last word, both counted from 0, and label of a constituent."""
    spans = spans_of(read_tree(label.tree))
    inside = [span for span in spans if span.stop - span.start < len(label.words)]
    start, stop, name = rng.choice(inside or spans)
    return [start, stop - 1, name]


def _gap(words: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """A stretch of 2 words to half of them as the reference, at least two words standing on either side."""
    length = rng.randint(2, len(words) // 2)
    start = rng.randint(2, len(words) - length - 2)
    left, middle, right = words[:start], words[start : start + length], words[start + length :]
    return {
        "words_": list(words),
        "left": join_words(list(left)),
        "right": join_words(list(right)),
        "references": [join_words(list(middle))],
    }


def _write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """One JSON object a line; the file is whole or not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give --out another folder.") from None
    return path
