"""The config of a run, saved as the YAML file that --config reads."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from diffusion_lm.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RUN_FILE = "run.yaml"


def save_config(config: DataclassInstance, folder: str | Path) -> Path:
    """Write `folder`/run.yaml, whole or not at all, and return its path; the folder is made if need be.

    Raises:
        UserError: if the folder cannot be written to.
    """
    path = Path(folder) / RUN_FILE
    # Several processes of one run may write at once, each the same.
    partial = path.with_name(f".{RUN_FILE}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from None
    return path


def _plain(value: object) -> object:
    """YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
