"""Any dataset of the `datasets` library, by hub name or by local path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lm.errors import UserError
from diffusion_lm.text.document import Document
from diffusion_lm.text.reader import SPLITS, Corpus, HeldOut, Unreadable, tidy_text

if TYPE_CHECKING:
    from datasets import Dataset

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
        super().__init__(
            f"hf:{name}", tuple(s for s in SPLITS if s in self._datasets or s in self._held_out.splits)
        )
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
