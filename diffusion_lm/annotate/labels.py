"""Tags and trees of a whole corpus."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffusion_lm.annotate import parser
from diffusion_lm.annotate.tagger import check_words, tagger
from diffusion_lm.annotate.trees import write_tree
from diffusion_lm.common import Settings, UserError, number
from diffusion_lm.store import CONFIG, WEIGHTS, explain_full_disk
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.fields import Document
from diffusion_lm.text.spacing import words_of


@dataclass(frozen=True)
class AnnotateConfig(Settings):
    """Which corpus gets tags and trees."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    split: str = "train"
    """Which split of it."""
    workers: int | None = number(None, least=1)
    """Processes; null: one a core."""
    out: str = "runs/labels.jsonl"
    """The file of labels; the same inputs are not labelled twice."""


logger = logging.getLogger(__name__)
FORMAT = 1
_CHUNK = 512


class Annotation(NamedTuple):
    """The labels of one line: its words, their universal tags, and the tree in brackets."""

    words: list[str]
    pos: list[str]
    tree: str


Progress = Callable[[int, int], None]
"""Is called with the number of sentences that are labelled and of all."""


def annotate(
    sentences: Sequence[Sequence[str]], out: str | Path, *, workers: int | None = None, progress: Progress | None = None
) -> list[Annotation]:
    """Label sentences, or read the labels if the file already has those of the same inputs.

    The file is JSON lines: a header with the fingerprint of the inputs, then one object a sentence. Sentences are words
    without joiner marks. Workers are processes, one a core by default; 1 works in this one.

    Raises:
        UserError: if a sentence cannot be parsed, `out` is a folder or spaCy's model is not installed.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; the labels go into a file, such as {out / 'labels.jsonl'}.")
    check_words(sentences, least=1)
    header = {"format": FORMAT, "fingerprint": _fingerprint(sentences), "n": len(sentences)}
    if _header(out) == header:
        logger.info("%s already holds these labels.", out)
        return list(read_annotations(out))

    tagger().tag([])  # what is missing is refused here, once, and not in every process
    parser.parser()
    partial = out.with_name(f".{out.name}.partial")
    done: list[Annotation] = []
    with explain_full_disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf8") as file:
            file.write(json.dumps(header) + "\n")
            for labelled in _labelled(sentences, workers or os.cpu_count() or 1):
                file.writelines(json.dumps(each._asdict(), ensure_ascii=False) + "\n" for each in labelled)
                done += labelled
                if progress is not None:
                    progress(len(done), len(sentences))
        partial.replace(out)
    return done


def read_annotations(path: str | Path) -> Iterator[Annotation]:
    """The labels in a file that `annotate` wrote, in the sentences' order.

    Raises:
        UserError: if it is no such file, or a line of it is damaged or missing.
    """
    path = Path(path)
    header = _header(path)
    if header is None:
        raise UserError(f"{path} is no file of labels of format {FORMAT}; make it anew by annotating the corpus.")
    count = 0
    with path.open("rb") as file:
        next(file)
        for count, line in enumerate(file, 1):
            try:
                yield _annotation(json.loads(line))
            except (ValueError, TypeError, RecursionError):
                raise UserError(f"Line {count + 1} of {path} is damaged; delete the file and annotate anew.") from None
    if count != header.get("n"):
        raise UserError(f"{path} holds {count} of {header.get('n')} sentences; delete it and annotate anew.")


def _annotation(values: dict[str, Any]) -> Annotation:
    label = Annotation(**values)
    lists = isinstance(label.words, list) and isinstance(label.pos, list) and len(label.words) == len(label.pos) > 0
    if not lists or not all(isinstance(text, str) for text in (*label.words, *label.pos, label.tree)):
        raise ValueError("not the labels of a sentence")
    return label


def _header(path: Path) -> dict[str, Any] | None:
    """The first line of a file of labels; None where there is none of this format."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) and header.get("format") == FORMAT else None


def _fingerprint(sentences: Sequence[Sequence[str]]) -> str:
    """Of the names of tagger and parser, the parser's files and the words."""
    digest = hashlib.sha256(b'["spacy", "ours"]')
    for name in (CONFIG, WEIGHTS):
        digest.update((parser.BUNDLED / name).read_bytes())
    for words in sentences:
        digest.update(json.dumps(list(words)).encode() + b"\n")
    return digest.hexdigest()


def _label(sentences: list[list[str]]) -> list[Annotation]:
    trees = map(write_tree, parser.parser().parse(sentences))
    return list(map(Annotation, sentences, tagger().tag(sentences), trees))


def _labelled(sentences: Sequence[Sequence[str]], workers: int) -> Iterator[list[Annotation]]:
    lines = [list(words) for words in sentences]
    chunks = [lines[start : start + _CHUNK] for start in range(0, len(lines), _CHUNK)]
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from map(_label, chunks)
        return
    # Spawned, not forked: torch's threads do not survive a fork. A process a core: more threads would only wait.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(_label, chunks)


def labelled_documents(
    corpus: CorpusConfig, labels: str, progress: Progress | None = None, split: str = "train"
) -> Iterator[tuple[Document, Annotation]]:
    """The documents of a split and their labels; those without words are left out. UserError if the corpus is unusable."""
    documents = [document for document in open_corpus(corpus).documents(split) if words_of(document.text)]
    words = [words_of(document.text) for document in documents]
    yield from zip(documents, annotate(words, labels, progress=progress), strict=True)
