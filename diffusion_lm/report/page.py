"""The pages."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Collection as Group
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from diffusion_lm import __version__
from diffusion_lm.common import UserError
from diffusion_lm.report import figures
from diffusion_lm.report.data import DASH, Collection, collect, percent, read_run, task_name
from diffusion_lm.report.figures import COLOURS, Chart, png, svgs
from diffusion_lm.report.samples import Samples, Trace, TreePair, samples, standalone, traces_of, tree_pairs
from diffusion_lm.report.tables import (
    KINDS,
    Cell,
    Line,
    Table,
    ablations,
    free,
    table2,
    table4,
    table5,
    table7,
    time_table,
)
from diffusion_lm.store import write_whole


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


_MARKER = re.compile(r"\s*<!--\s*(/?)report:(.*?)\s*-->\s*")


def marked(text: str, where: str, known: Group[str]) -> list[str]:
    """The names that a text has markers of.

    Args:
        text: the text.
        where: what the text is of, for errors.
        known: the names that there are.

    Raises:
        UserError: a name is unknown, stands twice, is not closed, or is closed and not open.
    """
    names: list[str] = []
    open_ = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not (match := _MARKER.fullmatch(line)):
            continue
        closes, name = match.groups()
        here = f"Line {number} of {where}"
        if name not in known:
            raise UserError(
                f"{here} has a marker of {name!r}, which is no section; the sections are {', '.join(known)}."
            )
        if closes and open_ != name:
            raise UserError(f"{here} closes {name!r}, which is not open; put <!-- report:{name} --> before it.")
        if not closes and open_:
            raise UserError(
                f"{here} opens {name!r}, but {open_!r} is not closed; put <!-- /report:{open_} --> before it."
            )
        if not closes and name in names:
            raise UserError(f"{here} opens {name!r} a second time; keep one of the two.")
        open_ = "" if closes else name
        names += [] if closes else [name]
    if open_:
        raise UserError(f"{where} does not close {open_!r}; put <!-- /report:{open_} --> after it.")
    if not names:
        raise UserError(
            f"{where} has no marker; put <!-- report:table2 --> and <!-- /report:table2 --> on lines of it."
        )
    return names


def rewrite(text: str, new: Callable[[str], str]) -> str:
    """The text with what `new` says for a name between the markers of each; `marked` has seen that they match."""
    out: list[str] = []
    inside = False
    for line in text.split("\n"):
        match = _MARKER.fullmatch(line)
        if match and match[1]:
            inside = False
        if not inside:
            out.append(line)
        if match and not match[1]:
            inside = True
            out += ["", new(match[2]), ""]
    return "\n".join(out)


HERE = Path(__file__).parent


def page(sections: Sequence[Section], runs: Sequence[str]) -> str:
    """The page.

    Args:
        sections: what was measured; an empty one is left out.
        runs: names of the folders that the figures are from.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
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


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: of its markers.
        title: its heading.
        caption: what to read from its table or texts; a chart has a caption of its own.
    """

    name: str
    title: str
    caption: str = ""
    table: Table | None = None
    charts: Sequence[Chart] = ()
    traces: Sequence[Trace] = ()
    trees: Sequence[TreePair] = ()
    samples: Sequence[Samples] = ()

    @property
    def empty(self) -> bool:
        """Whether none of the runs measured it."""
        return not (self.table or self.charts or self.traces or self.trees or self.samples)


TABLE_2 = (
    "Success in percent, of the text as it is, with its 95 % bootstrap interval over targets; beneath it the same texts as the "
    "paper's evaluator counts them (paper-compatible), nats a token under our judge with the difference to human dev text and "
    "their interval, and the number of texts and the seed. Compare paper-compatible with the paper's lines, strict among ours. "
    "The paper's lm is the score of another judge: it compares only within its lines. Marked: the best of a block in its column."
)
TABLE_4 = (
    "Two controls at once, the success of each by itself in percent (beneath, its 95 % bootstrap interval over targets and the "
    "paper-compatible figure), and nats a token with their interval and the difference to human dev text; for the paper's lines "
    "its lm-score. Read the two of a pair together: either alone is easy. Marked: the best of ours in a column."
)
TABLE_5 = (
    "What was written into gaps against what people wrote there, 0 to 100 (CIDEr may be more), higher is better. mbr: of each "
    "target the text that is most like the others, as in the paper; sample: single texts. The paper's lines are of aNLG and "
    "compare only with ours on it; BERTScore, which is of another encoder, compares with none of them."
)
TABLE_7 = (
    "Nats a token, an upper bound for diffusion; lower is better. The paper's are of other tokens and of the model of its "
    "Appendix F; what the length costs is given by itself where a model has one."
)
FREE = (
    "Text without a control; intervals are 95 %, by the bootstrap over texts. The fair comparison of words is with human text in "
    "the model's vocabulary, where each word that it lacks counts as one. Nearer to human text is better in every column but the "
    "copies: far below it is bland, far above is broken. MAUVE of human text is of other human text, and so the ceiling."
)
ABLATIONS = "One change at a time, as each run's label names it."
TRACE = (
    "What the model would say at each step, from noise (t = 1) to text (t = 0). Dark words are already the final word at their "
    "place; pale ones will still change."
)
TREES = (
    "First the tree that was asked for (_ is any word), then our parser's tree of the text. Marked constituents are in one "
    "of the two only. The targets with the lowest, the middle and the highest success among those short enough to draw, "
    "of each the text that misses most."
)
TIME = "Minutes of wall clock by part, one after another on one machine."
TEXTS = (
    "For each system and task the targets with the lowest, the middle and the highest success, of each the worst and the best "
    "text: a rule picks them and nobody's taste. ✗ marks a miss, with the success of the text where it is not zero."
)


def sections(found: Collection) -> list[Section]:
    """All sections that a report can have."""
    noise = [chart for chart in [figures.noise(found)] if chart]
    traces = [trace for run in found.runs if run.trace is not None for trace in traces_of(run.trace)]
    return [
        Section("table2", "One control at a time", TABLE_2, table2(found)),
        _chart("success", "Success by task", figures.success(found)),
        _chart("fluency", "Success against fluency", figures.fluency(found)),
        _chart("cost", "Success against cost", figures.cost(found)),
        Section("table4", "Two controls at once", TABLE_4, table4(found)),
        Section("table5", "Infilling", TABLE_5, table5(found)),
        Section("table7", "Likelihood", TABLE_7, table7(found)),
        Section("free", "Free text", FREE, free(found)),
        Section("ablations", "Ablations", ABLATIONS, ablations(found), figures.ablations(found)),
        Section("noise", "What is known by noise level", charts=noise),
        Section("trace", "Out of the noise", TRACE, traces=traces),
        Section("trees", "Trees", TREES, trees=tree_pairs(found)),
        Section("time", "What it took", TIME, time_table(found)),
        Section("texts", "Texts", TEXTS, samples=samples(found)),
    ]


def _chart(name: str, title: str, chart: Chart | None) -> Section:
    return Section(name, title, charts=[chart] if chart else [])


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
        raise UserError(f"{into} cannot be read ({error}); give --into a Markdown file with markers.") from error


def _chosen(text: str, into: Path, found: Sequence[Section]) -> list[Section]:
    """The sections that a file has markers of."""
    known = {section.name: section for section in found}
    chosen = [known[name] for name in marked(text, str(into), known)]
    for section in chosen:
        if section.empty:
            logger.warning("%s: none of the runs measured %r, and the section now says so.", into, section.name)
    return chosen


def _placed(folder: Path, groups: Iterable[Files]) -> dict[Path, bytes]:
    return {folder / name: data for group in groups for name, data in group.items()}
