"""Corpora: the toy grammar, E2E, plain text and datasets, each one function that finds the rows of its splits.

Rows are streamed, not gathered in a `datasets.DatasetDict`: a row that cannot be read is counted and named by its
line, and splits that a source lacks are held out by a hash of the text; neither needs a second copy of the corpus.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from random import Random
from typing import TYPE_CHECKING, Literal

from diffusion_lm.common import UserError
from diffusion_lm.text.fields import ALIASES, Document
from diffusion_lm.text.slots import as_said
from diffusion_lm.text.spacing import normal, threes, words_of
from diffusion_lm.text.toy import DESCRIPTION, SIZES, toy_documents

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
LONGEST = 1_000_000
"""Characters of the longest document that is read."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # what stands for a byte that is not UTF-8


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
    if _SURROGATE.search(raw):
        raise Unreadable(f"the {what} is not UTF-8")
    if not (text := normal(raw)):
        raise Unreadable(f"the {what} is empty")
    return text


Rows = Iterable[tuple[int, Document | Unreadable]]
"""Every row with its line number, from 1; the text is as it was found."""


@dataclass(frozen=True)
class Source:
    """Where the documents of a split come from."""

    rows: Callable[[], Rows]
    """The rows, from the first at each call."""
    content: Callable[[], str]
    """Any text that changes when the documents may have changed."""


@dataclass
class Corpus:
    """Documents in up to three splits, read as a stream.

    Where there is no development split, it gets 2 % of the training rows, and so does the test split if that is
    missing too. A hash of the text decides, so the division is the same everywhere, does not depend on the order of
    the rows, and sends equal texts to the same split.
    """

    name: str
    """The source, for messages."""
    sources: Mapping[str, Source]
    kind: str = ""
    """What made the sources, see `READERS`."""
    long: Literal["split", "leave_out"] = "split"
    """What is to become of documents that do not fit, see `CorpusConfig`."""
    threes: bool = False
    """Whether documents are taken as three sentences each, see `CorpusConfig`."""
    left_out: frozenset[tuple[str, ...]] = frozenset()
    """Words of the training documents that are passed over."""
    unreadable: dict[str, int] = field(default_factory=dict)
    """Number of rows left out of each split, known once the split has been streamed to its end."""

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
        slot = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") * 50 >> 32
        return self.held_out[slot] if slot < len(self.held_out) else "train"

    def without(self, sentences: Iterable[Sequence[str]]) -> Corpus:
        """The corpus less the training documents that have just these words; spacing does not matter.

        A judge of fluency must not have read the sentences that it will hold others against.
        """
        return replace(self, left_out=frozenset(tuple(map(normal, words)) for words in sentences), unreadable={})

    def documents(self, split: str) -> Iterator[Document]:
        """Stream the documents of a split in the order of the source.

        Rows that cannot be read are counted in `unreadable` and logged, the first of them with its reason.

        Raises:
            UserError: At once if there is no such split; while streaming if a file or all of its rows are unusable.
        """
        self._source(split)
        return self._stream(split)

    def fingerprint(self, split: str) -> str:
        """A hash of the split's source: equal for equal content, wherever the files lie; UserError if it is no split."""
        described = [self.kind, split, self._source(split).content(), *self.held_out, *["threes"] * self.threes]
        if split == "train":
            described += sorted(" ".join(words) for words in self.left_out)
        return hashlib.blake2b("\n".join(described).encode(), digest_size=16).hexdigest()

    def _source(self, split: str) -> Source:
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}.")
        return self.sources.get(split, self.sources["train"])

    def _stream(self, split: str) -> Iterator[Document]:
        from_train = split == "train" or split in self.held_out
        read, unreadable, first = 0, 0, ""
        for line, row in self._source(split).rows():
            try:
                if isinstance(row, Unreadable):
                    raise row
                document = replace(row, text=readable(row.text))
                if row.source.strip():
                    document = replace(document, source=readable(row.source, "source"))
            except Unreadable as error:
                if split in self.sources:
                    unreadable += 1
                    first = first or f"line {line}: {error}"
                continue
            # All that was written from one source stands in one split.
            elsewhere = from_train and self.home(document.source or document.text) != split
            left_out = split == "train" and self.left_out and tuple(words_of(document.text)) in self.left_out
            if not elsewhere and not left_out:
                parts = [Document(" ".join(three)) for three in threes(document.text)] if self.threes else [document]
                read += len(parts)
                yield from parts
        if unreadable and split not in self.unreadable:
            rows = f"{unreadable} of the {read + unreadable} rows of {self.name} ({split})"
            logger.warning("%s cannot be read and are left out; the first is %s", rows, first)
        self.unreadable[split] = unreadable
        if not read:
            because = f" (the first unreadable row is {first})" if first else ""
            what = "document of three sentences" if self.threes else "readable document"
            raise UserError(f"The {split} split of {self.name} has no {what}{because}.")


