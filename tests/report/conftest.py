"""Folders of runs, made by hand: as small as can be, and laid out as `diffusion-lm evaluate` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

Record = dict[str, Any]


class Runs:
    """Makes folders, and the texts in them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def text(system: str, task: str, target: str = "", text: str = "A pub.", **values: Any) -> Record:
        """A line of texts.jsonl, of 1.7 nats a token."""
        known = {"index": 0, "success": None, "parts": {}, "paper_success": {}, "nats": 17.0, "tokens": 10, "seed": 0}
        cost = {"seconds": 0.5, "passes": 50, "copied": False, "config": "x"}
        return {"system": system, "task": task, "target": target, "text": text, **known, **cost, **values}

    def obeying(self, system: str, task: str, *shares: float, **values: Any) -> list[Record]:
        """A text for each of several targets, with its success."""
        return [
            self.text(system, task, f"{i}: x", success=share, paper_success={task: share}, **values)
            for i, share in enumerate(shares, start=1)
        ]

    def evaluation(self, name: str, *texts: Record, **run: Any) -> str:
        """The folder of an evaluation, human text and the judge's included."""
        known = [
            self.text("human", "human", text="A pub by the river.", nats=16.0, passes=None, seconds=None),
            self.text("human", "human in vocabulary", text="A pub by UNK.", nats=16.0, passes=None, seconds=None),
            self.text("judge", "judge", text="A bar.", nats=13.0),
        ]
        config = {
            "label": None,
            "judge": "runs/judge",
            "corpus": {"source": "E2E"},
            "n": 100,
            "seed": 0,
            **run.pop("config", {}),
        }
        of = {line["task"]: {"of": 100 if line["target"] else 1, "tried": 1} for line in texts}
        system = texts[0]["system"] if texts else "ours"
        record = {
            "system": system,
            "config": config,
            "hash": "x",
            "human_nats": 1.6,
            "targets": of,
            "outside": {},
            **run,
        }
        folder = self.extra(name, "run.json", record)
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [*known, *texts])
        Path(folder, "texts.jsonl").write_text(lines, encoding="utf-8")
        return folder

    def extra(self, name: str, file: str, record: Any) -> str:
        """A folder with one file more."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(record), encoding="utf-8")
        return str(folder)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)
