"""Folders of runs, made by hand: as small as can be, and laid out as `diffusion-lm evaluate` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

Record = dict[str, Any]


class Runs:
    """Makes folders, and the rows and texts in them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def row(system: str, task: str, **figures: Any) -> Record:
        """A row of a summary."""
        measured = {
            "nats_per_token": 1.7,
            "human_nats_per_token": 1.6,
            "distinct_1": 400,
            "n": 100,
            "seed": 0,
        }
        return {"system": system, "task": task, **measured, **figures}

    @staticmethod
    def text(task: str, target: str, words: str, success: float | None) -> Record:
        """A line of results.jsonl."""
        return {"task": task, "target": target, "text": words, "success": success, "later": "ignored"}

    def evaluation(self, name: str, *rows: Record, texts: tuple[Record, ...] = (), **summary: Any) -> str:
        """The folder of an evaluation, human text and the judge included."""
        known = [
            self.row("human", "human", nats_per_token=1.6, distinct_1=608),
            self.row("human", "human in vocabulary", nats_per_token=1.6, distinct_1=492),
            self.row("judge", "judge", nats_per_token=1.3, distinct_1=529, mauve=0.95),
        ]
        config = {"judge": "runs/judge", "corpus": {"source": "E2E"}, "n": 100, **summary.pop("config", {})}
        record = {"system": "ours", "config": config, "rows": [*known, *rows], **summary}
        folder = self.extra(name, "summary.json", record)
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in texts)
        Path(folder, "results.jsonl").write_text(lines, encoding="utf-8")
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
