"""The tables, in Markdown; where nothing was measured, an empty text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from diffusion_lm.common import UserError
from diffusion_lm.control.control import CONTROLS
from diffusion_lm.evaluation.scores import METRICS, REFERENCES
from diffusion_lm.evaluation.tasks import FREE
from diffusion_lm.report.data import YARDSTICK, Found
from diffusion_lm.report.paper import E2E_CHALLENGE, E2E_MEASURES, MEASURES, TABLE_2, TABLE_4, TABLE_5, TABLE_7, Pair

DASH = "–"
"""What was not measured."""


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = re.sub(r"([\\`*_|<>\[\]&~$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"^(\d*)([.)#+=-])", r"\1\\\2", text)


def percent(share: float, digits: int = 1) -> str:
    """A share as a number of percent; what is not all of it is never rounded to 100."""
    return f"{min(100 * share, 100 - 10**-digits) if share < 1 else 100 * share:.{digits}f}"


def written(value: Any, form: str = "") -> str:
    """A figure in a format, both ends of an interval, or words."""
    if isinstance(value, tuple):
        low, high = (written(end, form) for end in value)
        return DASH if DASH in (low, high) else f"{low} to {high}"
    if value is None or pd.isna(value):
        return DASH
    if isinstance(value, str):
        return escape(value)
    if form.endswith("%}"):
        return percent(value)
    whole = "." not in form and float(value).is_integer()  # a column with a gap holds whole numbers as floats
    return form.format(int(value) if whole else value).replace("-", "−")


def markdown(cells: pd.DataFrame, words: Sequence[str] = ()) -> str:
    """Cells as a table without the columns that hold nothing; the columns `words` are aligned to the left."""
    cells = cells.loc[:, [name in words or bool((cells[name] != DASH).any()) for name in cells]]
    rule = ["---" if name in words else "--:" for name in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(cells), rule, *cells.to_numpy().tolist()])


def table(rows: pd.DataFrame, words: Mapping[str, str], numbers: Mapping[str, tuple[str, str]]) -> str:
    """Rows as a table: columns of words with their headings, then columns of numbers with headings and formats."""
    if rows.empty:
        return ""
    cells = {heading: rows[name].map(written) for name, heading in words.items()}
    cells |= {heading: [written(each, form) for each in rows[name]] for name, (heading, form) in numbers.items()}
    return markdown(pd.DataFrame(cells), list(words.values()))


def figures(rows: pd.DataFrame, words: Mapping[str, str]) -> str:
    """All figures of rows, a column for each metric and each interval, behind columns of words."""
    if rows.empty:
        return ""
    numbers: dict[str, tuple[str, str]] = {}
    extra: dict[str, Any] = {}
    for name in CONTROLS:
        ends = zip(rows.parts_low, rows.parts_high, strict=True)
        extra[f"part {name}"] = [parts.get(name) for parts in rows.parts]
        extra[f"part {name} between"] = [(low.get(name), high.get(name)) for low, high in ends]
        numbers |= {f"part {name}": (f"{name} %", "{:.1%}"), f"part {name} between": (f"{name}: 95 %", "{:.1%}")}
    for name, metric in METRICS.items():
        numbers[name] = metric.head, metric.form
        if f"{name}_low" in rows:
            extra[f"{name} between"] = list(zip(rows[f"{name}_low"], rows[f"{name}_high"], strict=True))
            numbers[f"{name} between"] = f"{metric.head}: 95 %", metric.form
    extra["tried"] = [None if of == 1 else f"{tried} of {of}" for tried, of in zip(rows.targets, rows.of, strict=True)]
    numbers |= {"tried": ("targets", ""), "decoding": ("decoding", "")}
    if rows.judge.nunique() > 1:
        words = {**words, "judge": "judged by"}
    return table(rows.assign(**extra), words, numbers)


def one_control(found: Found) -> str:
    """Table 2."""
    return _beside_paper(found.measured, list(CONTROLS), TABLE_2)


def several_controls(found: Found) -> str:
    """Table 4."""
    return _beside_paper(found.measured, sorted(t for t in set(found.measured.task) if "+" in t), TABLE_4)


def _beside_paper(rows: pd.DataFrame, tasks: Sequence[str], paper: Mapping[str, Mapping[str, Pair]]) -> str:
    """Success as the paper counts it, the best of each block marked, and below it all figures of ours."""
    rows = rows[rows.task.isin(tasks)].dropna(subset="success")
    if rows.empty:
        return ""
    rows = rows.sort_values("task", key=lambda column: column.map(tasks.index), kind="stable")
    cells = [
        ("the paper", f"paper: {system}", column, pair.success / 100, f"lm {pair.lm:.2f}")
        for system, pairs in paper.items()
        for column, pair in pairs.items()
    ]
    for row in rows.to_dict("records"):
        shares, fluency = _as_the_paper_counts(row), f"{row['nats']:.2f} nats"
        cells += [("ours", row["system"], column, share, fluency) for column, share in shares.items()]
    long = pd.DataFrame(cells, columns=["who", "system", "column", "share", "fluency"])
    blocks = long.groupby(["who", "column"]).share
    star = ((long.share == blocks.transform("max")) & (blocks.transform("size") > 1)).map({True: "**", False: ""})
    long["cell"] = star + long.share.map(percent) + star + " (" + long.fluency + ")"
    wide = long.pivot(index="system", columns="column", values="cell").fillna(DASH)
    wide = wide.reindex(long.system.unique())[long.column.unique()]
    best = blocks.max().unstack("who")
    margin = 100 * (best["ours"] - best["the paper"])
    wide.loc["best measured here against the best of the paper's"] = margin.map(lambda each: written(each, "{:+.1f}"))
    wide.insert(0, "system", wide.index.map(escape))
    return f"{markdown(wide, ['system'])}\n\n{figures(rows, {'task': 'task', 'system': 'system'})}"


def _as_the_paper_counts(row: Mapping[str, Any]) -> dict[str, float]:
    """The success of each control by the column that it stands in, strict where the paper has no way of its own to count."""
    if "+" in row["task"]:
        return {f"{row['task']}: {part}": share for part, share in (row["parts"] | row["parts_paper"]).items()}
    return {row["task"]: row["success"] if pd.isna(row["success_paper"]) else row["success_paper"]}


def free_text(found: Found) -> str:
    """Free text beside human text and the judge's own."""
    rows, references = found.measured[found.measured.task == FREE], found.references
    if len(rows):
        references = references.merge(rows[YARDSTICK].drop_duplicates())
    named = references.assign(system=references.task.map(REFERENCES))
    return figures(pd.concat([named, rows]) if len(rows) else named, {"system": "text"})


