"""Corpora: E2E, ROCStories, plain text and datasets, each read as documents in splits."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import random
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from diffusion_lm.common import UserError
from diffusion_lm.text.fields import Document
from diffusion_lm.text.toy import SIZES, toy_description, toy_documents

if TYPE_CHECKING:
    from _csv import Reader

    from datasets import Dataset


logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
"""The names of the splits, in every corpus."""


@dataclass(frozen=True)
class Unreadable:
    """A row of the source that holds no usable document.

    Attributes:
        reason: What is wrong with the row, to be read after "line 7: ".
    """

    reason: str


class Corpus(ABC):
    """A source of documents in up to three splits, read as a stream.

    Attributes:
        name: The source, for messages.
        splits: Those of "train", "dev" and "test" that the source has.
        unreadable: Number of rows left out of each split, known once the split has been streamed to its end.
    """

    def __init__(self, name: str, splits: tuple[str, ...] = SPLITS) -> None:
        """Name the source and say which splits it has."""
        self.name = name
        self.splits = splits
        self.unreadable: dict[str, int] = {}

    @abstractmethod
    def _rows(self, split: str) -> Iterator[tuple[int, Document | Unreadable]]:
        """Every row of a split with its line number (from 1) in the source."""

    @abstractmethod
    def _fingerprint(self, split: str) -> str:
        """Any text that changes when the split's documents may have changed."""

    def documents(self, split: str) -> Iterator[Document]:
        """Stream the documents of a split in the order of the source, holding one in memory at a time.

        Rows that cannot be read are counted in `unreadable` and logged, the first of them with its reason.

        Raises:
            UserError: At once if the corpus has no such split; while streaming if a file turns out to be
                unusable or if the whole split holds no readable document.
        """
        self._check(split)
        return self._stream(split)

    def fingerprint(self, split: str) -> str:
        """A hash of the split's source: equal for equal content, wherever the files lie.

        Raises:
            UserError: If the corpus has no such split.
        """
        self._check(split)
        described = f"{type(self).__name__}\n{split}\n{self._fingerprint(split)}"
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def _check(self, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}.")

    def _stream(self, split: str) -> Iterator[Document]:
        read, unreadable, first = 0, 0, ""
        for line, row in self._rows(split):
            if isinstance(row, Document):
                read += 1
                yield row
            else:
                unreadable += 1
                first = first or f"line {line}: {row.reason}"
        if unreadable and split not in self.unreadable:
            logger.warning(
                "%d of the %d rows of %s (%s) cannot be read and are left out; the first is %s",
                unreadable, read + unreadable, self.name, split, first,
            )  # fmt: skip
        self.unreadable[split] = unreadable
        if not read:
            because = f" (the first unreadable row is {first})" if first else ""
            raise UserError(f"The {split} split of {self.name} has no readable document{because}.")


def tidy_text(raw: object, what: str = "text") -> str | Unreadable:
    """Make every run of white space one space, or say why `raw` is no text; `what` names it in the reason."""
    if not isinstance(raw, str):
        return Unreadable(f"the {what} is {type(raw).__name__}, not text")
    try:
        raw.encode()
    except UnicodeEncodeError:
        return Unreadable(f"the {what} is not UTF-8")
    return " ".join(raw.split()) or Unreadable(f"the {what} is empty")


@dataclass(frozen=True)
class HeldOut:
    """Which rows of the training source are held out for the splits that have no source of their own.

    Where there is no development split, it gets 2 % of the training rows, and so does the test split if that
    is missing too. A hash of the text decides, so the division is the same everywhere, does not depend on the
    order of the rows, and sends equal texts to the same split. A corpus with a development split is taken as
    it is.

    Attributes:
        splits: The splits that are cut out of the training source.
    """

    splits: tuple[str, ...]

    @classmethod
    def of(cls, sources: Mapping[str, object]) -> HeldOut:
        """The splits to hold out, given the splits that have a source."""
        missing = tuple(split for split in ("dev", "test") if split not in sources)
        return cls(missing if "dev" in missing else ())

    def split_of(self, text: str) -> str:
        """The split ("train" or one of `splits`) to which a text of the training source belongs."""
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=4).digest()
        slot = int.from_bytes(digest, "big") * 50 >> 32
        return self.splits[slot] if slot < len(self.splits) else "train"


LINES_FILES = {"train": "train.txt", "dev": "valid.txt", "test": "test.txt"}
"""The file of each split in a folder of plain text."""


