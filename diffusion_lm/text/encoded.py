"""A corpus as token ids on disk: encoded once, then memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from diffusion_lm.common import UserError
from diffusion_lm.text.corpus import Corpus

if TYPE_CHECKING:
    from diffusion_lm.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_FORMAT = 1  # to be raised when the files below change, so that caches of the old form are not read
_HEADER_BYTES = 128
_CHUNK = 1 << 18


@dataclass(frozen=True)
class EncodedMeta:
    """What was encoded, and what became of every row.

    Attributes:
        format: Version of the files.
        split: "train", "dev" or "test".
        corpus: Fingerprint of the split's source.
        tokenizer: Fingerprint of the tokenizer.
        max_length: Longest sentence kept, in tokens, START and END included.
        documents: Number of sentences kept.
        tokens: Number of their tokens, START and END included.
        unknown: How many of these tokens are UNK.
        too_long: Number of documents left out because they are longer than `max_length`.
        empty: Number of documents left out because the tokenizer finds no token in them.
        unreadable: Number of rows of the source that held no document.
    """

    format: int
    split: str
    corpus: str
    tokenizer: str
    max_length: int
    documents: int = 0
    tokens: int = 0
    unknown: int = 0
    too_long: int = 0
    empty: int = 0
    unreadable: int = 0


@dataclass(frozen=True, eq=False)
class EncodedCorpus:
    """The sentences of a split as one flat array of token ids, memory-mapped from `.npy` files.

    Sentence i is `ids[offsets[i]:offsets[i + 1]]`: START words END.

    Attributes:
        ids: Token ids, int32 [N].
        offsets: Where each sentence begins, and at the end N, int64 [documents + 1].
        rows: Position of each sentence's document in `corpus.documents(split)`, from 0, int64 [documents].
            Documents that were left out make it jump.
        meta: Counts and keys.
    """

    ids: torch.Tensor
    offsets: torch.Tensor
    rows: torch.Tensor
    meta: EncodedMeta

    def __len__(self) -> int:
        """Number of sentences."""
        return self.rows.numel()

    def __getitem__(self, index: int) -> torch.Tensor:
        """Token ids of one sentence, int32 [L], a view of the file.

        Raises:
            IndexError: If there is no such sentence.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        index %= len(self)
        return self.ids[int(self.offsets[index]) : int(self.offsets[index + 1])]

    @property
    def lengths(self) -> torch.Tensor:
        """Tokens in each sentence, START and END included, int64 [documents]."""
        return self.offsets.diff()

    def length_histogram(self) -> torch.Tensor:
        """Number of sentences of each length, START and END included, int64 [max_length + 1]."""
        return torch.bincount(self.lengths, minlength=self.meta.max_length + 1)

    def to(self, device: torch.device | str) -> EncodedCorpus:
        """The same corpus with its tensors on a device, read into memory unless they are there already."""
        return replace(self, ids=self.ids.to(device), offsets=self.offsets.to(device), rows=self.rows.to(device))

    @classmethod
    def load(cls, folder: Path) -> EncodedCorpus:
        """Map the files that `encode_corpus` wrote.

        Raises:
            ValueError: If a file is missing, damaged, or does not fit the others.
        """
        try:
            meta = EncodedMeta(**json.loads((folder / "meta.json").read_text(encoding="utf-8")))
            ids, offsets, rows = (_map(folder / name) for name in ("ids.npy", "offsets.npy", "rows.npy"))
        except (OSError, TypeError, EOFError) as error:
            raise ValueError(f"{folder} is no encoded corpus: {error}") from error
        encoded = cls(ids, offsets, rows, meta)
        if not encoded._fits_together():
            raise ValueError(f"{folder} is no encoded corpus: its files do not fit together")
        return encoded

    def _fits_together(self) -> bool:
        n, dtypes = self.meta.documents, (self.ids.dtype, self.offsets.dtype, self.rows.dtype)
        shapes = (tuple(self.ids.shape), tuple(self.offsets.shape), tuple(self.rows.shape))
        if dtypes != (torch.int32, torch.int64, torch.int64):
            return False
        if n < 1 or shapes != ((self.meta.tokens,), (n + 1,), (n,)):
            return False
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != self.meta.tokens:
            return False
        return bool(self.lengths.min() >= 3 and self.lengths.max() <= self.meta.max_length)


