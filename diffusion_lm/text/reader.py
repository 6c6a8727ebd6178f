"""What every corpus does: stream the documents of a split, and account for every row it cannot read."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from diffusion_lm.errors import UserError
from diffusion_lm.text.document import Document

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
