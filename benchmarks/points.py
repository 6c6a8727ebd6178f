"""What is measured: one point is one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).resolve().parent


def own_process(command: list[str]) -> Any:
    """What a script of this folder prints last, as JSON, run in a process of its own, so that its peak memory is its own."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    words = [sys.executable, *command]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Point:
    """One measurement."""

    kind: Literal["train", "generate"]
    config: str
    """Path of the YAML file of a training run."""
    sweep: str = ""
    """What grows from point to point: batch, length or steps; empty for the recipe's own setting."""
    batch: float = 1.0
    """train: the recipe's batch times this; generate: sentences a batch."""
    length: int | None = None
    """Tokens of every sentence, START and END included; None: lengths spread as in E2E."""
    steps: int = 200
    """generate: denoising steps."""
    control: bool = False
    """generate: follow an attribute classifier."""
    seconds: float = 10.0
    """train: optimiser steps are taken for so long."""
    tiny: bool = False
    """Shrink the model and the batch, to try the benchmark itself."""


@dataclass(frozen=True)
class Sweeps:
    """The values along each axis, beside the recipe's own."""

    train_batches: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0)
    samples: tuple[int, ...] = (1, 4, 16, 256)
    lengths: tuple[int, ...] = (16, 32, 64)
    steps: tuple[int, ...] = (20, 50, 100)
    batch: int = 64
    most_steps: int = 200
    seconds: float = 10.0
    tiny: bool = False


QUICK = Sweeps((2.0,), (2,), (8,), (2,), batch=4, most_steps=4, seconds=0.2, tiny=True)


def points(config: str, sweeps: Sweeps) -> Iterator[Point]:
    """All points of a training recipe."""
    train = Point("train", config, seconds=sweeps.seconds, tiny=sweeps.tiny)
    write = Point("generate", config, batch=sweeps.batch, steps=sweeps.most_steps, tiny=sweeps.tiny)
    yield train
    yield from (replace(train, sweep="batch", batch=batch) for batch in sweeps.train_batches)
    yield from (replace(train, sweep="length", length=length) for length in sweeps.lengths)
    yield write
    yield replace(write, control=True)
    for control in (False, True):
        base = replace(write, control=control)
        yield from (replace(base, sweep="batch", batch=batch) for batch in sweeps.samples)
        yield from (replace(base, sweep="length", length=length) for length in sweeps.lengths)
        yield from (replace(base, sweep="steps", steps=steps) for steps in sweeps.steps)
