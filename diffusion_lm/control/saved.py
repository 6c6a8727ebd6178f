"""How what a control has learned is kept: config.json and model.safetensors, bound to one language model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.errors import UserError

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


def load(
    folder: str | Path, kind: Kind, lm: str, build: Callable[[dict[str, Any], dict[str, Tensor]], T]
) -> T:
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
