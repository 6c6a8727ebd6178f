"""The card of a model with its numbers: what evaluations measured of it, beside human text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.scores import METRICS, REFERENCES
from diffusion_lm.generation.card import CARD, model_card
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.report.data import Found, read
from diffusion_lm.report.tables import escape, table
from diffusion_lm.store import explain_full_disk, write_whole
from diffusion_lm.text.corpus import NO_CORPUS

FIGURES = (
    "nats",
    "against_human",
    "success",
    "distinct_1",
    "distinct_2",
    "self_bleu",
    "mauve",
    "verbatim",
    "passes",
    "n",
)
"""The figures of a card, in their order."""
LISTED = ("nats", "success", "self_bleu")
"""Those that the hub lists beside a model."""


@dataclass(frozen=True)
class CardConfig:
    """Which model, and what was measured of it."""

    model: str
    """Folder of a model or of its training run, or name of a bundled model."""
    runs: list[str] = field(default_factory=list)
    """Folders that evaluate wrote, of this model; may be repeated."""
    name: str | None = None
    """What the card calls the model, and its snippets load; null: --model."""
    out: str | None = None
    """The file; null: README.md in the model's folder, where one that is there is replaced."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.out is not None and Path(self.out).is_dir():
            raise UserError(f"{self.out} is a folder; give --out a file, such as {Path(self.out) / CARD}.")


def make_card(config: CardConfig) -> Path:
    """Write the card of a model, and return its file.

    Raises:
        UserError: there is no such model, a run is no finished evaluation, or the file cannot be written.
    """
    lm = DiffusionLM.from_pretrained(config.model, "cpu")
    assert lm.folder is not None
    results, figures, dataset = "", dict[str, float](), "a corpus"
    if config.runs:
        found = read(config.runs)
        # Without a corpus it is the judge's that fluency is held against.
        sources = found.scores.corpus.where(found.scores.corpus != NO_CORPUS, found.scores.judge)
        dataset = ", ".join(sorted({Path(str(source)).name for source in sources}))
        results, figures = _table(found, dataset), _listed(found.measured)
    card = model_card(lm, lm.folder, config.name or config.model, results, figures, dataset)
    path = Path(config.out) if config.out is not None else lm.folder / CARD
    with explain_full_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{str(card).strip()}\n")
    return path


def _table(found: Found, dataset: str) -> str:
    """Human text, the judge's own samples, and the model on each task; below it how its texts were drawn and judged."""
    rows = pd.concat([found.references.assign(decoding=""), found.measured])
    rows = rows.assign(name=rows.task.map(REFERENCES).fillna(rows.task))
    numbers = {name: (METRICS[name].head, METRICS[name].form) for name in FIGURES}
    judges = ", ".join(sorted({Path(str(judge)).name for judge in rows.judge}))
    said = [f"- {escape(row.task)}: {escape(str(row.decoding))}" for row in found.measured.itertuples() if row.decoding]
    about = f"Held against {escape(dataset)}, judged by {escape(judges)}, on {escape('; '.join(found.hardware))}."
    return "\n\n".join([about, table(rows, {"name": ""}, numbers), "\n".join(said)])


def _listed(rows: pd.DataFrame) -> dict[str, float]:
    return {
        f"{row['task']} {METRICS[name].head}": round(float(row[name]), 4)
        for row in rows.to_dict("records")
        for name in LISTED
        if not pd.isna(row[name])
    }
