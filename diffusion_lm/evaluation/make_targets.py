"""Targets of tags, trees, spans and gaps, drawn from an annotated corpus."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_lm.annotate.corpus_labels import Annotation, read_annotations
from diffusion_lm.annotate.trees import read_tree, spans_of, without_words
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.make_targets_config import MakeTargetsConfig
from diffusion_lm.files import write_whole
from diffusion_lm.text.spacing import join_words

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
