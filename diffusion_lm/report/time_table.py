"""What the runs of a report took, as scripts/reproduce.py wrote it."""

from __future__ import annotations

from diffusion_lm.errors import UserError
from diffusion_lm.report.collection import Collection
from diffusion_lm.report.table import Cell, Line, Table

KINDS = {"making": "training or labelling", "measuring": "writing and scoring"}
"""Kinds of work by their name in the file."""
MINUTE = 60


def time_table(found: Collection) -> Table | None:
    """Minutes by part and kind of work, of a time.json: {part: {"making": seconds, "measuring": seconds}}.

    Raises:
        UserError: it is laid out otherwise.
    """
    lines = []
    total = dict.fromkeys(KINDS, 0.0)
    for run in found.runs:
        for part, spent in (run.time or {}).items():
            try:
                seconds = {kind: float(spent[kind]) for kind in KINDS}
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f'{run.folder}/time.json must hold {{PART: {{"making": SECONDS, "measuring": SECONDS}}}} ({error}).'
                ) from error
            lines.append(Line(part, _cells(seconds)))
            total = {kind: total[kind] + seconds[kind] for kind in KINDS}
    if not lines:
        return None
    return Table("part", [*KINDS.values(), "together"], [*lines, Line("all", _cells(total))])


def _cells(seconds: dict[str, float]) -> list[Cell]:
    return [Cell(f"{spent / MINUTE:.1f}") for spent in (*seconds.values(), sum(seconds.values()))]