class LinesCorpus(Corpus):
    """Text files with one document a line; blank lines separate nothing and are no documents.

    Where there is no development file, `HeldOut` takes it (and the test split) out of the training file.
    """

    def __init__(self, name: str, files: TextFiles, split_files: Mapping[str, str]) -> None:
        """Read the file `split_files[split]` of `files` for each split; "train" must be there."""
        self._held_out = HeldOut.of(split_files)
        super().__init__(name, tuple(s for s in SPLITS if s in split_files or s in self._held_out.splits))
        self._files = files
        self._split_files = dict(split_files)
        for file in self._split_files.values():
            next(files.lines(file), None)  # a binary file is refused now, not in the middle of a run

    def _rows(self, split: str) -> Iterator[tuple[int, Document | Unreadable]]:
        from_train = split not in self._split_files or split == "train"
        file = self._split_files["train" if from_train else split]
        for number, line in enumerate(self._files.lines(file), start=1):
            words = " ".join(line.split())
            if words and (not from_train or self._held_out.split_of(words) == split):
                text = tidy_text(words, "line")
                yield number, text if isinstance(text, Unreadable) else Document(text)

    def _fingerprint(self, split: str) -> str:
        file = self._split_files.get(split, self._split_files["train"])
        return f"{self._held_out.splits} {self._files.content_hash(file)}"


class TextFiles(ABC):
    """Named text files that lie together."""

    def __init__(self, path: Path) -> None:
        """Remember where the files are."""
        self.path = path

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def _open(self, name: str) -> IO[bytes]:
        """Open a file for reading bytes."""

    def lines(self, name: str) -> Iterator[str]:
        r"""The lines of a file, line ends kept; bytes that are not UTF-8 become lone surrogates.

        Raises:
            UserError: While reading, if the file is binary or damaged, or cannot be opened.
        """
        with self._reading(name), self._open_text(name) as file:
            for line in file:
                if "\0" in line:
                    raise UserError(f"{self.path / name} is a binary or UTF-16 file; give UTF-8 text.")
                yield line

    def content_hash(self, name: str) -> str:
        """A hash of a file's bytes.

        Raises:
            UserError: If the file is damaged or cannot be opened.
        """
        with self._reading(name), self._open(name) as file:
            digest = hashlib.blake2b(digest_size=16)
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def _open_text(self, name: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(self._open(name), "utf-8-sig", errors="surrogateescape", newline="")

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{name} in {self.path} is damaged ({error}); fetch it again.") from error
        except (OSError, NotImplementedError) as error:
            raise UserError(f"{self.path / name} cannot be read: {error}.") from error


class FolderFiles(TextFiles):
    """The files of a folder."""

    def has(self, name: str) -> bool:
        """Whether the folder has a file of this name."""
        return (self.path / name).is_file()

    def _open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


class ZipFiles(TextFiles):
    """The files of a zip archive, in whichever of its folders they are."""

    def __init__(self, path: Path) -> None:
        """Read the archive's directory.

        Raises:
            UserError: If the file is no complete zip archive.
        """
        super().__init__(path)
        try:
            with zipfile.ZipFile(path) as archive:
                members = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path} is not a complete zip archive ({error}); fetch it again.") from error
        # macOS adds a folder of attributes that repeats every name; the shallowest of equal names counts.
        members = [member for member in members if member.parts[0] != "__MACOSX"]
        members.sort(key=lambda member: len(member.parts), reverse=True)
        self._members = {member.name: str(member) for member in members}

    def has(self, name: str) -> bool:
        """Whether the archive has a file of this name."""
        return name in self._members

    def _open(self, name: str) -> IO[bytes]:
        with zipfile.ZipFile(self.path) as archive:
            try:
                # The member keeps the underlying file open after the archive object is closed.
                return archive.open(self._members[name])
            except RuntimeError as error:
                message = f"{name} in {self.path} is encrypted; give an archive without a password."
                raise UserError(message) from error


E2E_FILES = {"train": "trainset.csv", "dev": "devset.csv", "test": "testset_w_refs.csv"}
"""The file of each split, as E2E is distributed."""

_CANONICAL = {
    "eatType": "Type",
    "priceRange": "price",
    "customerRating": "customer rating",
    "familyFriendly": "family friendly",
}
_FIELD = r"\s*(?P<name>[^\[\],]+?)\s*\[\s*(?P<value>[^\[\]]*?)\s*\]\s*"
_FIELDS = re.compile(f"{_FIELD}(?:,{_FIELD})*".replace("?P<name>", "?:").replace("?P<value>", "?:"))
_ONE_FIELD = re.compile(_FIELD + "(?:,|$)")


