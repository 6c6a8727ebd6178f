"""A corpus as token ids on disk: encoded once, then memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from diffusion_lm.common import UserError
from diffusion_lm.text.corpus import Corpus
from diffusion_lm.text.fields import parts_of
from diffusion_lm.text.spacing import SENTENCE_END
from diffusion_lm.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_FORMAT = 3  # to be raised when the files below change, so that caches of the old form are not read
_ARRAYS = {"ids": "i", "offsets": "q", "rows": "q"}
"""The type of each file's numbers, as `array` and NumPy name it."""
_SOURCES = {"source_ids": "i", "part_offsets": "q", "first_parts": "q"}
"""The same of the files that a corpus with sources has too."""


@dataclass(frozen=True)
class EncodedMeta:
    """What was encoded, and what became of every row."""

    format: int
    split: str
    corpus: str  # the fingerprint of the split's source
    tokenizer: str  # its fingerprint
    max_length: int  # of a sentence, in tokens, START and END included
    documents: int = 0  # sentences kept
    tokens: int = 0  # of all sentences
    unknown: int = 0  # tokens that are UNK
    long: str = "split"  # what was done with documents longer than `max_length`, see `CorpusConfig`
    split_up: int = 0  # documents split into sentences that fit
    too_long: int = 0  # documents left out
    empty: int = 0  # documents left out because the tokenizer finds no token in them
    unreadable: int = 0  # rows of the source that held no document
    max_source: int = 0  # of a source, in tokens; 0: sources were not encoded
    long_source: int = 0  # documents left out because their source is longer
    sources: int = 0  # documents kept that have one
    fields: tuple[str, ...] = ()  # names of the fields that sources are made of, if they are


@dataclass(frozen=True, eq=False)
class EncodedSources:
    """What each document is written from: parts whose order says nothing.

    Part j is `ids[offsets[j]:offsets[j + 1]]`, and document i has the parts `first[i]` to `first[i + 1] - 1`.
    """

    ids: torch.Tensor
    offsets: torch.Tensor
    first: torch.Tensor

    def to(self, device: torch.device | str) -> EncodedSources:
        """The same sources with their tensors on a device."""
        return EncodedSources(self.ids.to(device), self.offsets.to(device), self.first.to(device))


@dataclass(frozen=True, eq=False)
class EncodedCorpus:
    """The sentences of a split as one flat array of token ids, memory-mapped from files of bare numbers.

    Sentence i is `ids[offsets[i]:offsets[i + 1]]`: START words END.
    """

    ids: torch.Tensor
    """Token ids, int32 [N]."""
    offsets: torch.Tensor
    """Where each sentence begins, and at the end N, int64 [documents + 1]."""
    rows: torch.Tensor
    """Position of each sentence's document in `corpus.documents(split)`, from 0, int64 [documents]; those left out make
    it jump, and the parts of one that was split share it."""
    meta: EncodedMeta
    sources: EncodedSources | None = None
    """What the documents are written from, if that was encoded."""

    def __len__(self) -> int:
        return self.rows.numel()

    @property
    def lengths(self) -> torch.Tensor:
        """Tokens in each sentence, START and END included, int64 [documents]."""
        return self.offsets.diff()

    def length_histogram(self) -> torch.Tensor:
        """Number of sentences of each length, START and END included, int64 [max_length + 1]."""
        return torch.bincount(self.lengths, minlength=self.meta.max_length + 1)

    def to(self, device: torch.device | str) -> EncodedCorpus:
        """The same corpus with its tensors on a device, read into memory."""
        sources = None if self.sources is None else self.sources.to(device)
        own = {name: getattr(self, name).to(device) for name in _ARRAYS}
        return replace(self, **own, sources=sources)

    @classmethod
    def load(cls, folder: Path) -> EncodedCorpus:
        """Map the files that `encode_corpus` wrote.

        Raises:
            ValueError: If a file is missing, damaged, or does not fit the others.
        """
        try:
            found = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            meta = EncodedMeta(**found | {"fields": tuple(found["fields"])})
            kinds = _ARRAYS | (_SOURCES if meta.max_source else {})
            arrays = {name: _mapped(folder / name, kind) for name, kind in kinds.items()}
            sources = EncodedSources(*(arrays.pop(name) for name in _SOURCES)) if meta.max_source else None
        except (OSError, TypeError, KeyError, ValueError, RecursionError) as error:
            raise ValueError(f"{folder} is no encoded corpus: {error}") from error
        encoded = cls(**arrays, meta=meta, sources=sources)
        sizes = [len(array) for array in arrays.values()]
        whole = sizes == [meta.tokens, meta.documents + 1, meta.documents] and meta.documents > 0
        whole = whole and encoded.offsets[[0, -1]].tolist() == [0, meta.tokens]
        if sources is not None and whole:
            whole = len(sources.first) == len(encoded) + 1 and int(sources.first[-1]) + 1 == len(sources.offsets)
            whole = whole and int(sources.offsets[-1]) == len(sources.ids)
        if not whole or encoded.lengths.min() < 3 or encoded.lengths.max() > meta.max_length:
            raise ValueError(f"{folder} is no encoded corpus: its files do not fit together")
        return encoded


def _mapped(path: Path, kind: str) -> torch.Tensor:
    # Copy-on-write, because torch warns about memory that it could not write to; an empty file cannot be mapped.
    return torch.from_numpy(np.memmap(path, kind, "c") if path.stat().st_size else np.zeros(0, kind))