def ablations(found: Found) -> str:
    """What one change does to free text or to a task."""
    rows = pd.concat(found.ablations.values()) if found.ablations else pd.DataFrame()
    return figures(rows, {"system": "run", "task": "task"})


def infilling(found: Found) -> str:
    """Table 5: infilling against references."""
    paper = pd.DataFrame.from_dict(TABLE_5, orient="index", columns=list(MEASURES))
    return _against(found, paper.assign(system="paper: " + paper.index, task="aNLG", way="mbr"), MEASURES, "{:.1f}")


def data_to_text(found: Found) -> str:
    """What is written from sources against what people wrote from them."""
    known = pd.DataFrame.from_dict(E2E_CHALLENGE, orient="index", columns=list(E2E_MEASURES))
    return _against(found, known.assign(system="published: " + known.index, task="data2text"), E2E_MEASURES, "{:.2f}")


def _against(found: Found, known: pd.DataFrame, measures: Mapping[str, str], form: str) -> str:
    """The rows of ours that have such measures, below those that are known."""
    if found.against.empty or not (own := found.against.get(next(iter(measures)), pd.Series()).notna()).any():
        return ""
    numbers = {name: (heading, form) for name, heading in measures.items()} | {"n": ("n", "{:,}")}
    rows = pd.concat([known, found.against[own]]).reindex(columns=["system", "task", "way", *numbers])
    return table(rows, {name: name for name in ("system", "task", "way")}, numbers)


def likelihood(found: Found) -> str:
    """Table 7: the bound on the likelihood."""
    ours = pd.DataFrame([{"system": folder, **known} for folder, known in found.extras["likelihood"]])
    if ours.empty:
        return ""
    paper = pd.DataFrame(TABLE_7, columns=["system", "split", "nats_per_token"])
    rows = pd.concat([paper.assign(system="paper: " + paper.system), ours])
    words, names = {"system": "system", "split": "text"}, ["nats_per_token", "length_nats_per_token", "n"]
    numbers = dict(zip(names, [("nats a token", "{:.3f}"), ("of the length", "{:.3f}"), ("n", "{:,}")], strict=True))
    return table(rows.reindex(columns=[*words, *numbers]), words, numbers)


KINDS = {"making": "training or labelling", "measuring": "writing and scoring"}
"""Kinds of work by their name in time.json."""


def times(found: Found) -> str:
    """Minutes by part and kind of work, of a time.json: {part: {"making": seconds, "measuring": seconds}}.

    Raises:
        UserError: it is laid out otherwise.
    """
    parts = {part: spent for _, record in found.extras["time"] for part, spent in record.items()}
    try:
        minutes = pd.DataFrame([{kind: float(spent[kind]) / 60 for kind in KINDS} for spent in parts.values()])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'A time.json holds {{PART: {{"making": SECONDS, "measuring": SECONDS}}}} ({error}).') from None
    if minutes.empty:
        return ""
    minutes.loc["all"] = minutes.sum()
    minutes = minutes.assign(part=[*parts, "all"], together=minutes.sum(axis=1))
    headings = {**KINDS, "together": "together"}.items()
    return table(minutes, {"part": "part"}, {kind: (heading, "{:.1f}") for kind, heading in headings})
