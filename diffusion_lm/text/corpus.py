"""Corpora: the toy grammar, E2E, plain text and datasets, each one function that finds the rows of its splits.

Rows are streamed, not gathered in a `datasets.DatasetDict`: a row that cannot be read is counted and named by its
line, and splits that a source lacks are held out by a hash of the text; neither needs a second copy of the corpus.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import random
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal

from diffusion_lm.common import UserError
from diffusion_lm.text.fields import ALIASES, Document
from diffusion_lm.text.spacing import normal, words_of
from diffusion_lm.text.toy import SIZES, toy_description, toy_documents

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
"""The names of the splits, in every corpus."""
LONGEST = 1_000_000
"""Characters of the longest document that is read."""


_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")


class Unreadable(ValueError):
    """A row of the source that holds no usable document; says what is wrong with it, to be read after "line 7: "."""


def readable(raw: object, what: str = "text") -> str:
    """The normal form of a text.

    Raises:
        Unreadable: If `raw` is no text that can be read; `what` names it.
    """
    if not isinstance(raw, str):
        raise Unreadable(f"the {what} is {type(raw).__name__}, not text")
    if len(raw) > LONGEST:
        raise Unreadable(f"the {what} is longer than {LONGEST:,} characters")
    if control := _CONTROL.search(raw):
        raise Unreadable(f"the {what} has {control[0]!r}, as binary and UTF-16 files have; give UTF-8 text")
    try:
        raw.encode()
    except UnicodeEncodeError:
        raise Unreadable(f"the {what} is not UTF-8") from None
    text = normal(raw)
    if not text:
        raise Unreadable(f"the {what} is empty")
    return text


@dataclass(frozen=True)
class Source:
    """Where the documents of a split come from."""

    rows: Callable[[], Iterable[tuple[int, Document | Unreadable]]]
    """Every row with its line number, from the first at each call; the text is as it was found."""
    content: Callable[[], str]
    """Any text that changes when the documents may have changed."""


@dataclass
class Corpus:
    """Documents in up to three splits, read as a stream.

    Where there is no development split, it gets 2 % of the training rows, and so does the test split if that is
    missing too. A hash of the text decides, so the division is the same everywhere, does not depend on the order of
    the rows, and sends equal texts to the same split.

    Attributes:
        name: The source, for messages.
        sources: Where the splits come from.
        kind: What made the sources, see `READERS`.
        long: What is to become of documents that do not fit, see `CorpusConfig`.
        left_out: Words of the training documents that are passed over.
        unreadable: Number of rows left out of each split, known once the split has been streamed to its end.
    """

    name: str
    sources: Mapping[str, Source]
    kind: str = ""
    long: Literal["split", "leave_out"] = "split"
    left_out: frozenset[tuple[str, ...]] = frozenset()
    unreadable: dict[str, int] = field(default_factory=dict)

    @property
    def held_out(self) -> tuple[str, ...]:
        """The splits that are cut out of the training source."""
        missing = tuple(split for split in ("dev", "test") if split not in self.sources)
        return missing if "dev" in missing else ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of "train", "dev" and "test" that there are."""
        return tuple(split for split in SPLITS if split in self.sources or split in self.held_out)

    def home(self, text: str) -> str:
        """The split ("train" or one of `held_out`) to which a text of the training source belongs."""
        digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
        slot = int.from_bytes(digest, "big") * 50 >> 32
        return self.held_out[slot] if slot < len(self.held_out) else "train"

    def without(self, sentences: Iterable[Sequence[str]]) -> Corpus:
        """The corpus less the training documents that have just these words; spacing does not matter.

        A judge of fluency must not have read the sentences that it will hold others against.
        """
        left_out = frozenset(tuple(map(normal, words)) for words in sentences)
        return replace(self, left_out=left_out, unreadable={})

    def documents(self, split: str) -> Iterator[Document]:
        """Stream the documents of a split in the order of the source, holding one in memory at a time.

        Rows that cannot be read are counted in `unreadable` and logged, the first of them with its reason.

        Raises:
            UserError: At once if the corpus has no such split; while streaming if a file turns out to be
                unusable or if the whole split holds no readable document.
        """
        self._source(split)
        return self._stream(split)

    def fingerprint(self, split: str) -> str:
        """A hash of the split's source: equal for equal content, wherever the files lie.

        Raises:
            UserError: If the corpus has no such split.
        """
        described = [self.kind, split, self._source(split).content(), *self.held_out]
        if split == "train":
            described += sorted(" ".join(words) for words in self.left_out)
        return hashlib.blake2b("\n".join(described).encode(), digest_size=16).hexdigest()

    def _source(self, split: str) -> Source:
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}.")
        return self.sources.get(split, self.sources["train"])

    def _belongs(self, text: str, split: str) -> bool:
        if (split == "train" or split in self.held_out) and self.home(text) != split:
            return False
        return not (self.left_out and split == "train" and tuple(words_of(text)) in self.left_out)

    def _stream(self, split: str) -> Iterator[Document]:
        read, unreadable, first = 0, 0, ""
        for line, row in self._source(split).rows():
            try:
                if isinstance(row, Unreadable):
                    raise row
                document = replace(row, text=readable(row.text))
            except Unreadable as error:
                if split in self.sources:
                    unreadable += 1
                    first = first or f"line {line}: {error}"
                continue
            if self._belongs(document.text, split):
                read += 1
                yield document
        if unreadable and split not in self.unreadable:
            logger.warning(
                "%d of the %d rows of %s (%s) cannot be read and are left out; the first is %s",
                unreadable, read + unreadable, self.name, split, first,
            )  # fmt: skip
        self.unreadable[split] = unreadable
        if not read:
            because = f" (the first unreadable row is {first})" if first else ""
            raise UserError(f"The {split} split of {self.name} has no readable document{because}.")


