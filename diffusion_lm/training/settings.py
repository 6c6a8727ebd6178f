"""run.yaml: what a run was started with, saved in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from diffusion_lm.files import write_whole
from diffusion_lm.training.config import TrainConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RUN_FILE = "run.yaml"


def save_settings(folder: Path, config: DataclassInstance) -> None:
    """Write `run.yaml`; as a configuration file of the same command it starts the same run."""
    write_whole(folder / RUN_FILE, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def changed_settings(folder: Path, config: TrainConfig) -> list[str]:
    """In which settings a run differs from the one that wrote the folder's `run.yaml`.

    Returns:
        Phrases such as "optimizer.lr (0.003 there, 0.001 here)"; none if there is no readable `run.yaml`.
    """
    try:
        saved = dict(_flat(yaml.safe_load((folder / RUN_FILE).read_text(encoding="utf8"))))
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return []
    here = dict(_flat(asdict(config)))
    return [
        f"{name} ({saved.get(name)} there, {here.get(name)} here)"
        for name in dict.fromkeys([*saved, *here])
        if saved.get(name) != here.get(name)
    ]


def _flat(tree: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
