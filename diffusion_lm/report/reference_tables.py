"""Tables 5 and 7 of the paper with ours: infilling against references, and the likelihood."""

from __future__ import annotations

from collections.abc import Mapping

from diffusion_lm.report.cells import NATS
from diffusion_lm.report.collection import Collection
from diffusion_lm.report.numbers import DASH, number
from diffusion_lm.report.paper_tables import MEASURES, TABLE_5, TABLE_7
from diffusion_lm.report.table import Cell, Line, Table


def table5(found: Collection) -> Table | None:
    """Infilling against references."""
    done = [
        (run.system, task, way, figures)
        for run in found.runs
        for task, ways in run.references.items()
        for way, figures in ways.items()
    ]
    if not done:
        return None
    paper = [
        Line(name, [*(Cell(f"{value:.1f}") for value in values), Cell()], "paper", "aNLG")
        for name, values in TABLE_5.items()
    ]
    people = [
        Line(
            "the first reference against the others",
            _against_references(figures),
            "reference",
            f"{system}: {task}",
        )
        for system, task, way, figures in done
        if way == "human"
    ]
    ours = [
        Line(f"{system}, {way}", _against_references(figures), note=task)
        for system, task, way, figures in done
        if way != "human"
    ]
    return Table("system", [*MEASURES.values(), "n"], [*paper, *people, *ours])


def _against_references(figures: Mapping[str, float]) -> list[Cell]:
    """The cells of `MEASURES`, and the number of texts; BLEU-4 may be written with or without its underscore."""
    known = {"bleu_4": figures.get("bleu4"), **figures}
    return [
        *(Cell(number(known.get(name), "{:.1f}")) for name in MEASURES),
        Cell(number(known.get("n"), "{:,.0f}")),
    ]


def table7(found: Collection) -> Table | None:
    """The bound on the likelihood."""
    ours = [
        Line(
            str(known.get("system", run.folder.name)),
            [
                Cell(str(known.get("split", DASH))),
                Cell(number(known.get("nats_per_token"), NATS)),
                Cell(number(known.get("length_nats_per_token"), NATS)),
                Cell(number(known.get("n"), "{:,}")),
            ],
        )
        for run in found.runs
        if (known := run.likelihood) is not None
    ]
    if not ours:
        return None
    paper = [
        Line(name, [Cell(data), Cell(f"{nats:.2f}"), Cell(), Cell()], "paper") for name, data, nats in TABLE_7
    ]
    return Table("system", ["text", "nats a token", "of the length", "n"], [*paper, *ours], words=1)
