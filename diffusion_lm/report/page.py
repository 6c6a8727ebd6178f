"""The report: one Markdown document, and the same as a page of HTML."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from diffusion_lm import __version__
from diffusion_lm.common import UserError
from diffusion_lm.report import figures, samples, tables
from diffusion_lm.report.data import Found, read
from diffusion_lm.report.figures import Chart
from diffusion_lm.report.tables import escape
from diffusion_lm.store import write_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportConfig:
    """Which evaluations are put together, and where the pages go."""

    runs: list[str]
    """Folders that evaluate wrote; of two with the same system and task the later one counts."""
    out: str = "runs/report"
    """Folder for index.html, which needs no other file, and report.md with its figures."""
    into: str | None = None
    """A Markdown file in which what stands between <!-- report:NAME --> and <!-- /report:NAME --> is written anew;
    its figures go to img/report beside it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.runs:
            raise UserError("A report needs at least one folder that diffusion-lm evaluate wrote.")
        if Path(self.out).is_file():
            raise UserError(f"{self.out} is a file; give --out a folder.")


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        question: that it answers, under which the page shows it.
        name: of its markers.
        title: its heading.
        caption: what to read from its text.
        text: in Markdown, empty where nothing was measured.
        charts: its figures.
        page_only: whether it is too long for the Markdown document.
    """

    question: str
    name: str
    title: str
    caption: str = ""
    text: str = ""
    charts: Sequence[Chart] = ()
    page_only: bool = False

    def body(self, images: str) -> str:
        """The section without its heading, empty if it was not measured; `images` is the folder of the figures in links."""
        parts = [self.text, escape(self.caption)] if self.text else []
        for chart in self.charts:
            parts += [f"![{self.title}]({images}/{chart.name}.png)", f"*{escape(chart.caption)}*"]
        return "\n\n".join(parts)


TABLE_2 = (
    "Above, success in percent as the paper's evaluator counts it, and fluency: nats a token under our judge, for the paper its "
    "lm-score, of another judge. Marked: the best of a block. Below, all that was measured of ours, success of the text as it "
    "is; intervals are 95 %, by the bootstrap over targets."
)
TABLE_4 = (
    "Several controls at once, the success of each by itself. Above as the paper counts, below all that was measured of ours. "
    "Read the parts of a pair together: either alone is easy."
)
TABLE_5 = (
    "What was written into gaps against what people wrote there, 0 to 100 (CIDEr may be more), higher is better. mbr: of each "
    "target the text that is most like the others, as in the paper; sample: single texts; human: the first reference against the "
    "others. The paper's lines are of aNLG and compare only with ours on it; BERTScore, which is of another encoder, with none."
)
DATA2TEXT = (
    "Texts from the meanings of E2E's test split against all that people wrote from each, by the measures of its challenge. "
    "Higher is better, of slot errors lower: values that are not said, and values that nobody asked for, in percent of those "
    "that were asked. mbr: of each source the text that is most like the others; checked: among those alone that have the "
    "fewest slot errors, by the patterns that count them; sample: single texts; human: the first reference against the others."
)
TABLE_7 = (
    "Nats a token, an upper bound for diffusion, and what of it the length costs; lower is better. The paper's are of other "
    "tokens and of the model of its Appendix F."
)
FREE = (
    "Text without a control; intervals are 95 %, by the bootstrap over texts. The fair comparison of words is with human text in "
    "the model's vocabulary, where each word that it lacks counts as one. Nearer to human text is better in every column but the "
    "copies: far below it is bland, far above is broken. MAUVE of human text is of other human text, and so the ceiling."
)
ABLATIONS = "One change at a time, as each run's label names it."
TRACE = (
    "What the model would say at each step, from noise (t = 1) to text (t = 0). Bold words are already the final word at their "
    "place; the others will still change."
)
TREES = (
    "The tree that was asked for (_ is any word), and our parser's tree of the text. The targets with the lowest, the middle and "
    "the highest success among those short enough to draw, of each the text that misses most."
)
TIME = "Minutes of wall clock by part, one after another on one machine."
TEXTS = (
    "For each system and task the targets with the lowest, the middle and the highest success, of each the worst and the best "
    "text: a rule picks them and nobody's taste. ✗ marks a miss, with the success of the text where it is not zero."
)


LISTED = (
    "Texts at even distances of every system and task, misses first. ✗ marks a miss, with the success of the text where it is "
    "not zero; a click on a heading sorts."
)
GOOD, VARIED, FAST, LOOK = "How good?", "How varied?", "How fast?", "Look at texts"
"""The questions, in the order of their tabs."""


def sections(found: Found) -> list[Section]:
    """All sections that a report can have."""
    return [
        Section(GOOD, "table2", "One control at a time", TABLE_2, tables.one_control(found)),
        Section(GOOD, "success", "Success by task", charts=figures.success(found)),
        Section(GOOD, "fluency", "Success against fluency", charts=figures.scatter(found, "fluency")),
        Section(FAST, "cost", "Success against cost", charts=figures.scatter(found, "cost")),
        Section(GOOD, "table4", "Several controls at once", TABLE_4, tables.several_controls(found)),
        Section(GOOD, "table5", "Infilling", TABLE_5, tables.infilling(found)),
        Section(GOOD, "data2text", "Data to text", DATA2TEXT, tables.data_to_text(found)),
        Section(GOOD, "table7", "Likelihood", TABLE_7, tables.likelihood(found)),
        Section(VARIED, "free", "Free text", FREE, tables.free_text(found)),
        Section(VARIED, "ablations", "Ablations", ABLATIONS, tables.ablations(found), figures.ablations(found)),
        Section(GOOD, "noise", "What is known by noise level", charts=figures.noise(found)),
        Section(LOOK, "trace", "Out of the noise", TRACE, samples.traces(found)),
        Section(LOOK, "trees", "Trees", TREES, samples.trees(found)),
        Section(FAST, "time", "What it took", TIME, tables.times(found)),
        Section(LOOK, "texts", "Texts", TEXTS, samples.samples(found)),
        Section(LOOK, "listed", "Texts beside what was asked", LISTED, samples.listed(found), page_only=True),
    ]


IMAGES, IMAGES_INTO = "img", "img/report"
"""Folders of the figures beside report.md, and beside the file of --into."""
NOTHING = "None of the runs measured this."
_MARKED = re.compile(r"(?ms)^([ \t]*<!--\s*report:(.*?)\s*-->[ \t]*\r?\n).*?^([ \t]*<!--\s*/report:\2\s*-->[ \t]*\r?)$")


def document(every: Sequence[Section], found: Found) -> str:
    """The whole report in Markdown."""
    shown = [section for section in every if not section.page_only]
    parts = [f"## {section.title}\n\n{body}" for section in shown if (body := section.body(IMAGES))]
    return "\n\n".join([*_head(found), *parts, _made(found)]) + "\n"


def _head(found: Found) -> list[str]:
    head = ["# Diffusion-LM: what was measured, beside the paper and human text"]
    return head + ([f"Measured on {escape('; '.join(found.hardware))}."] if found.hardware else [])


def _made(found: Found) -> str:
    return f"Made by diffusion-lm {__version__} from {', '.join(map(escape, found.folders))}."


def html(every: Sequence[Section], found: Found) -> str:
    """The report as a page that needs no other file, the figures as SVG; what is HTML in the text is shown, not obeyed.

    Each section stands under its question; where scripts run, the questions are tabs, tables sort and figures enlarge.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    svgs = {f"{IMAGES}/{chart.name}.png": chart for section in every for chart in section.charts}

    def rendered(markdown: str) -> str:
        tokens = parser.parse(markdown)
        for token in [child for block in tokens for child in block.children or () if child.type == "image"]:
            svg = base64.b64encode(svgs[str(token.attrs["src"])].file("svg")).decode()
            token.attrs["src"] = f"data:image/svg+xml;base64,{svg}"
        body = parser.renderer.render(tokens, parser.options, {})
        return body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")

    parts = [rendered("\n\n".join(_head(found)))]
    for question in (GOOD, VARIED, FAST, LOOK):
        own = [section for section in every if section.question == question]
        bodies = [f"## {section.title}\n\n{body}" for section in own if (body := section.body(IMAGES))]
        if bodies:
            body = rendered("\n\n".join(bodies))
            parts.append(f'<section aria-label="{question}">\n{body}</section>\n')
    parts.append(f"<footer>{rendered(_made(found))}</footer>\n")
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Diffusion-LM: report</title>\n<style>\n{style}</style>\n</head>\n<body>\n{''.join(parts)}"
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _markers(name: str) -> str:
    return f"<!-- report:{name} --> and <!-- /report:{name} -->"


