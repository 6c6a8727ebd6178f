"""Checkpoints for resuming: written atomically, verified when read, never pickled.

`checkpoints/step-00001000/` holds `model`, `ema`, `optimizer` and `times` as safetensors, and `state.json`
with the step, the run's fingerprint and a hash of every file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.store import explain_full_disk

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM


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


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint under `folder` so that it is there whole or not at all.

    Of the others the newest `KEEP` - 1 stay. Those of later steps go too: a run takes up its newest intact
    checkpoint, so they are damaged.

    Raises:
        UserError: if the disk is full; earlier checkpoints stay, and no part of this one does.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".partial-{checkpoint.step:08d}"
    for left_over in folder.glob(".partial-*"):  # of a process that was killed
        shutil.rmtree(left_over)
    try:
        with explain_full_disk(folder):
            _write(partial, checkpoint)
            if final.exists():
                shutil.rmtree(final)
            os.replace(partial, final)
            _sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    earlier = sorted(path for path in folder.glob("step-*") if path < final)
    for path in set(folder.glob("step-*")) - {final, *earlier[1 - KEEP :]}:
        shutil.rmtree(path)
    return final


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    folder.mkdir(parents=True)
    hashes = {}
    for name, tensors in checkpoint.parts.items():
        path = folder / f"{name}.safetensors"
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, path)
        hashes[path.name] = _digest(path)
    state = {
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "run": checkpoint.run,
        "sha256": hashes,
    }
    (folder / STATE).write_text(json.dumps(state))
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / STATE).read_text())
    if path.name != f"step-{state['step']:08d}":
        raise ValueError(f"{STATE} belongs to step {state['step']}")
    parts = {}
    for name, digest in state["sha256"].items():
        if _digest(path / name) != digest:
            raise ValueError(f"{name} is truncated or corrupted")
        parts[Path(name).stem] = load_file(path / name)
    return Checkpoint(state["step"], state["tokens"], state["run"], parts)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint under `folder`, or None; damaged ones are reported and passed over."""
    paths = sorted(folder.glob("step-*"), reverse=True)
    for path in paths:
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            logger.warning("Passing over the damaged checkpoint %s: %s.", path, error)
    if paths:
        logger.warning("No checkpoint in %s is intact; training starts afresh.", folder)
    return None


def export_model(lm: DiffusionLM, folder: Path) -> None:
    """Write a model to generate with over an earlier one of the same run, each file whole or not at all.

    Raises:
        UserError: if the disk is full; the earlier model stays as it was.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with explain_full_disk(folder):
            lm.save_pretrained(partial)
            folder.mkdir(exist_ok=True)
            for path in partial.iterdir():
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
