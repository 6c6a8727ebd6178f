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
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import Literal, NamedTuple

from diffusion_lm.annotate import parser as backends
from diffusion_lm.annotate.tagger import Parser, Tagger
from diffusion_lm.annotate.trees import write_tree
from diffusion_lm.common import UserError
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class AnnotateConfig:
    """Which corpus gets tags and trees, from whom."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    split: str = "train"
    """Which split of it."""
    tagger: Literal["spacy", "stanza"] = "spacy"
    """Who gives universal parts of speech."""
    parser: Literal["ours", "benepar", "stanza"] = "ours"
    """Who gives constituency trees; ours comes with the package."""
    workers: int | None = None
    """Processes; null: one a core."""
    out: str = "runs/labels.jsonl"
    """The file of labels; the same inputs are not labelled twice."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers must be at least 1, not {self.workers}.")


logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the file; one of another format is made anew."""

_CHUNK = 512


class Annotation(NamedTuple):
    """The labels of one line: its words, their universal tags, and the tree in brackets."""

    words: list[str]
    pos: list[str]
    tree: str


def annotate(
    sentences: Sequence[Sequence[str]],
    out: str | Path,
    *,
    tagger: str = "spacy",
    parser: str = "ours",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Annotation]:
    """Label sentences, or read the labels if the file already has those of the same inputs.

    The file is JSON lines: a header with the fingerprint of the inputs, then one object a sentence.

    Args:
        sentences: words without joiner marks; at least one each.
        out: the file.
        tagger: name of a tagger in `backends`.
        parser: name of a parser in `backends`.
        workers: processes; default one a core, and 1 works in this process.
        progress: called with (sentences done, all sentences).

    Raises:
        UserError: if a sentence has no words, `out` is a folder, a name is unknown or a backend is not installed.
    """
    for row, words in enumerate(sentences):
        if not words:
            raise UserError(f"Sentence {row + 1} has no words to label; leave it out.")
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; the labels go into a file, such as {out / 'labels.jsonl'}.")
    header = {"format": FORMAT, "fingerprint": _fingerprint(sentences, tagger, parser), "n": len(sentences)}
    if _header(out) == header:
        logger.info("%s already holds these labels.", out)
        return list(read_annotations(out))

    _backends(tagger, parser)  # a missing backend is refused here, once, and not in every process
    chunks = [
        [list(words) for words in sentences[start : start + _CHUNK]] for start in range(0, len(sentences), _CHUNK)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    done: list[Annotation] = []
    with partial.open("w", encoding="utf8") as file:
        file.write(json.dumps(header) + "\n")
        for labelled in _labelled(chunks, tagger, parser, workers or os.cpu_count() or 1):
            file.writelines(json.dumps(each._asdict(), ensure_ascii=False) + "\n" for each in labelled)
            done += labelled
            if progress is not None:
                progress(len(done), len(sentences))
    os.replace(partial, out)
    return done


def read_annotations(path: str | Path) -> Iterator[Annotation]:
    """The labels in a file that `annotate` wrote, in the sentences' order.

    Raises:
        UserError: if it is no such file, or a line of it is damaged or missing.
    """
    header = _header(Path(path))
    if header is None:
        raise UserError(f"{path} is no file of labels of format {FORMAT}; make it anew by annotating the corpus.")
    count = 0
    with Path(path).open(encoding="utf8") as file:
        next(file)
        for number, line in enumerate(file, 2):
            try:
                annotation = Annotation(**json.loads(line))
            except (ValueError, TypeError):
                raise UserError(f"Line {number} of {path} is damaged; delete the file and annotate anew.") from None
            count += 1
            yield annotation
    if count != header.get("n"):
        raise UserError(f"{path} holds {count} of {header.get('n')} sentences; delete it and annotate anew.")


def _header(path: Path) -> dict[str, object] | None:
    """The first line of a file of labels; None where there is none of this format."""
    try:
        with path.open(encoding="utf8") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) and header.get("format") == FORMAT else None


def _fingerprint(sentences: Sequence[Sequence[str]], tagger: str, parser: str) -> str:
    """Of the words, the names of the backends, and the weights of our own parser."""
    digest = hashlib.sha256(json.dumps([tagger, parser]).encode())
    if parser == "ours":
        for name in ("config.json", "model.safetensors"):
            if (backends.BUNDLED / name).is_file():
                digest.update((backends.BUNDLED / name).read_bytes())
    for words in sentences:
        digest.update(json.dumps(list(words)).encode() + b"\n")
    return digest.hexdigest()


@cache
def _backends(tagger: str, parser: str) -> tuple[Tagger, Parser]:
    return backends.tagger(tagger), backends.parser(parser)


def _label(sentences: list[list[str]], tagger: str, parser: str) -> list[Annotation]:
    """Label a chunk; what a worker process does."""
    tags, trees = _backends(tagger, parser)
    return list(
        map(
            Annotation,
            sentences,
            tags.tag(sentences),
            map(write_tree, trees.parse(sentences)),
        )
    )


def _one_thread() -> None:
    """A process a core: more threads in each would only wait for one another."""
    import torch

    torch.set_num_threads(1)


def _labelled(chunks: list[list[list[str]]], tagger: str, parser: str, workers: int) -> Iterator[list[Annotation]]:
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from starmap(_label, ((chunk, tagger, parser) for chunk in chunks))
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(_label, chunks, [tagger] * len(chunks), [parser] * len(chunks))
