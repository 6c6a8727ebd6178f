"""Plain text, one document a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffusion_lm.text.document import Document
from diffusion_lm.text.files import TextFiles
from diffusion_lm.text.reader import SPLITS, Corpus, HeldOut, Unreadable, tidy_text

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
