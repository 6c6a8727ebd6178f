"""Folders of evaluations as one frame, a row for each system and task."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.scores import METRICS, REFERENCES, RUN, TEXTS, Context, read_run, read_texts, table
from diffusion_lm.evaluation.tasks import FREE
from diffusion_lm.store import read_json

logger = logging.getLogger(__name__)

OLD = ("summary.json", "results.jsonl")
EXTRAS = ("likelihood", "by_noise", "trace", "time")
"""Files NAME.json of which a folder may hold any, with an evaluation or instead of one."""
YARDSTICK = ["judge", "corpus", "most"]
"""Columns that say by what a row was measured; figures of two yardsticks do not compare."""
NO_SCORES = ["system", "task", "folder", "figure", "point", *YARDSTICK, *METRICS]
"""The columns of a frame of scores of nothing."""


@dataclass(frozen=True)
class Found:
    """What tables and figures are made from.

    Attributes:
        scores: a row for each system and task, as `evaluation.scores.table` makes it, with its `YARDSTICK` (the judge, the
            corpus, the most texts whose diversity is measured), its `decoding` and `folder`, and the `figure` and `point` that a
            label "FIGURE: POINT" names.
        lines: those of all texts.jsonl, with their `folder`.
        against: a row for each system, task and way to choose: figures against references.
        extras: by the name of another file its contents, each with the name of its folder.
        folders: their names.
        hardware: on what was written and measured.
    """

    scores: pd.DataFrame
    lines: pd.DataFrame
    against: pd.DataFrame
    extras: Mapping[str, list[tuple[str, dict[str, Any]]]]
    folders: list[str]
    hardware: list[str]

    @property
    def references(self) -> pd.DataFrame:
        """Human text and the judge's, once for each yardstick; what one run did not measure is taken from another.

        Human text is in a model's vocabulary: if the runs' models differ, in that of the one that writes freely.
        """
        free = self.scores.folder.isin(self.scores.folder[self.scores.task == FREE])
        rows = pd.concat([self.scores[~free], self.scores[free]])
        rows = rows[rows.task.isin(REFERENCES)]
        return rows.groupby([*YARDSTICK, "task"], sort=False, as_index=False).last()

    @property
    def measured(self) -> pd.DataFrame:
        """The rows of systems that are no points of an ablation."""
        return self.scores[~self.scores.task.isin(REFERENCES) & (self.scores.figure == "")]

    @property
    def ablations(self) -> dict[str, pd.DataFrame]:
        """The rows of ablations by their figure; `at` is the point as a number, by which they are in order, or else its place."""
        out = {}
        rows = self.scores[~self.scores.task.isin(REFERENCES) & (self.scores.figure != "")]
        for figure, own in rows.groupby("figure", sort=False):
            at = pd.to_numeric(own.point, errors="coerce")
            at = pd.Series(pd.factorize(own.point)[0], own.index) if at.isna().any() else at
            out[str(figure)] = own.assign(at=at).sort_values("at", kind="stable")
        return out


def read(folders: Iterable[str | Path]) -> Found:
    """Read folders; of two rows of the same system and task the later one counts, which a warning says.

    Raises:
        UserError: a folder holds nothing that a report shows, or a file in it is unfinished, damaged or of an older version.
    """
    paths = list(dict.fromkeys(map(Path, folders)))
    scores, lines, against = [], [], []
    hardware: list[str] = []
    extras: dict[str, list[tuple[str, dict[str, Any]]]] = {name: [] for name in EXTRAS}
    for folder in paths:
        files = [folder / f"{name}.json" for name in EXTRAS if (folder / f"{name}.json").is_file()]
        for path in files:
            values = read_json(path)
            if not isinstance(values, dict):
                raise UserError(f"{path} must hold a JSON object, not {type(values).__name__}.")
            extras[path.stem].append((folder.name, values))
        if not _is_evaluation(folder, bool(files)):
            continue
        run, texts = read_run(folder), read_texts(folder)
        texts = texts.assign(system=texts.system.map(_shown), folder=str(folder))
        scores.append(_scores(texts, run, folder))
        lines.append(texts)
        hardware += run.get("hardware") or []
        against += [
            {"system": _shown(run["system"]), "task": task, "way": way, **figures}
            for task, ways in (run.get("references") or {}).items()
            for way, figures in ways.items()
        ]
    every = pd.concat(scores, ignore_index=True) if scores else pd.DataFrame(columns=NO_SCORES)
    kept = every.task.isin(REFERENCES) | ~every.duplicated(["system", "task"], keep="last")
    for row in every[~kept].itertuples():
        logger.warning("%s does %s in several runs; the last one counts, not %s.", row.system, row.task, row.folder)
    texts = pd.concat(lines, ignore_index=True) if lines else pd.DataFrame(columns=[*NO_SCORES, "text", "target"])
    names, hardware = [folder.name for folder in paths], list(dict.fromkeys(hardware))
    return Found(every[kept], texts, pd.DataFrame(against), extras, names, hardware)


def _is_evaluation(folder: Path, other: bool) -> bool:
    """Whether a folder holds an evaluation; `other`: it holds something else that a report shows."""
    again = f"diffusion-lm evaluate --out {folder}"
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; {again} makes it.")
    missing = [name for name in (RUN, TEXTS) if not (folder / name).is_file()]
    if len(missing) == 2 and any((folder / name).is_file() for name in OLD):
        raise UserError(f"{folder} is an evaluation of an older version, which wrote {OLD[0]}; evaluate anew: {again}.")
    if missing and (len(missing) == 1 or not other):
        raise UserError(
            f"{folder} is no finished evaluation: it lacks {missing[0]}; {again} goes on with what is there."
        )
    return not missing


def _scores(lines: pd.DataFrame, run: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """The rows of one evaluation, with what its run.json says of them."""
    figure, colon, point = (run["config"].get("label") or "").partition(": ")
    rows = table(lines, Context.of(run))
    rows = rows.mask(rows.isna()).infer_objects()  # a column of None is one of numbers too
    return rows.assign(
        judge=_shown(run["config"]["judge"]),
        corpus=_shown(run["config"]["corpus"]["source"]),
        most=run["config"]["n"],
        figure=figure.strip() if colon else "",
        point=point.strip(),
        decoding=rows.task.map(run.get("decoding") or {}),
        folder=str(folder),
    )


def _shown(name: str) -> str:
    """A name without the place on this machine, which is nobody else's."""
    return Path(name).name if Path(name).is_absolute() else name
