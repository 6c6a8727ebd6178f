"""Samples with their targets, trees and traces, in Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from nltk.tree.prettyprinter import TreePrettyPrinter

from diffusion_lm.annotate.parser import parser
from diffusion_lm.annotate.trees import bracket_f1, read_tree
from diffusion_lm.common import UserError
from diffusion_lm.report.data import Found
from diffusion_lm.report.tables import escape, markdown, percent
from diffusion_lm.text.spacing import settled, words_of

if TYPE_CHECKING:
    from nltk import Tree

T = TypeVar("T")

TARGETS, TEXTS = 3, 2


def samples(found: Found) -> str:
    """For each system and task the targets with the lowest, the middle and the highest success.

    Of each the text with the lowest success and the one with the highest. Free text has one target: texts at even distances.
    """
    out = []
    for (system, task), texts in _by_task(found):
        by_target = _worst_first(texts)
        out.append(f"**{escape(system)}, {escape(task)}**")
        for target in spread(list(by_target), TARGETS):
            rows = spread(by_target[target].to_dict("records"), TEXTS * TARGETS // min(TARGETS, len(by_target)))
            out += [escape(target)] if target else []
            out.append("\n".join(f"- {verdict(row['success'])}{escape(row['text'])}" for row in rows))
    return "\n\n".join(out)


LISTED = 300
"""Texts that stand beside their targets in the list of all."""


def listed(found: Found) -> str:
    """As many texts of every system and task beside what was asked of them, at even distances, misses first."""
    groups = list(_by_task(found))
    rows = []
    for (system, task), texts in groups:
        ordered = texts.sort_values("success", kind="stable", na_position="last").to_dict("records")
        for row in spread(ordered, LISTED // len(groups)):
            asked = escape(row["target"]) or "–"
            rows.append(
                (escape(system), escape(task), asked, verdict(row["success"]).strip() or "–", escape(row["text"]))
            )
    heads = ["system", "task", "asked for", "done", "text"]
    return markdown(pd.DataFrame(rows, columns=heads), heads) if rows else ""


def _by_task(found: Found) -> Any:
    """The texts of systems that are no points of an ablation, grouped."""
    return found.lines.merge(found.measured[["folder", "system", "task"]]).groupby(["system", "task"], sort=False)


def _worst_first(texts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The texts of each target, the target and the text with the lowest success first; without a success none can miss."""
    groups = [
        (str(name), rows.sort_values("success", kind="stable")) for name, rows in texts.groupby("target", sort=False)
    ]
    return dict(sorted(groups, key=lambda group: group[1].success.fillna(1.0).mean()))


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at even distances, the first and the last among them; all if there are no more."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def verdict(success: float | None) -> str:
    """The mark before a text."""
    if success is None or pd.isna(success):
        return ""
    if success >= 1:
        return "✓ "
    return f"✗ {percent(success, 0)} % " if success > 0 else "✗ "


MOST_WORDS, TREES = 14, 3
"""Of a tree that can be read, and how many are drawn."""


def trees(found: Found) -> str:
    """Trees that were asked for, and those of the texts, of the first system whose targets are trees.

    The targets with the lowest, the middle and the highest success among those of at most `MOST_WORDS` words, or the shortest if
    there are none; of each the text that misses most.
    """
    for (system, _), texts in _by_task(found):
        asked = {target: tree for target in _worst_first(texts) if (tree := _tree_of(target))}
        if asked:
            most = max(MOST_WORDS, min(len(tree.leaves()) for tree in asked.values()))
            chosen = spread([target for target, tree in asked.items() if len(tree.leaves()) <= most], TREES)
            return "\n\n".join(_drawn(escape(system), asked[target], _worst_first(texts)[target]) for target in chosen)
    return ""


def _tree_of(target: str) -> Tree | None:
    """The tree that a target asks for, behind the number of its line; None where it asks for something else."""
    value = re.sub(r"^\d+: ", "", target)
    try:
        return read_tree(value) if value.startswith("(") else None
    except UserError:
        return None


def _drawn(system: str, asked: Tree, texts: pd.DataFrame) -> str:
    """A tree and that of the text which misses it most, as blocks of code, which need no escaping."""
    text = texts.text.iloc[0]
    trees = [asked, *parser().parse([words] if (words := words_of(text)) else [])]
    drawings = [textwrap.indent(TreePrettyPrinter(tree).text(unicodelines=True).rstrip(), " " * 4) for tree in trees]
    f1 = percent(bracket_f1([asked], trees[1:])) if len(trees) > 1 else "0.0"
    head = f"**{escape(text)}** ({system}, F1 {f1})"
    return "\n\n".join([head, "Asked for:", drawings[0], "Written:", *drawings[1:]])


MOST_STEPS, MOST_TEXTS = 12, 3


def traces(found: Found) -> str:
    """The first few sentences of each trace.json, a table each; a `UserError` if one is laid out otherwise."""
    return "\n\n".join(text for _, record in found.extras["trace"] for text in _traces(record))


def _traces(record: Mapping[str, Any]) -> list[str]:
    try:
        title, steps = str(record.get("title", "text")), record["steps"]
        times = [f"{float(step['t']):.2f}" for step in steps]
        sentences = list(zip(*(list(map(str, step["texts"])) for step in steps), strict=True))[:MOST_TEXTS]
        assert sentences
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        layout = '{"title": TEXT, "steps": [{"t": NUMBER, "texts": [TEXT, ...]}, ...]}'
        raise UserError(f"A trace.json holds {layout}; this one does not ({error}).") from None
    out = []
    for number, texts in enumerate(sentences, start=1):
        head = escape(f"{title}, sentence {number}")
        rows = spread([(t, _settled(text, texts[-1])) for t, text in zip(times, texts, strict=True)], MOST_STEPS)
        out.append(markdown(pd.DataFrame(rows, columns=["t", head]), ["t", head]))
    return out


def _settled(text: str, last: str) -> str:
    """A text with what is already the final word at its place in bold, marks and the words that they touch as one."""
    return " ".join(f"**{escape(run)}**" if done else escape(run) for done, run in settled(text, last))
