"""The HTML page: one file that needs no other and no network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from diffusion_lm import __version__
from diffusion_lm.report.chart import COLOURS, svgs
from diffusion_lm.report.markdown import verdict
from diffusion_lm.report.names import task_name
from diffusion_lm.report.numbers import DASH, percent
from diffusion_lm.report.sections import Section
from diffusion_lm.report.table import KINDS, Line

HERE = Path(__file__).parent


def page(sections: Sequence[Section], runs: Sequence[str]) -> str:
    """The page.

    Args:
        sections: what was measured; an empty one is left out.
        runs: names of the folders that the figures are from.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(
        sections=[section for section in sections if not section.empty],
        runs=runs,
        version=__version__,
        style=Markup(_scheme() + (HERE / "style.css").read_text(encoding="utf-8")),
        dash=DASH,
        groups=_groups,
        percent=percent,
        svgs=lambda chart: map(Markup, svgs(chart)),
        safe=Markup,
        task_name=task_name,
        variables={light: f"var(--{name})" for name, (light, _) in COLOURS.items()},
        verdict=verdict,
    )


def _groups(lines: Sequence[Line]) -> list[tuple[str, str, list[Line]]]:
    """The rows of one kind that follow one another: the kind, its name, and they."""
    return [(kind, KINDS[kind], list(group)) for kind, group in groupby(lines, key=lambda line: line.kind)]


def _scheme() -> str:
    """The colours of the figures as variables of the style sheet, light and dark."""
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1))
    return f":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