@dataclass(frozen=True)
class CorpusConfig:
    """What to read."""

    source: str = "toy"
    """'toy' (sentences of a built-in grammar); a folder or .zip with E2E's trainset.csv, devset.csv and
    testset_w_refs.csv; a folder or .zip with train.txt, valid.txt and test.txt, one document a line; one such
    .txt file; or 'hf:' before the name or path of a dataset for the `datasets` library."""

    text_column: str = "text"
    """The column that holds the text in an 'hf:' dataset."""

    long: Literal["split", "leave_out"] = "split"
    """Documents longer than the model's longest sentence: 'split' them, at ends of sentences where there are any, or
    'leave_out'. Documents with fields, such as E2E's, are always left out: a part need not say what the whole says."""


def open_corpus(config: CorpusConfig) -> Corpus:
    """Choose the reader for a source and check that the source is there.

    Raises:
        UserError: If the source is missing or is nothing that a reader understands.
    """
    name = config.source.strip()
    for kind, reader in READERS.items():
        sources = reader(name, config)
        if sources is not None:
            return Corpus(name, sources, kind, config.long)
    raise UserError(f"{name} has neither E2E's trainset.csv and devset.csv nor train.txt and valid.txt.")


# Files


@dataclass(frozen=True)
class File:
    """A file, or a member of a zip archive."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{PurePosixPath(self.member).name} in {self.path}" if self.member else str(self.path)

    def _open(self) -> IO[bytes]:
        if not self.member:
            return self.path.open("rb")
        with zipfile.ZipFile(self.path) as archive:
            return archive.open(self.member)  # keeps the underlying file open after the archive object is closed

    def lines(self) -> Iterator[str]:
        r"""The lines, line ends kept; bytes that are not UTF-8 become lone surrogates, and what is too long is cut.

        Raises:
            UserError: While reading, if the file is damaged or encrypted, or cannot be opened.
        """
        try:
            with io.TextIOWrapper(self._open(), "utf-8-sig", errors="surrogateescape", newline="") as file:
                while line := file.readline(LONGEST + 1):
                    rest = line
                    while rest and not rest.endswith(("\n", "\r")):
                        rest = file.readline(LONGEST)
                    yield line
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{self.name} is damaged ({error}); fetch it again.") from error
        except (OSError, NotImplementedError, RuntimeError) as error:  # zipfile's for an archive with a password
            raise UserError(f"{self.name} cannot be read: {error}.") from error

    def digest(self) -> str:
        """A hash of the lines."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.lines():
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def files_of(source: str) -> dict[str, File]:
    """The files of a folder or a zip archive (in whichever of its folders they are) by name.

    Raises:
        UserError: If the source is missing, damaged or of another kind.
    """
    path = Path(source).expanduser()
    if not source or not path.exists():
        raise UserError(
            f"The corpus {source!r} does not exist; "
            "give 'toy', a folder, a .zip or .txt file, or 'hf:' and the name of a dataset."
        )
    if path.is_dir():
        return {file.name: File(file) for file in path.iterdir() if file.is_file()}
    if path.suffix.lower() == ".txt":
        return {LINES_FILES["train"]: File(path)}
    if path.suffix.lower() != ".zip":
        raise UserError(f"{path} is no folder, .zip or .txt file; for json, csv or parquet write 'hf:{path}'.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a complete zip archive ({error}); fetch it again.") from error
    # macOS adds a folder of attributes that repeats every name; the shallowest of equal names counts.
    members = [member for member in members if "__MACOSX" not in member.parts]
    members.sort(key=lambda member: len(member.parts), reverse=True)
    return {member.name: File(path, str(member)) for member in members}


