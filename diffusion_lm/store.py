"""The one place that reads and writes folders: config and tensors, whole or not at all, never pickled."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.common import UserError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODELS = Path(__file__).resolve().parent / "models"
"""Where what comes with the package is, a folder each."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENAMETOOLONG, errno.EROFS)
_FULL_TEXTS = ("No space left", *(f"os error {number}" for number in _FULL))


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn what a full disk, a spent quota or a folder that cannot be written to raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # safetensors and TensorBoard wrap the operating system's error in one of their own
        if getattr(error, "errno", None) in _FULL or any(text in str(error) for text in _FULL_TEXTS):
            raise UserError(
                f"The disk is full and {folder} could not be written; what was there before is intact, so free some "
                "space and start the same command again."
            ) from None
        if isinstance(error, OSError) and error.errno in _NO_PLACE:
            raise UserError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from None
        raise


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file, text as UTF-8, aside and put it in its place: whoever is interrupted leaves what was there before."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record as one line of JSON to a file, made if need be; on return the line is on the disk.

    The line is one write to a file opened for appending, so runs that share a file do not mix their lines.

    Raises:
        ValueError: a number is not finite, which JSON cannot hold; None stands for a figure that is missing.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(line.encode("utf-8"))
        os.fsync(file.fileno())


def read_text(path: str | Path, what: str) -> str:
    """The text of a file, of standard input for "-"; a `UserError` that says what it should have been if it cannot be read."""
    try:
        return sys.stdin.read() if str(path) == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: of the file's name, or of its bytes
        raise UserError(f"The {what} {str(path)!r} cannot be read ({error}).") from None


def read_json(path: Path) -> Any:
    """What a file of JSON holds; a `UserError` if it cannot be read, or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:  # brackets in thousands of brackets
        raise UserError(f"{path} is no JSON ({error}).") from None


@dataclass(frozen=True)
class Kind:
    """What is kept, in words for errors."""

    name: str
    """Such as "attribute classifier"; written into the config, and folders of another kind are refused."""
    train: str
    """The command that makes one."""
    format: int = 1
    """Of the files; those of another format are refused."""


def save(
    folder: str | Path,
    kind: Kind,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    extra: Callable[[Path], None] | None = None,
) -> None:
    """Write a folder aside and put it in its place: what `load` then finds is the new folder whole, the old one, or none.

    Files that are not written anew stay. `extra` writes what else belongs into the folder that it is given.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    folder = Path(folder).absolute()
    partial = folder.with_name(f".{folder.name}.partial")
    with explain_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, partial / WEIGHTS, metadata={"format": "pt"})
            if extra is not None:
                extra(partial)
            text = json.dumps({"kind": kind.name, "format": kind.format, **config}, indent=2, ensure_ascii=False)
            write_whole(partial / CONFIG, f"{text}\n")
            # The config out first and in last: a process that is killed in between leaves none, and `load` refuses.
            folder.mkdir(exist_ok=True)
            (folder / CONFIG).unlink(missing_ok=True)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == CONFIG):
                if path.is_dir():
                    shutil.rmtree(folder / path.name, ignore_errors=True)
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def bundled(kind: Kind) -> dict[str, Path]:
    """What is installed of a kind, each folder by its name: in this package, and in others by their entry points.

    Another package names a module in its entry points `diffusion_lm.models`, whose folder is what it brings.
    """
    found = {path.parent.name: path.parent for path in sorted(MODELS.glob(f"*/{CONFIG}"))}
    for point in entry_points(group="diffusion_lm.models"):
        if (spec := find_spec(point.value)) is not None and spec.submodule_search_locations:
            found[point.name] = Path(spec.submodule_search_locations[0])
    return {name: folder for name, folder in found.items() if _kind_of(folder) == kind.name}


def _kind_of(folder: Path) -> str | None:
    """What a folder says it holds; None where it says nothing."""
    with suppress(UserError, AttributeError):
        return read_json(folder / CONFIG).get("kind")
    return None


T = TypeVar("T")


def load(
    folder: str | Path, kind: Kind, build: Callable[[dict[str, Any], dict[str, Tensor]], T], lm: str | None = None
) -> T:
    """Read what `save` wrote and build it of its config and tensors.

    `lm` is the fingerprint of the language model that it has to belong to, which stands in its config.

    Raises:
        UserError: the folder is missing, damaged or foreign, or belongs to another language model.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no {kind.name}; make one with: {kind.train}.")
    try:
        config = dict(read_json(folder / CONFIG))
        if (found := config.pop("kind", kind.name)) != kind.name:
            raise ValueError(f"it holds a {found}")
        if config.pop("format", 1) != kind.format:
            raise ValueError(f"not of format {kind.format}; make it anew with: {kind.train}")
        of = None if lm is None else config["lm"]
        built = build(config, load_file(folder / WEIGHTS))
    except Exception as error:
        raise UserError(f"The {kind.name} in {folder} is truncated or foreign ({error}).") from None
    if of != lm:
        raise UserError(
            f"The {kind.name} in {folder} belongs to another language model; make it for this one with: {kind.train}."
        )
    return built