def encode_corpus(
    corpus: Corpus, split: str, tokenizer: Tokenizer, max_length: int, cache_dir: Path | str, max_source: int = 0
) -> EncodedCorpus:
    """Encode a split as START words END, or map the files of an earlier call for the same content.

    Documents are streamed, so memory does not grow with the corpus. Those longer than `max_length` tokens (START and END
    included) are split or left out, as `corpus.long` says, counted and logged; they are not cut, which would teach the
    model sentences without an end. With a `max_source` the sources are encoded too, and documents whose source is longer left
    out. The files lie in a folder of `cache_dir` named after the hash of what they depend on,
    which appears complete or not at all.

    Raises:
        UserError: If `max_length` leaves no room for a word or no document, sources are wanted and there are none, or the
            corpus cannot be read.
    """
    if max_length < 3:
        raise UserError(f"max_length is {max_length}; it must be 3 or more to hold START, a word and END.")
    key = EncodedMeta(
        _FORMAT,
        split,
        corpus.fingerprint(split),
        tokenizer.fingerprint,
        max_length,
        long=corpus.long,
        max_source=max_source,
    )
    digest = hashlib.blake2b(json.dumps(asdict(key)).encode(), digest_size=12).hexdigest()
    folder = Path(cache_dir) / f"{split}-{digest}"
    if folder.exists():
        try:
            return _reported(EncodedCorpus.load(folder), corpus.name)
        except ValueError as error:
            logger.warning("The cache is damaged and is built again: %s", error)
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as partial:
        _write(corpus, key, tokenizer, Path(partial))
        os.chmod(partial, 0o755)  # it was made private
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process has just made the same one
                raise
    return _reported(EncodedCorpus.load(folder), corpus.name)


def _write(corpus: Corpus, key: EncodedMeta, tokenizer: Tokenizer, folder: Path) -> None:
    count: Counter[str] = Counter()
    kinds, fields = _ARRAYS | (_SOURCES if key.max_source else {}), dict[str, None]()
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in kinds}

        def append(name: str, values: list[int]) -> None:
            files[name].write(array(kinds[name], values).tobytes())

        append("offsets", [0])
        if key.max_source:
            append("part_offsets", [0])
            append("first_parts", [0])
        tokens_of_sources = parts_of_sources = 0
        for row, document in enumerate(corpus.documents(key.split)):
            bare = not (document.fields or document.tags or document.tree or document.source)
            source = [tokenizer.encode(part) for part in parts_of(document)] if key.max_source else []
            if sum(map(len, source)) > key.max_source:
                count["long_source"] += 1
                continue
            parts = list(sentences_that_fit(document.text, tokenizer, key.max_length, bare and corpus.long == "split"))
            count["split_up"] += len(parts) > 1
            for words in parts:
                if not 0 < len(words) <= key.max_length - 2:
                    count["too_long" if words else "empty"] += 1
                    continue
                count["documents"] += 1
                count["tokens"] += len(words) + 2
                count["unknown"] += words.count(tokenizer.unk_id)
                append("ids", [tokenizer.start_id, *words, tokenizer.end_id])
                append("offsets", [count["tokens"]])
                append("rows", [row])
                if not key.max_source:
                    continue
                fields.update(dict.fromkeys(document.fields))
                count["sources"] += bool(source)
                for part in source:
                    tokens_of_sources += len(part)
                    append("source_ids", part)
                    append("part_offsets", [tokens_of_sources])
                parts_of_sources += len(source)
                append("first_parts", [parts_of_sources])
    if not count["documents"]:
        raise UserError(f"No document of {corpus.name} ({key.split}) fits in max_length = {key.max_length}; raise it.")
    if key.max_source and key.split == "train" and not count["sources"]:
        raise UserError(
            f"{corpus.name} ({key.split}) has no source to write from; give one that has, or a model with --model.max_source 0."
        )
    found = {**count, "unreadable": corpus.unreadable[key.split], "fields": tuple(fields)}
    meta = EncodedMeta(**{**asdict(key), **found})
    (folder / "meta.json").write_text(json.dumps(asdict(meta), indent=2) + "\n", encoding="utf-8")


def sentences_that_fit(text: str, tokenizer: Tokenizer, max_length: int, split: bool = True) -> Iterator[list[int]]:
    """The tokens of a text, halved until each part fits in `max_length` with START and END.

    A part is cut at the end of a sentence next to its middle; if it is a single sentence, between words. One that
    has no place to cut is given as it is, and so is the whole without `split`.
    """
    words = tokenizer.encode(text)
    cuts = [match.end() for match in SENTENCE_END.finditer(text)] or [i for i, c in enumerate(text) if c == " "]
    if len(words) + 2 <= max_length or not split or not cuts:
        yield words
    else:
        cut = min(cuts, key=lambda i: abs(2 * i - len(text)))
        for part in (text[:cut].strip(), text[cut:].strip()):
            yield from sentences_that_fit(part, tokenizer, max_length)


def _reported(encoded: EncodedCorpus, name: str) -> EncodedCorpus:
    meta = encoded.meta
    logger.log(
        logging.WARNING if meta.too_long or meta.empty or meta.long_source else logging.INFO,
        "%s (%s): %d sentences of %d tokens, %.2f %% of them unknown; of the documents longer than %d tokens %d were split "
        "and %d left out, and so were %d without any token, and %d with a source of more than %d tokens.",
        name, meta.split, meta.documents, meta.tokens, 100 * meta.unknown / meta.tokens,
        meta.max_length, meta.split_up, meta.too_long, meta.empty, meta.long_source, meta.max_source,
    )  # fmt: skip
    return encoded
