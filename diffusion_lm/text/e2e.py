"""The E2E restaurant corpus: a meaning representation and a reference a row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from diffusion_lm.errors import UserError
from diffusion_lm.text.document import Document
from diffusion_lm.text.files import TextFiles
from diffusion_lm.text.reader import SPLITS, Corpus, Unreadable, tidy_text

if TYPE_CHECKING:
    from _csv import Reader

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

    E2E's own names of fields are made canonical (`diffusion_lm.text.document.FIELDS`); other names are kept.

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