NO_CORPUS = "none"
"""The source of who has no corpus at hand."""


@dataclass(frozen=True)
class CorpusConfig:
    """What to read."""

    source: str = "toy"
    """'toy' (sentences of a built-in grammar); a folder or .zip with E2E's trainset.csv, devset.csv and
    testset_w_refs.csv; a folder or .zip with train.txt, valid.txt and test.txt, one document a line, or with train.tsv,
    valid.tsv and test.tsv, what it is written from and a tab before it; one such .txt or .tsv file; or 'hf:' before the
    name or path of a dataset for the `datasets` library."""
    text_column: str = "text"
    """The column that holds the text in an 'hf:' dataset."""
    source_column: str | None = None
    """The column of an 'hf:' dataset that holds what the text is written from; null: there is none."""
    fields: Literal["given", "said", "exchanged"] = "given"
    """The values of E2E's training texts. given: those that a text was to say; said: those that it says (`text.slots`), as
    people leave a tenth out; exchanged: the same, and each text once more with the names of other places, so that a model
    that writes from them copies names and does not guess them from the rest."""
    long: Literal["split", "leave_out"] = "split"
    """Documents longer than the model's longest sentence: 'split' them, at ends of sentences where there are any, or
    'leave_out'. Documents with fields, such as E2E's, are always left out: a part need not say what the whole says."""
    threes: bool = False
    """Take of each document every sentence that stands between two others, once with its neighbours and once with the first
    and the last, in place of the whole: of such texts a model learns gaps of one sentence."""


def open_corpus(config: CorpusConfig) -> Corpus:
    """The corpus of a source, by the first reader that knows its kind.

    Raises:
        UserError: If the source is missing or is nothing that a reader understands.
    """
    name = config.source.strip()
    for kind, reader in reversed(READERS.items()):
        if (sources := reader(name, config)) is not None:
            return Corpus(name, sources, kind, config.long, config.threes)
    raise UserError(f"{name} has neither E2E's trainset.csv and devset.csv nor train.txt or train.tsv.")


File = Path | zipfile.Path


def lines_of(file: File) -> Iterator[str]:
    r"""The lines, line ends kept; bytes that are not UTF-8 become lone surrogates, and what is too long is cut.

    Raises:
        UserError: While reading, if the file is damaged or encrypted, or cannot be opened.
    """
    try:
        with io.TextIOWrapper(file.open("rb"), "utf-8-sig", errors="surrogateescape", newline="") as text:
            while line := text.readline(LONGEST + 1):
                rest = line
                while rest and not rest.endswith(("\n", "\r")):
                    rest = text.readline(LONGEST)
                yield line
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{file} is damaged ({error}); fetch it again.") from error
    except (OSError, NotImplementedError, RuntimeError) as error:  # zipfile's for an archive with a password
        raise UserError(f"{file} cannot be read: {error}.") from error


def digest(file: File) -> str:
    """A hash of a file's lines."""
    out = hashlib.blake2b(digest_size=16)
    for line in lines_of(file):
        out.update(line.encode("utf-8", "surrogateescape"))
    return out.hexdigest()


