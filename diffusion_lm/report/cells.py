"""From a row to the cells of a table."""

from __future__ import annotations

from diffusion_lm.report.numbers import number, percent
from diffusion_lm.report.read import Row
from diffusion_lm.report.table import Cell

NATS, DIFFERENCE = "{:.3f}", "{:+.3f}"
"""How nats a token are written, and their difference to another's."""


def interval(row: Row, name: str) -> tuple[str, ...]:
    """The 95 % interval of a figure, where it has one."""
    return between(row.interval(name))


def between(ends: tuple[float, float] | None) -> tuple[str, ...]:
    """An interval of shares, in percent."""
    return () if ends is None else (f"{percent(ends[0])} to {percent(ends[1])}",)


def nats_between(row: Row) -> tuple[str, ...]:
    """The 95 % interval of the nats a token, where they have one."""
    ends = row.interval("nats")
    return () if ends is None else (f"{number(ends[0], NATS)} to {number(ends[1], NATS)}",)


def success(row: Row) -> Cell:
    """Strict success with its interval."""
    return Cell(percent(row.number("success")), interval(row, "success"))


def fluency(row: Row) -> tuple[str, ...]:
    """Nats a token, and against human text, where they were measured."""
    if row.number("nats_per_token") is None:
        return ()
    figure = f"{number(row.number('nats_per_token'), NATS)} nats ({number(row.against_human, DIFFERENCE)})"
    return (figure, *nats_between(row))


def drawn(row: Row) -> tuple[str, ...]:
    """How many texts, by which seed, and for which share of the targets if not all."""
    text = f"n {number(row.number('n'), '{:,.0f}')}, seed {number(row.number('seed'), '{:.0f}')}"
    tried, of = row.number("targets"), row.number("targets_in_all")
    some = tried is not None and of is not None and tried < of
    return (text, f"{tried:.0f} of {of:.0f} targets") if some else (text,)