def encode_corpus(
    corpus: Corpus, split: str, tokenizer: Tokenizer, max_length: int, cache_dir: Path | str
) -> EncodedCorpus:
    """Encode a split as START words END, or map the files of an earlier call for the same content.

    Documents are streamed, so memory does not grow with the corpus. Those longer than `max_length` tokens
    (START and END included) are left out, counted and logged: cut ones would teach the model sentences
    without an end.

    Args:
        corpus: Where the documents come from.
        split: "train", "dev" or "test".
        tokenizer: Gives the ids of the words, without START and END.
        max_length: Longest sentence to keep, in tokens.
        cache_dir: Folder for the files; each set lies in a folder named after the hash of what it depends on,
            which appears complete or not at all.

    Raises:
        UserError: If `max_length` leaves no room for a word or no document, or the corpus cannot be read.
    """
    if max_length < 3:
        raise UserError(f"max_length is {max_length}; it must be 3 or more to hold START, a word and END.")
    key = EncodedMeta(_FORMAT, split, corpus.fingerprint(split), tokenizer.fingerprint, max_length)
    digest = hashlib.blake2b(json.dumps(asdict(key)).encode(), digest_size=12).hexdigest()
    folder = Path(cache_dir) / f"{split}-{digest}"
    if folder.exists():
        try:
            return EncodedCorpus.load(folder)
        except ValueError as error:
            logger.warning("The cache is damaged and is built again: %s", error)
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        meta = _write(corpus, key, tokenizer, partial)
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _report(meta, corpus.name)
    return EncodedCorpus.load(folder)


def _publish(partial: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another process has just made the same one."""
    partial.chmod(0o755)  # mkdtemp makes it private
    try:
        os.replace(partial, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _write(corpus: Corpus, key: EncodedMeta, tokenizer: Tokenizer, folder: Path) -> EncodedMeta:
    """Write the files to a folder of their own."""
    count = {"documents": 0, "tokens": 0, "unknown": 0, "too_long": 0, "empty": 0}
    with (
        _GrowingArray(folder / "ids.npy", "i") as ids,
        _GrowingArray(folder / "offsets.npy", "q") as offsets,
        _GrowingArray(folder / "rows.npy", "q") as rows,
    ):
        offsets.extend([0])
        for row, document in enumerate(corpus.documents(key.split)):
            words = tokenizer.encode(document.text)
            if not words:
                count["empty"] += 1
            elif len(words) + 2 > key.max_length:
                count["too_long"] += 1
            else:
                ids.extend([tokenizer.start_id, *words, tokenizer.end_id])
                count["documents"] += 1
                count["tokens"] += len(words) + 2
                count["unknown"] += words.count(tokenizer.unk_id)
                offsets.extend([count["tokens"]])
                rows.extend([row])
    if not count["documents"]:
        raise UserError(f"No document of {corpus.name} ({key.split}) fits in max_length = {key.max_length}; raise it.")
    meta = EncodedMeta(**{**asdict(key), **count, "unreadable": corpus.unreadable[key.split]})
    (folder / "meta.json").write_text(json.dumps(asdict(meta), indent=2) + "\n", encoding="utf-8")
    return meta


def _report(meta: EncodedMeta, name: str) -> None:
    logger.info(
        "Encoded %d sentences of %s (%s): %d tokens, %.2f %% of them unknown.",
        meta.documents, name, meta.split, meta.tokens, 100 * meta.unknown / meta.tokens,
    )  # fmt: skip
    if meta.too_long or meta.empty:
        logger.warning(
            "Left out of %s (%s): %d documents longer than %d tokens, %d without any token.",
            name, meta.split, meta.too_long, meta.max_length, meta.empty,
        )  # fmt: skip


def _map(path: Path) -> torch.Tensor:
    # Copy-on-write, because torch warns about memory that it could not write to.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


class _GrowingArray:
    """A one-dimensional `.npy` file that is appended to; its header is completed on closing."""

    def __init__(self, path: Path, typecode: str) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._pending = array(typecode)
        self._length = 0
        self._write_header()

    def extend(self, values: Iterable[int]) -> None:
        self._pending.extend(values)
        if len(self._pending) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._pending.tofile(self._file)
        self._length += len(self._pending)
        del self._pending[:]

    def _write_header(self) -> None:
        """NumPy's format 1.0: magic, version, length of the header, the header padded with spaces."""
        dtype = np.dtype(self._pending.typecode).str
        header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({self._length},), }}"
        size = _HEADER_BYTES - 10
        self._file.write(b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little"))
        self._file.write(header.ljust(size - 1).encode() + b"\n")

    def __enter__(self) -> _GrowingArray:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._flush()
            self._file.seek(0)
            self._write_header()
        finally:
            self._file.close()