def files_of(source: str) -> dict[str, File]:
    """The files of a folder or a zip archive (in whichever of its folders they are) by name.

    Raises:
        UserError: If the source is missing, damaged or of another kind.
    """
    path = Path(source).expanduser()
    if not source or not path.exists():
        kinds = "'toy', a folder, a .zip, .txt or .tsv file, or 'hf:' and the name of a dataset"
        raise UserError(f"The corpus {source!r} does not exist; give {kinds}.")
    if path.is_dir():
        return {file.name: file for file in path.iterdir() if file.is_file()}
    if path.suffix.lower() in (".txt", ".tsv"):
        return {f"train{path.suffix.lower()}": path}
    if path.suffix.lower() != ".zip":
        raise UserError(f"{path} is no folder, .zip, .txt or .tsv file; for json, csv or parquet write 'hf:{path}'.")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a complete zip archive ({error}); fetch it again.") from error
    # macOS adds a folder of attributes that repeats every name; the shallowest of equal names counts.
    members = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
    members.sort(key=lambda name: name.count("/"), reverse=True)
    return {PurePosixPath(name).name: zipfile.Path(archive, name) for name in members}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def toy(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """The grammar: 4000 sentences to train on, 400 to develop on, 400 to test on."""
    if source != "toy":
        return None

    def rows(split: str) -> Rows:
        return enumerate(islice(toy_documents(seed=SPLITS.index(split)), SIZES[split]), start=1)

    content = hashlib.blake2b(DESCRIPTION.encode()).hexdigest()
    return {split: Source(partial(rows, split), partial(str, content)) for split in SPLITS}


def _by_file(source: str, names: Mapping[str, str], rows: Callable[[File], Rows]) -> dict[str, Source]:
    files = files_of(source)
    found = {split: files[name] for split, name in names.items() if name in files}
    return {split: Source(partial(rows, file), partial(digest, file)) for split, file in found.items()}


E2E_FILES = {"train": "trainset.csv", "dev": "devset.csv", "test": "testset_w_refs.csv"}


def e2e(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """E2E's CSV files (columns `mr` and `ref`) in a folder or an archive; the test file may be missing.

    Raises:
        UserError: If the training or development file is missing, or a file lacks a column.
    """
    found = _by_file(source, E2E_FILES, _e2e_rows)
    if config.fields != "given" and "train" in found:
        rows, content = found["train"].rows, found["train"].content
        exchanged = config.fields == "exchanged"
        found["train"] = Source(partial(_as_said, rows, exchanged=exchanged), lambda: f"{content()} {config.fields}")
    for split in ("train", "dev"):
        if found and split not in found:
            raise UserError(f"{source} has no {E2E_FILES[split]}, which E2E's corpus needs.")
    for each in found.values():
        next(iter(each.rows()), None)  # a file without these columns is refused now, not in the middle of a run
    return found or None


def _e2e_rows(file: File) -> Rows:
    # strict: an unclosed quote is an error in its row instead of swallowing the rows after it.
    table = csv.DictReader(lines_of(file), strict=True)
    try:
        table.fieldnames = columns = [column.strip() for column in table.fieldnames or ()]
    except csv.Error:
        columns = []
    if not {"mr", "ref"} <= set(columns):
        raise UserError(f"{file} needs the columns 'mr' and 'ref'; it has {_listed(columns)}.")
    while True:
        row: Document | Unreadable
        try:
            cells = next(table)
            if None in cells or None in cells.values():
                raise Unreadable(f"the row has not the {len(columns)} columns of the header")
            meaning = readable(cells["mr"], "meaning representation")
            row = Document(readable(cells["ref"], "reference"), parse_meaning(meaning))
        except StopIteration:
            return
        except csv.Error as error:
            row = Unreadable(f"the row is not valid CSV ({error})")
        except Unreadable as error:
            row = error
        yield table.line_num, row


def _as_said(rows: Callable[[], Rows], *, exchanged: bool) -> Rows:
    """Documents with the fields that they say; if they are to be exchanged, each is followed by one with other names."""
    seen: dict[str, dict[str, None]] = {name: {} for name in ("name", "near")}
    for line, row in rows():
        if isinstance(row, Unreadable):
            yield line, row
            continue
        document = replace(row, fields=as_said(row.fields, row.text))
        yield line, document
        if exchanged and (other := _with_other_names(document, seen)) is not None:
            yield line, other


def _with_other_names(document: Document, seen: Mapping[str, dict[str, None]]) -> Document | None:
    """The document with names that those before it had in their place, and these put to them; None where it spells out none."""
    rng, new = Random(document.text), dict[str, str]()
    own = {name: value for name, value in document.fields.items() if name in seen and value in document.text}
    for name, value in own.items():
        seen[name][value] = None
        new[value] = rng.choice(list(seen[name]))
    if not new:
        return None
    either = re.compile("|".join(re.escape(value) for value in sorted(new, key=len, reverse=True)))
    text = either.sub(lambda found: new[found[0]], document.text)
    return Document(text, {**document.fields, **{name: new[value] for name, value in own.items()}})


_FIELD = re.compile(r"\s*(?P<name>[^\[\],]+?)\s*\[(?P<value>[^\[\]]*)\]\s*(?P<next>,|\Z)")


def parse_meaning(text: str) -> dict[str, str]:
    """Parse `name[Aromi], eatType[pub]` to `{"name": "Aromi", "Type": "pub"}`: with canonical names of E2E's fields.

    Raises:
        Unreadable: If the text is not of that form, a value is empty, or a field is given twice.
    """
    fields: dict[str, str] = {}
    start, more = 0, ","
    while more:  # a field at a time: one pattern of the whole list would try every division of it
        match = _FIELD.match(text, start)
        if not match:
            raise Unreadable(f"the meaning representation {text[:80]!r} is not a list like name[Aromi], eatType[pub]")
        name, value = ALIASES.get(match["name"].lower(), match["name"]), normal(match["value"])
        if not value or name in fields:
            raise Unreadable(f"the meaning representation gives the field {name!r} {'twice' if value else 'no value'}")
        fields[name] = value
        start, more = match.end(), match["next"]
    return fields


LINES_FILES = {"train": "train.txt", "dev": "valid.txt", "test": "test.txt"}


def lines(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """Text files with one document a line; blank lines separate nothing and are no documents."""

    def rows(file: File) -> Rows:
        return ((n, Document(line)) for n, line in enumerate(lines_of(file), start=1) if line.strip())

    found = _by_file(source, LINES_FILES, rows)
    return found if "train" in found else None


PAIRS_FILES = {"train": "train.tsv", "dev": "valid.tsv", "test": "test.tsv"}


def pairs(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """Files with two columns, what a document is written from, a tab, and the document: paraphrase, translation and the like.

    Raises:
        UserError: If a line has not two columns; it is named.
    """

    def rows(file: File) -> Rows:
        for n, line in enumerate(lines_of(file), start=1):
            if line.strip():
                cells = [cell.strip() for cell in line.split("\t")]
                if len(cells) != 2 or not all(cells):
                    raise UserError(
                        f"Line {n} of {file} has not two columns; write SOURCE, one tab and TEXT on every line."
                    )
                yield n, Document(cells[1], source=cells[0])

    found = _by_file(source, PAIRS_FILES, rows)
    return found if "train" in found else None


_SPLIT_NAMES = {"train": "train", "validation": "dev", "valid": "dev", "dev": "dev", "test": "test"}
_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def hf(source: str, config: CorpusConfig) -> dict[str, Source] | None:
    """One text column of a dataset, with or without one for sources, memory-mapped by the `datasets` library.

    It is named as on the hub, or by the path of a `save_to_disk` folder, of one json, jsonl, csv, parquet or txt file,
    or of a folder of them. A split named validation, valid or dev is "dev".

    Raises:
        UserError: If the dataset cannot be loaded, has no training split, or lacks the column.
    """
    if not source.startswith("hf:"):
        return None
    wanted = {"text_column": config.text_column, "source_column": config.source_column}
    columns, sources = {flag: column for flag, column in wanted.items() if column is not None}, {}

    def rows(dataset: Dataset) -> Rows:
        for n, row in enumerate(dataset.select_columns(list(columns.values())), start=1):
            text, *origin = (row[column] for column in columns.values())
            yield n, Document(text, source=origin[0] if origin and origin[0] is not None else "")

    for split, dataset in _load(source.removeprefix("hf:")).items():
        for flag, column in columns.items():
            if column not in (names := dataset.column_names):
                missing = f"The {split} split of {source} has no column {column!r}"
                raise UserError(f"{missing}; set {flag} to one of {_listed(names)}.")
        content = f"{' '.join(columns.values())} {dataset.num_rows} {dataset._fingerprint}"
        sources[split] = Source(partial(rows, dataset), partial(str, content))
    return sources


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
    except Exception as error:  # whatever the library's file formats, HTTP client and hub client raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"The dataset {name!r} cannot be loaded: {reason}") from error
    splits = {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)
    ours = {_SPLIT_NAMES[split]: data for split, data in splits.items() if split in _SPLIT_NAMES}
    if "train" not in ours:
        raise UserError(f"The dataset {name!r} needs a split 'train'; it has {_listed(splits)}.")
    return ours


READERS: dict[str, Callable[[str, CorpusConfig], dict[str, Source] | None]] = {
    "LinesCorpus": lines,
    "PairsCorpus": pairs,
    "E2ECorpus": e2e,
    "HfCorpus": hf,
    "ToyCorpus": toy,
}
"""What reads a source, or gives None for one of another kind; the last is asked first. A new corpus is a function here.
The names stand in fingerprints, by which checkpoints know their corpus."""
