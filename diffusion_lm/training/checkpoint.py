"""Checkpoints for resuming: written atomically, verified when read, never pickled.

`checkpoints/step-00001000/` holds `model`, `ema`, `optimizer` and `times` as safetensors, and `state.json` with the
step, the run's fingerprint and a hash of every file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.errors import UserError

logger = logging.getLogger(__name__)

KEEP = 2
"""How many checkpoints stay on disk."""
STATE = "state.json"

Parts = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """The training state after a step.

    Attributes:
        step: optimiser steps taken.
        tokens: tokens seen.
        run: fingerprint of the run that wrote it.
        parts: tensors by part and name.
    """

    step: int
    tokens: int
    run: str
    parts: Parts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint under `folder` so that it is there whole or not at all, and delete all but the newest `KEEP`.

    Raises:
        UserError: if the disk is full; earlier checkpoints stay, and no part of this one does.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".partial-{checkpoint.step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        hashes = {}
        for name, tensors in checkpoint.parts.items():
            path = partial / f"{name}.safetensors"
            save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, path)
            hashes[path.name] = _digest(path)
        state = {"step": checkpoint.step, "tokens": checkpoint.tokens, "run": checkpoint.run, "sha256": hashes}
        (partial / STATE).write_text(json.dumps(state))
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    except Exception as error:  # safetensors wraps a full disk in an exception of its own
        shutil.rmtree(partial, ignore_errors=True)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error) or "os error 28" in str(error):
            raise UserError(
                f"The disk is full: the checkpoint of step {checkpoint.step} could not be written to {folder}; "
                "earlier checkpoints are intact, so free some space and start the same command again."
            ) from None
        raise
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)
    return final


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / STATE).read_text())
    parts = {}
    for name, digest in state["sha256"].items():
        if _digest(path / name) != digest:
            raise ValueError(f"{name} is truncated or corrupted")
        parts[Path(name).stem] = load_file(path / name)
    return Checkpoint(state["step"], state["tokens"], state["run"], parts)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint under `folder`; damaged ones are reported and passed over. None if there is none."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return _read(path)
        except (OSError, ValueError, KeyError) as error:
            logger.warning("Passing over the damaged checkpoint %s: %s.", path, error)
    return None