def parse_meaning(text: str) -> dict[str, str]:
    """Parse `name[Aromi], eatType[pub]` to `{"name": "Aromi", "Type": "pub"}`.

    E2E's own names of fields are made canonical (`diffusion_lm.text.fields.FIELDS`); other names are kept.

    Raises:
        ValueError: If the text is not of that form, a value is empty, or a field is given twice.
    """
    if not _FIELDS.fullmatch(text):
        raise ValueError(f"the meaning representation {text!r} is not a list like name[Aromi], eatType[pub]")
    fields: dict[str, str] = {}
    for match in _ONE_FIELD.finditer(text):
        name = _CANONICAL.get(match["name"], match["name"])
        value = " ".join(match["value"].split())
        if not value:
            raise ValueError(f"the field {name!r} of the meaning representation has no value")
        if name in fields:
            raise ValueError(f"the meaning representation gives the field {name!r} twice")
        fields[name] = value
    return fields


class E2ECorpus(Corpus):
    """E2E's CSV files (columns `mr` and `ref`) in a folder or an archive."""

    def __init__(self, files: TextFiles) -> None:
        """Find the files and check their headers; the test file may be missing.

        Raises:
            UserError: If the training or development file is missing, or a file lacks a column.
        """
        super().__init__(str(files.path), tuple(split for split in SPLITS if files.has(E2E_FILES[split])))
        self._files = files
        for split in ("train", "dev"):
            if split not in self.splits:
                raise UserError(f"{self.name} has no {E2E_FILES[split]}, which E2E's corpus needs.")
        for split in self.splits:
            self._columns(split, self._table(split))

    def _table(self, split: str) -> Reader:
        # strict: an unclosed quote is an error in its row instead of swallowing the rows after it.
        return csv.reader(self._files.lines(E2E_FILES[split]), strict=True)

    def _columns(self, split: str, table: Reader) -> tuple[int, int, int]:
        """Read the header: the index of `mr`, the index of `ref`, the number of columns."""
        try:
            header = [column.strip() for column in next(table, [])]
        except csv.Error:
            header = []
        if not {"mr", "ref"} <= set(header):
            found = ", ".join(map(repr, header)) or "none"
            file = f"{E2E_FILES[split]} in {self.name}"
            raise UserError(f"{file} needs the columns 'mr' and 'ref'; it has {found}.")
        return header.index("mr"), header.index("ref"), len(header)

    def _rows(self, split: str) -> Iterator[tuple[int, Document | Unreadable]]:
        table = self._table(split)
        mr, ref, width = self._columns(split, table)
        while True:
            try:
                row = next(table)
            except StopIteration:
                return
            except csv.Error as error:
                yield table.line_num, Unreadable(f"the row is not valid CSV ({error})")
                continue
            if not row:
                continue
            if len(row) != width:
                yield table.line_num, Unreadable(f"it has {len(row)} columns where the header has {width}")
            else:
                yield table.line_num, _read_row(row[mr], row[ref])

    def _fingerprint(self, split: str) -> str:
        return self._files.content_hash(E2E_FILES[split])


def _read_row(mr: str, ref: str) -> Document | Unreadable:
    meaning, text = tidy_text(mr, "meaning representation"), tidy_text(ref, "reference")
    for part in (meaning, text):
        if isinstance(part, Unreadable):
            return part
    try:
        return Document(str(text), parse_meaning(str(meaning)))
    except ValueError as error:
        return Unreadable(str(error))


_SPLIT_NAMES = {"train": "train", "validation": "dev", "valid": "dev", "dev": "dev", "test": "test"}
_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


