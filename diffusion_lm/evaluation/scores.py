"""The frame of texts, a row of figures for each system and task, and what is to be said of them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.metrics import distinct
from diffusion_lm.evaluation.metrics import self_bleu as mean_self_bleu
from diffusion_lm.store import read_json
from diffusion_lm.text.spacing import words_of

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

TEXTS, RUN = "texts.jsonl", "run.json"
_NUMBER = float | int
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("system", "task", "target", "text", "config"), str),
    **dict.fromkeys(("index", "tokens", "seed"), int),
    **dict.fromkeys(("success", "seconds", "passes"), _NUMBER | None),
    **{"nats": _NUMBER, "parts": dict, "paper_success": dict, "copied": bool | None},
}
"""A line of texts.jsonl, one for each text: who wrote it (`system`), for which `task` and `target`, how far it does what was
asked (`success` in [0, 1], of each of several controls in `parts`, as the paper counts it in `paper_success`), -log p under the
judge over so many `tokens`, END counted, what it cost, and a hash of all that it depends on (`config`)."""
REFERENCES = {
    "human": "human (dev), as written",
    "human in vocabulary": "human (dev), model's vocabulary",
    "judge": "judge's own samples",
}
"""Tasks that stand in every evaluation, to compare with, and what they are called."""


def read_texts(folder: str | Path) -> pd.DataFrame:
    """The texts of an evaluation, with the columns of `COLUMNS`; what a killed process left of a last line is dropped.

    Raises:
        UserError: there are none, or a line is no text with its scores.
    """
    path = Path(folder) / TEXTS
    try:
        *lines, rest = path.read_bytes().decode("utf-8", errors="replace").split("\n")  # splitlines knows other ends
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); diffusion-lm evaluate writes it.") from None
    if rest:
        logger.warning("The last line of %s was cut short and is dropped.", path)
    records = [_record(line, f"Line {row} of {path}") for row, line in enumerate(lines, 1)]
    frame = pd.DataFrame(records, columns=list(COLUMNS))
    frame = frame.astype({"success": float, "nats": float, "seconds": float, "passes": float})
    return frame.drop_duplicates(["system", "task", "target", "index"], ignore_index=True)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
        if wrong := [name for name, kinds in COLUMNS.items() if not isinstance(values.get(name), kinds)]:
            raise ValueError(f"its {wrong[0]} is missing or odd")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where} is no text of an evaluation ({error}).") from None
    return {name: values.get(name) for name in COLUMNS}


def read_run(folder: str | Path) -> dict[str, Any]:
    """What run.json says of an evaluation.

    Raises:
        UserError: it is missing or damaged.
    """
    run = read_json(Path(folder) / RUN)
    if not isinstance(run, dict) or not {"system", "config", "hash", "human_nats", "targets"} <= run.keys():
        raise UserError(f"{Path(folder) / RUN} is of no evaluation; the same diffusion-lm evaluate writes it anew.")
    return run


# -- figures -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Context:
    """What figures depend on beside the texts of their row."""

    human_nats: float | None = None
    n: int = 1000
    """The most texts whose diversity is measured."""
    seed: int = 0
    targets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By task: how many targets there are (`of`)."""
    outside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By task: what pretrained models measured."""

    @staticmethod
    def of(run: Mapping[str, Any]) -> Context:
        """That of run.json."""
        config = run["config"]
        return Context(run["human_nats"], config["n"], config["seed"], run["targets"], run.get("outside") or {})


Measure = Callable[[pd.DataFrame, Context], Any]


class Metric(NamedTuple):
    """A figure of the texts of a row, and how it is printed."""

    head: str
    form: str
    of: Measure


METRICS: dict[str, Metric] = {}
"""The figures by the name of their column."""


def metric(head: str, form: str) -> Callable[[Measure], Measure]:
    """Register a function as a figure: a column of `table`, of what is printed and of the report."""

    def register(measure: Measure) -> Measure:
        METRICS[measure.__name__] = Metric(head, form, measure)
        return measure

    return register


@metric("nats/token", "{:.3f}")
def nats(rows: pd.DataFrame, context: Context) -> float:
    """Fluency: the judge's nats a token, END counted."""
    return float(rows["nats"].sum() / rows["tokens"].sum())


@metric("vs human", "{:+.3f}")
def against_human(rows: pd.DataFrame, context: Context) -> float | None:
    """Nats a token above human text; negative where the judge likes the system better."""
    return None if context.human_nats is None else nats(rows, context) - context.human_nats


@metric("success %", "{:.1%}")
def success(rows: pd.DataFrame, context: Context) -> float | None:
    """Mean over the targets of the share of their texts that do what was asked, in [0, 1]."""
    return _mean(rows["success"].groupby(rows["target"]).mean())


