"""The sections of a report, in their order; one that nothing was measured for is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_lm.report import figures
from diffusion_lm.report.chart import Chart
from diffusion_lm.report.collection import Collection
from diffusion_lm.report.control_tables import table2, table4
from diffusion_lm.report.free_tables import ablations, free
from diffusion_lm.report.reference_tables import table5, table7
from diffusion_lm.report.samples import Samples, samples
from diffusion_lm.report.table import Table
from diffusion_lm.report.time_table import time_table
from diffusion_lm.report.trace import Trace, traces_of
from diffusion_lm.report.tree_samples import TreePair, tree_pairs


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
