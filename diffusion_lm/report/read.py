"""Reads the folder of a run: the summary and texts of an evaluation, and what else may lie there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_lm.errors import UserError

SUMMARY, TEXTS = "summary.json", "results.jsonl"
EXTRAS = ("likelihood.json", "by_noise.json", "trace.json", "time.json")
"""Files of which a folder may hold any, with an evaluation or instead of one."""


class Text(NamedTuple):
    """What the report needs of a line of results.jsonl."""

    task: str
    target: str
    text: str
    success: float | None


@dataclass(frozen=True)
class Row:
    """A row of a summary: who did what, and the figures. What was not measured is None."""

    system: str
    task: str
    figures: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """A figure by its name in `EvaluationRow`."""
        value = self.figures.get(name)
        return None if value is None else float(value)

    def interval(self, name: str) -> tuple[float, float] | None:
        """The ends of the 95 % interval of a figure."""
        return _ends(self.figures.get(f"{name}_interval"))

    def parts(self, name: str = "parts") -> dict[str, float]:
        """The mean success of each of several controls, by the name of its task."""
        return dict(self.figures.get(name) or {})

    def parts_intervals(self) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each of `parts`, where it was measured."""
        return {name: _ends(ends) for name, ends in dict(self.figures.get("parts_interval") or {}).items()}

    @property
    def against_human(self) -> float | None:
        """Nats a token above human text."""
        nats, human = self.number("nats_per_token"), self.number("human_nats_per_token")
        return None if nats is None or human is None else nats - human


def _ends(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (float(ends[0]), float(ends[1]))


@dataclass(frozen=True)
class Run:
    """A folder: `rows` is empty where it holds no evaluation, an extra is None where it is not there."""

    folder: Path
    system: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    texts: tuple[Text, ...] = ()
    references: Mapping[str, Any] = field(default_factory=dict)
    likelihood: Mapping[str, Any] | None = None
    by_noise: Mapping[str, Any] | None = None
    trace: Mapping[str, Any] | None = None
    time: Mapping[str, Any] | None = None

    @property
    def point(self) -> tuple[str, str] | None:
        """The figure that a label "FIGURE: POINT" puts the run into, and its place there."""
        figure, colon, point = (self.config.get("label") or "").partition(": ")
        return (figure.strip(), point.strip()) if colon else None


def read_run(folder: str | Path) -> Run:
    """Read a folder.

    Raises:
        UserError: the folder holds nothing that a report shows, or a file in it is unfinished or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; diffusion-lm evaluate --out {folder} makes it.")
    extras = {Path(name).stem: _json(folder / name) for name in EXTRAS if (folder / name).is_file()}
    if not (folder / SUMMARY).is_file():
        if extras:
            return _run(folder, extras)
        begun = (
            "give the same command again to go on with what was begun" if (folder / TEXTS).is_file() else ""
        )
        raise UserError(
            f"{folder} is no finished evaluation: it holds no {SUMMARY}, which diffusion-lm evaluate --out {folder} "
            f"writes last{begun and f'; {begun}'}."
        )
    if not (folder / TEXTS).is_file():
        raise UserError(
            f"{folder} is no whole evaluation: it holds no {TEXTS}; diffusion-lm evaluate --out {folder} writes it again."
        )
    summary = _json(folder / SUMMARY)
    try:
        rows = tuple(Row(shown(row["system"]), row["task"], row) for row in summary["rows"])
        config = dict(summary["config"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / SUMMARY} does not say {error}: it is of another version; run the same diffusion-lm evaluate "
            "again, which keeps the texts and writes the summary anew."
        ) from error
    references = dict(summary.get("references") or {})
    system = shown(str(summary.get("system") or config.get("model") or folder.name))
    return _run(
        folder,
        extras,
        system=system,
        config=config,
        rows=rows,
        texts=_texts(folder / TEXTS),
        references=references,
    )


def _run(folder: Path, extras: Mapping[str, Any], **evaluation: Any) -> Run:
    return Run(folder, **evaluation, **extras)


def shown(name: str) -> str:
    """A name without the place on this machine, which is nobody else's."""
    return Path(name).name if Path(name).is_absolute() else name


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); make it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(values).__name__}.")
    return values


def _texts(path: Path) -> tuple[Text, ...]:
    out = []
    # Not splitlines, which would also split at separators that JSON leaves inside a text.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line:
            try:
                found = json.loads(line)
                out.append(Text(*(found[name] for name in Text._fields)))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"Line {number} of {path} is no result of an evaluation ({error})."
                ) from error
    return tuple(out)