@metric("paper-compatible %", "{:.1%}")
def success_paper(rows: pd.DataFrame, context: Context) -> float | None:
    """The same as the paper's evaluator counts it, which rewrites the text first; of several controls each by itself."""
    by_target = _by_target(rows, "paper_success")
    return _mean(by_target[rows["task"].iloc[0]]) if rows["task"].iloc[0] in by_target else None


@metric("distinct-1", "{:,}")
def distinct_1(rows: pd.DataFrame, context: Context) -> int:
    """Number of distinct words."""
    return distinct(_words(rows, context), 1).count


@metric("distinct-2", "{:.3f}")
def distinct_2(rows: pd.DataFrame, context: Context) -> float:
    """Distinct word pairs over all word pairs."""
    return distinct(_words(rows, context), 2).ratio


@metric("self-BLEU", "{:.1f}")
def self_bleu(rows: pd.DataFrame, context: Context) -> float | None:
    """Mean BLEU-4 of each text against the others, 0 to 100."""
    words = _words(rows, context)
    return None if len(words) < 2 else mean_self_bleu(words)


def _outside(name: str) -> Measure:
    return lambda rows, context: context.outside.get(rows["task"].iloc[0], {}).get(name)


# By pretrained models: MAUVE in [0, 1] against human text of the dev split (of human text, against other such text) and of the
# training split; nats a token under a language model that never read the corpus.
for _name, _head in {"mauve": "MAUVE", "mauve_train": "MAUVE, train", "outside_nats": "outside nats"}.items():
    METRICS[_name] = Metric(_head, "{:.3f}", _outside(_name))


@metric("verbatim %", "{:.1%}")
def verbatim(rows: pd.DataFrame, context: Context) -> float | None:
    """Share of the texts that stand in the training corpus, in [0, 1]; white space does not count."""
    return _mean(rows["copied"].dropna().astype(float))


@metric("passes", "{:,.0f}")
def passes(rows: pd.DataFrame, context: Context) -> float | None:
    """Passes of networks a batch of texts."""
    return _known(rows["passes"].max())


@metric("seconds", "{:,.1f}")
def seconds(rows: pd.DataFrame, context: Context) -> float | None:
    """Wall-clock time to generate all texts."""
    return _known(rows["seconds"].sum(min_count=1))


@metric("n", "{:,}")
def n(rows: pd.DataFrame, context: Context) -> int:
    """Number of texts."""
    return len(rows)


@metric("seed", "{}")
def seed(rows: pd.DataFrame, context: Context) -> int:
    """Seed of the evaluation."""
    return context.seed


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _mean(values: pd.Series) -> float | None:
    return _known(values.mean())


def _words(rows: pd.DataFrame, context: Context) -> list[list[str]]:
    """The words of at most `context.n` of the texts; more texts have more different words."""
    return [words_of(text) for text in some_of(list(rows["text"]), context.n, context.seed)]


