"""Sections as Markdown; figures are files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from diffusion_lm.report.chart import png
from diffusion_lm.report.names import task_name
from diffusion_lm.report.numbers import DASH, percent
from diffusion_lm.report.samples import Samples
from diffusion_lm.report.sections import Section
from diffusion_lm.report.table import Cell, Table
from diffusion_lm.report.trace import Trace
from diffusion_lm.report.trees import standalone

Files = dict[str, bytes]
"""Pictures by their names."""

NOTHING = "None of the runs measured this."


def document(sections: Sequence[Section], images: str) -> str:
    """The whole page; `images` is the folder of the pictures, as the page links it."""
    parts = ["# Report"]
    for section in sections:
        if not section.empty:
            parts += [f"## {section.title}", body(section, images)]
    return "\n\n".join(parts) + "\n"


def body(section: Section, images: str) -> str:
    """A section without its heading."""
    return "\n\n".join(_blocks(section, images)) if not section.empty else NOTHING


def _blocks(section: Section, images: str) -> Iterator[str]:
    if section.table is not None:
        yield table(section.table)
    if section.caption:
        yield escape(section.caption)
    for chart in section.charts:
        yield f"![{section.title}]({images}/{chart.name}.png)"
        yield f"*{escape(chart.caption)}*"
    for trace in section.traces:
        yield _trace(trace)
    for i, pair in enumerate(section.trees, start=1):
        yield f"**{escape(pair.text)}** ({escape(pair.system)}, F1 {percent(pair.f1)})"
        yield f"![the tree that was asked for]({images}/tree-{i}-wanted.svg)"
        yield f"![the tree of the text]({images}/tree-{i}-found.svg)"
    for each in section.samples:
        yield _samples(each)


def pictures(section: Section) -> Files:
    """The files that the body of a section links."""
    out = {f"{chart.name}.png": png(chart) for chart in section.charts}
    for i, pair in enumerate(section.trees, start=1):
        out[f"tree-{i}-wanted.svg"] = standalone(pair.wanted).encode()
        out[f"tree-{i}-found.svg"] = standalone(pair.found).encode()
    return out


def table(table: Table) -> str:
    """A table; the paper's rows say so."""
    columns = table.full_columns
    aligned = "|---" * (1 + table.words) + "|--:" * (len(columns) - table.words) + "|"
    lines = [_row([table.head, *columns]), aligned]
    for line in table.lines:
        head = f"paper: {line.head}" if line.kind == "paper" else line.head
        note = f"<br><sub>{escape(line.note)}</sub>" if line.note else ""
        lines.append(_row([escape(head) + note, *map(_cell, line.cells)]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    main = f"**{escape(cell.main)}**" if cell.best and cell.main != DASH else escape(cell.main)
    lines = f"<br><sub>{'<br>'.join(map(escape, cell.lines))}</sub>" if cell.lines else ""
    return main + lines


def _trace(trace: Trace) -> str:
    lines = [_row(["t", escape(trace.title) or "text"]), "|---|---|"]
    for t, words in trace.steps:
        text = ""
        for settled, run in groupby(words, key=lambda word: word.settled):
            part = "".join(word.text for word in run)
            space = " " if part.startswith(" ") else ""
            text += space + (f"**{escape(part.strip())}**" if settled else escape(part.strip()))
        lines.append(_row([f"{t:.2f}", text]))
    return "\n".join(lines)


def _samples(each: Samples) -> str:
    lines = [f"**{escape(each.system)}, {escape(task_name(each.task))}**"]
    for sample in each.targets:
        if sample.target:
            # A tag of quotation marks is made of what would end the code.
            lines.append(f"\n{escape(sample.target) if '`' in sample.target else f'`{sample.target}`'}\n")
        elif len(lines) == 1:
            lines.append("")
        lines += [f"- {verdict(text.success)}{escape(text.text)}" for text in sample.texts]
    return "\n".join(lines)


def verdict(success: float | None) -> str:
    """The mark before a text."""
    if success is None:
        return ""
    if success >= 1:
        return "✓ "
    return f"✗ {percent(success, 0)} % " if success > 0 else "✗ "


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text).replace("\n", " ")