class HfCorpus(Corpus):
    """One text column of a dataset, memory-mapped by the `datasets` library.

    A split named validation, valid or dev is "dev"; where there is none, `HeldOut` takes it out of "train".
    """

    def __init__(self, name: str, text_column: str = "text") -> None:
        """Open a dataset by its name on the hub, or by the path of a `save_to_disk` folder or of data files.

        The data files are one json, jsonl, csv, parquet or txt file, or a folder of them.

        Raises:
            UserError: If the dataset cannot be loaded, has no training split, or lacks the column.
        """
        self._datasets = _load(name)
        self._held_out = HeldOut.of(self._datasets)
        super().__init__(f"hf:{name}", tuple(s for s in SPLITS if s in self._datasets or s in self._held_out.splits))
        self._column = text_column
        for split, dataset in self._datasets.items():
            if text_column not in dataset.column_names:
                found = ", ".join(map(repr, dataset.column_names)) or "none"
                raise UserError(
                    f"The {split} split of {self.name} has no column {text_column!r}; "
                    f"set text_column to one of {found}."
                )

    def _rows(self, split: str) -> Iterator[tuple[int, Document | Unreadable]]:
        from_train = split not in self._datasets or split == "train"
        dataset = self._datasets["train" if from_train else split].select_columns([self._column])
        for number, row in enumerate(dataset, start=1):
            text = tidy_text(row[self._column])
            home = self._held_out.split_of(text) if isinstance(text, str) else "train"
            if not from_train or home == split:
                yield number, text if isinstance(text, Unreadable) else Document(text)

    def _fingerprint(self, split: str) -> str:
        dataset = self._datasets.get(split, self._datasets["train"])
        return f"{self._held_out.splits} {self._column} {dataset.num_rows} {dataset._fingerprint}"


def _load(name: str) -> dict[str, Dataset]:
    """The dataset's splits by our names for them."""
    import datasets  # slow to import, and only this corpus needs it

    path = Path(name).expanduser()
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(str(path))
        elif path.is_file() and path.suffix.lower() in _FORMATS:
            loaded = datasets.load_dataset(_FORMATS[path.suffix.lower()], data_files=str(path))
        else:
            loaded = datasets.load_dataset(name)
    # The library raises whatever its file formats, its HTTP client and its hub client raise.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"The dataset {name!r} cannot be loaded: {reason}") from error
    splits = {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)
    ours = {_SPLIT_NAMES[split]: data for split, data in splits.items() if split in _SPLIT_NAMES}
    if "train" not in ours:
        raise UserError(f"The dataset {name!r} needs a split 'train'; it has {', '.join(map(repr, splits))}.")
    return ours


__all__ = ["SPLITS", "Corpus", "CorpusConfig", "open_corpus"]


class ToyCorpus(Corpus):
    """The grammar as a corpus: 4000 sentences to train on, 400 to develop on, 400 to test on."""

    def __init__(self) -> None:
        """Name the corpus."""
        super().__init__("toy")

    def _rows(self, split: str) -> Iterator[tuple[int, Document | Unreadable]]:
        seed = self.splits.index(split)
        return enumerate(islice(toy_documents(random.Random(seed)), SIZES[split]), start=1)

    def _fingerprint(self, split: str) -> str:
        return hashlib.blake2b(toy_description().encode()).hexdigest()


@dataclass(frozen=True)
class CorpusConfig:
    """What to read."""

    source: str = "toy"
    """'toy' (sentences of a built-in grammar); a folder or .zip with E2E's trainset.csv, devset.csv and
    testset_w_refs.csv; a folder or .zip with train.txt, valid.txt and test.txt, one document a line; one such
    .txt file; or 'hf:' before the name or path of a dataset for the `datasets` library."""

    text_column: str = "text"
    """The column that holds the text in an 'hf:' dataset."""


def open_corpus(config: CorpusConfig) -> Corpus:
    """Choose the reader for a source and check that the source is there.

    Raises:
        UserError: If the source is missing or is nothing that a reader understands.
    """
    source = config.source.strip()
    if source == "toy":
        return ToyCorpus()
    if source.startswith("hf:"):
        return HfCorpus(source.removeprefix("hf:"), config.text_column)
    path = Path(source).expanduser()
    if not source or not path.exists():
        raise UserError(
            f"The corpus {config.source!r} does not exist; "
            "give 'toy', a folder, a .zip or .txt file, or 'hf:' and the name of a dataset."
        )
    if path.is_dir():
        return _open_files(FolderFiles(path))
    if path.suffix.lower() == ".zip":
        return _open_files(ZipFiles(path))
    if path.suffix.lower() == ".txt":
        return LinesCorpus(str(path), FolderFiles(path.parent), {"train": path.name})
    raise UserError(f"{path} is no folder, .zip or .txt file; for json, csv or parquet write 'hf:{path}'.")


def _open_files(files: TextFiles) -> Corpus:
    """Recognise the files of a folder or an archive by their names."""
    if any(files.has(name) for name in E2E_FILES.values()):
        return E2ECorpus(files)
    if files.has(LINES_FILES["train"]):
        present = {split: name for split, name in LINES_FILES.items() if files.has(name)}
        return LinesCorpus(str(files.path), files, present)
    raise UserError(f"{files.path} has neither E2E's trainset.csv and devset.csv nor train.txt and valid.txt.")
