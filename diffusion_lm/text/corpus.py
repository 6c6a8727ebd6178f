"""Where the texts come from: the one place that chooses a reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion_lm.errors import UserError
from diffusion_lm.text.e2e import E2E_FILES, E2ECorpus
from diffusion_lm.text.files import FolderFiles, TextFiles, ZipFiles
from diffusion_lm.text.hf import HfCorpus
from diffusion_lm.text.lines import LINES_FILES, LinesCorpus
from diffusion_lm.text.reader import SPLITS, Corpus
from diffusion_lm.text.toy import ToyCorpus

__all__ = ["SPLITS", "Corpus", "CorpusConfig", "open_corpus"]


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
    raise UserError(
        f"{files.path} has neither E2E's trainset.csv and devset.csv nor train.txt and valid.txt."
    )