# One function a corpus


def toy(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """The grammar: 4000 sentences to train on, 400 to develop on, 400 to test on."""
    if source != "toy":
        return None

    def rows(split: str) -> Iterator[tuple[int, Document]]:
        seed = SPLITS.index(split)
        return enumerate(islice(toy_documents(random.Random(seed)), SIZES[split]), start=1)

    content = hashlib.blake2b(toy_description().encode()).hexdigest()
    return {split: Source(partial(rows, split), lambda: content) for split in SPLITS}


E2E_FILES = {"train": "trainset.csv", "dev": "devset.csv", "test": "testset_w_refs.csv"}
"""The file of each split, as E2E is distributed."""


def e2e(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """E2E's CSV files (columns `mr` and `ref`) in a folder or an archive; the test file may be missing.

    Raises:
        UserError: If the training or development file is missing, or a file lacks a column.
    """
    files = files_of(source)
    found = {split: files[name] for split, name in E2E_FILES.items() if name in files}
    for split in ("train", "dev"):
        if found and split not in found:
            raise UserError(f"{source} has no {E2E_FILES[split]}, which E2E's corpus needs.")
    for file in found.values():
        _e2e_table(file)
    return {split: Source(partial(_e2e_rows, file), file.digest) for split, file in found.items()} or None


def _e2e_table(file: File) -> csv.DictReader[str]:
    # strict: an unclosed quote is an error in its row instead of swallowing the rows after it.
    table = csv.DictReader(file.lines(), strict=True)
    try:
        table.fieldnames = [column.strip() for column in table.fieldnames or ()]
    except csv.Error:
        table.fieldnames = []
    if not {"mr", "ref"} <= set(table.fieldnames):
        found = ", ".join(map(repr, table.fieldnames)) or "none"
        raise UserError(f"{file.name} needs the columns 'mr' and 'ref'; it has {found}.")
    return table


def _e2e_rows(file: File) -> Iterator[tuple[int, Document | Unreadable]]:
    table = _e2e_table(file)
    while True:
        row: Document | Unreadable
        try:
            cells = next(table)
            if None in cells or None in cells.values():
                raise Unreadable(f"the row has not the {len(table.fieldnames or ())} columns of the header")
            meaning = readable(cells["mr"], "meaning representation")
            row = Document(readable(cells["ref"], "reference"), parse_meaning(meaning))
        except StopIteration:
            return
        except csv.Error as error:
            row = Unreadable(f"the row is not valid CSV ({error})")
        except Unreadable as error:
            row = error
        yield table.line_num, row


_FIELD = re.compile(r"\s*(?P<name>[^\[\],]+?)\s*\[(?P<value>[^\[\]]*)\]\s*(?P<next>,|\Z)")


def parse_meaning(text: str) -> dict[str, str]:
    """Parse `name[Aromi], eatType[pub]` to `{"name": "Aromi", "Type": "pub"}`.

    E2E's own names of fields are made canonical (`diffusion_lm.text.fields.FIELDS`); other names are kept.

    Raises:
        Unreadable: If the text is not of that form, a value is empty, or a field is given twice.
    """
    fields: dict[str, str] = {}
    start, more = 0, ","
    while more:
        match = _FIELD.match(text, start)
        if not match:
            raise Unreadable(f"the meaning representation {text[:80]!r} is not a list like name[Aromi], eatType[pub]")
        name, value = ALIASES.get(match["name"].lower(), match["name"]), normal(match["value"])
        if not value:
            raise Unreadable(f"the field {name!r} of the meaning representation has no value")
        if name in fields:
            raise Unreadable(f"the meaning representation gives the field {name!r} twice")
        fields[name] = value
        start, more = match.end(), match["next"]
    return fields


LINES_FILES = {"train": "train.txt", "dev": "valid.txt", "test": "test.txt"}
"""The file of each split in a folder of plain text."""


def lines(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """Text files with one document a line; blank lines separate nothing and are no documents."""
    files = files_of(source)

    def rows(file: File) -> Iterator[tuple[int, Document]]:
        return ((n, Document(line)) for n, line in enumerate(file.lines(), start=1) if line.strip())

    found = {split: files[name] for split, name in LINES_FILES.items() if name in files}
    if "train" not in found:
        return None
    return {split: Source(partial(rows, file), file.digest) for split, file in found.items()}


_SPLIT_NAMES = {"train": "train", "validation": "dev", "valid": "dev", "dev": "dev", "test": "test"}
_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def hf(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """One text column of a dataset, memory-mapped by the `datasets` library.

    It is named as on the hub, or by the path of a `save_to_disk` folder or of data files: one json, jsonl, csv,
    parquet or txt file, or a folder of them. A split named validation, valid or dev is "dev".

    Raises:
        UserError: If the dataset cannot be loaded, has no training split, or lacks the column.
    """
    if not source.startswith("hf:"):
        return None
    column, loaded = config.text_column, _load(source.removeprefix("hf:"))

    def rows(dataset: Dataset) -> Iterator[tuple[int, Document]]:
        return ((n, Document(row[column])) for n, row in enumerate(dataset.select_columns([column]), start=1))

    def content(dataset: Dataset) -> str:
        return f"{column} {dataset.num_rows} {dataset._fingerprint}"

    for split, dataset in loaded.items():
        if column not in dataset.column_names:
            found = ", ".join(map(repr, dataset.column_names)) or "none"
            raise UserError(
                f"The {split} split of {source} has no column {column!r}; set text_column to one of {found}."
            )
    return {split: Source(partial(rows, data), partial(content, data)) for split, data in loaded.items()}


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


READERS: dict[str, Callable[[str, CorpusConfig], dict[str, Source] | None]] = {
    "ToyCorpus": toy,
    "HfCorpus": hf,
    "E2ECorpus": e2e,
    "LinesCorpus": lines,
}
"""What reads a source, or gives None for one of another kind; asked in this order. A new corpus is a function here.

The names stand in fingerprints, by which checkpoints know their corpus.
"""
