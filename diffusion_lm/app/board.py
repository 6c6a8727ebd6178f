"""What the page shows of sentences: a table with verdicts, and the same at each step. All text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from math import floor

from diffusion_lm.control.control import Control
from diffusion_lm.text.spacing import settled

SHOWN = 28
"""Letters of what was asked that stand beside a tick."""


@dataclass(frozen=True)
class Verdict:
    """How far a text does what one control wants, in [0, 1]."""

    control: str
    """Of what kind, "tree"."""
    value: str
    """What was asked, "(S (NP _) ...)"."""
    success: float


def verdicts_of(control: Control | None, texts: Sequence[str]) -> list[list[Verdict]]:
    """The verdicts of every control on each text."""
    found = []
    for part in control.parts() if control is not None else []:
        name, _, value = str(part).partition("=")
        found.append([Verdict(name, value, float(success)) for success in part.success(texts)])
    return [list(row) for row in zip(*found, strict=True)] if found else [[] for _ in texts]


def table(rows: Sequence[str], verdicts: Sequence[Sequence[Verdict]] = (), caption: str = "") -> str:
    """Sentences, already HTML, one a row, with their verdicts if they have been judged."""
    body = []
    for number, (row, found) in enumerate(zip_longest(rows, verdicts), start=1):
        marks = "".join(map(_mark, found or ()))
        marks = f'<div class="marks">{marks}</div>' if marks else ""
        body.append(f'<tr><th scope="row">{number}</th><td><span class="said">{row}</span>{marks}</td></tr>')
    head = '<thead><tr><th scope="col">No.</th><th scope="col">Sentence</th></tr></thead>'
    return f'<table class="board"><caption>{escape(caption)}</caption>{head}<tbody>{"".join(body)}</tbody></table>'


def settling(text: str, other: str) -> str:
    """A sentence in which the words that are not those of another one, at the same place, still change."""
    return " ".join(escape(run) if done else f"<i>{escape(run)}</i>" for done, run in settled(text, other))


def problem(sentence: str) -> str:
    """A sentence that says what is wrong."""
    return f'<p class="problem" role="alert">{escape(sentence)}</p>'


def note(sentence: str) -> str:
    """A sentence about the page itself."""
    return f'<p class="note">{escape(sentence)}</p>'


def _mark(verdict: Verdict) -> str:
    held = verdict.success >= 1
    # Rounded down: what is not all of it is no 100 %.
    share = "" if held or not verdict.success else f" {floor(100 * verdict.success)} %"
    value = verdict.value if len(verdict.value) <= SHOWN else f"{verdict.value[: SHOWN - 1]}…"
    label = f"{escape(verdict.control)} <b>{escape(value)}</b>{share}"
    sign, kind, spoken = ("✓", "held", "held") if held else ("✗", "missed", "missed")
    title = escape(f"{verdict.control} {verdict.value}: {spoken}{share}")
    return f'<span class="mark {kind}" title="{title}"><span aria-label="{spoken}">{sign}</span> {label}</span>'