def _by_target(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The mean of each entry of a column of dicts over the texts of each target; targets down, entries across."""
    entries = pd.DataFrame.from_records(list(rows[column]), index=rows.index)
    return entries.groupby(rows["target"], sort=False).mean()


def some_of(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """A random `most` of the texts in their order, or all if there are not more."""
    if len(texts) <= most:
        return list(texts)
    chosen = np.random.default_rng(seed).choice(len(texts), most, replace=False)
    return [texts[i] for i in sorted(chosen)]


# -- rows --------------------------------------------------------------------------------------------------------------

RESAMPLES = 10_000


def table(frame: pd.DataFrame, context: Context) -> pd.DataFrame:
    """A row of `METRICS` for each system and task that was finished, what there is to compare with first.

    With it stands what is not printed: the row's `name`; how many `targets` were tried, `of` how many; `nats_low`, `nats_high`
    and the same of `success` and `success_paper`, 95 % bootstrap intervals over targets, of free text over texts; of each of
    several controls by its name `parts`, `parts_low`, `parts_high`, and `parts_paper`.
    """
    finished = frame[frame["task"].isin([*REFERENCES, *context.targets])]
    rows = pd.DataFrame([_row(rows, context) for _, rows in finished.groupby(["system", "task"], sort=False)])
    order = {task: place for place, task in enumerate(REFERENCES)}
    return rows.sort_values("task", key=lambda t: t.map(order).fillna(len(order)), kind="stable", ignore_index=True)


def _row(rows: pd.DataFrame, context: Context) -> dict[str, Any]:
    system, task = rows["system"].iloc[0], rows["task"].iloc[0]
    of = context.targets.get(task, {}).get("of", 1)
    tried = rows["target"].nunique()
    some = "" if tried == of else f"only {tried} of "
    name = REFERENCES.get(task, task) if of == 1 else f"{task} ({some}{of} targets x {len(rows) // tried})"
    row = {"system": system, "task": task, "name": name, "targets": tried, "of": of}
    row |= {name: each.of(rows, context) for name, each in METRICS.items()}
    by_target = rows.groupby("target", sort=False)
    units = by_target if by_target.ngroups > 1 else rows.groupby("index")  # texts for one target are alike
    totals = units[["nats", "tokens"]].sum()
    row["nats_low"], row["nats_high"] = bootstrap(totals["nats"], totals["tokens"], context.seed)
    paper, parts = _by_target(rows, "paper_success"), _by_target(rows, "parts")
    for name, values in {"success": by_target["success"].mean(), "success_paper": paper.get(task, [])}.items():
        row[f"{name}_low"], row[f"{name}_high"] = bootstrap(values, None, context.seed)
    ends = {name: bootstrap(parts[name], None, context.seed) for name in parts}
    row["parts"], row["parts_paper"] = parts.mean().to_dict(), paper.mean().to_dict() if len(parts.columns) else {}
    row["parts_low"], row["parts_high"] = ({name: each[i] for name, each in ends.items()} for i in (0, 1))
    return row


def bootstrap(values: Any, weights: Any, seed: int) -> tuple[float | None, float | None]:
    """The 95 % interval of sum(values) / sum(weights) when units are drawn anew with replacement; none for a single unit."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or np.isnan(values).any():
        return None, None
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    total = len(values) if weights is None else np.asarray(weights)[draws].sum(1)
    low, high = np.percentile(values[draws].sum(1) / total, [2.5, 97.5])
    return float(low), float(high)


def scores_by_target(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean `success`, `nats` a token and number `n` of texts by system, task and target."""
    groups = frame.groupby(["system", "task", "target"], sort=False)
    found = groups.agg(success=("success", "mean"), nats=("nats", "sum"), tokens=("tokens", "sum"), n=("text", "size"))
    found["nats"] /= found["tokens"]
    return found.drop(columns="tokens").reset_index()


def print_table(console: Console, rows: pd.DataFrame, title: str) -> None:
    """Print rows of figures; a column that no row has measured is left out."""
    from rich.table import Table

    shown = {name: each for name, each in METRICS.items() if rows[name].notna().any()}
    made = Table("name", title=title)
    for each in shown.values():
        made.add_column(each.head, justify="right")
    for row in rows.to_dict("records"):
        figures = ("–" if pd.isna(row[name]) else each.form.format(row[name]) for name, each in shown.items())
        made.add_row(row["name"], *figures)
    console.print(made)


# -- what is to be said ------------------------------------------------------------------------------------------------

WORST, LONGEST = 5, 60
"""How many targets with the lowest success are named, and the most letters of each."""


def notes(rows: pd.DataFrame, by_target: pd.DataFrame, context: Context) -> Iterator[str]:
    """The remarks under a `table`, of whose targets `scores_by_target` knows more."""
    if "human" in set(rows["task"]):
        yield (
            f"Distinct words of the model are to be compared with {REFERENCES['human in vocabulary']!r}, where each word that "
            f"the model's vocabulary lacks counts as the one word UNK; {REFERENCES['human']!r} counts words as people wrote them."
        )
    if (rows["n"] > context.n).any():
        yield f"Distinct counts and self-BLEU are of a random {context.n:,} texts of a row that has more."
    measured = rows["n"].clip(upper=context.n)
    if others := [f"{name}: {n:,}" for name, n in zip(rows["name"], measured, strict=True) if n != measured.iloc[0]]:
        numbers = (
            f"of {measured.iloc[0]:,} texts of {rows['name'].iloc[0]}, but of other numbers of {'; '.join(others)}"
        )
        yield f"Distinct counts and self-BLEU are {numbers}: do not compare them."
    for row in rows.dropna(subset="success").to_dict("records"):
        yield _on_success(row, by_target[by_target["task"] == row["task"]])


def _on_success(row: Mapping[str, Any], scores: pd.DataFrame) -> str:
    text = f"{row['name']}: success {row['success']:.1%}"
    if not pd.isna(row["success_low"]):
        ends = f"{row['success_low']:.1%} to {row['success_high']:.1%}"
        text += f", 95 % interval {ends} (bootstrap over {row['targets']} targets)"
    text += "".join(f"; {name} by itself {share:.1%}" for name, share in row["parts"].items())
    if row["targets"] < row["of"]:
        text += f"; only {row['targets']} of {row['of']} targets were tried"
    missed = scores[scores["success"] < 1].sort_values(["success", "target"])[:WORST]
    worst = zip(missed["target"], missed["success"], strict=True)
    lowest = [f"{target:.{LONGEST}}{'…' if len(target) > LONGEST else ''} {share:.0%}" for target, share in worst]
    return f"{text}; lowest: {', '.join(lowest)}." if lowest else f"{text}."


# -- hashes ------------------------------------------------------------------------------------------------------------


def settings_hash(values: Any) -> str:
    """A hash of what JSON can hold; the order of settings does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def weights_hash(model: nn.Module) -> str:
    """A hash of all that a module saves: names, shapes and values."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors: names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