def rewrite(text: str, where: str, new: Mapping[str, str]) -> str:
    """The text of a file with what `new` says for a name between the markers <!-- report:NAME --> and <!-- /report:NAME -->.

    Raises:
        UserError: there is no marker, or a name is unknown, stands twice, or is not opened and closed.
    """
    names = [match[2] for match in _MARKED.finditer(text)]
    markers = re.findall(r"^[ \t]*<!--\s*/?report:(.*?)\s*-->[ \t]*\r?$", text, re.MULTILINE)
    if unknown := [name for name in markers if name not in new]:
        raise UserError(f"{where} has a marker of {unknown[0]!r}; the sections are {', '.join(new)}.")
    if not markers:
        raise UserError(f"{where} has no marker; put {_markers('table2')} on lines of it.")
    if odd := [name for name in markers if markers.count(name) != 2 or name not in names]:
        raise UserError(f"{where} must open {odd[0]!r} once and close it: {_markers(odd[0])}.")
    for name in [name for name in names if not new[name]]:
        logger.warning("%s: none of the runs measured %r, and the section now says so.", where, name)
    return _MARKED.sub(lambda match: f"{match[1]}\n{new[match[2]] or NOTHING}\n\n{match[3]}", text)


def make_report(config: ReportConfig) -> list[Path]:
    """Write the pages of a report, and return their files.

    Raises:
        UserError: a run is no finished evaluation, or the markers of the file of --into are wrong; nothing is written then.
    """
    found, out = read(config.runs), Path(config.out)
    every = sections(found)
    charts = [chart for section in every for chart in section.charts]
    markdown = document(every, found)
    pages = {out / "index.html": html(every, found), out / "report.md": markdown}
    if config.into is not None:
        into, new = Path(config.into), {section.name: section.body(IMAGES_INTO) for section in every}
        try:
            prose = into.read_bytes().decode("utf-8")  # read_text would change the ends of its lines
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{into} cannot be read ({error}); give --into a Markdown file with markers.") from None
        pages[into] = rewrite(prose, str(into), new)
    files = {path: text.encode() for path, text in pages.items()}
    for chart in charts:
        png, links = chart.file("png"), [f"{folder}/{chart.name}.png" for folder in (IMAGES, IMAGES_INTO)]
        files |= {path.parent / link: png for path, text in pages.items() for link in links if f"]({link})" in text}
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return list(pages)
