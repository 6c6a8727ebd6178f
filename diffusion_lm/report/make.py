"""Makes a report: reads the runs, and writes the pages and their pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from diffusion_lm.errors import UserError
from diffusion_lm.files import write_whole
from diffusion_lm.report.collection import collect
from diffusion_lm.report.config import ReportConfig
from diffusion_lm.report.markdown import Files, body, document, pictures
from diffusion_lm.report.markers import marked, rewrite
from diffusion_lm.report.page import page
from diffusion_lm.report.read import read_run
from diffusion_lm.report.sections import Section, sections

logger = logging.getLogger(__name__)

IMAGES, IMAGES_INTO = "img", "img/report"
"""Folders of the pictures beside report.md, and beside the file of --into."""


def make_report(config: ReportConfig) -> list[Path]:
    """Write the pages of a report, and return their files.

    Raises:
        UserError: a run is no finished evaluation, matplotlib is missing, or the markers of the file of --into are wrong;
            nothing is written then.
    """
    runs = [read_run(folder) for folder in config.runs]
    found = sections(collect(runs))
    into = Path(config.into) if config.into is not None else None
    text = "" if into is None else _read(into)
    chosen = [] if into is None else _chosen(text, into, found)

    # All that can go wrong before the first file.
    html = page(found, [run.folder.name for run in runs])
    images = {section.name: pictures(section) for section in found}
    out = Path(config.out)
    files = {out / "index.html": html.encode(), out / "report.md": document(found, IMAGES).encode()}
    files.update(_placed(out / IMAGES, images.values()))
    written = [out / "index.html", out / "report.md"]
    if into is not None:
        known = {section.name: section for section in chosen}
        new = rewrite(text, lambda name: body(known[name], IMAGES_INTO))
        files.update(_placed(into.parent / IMAGES_INTO, [images[name] for name in known]))
        files[into] = new.encode()
        written.append(into)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return written


def _read(into: Path) -> str:
    try:
        # Not read_text, which would change the ends of the lines of somebody's prose.
        return into.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{into} cannot be read ({error}); give --into a Markdown file with markers."
        ) from error


def _chosen(text: str, into: Path, found: Sequence[Section]) -> list[Section]:
    """The sections that a file has markers of."""
    known = {section.name: section for section in found}
    chosen = [known[name] for name in marked(text, str(into), known)]
    for section in chosen:
        if section.empty:
            logger.warning(
                "%s: none of the runs measured %r, and the section now says so.", into, section.name
            )
    return chosen


def _placed(folder: Path, groups: Iterable[Files]) -> dict[Path, bytes]:
    return {folder / name: data for group in groups for name, data in group.items()}
