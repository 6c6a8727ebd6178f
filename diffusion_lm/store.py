"""What is kept in folders: config and tensors, each file whole or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.common import UserError


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file aside and put it in its place: whoever is interrupted leaves what was there before.

    Args:
        path: the file; its folder is there.
        data: what it shall hold; text as UTF-8.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_TEXTS = ("No space left", *(f"os error {number}" for number in _NUMBERS))


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn an exception that comes from a full disk or a spent quota into a UserError.

    Args:
        folder: what was written to, for the message.

    Raises:
        UserError: in place of that exception; others pass.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # safetensors and TensorBoard wrap the operating system's error in one of their own
        full = getattr(error, "errno", None) in _NUMBERS or any(text in str(error) for text in _TEXTS)
        if not full:
            raise
        raise UserError(
            f"The disk is full and {folder} could not be written; earlier checkpoints are intact, so free "
            "some space and start the same command again."
        ) from None


T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """What is kept, in words for errors."""

    name: str
    """Such as "attribute classifier"."""
    train: str
    """The command that makes one."""
    format: int = 1
    """Of the files; those of another format are refused."""


def save(folder: str | Path, kind: Kind, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the two files into a folder, which is made if it is not there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": kind.format, **config}, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text, encoding="utf8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def load(folder: str | Path, kind: Kind, lm: str, build: Callable[[dict[str, Any], dict[str, Tensor]], T]) -> T:
    """Read what `save` wrote.

    Args:
        folder: where it is.
        kind: what it has to be.
        lm: fingerprint of the language model that will be steered.
        build: makes it of its config, where `lm` stands too, and its tensors.

    Raises:
        UserError: if the folder is missing or damaged, or belongs to another language model.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} holds no {kind.name}; make one with: {kind.train}.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
        if config.pop("format") != kind.format:
            raise ValueError(f"not of format {kind.format}; make it anew with: {kind.train}")
        of = config["lm"]
        built = build(config, load_file(folder / "model.safetensors"))
    except Exception as error:
        raise UserError(f"The {kind.name} in {folder} is truncated or foreign ({error}).") from None
    if of != lm:
        raise UserError(
            f"The {kind.name} in {folder} belongs to another language model; make it for this one with: {kind.train}."
        )
    return built


logger = logging.getLogger(__name__)


class Savable(Protocol):
    """Anything that writes itself into a folder."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""


def save_control(part: Savable, out: Path) -> None:
    """Put a control's folder in its place whole; what stood there before goes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    part.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)
    logger.info("Saved in %s.", out)
