"""What an evaluation is: flags, YAML keys and the saved summary in one dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.sampling_config import SamplingConfig
from diffusion_lm.text.corpus import CorpusConfig


@dataclass(frozen=True)
class EvaluateConfig(SamplingConfig):
    """A whole evaluation: which model does which tasks, and who judges."""

    model: str = "e2e-small"
    """Name of a bundled model, folder of a model, or hub id."""
    judge: str = "runs/judge"
    """Folder of the judge, as train-judge writes it."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Where the human sentences come from: dev is compared with, train is searched for verbatim copies."""
    tasks: list[str] = field(default_factory=lambda: ["unconditional"])
    """What the model has to do: unconditional, attribute, length, pos, tree, span, pos+attribute, tree+attribute, infill;
    may be repeated."""
    n: int = 1000
    """Number of unconditional samples, of human sentences and of the judge's own samples; also the most texts
    of a task whose diversity is measured, since distinct words and self-BLEU grow with their number."""
    samples_per_target: int = 50
    """Number of samples for each target of a control (paper: 50)."""
    targets: str | None = None
    """File of attribute targets, a JSON list such as ["food", ":", "Fast", "food"] on every line;
    without one, every value that the model's classifier knows."""
    pos_targets: str | None = None
    """File of tag sequences, {"pos": ["DET", "NOUN", ...]} on every line; START and END, and a last word that
    is a line break, are dropped."""
    tree_targets: str | None = None
    """File of trees, {"tree": "(S ...)"} with _ for any word, or of sentences whose trees are wanted,
    {"words_": ["The", ...]}, on every line."""
    span_targets: str | None = None
    """File of spans, {"spans": [[3, 5, "PP"]]} on every line: words 3 to 5, counted from 0."""
    compose_targets: str | None = None
    """File of two targets on every line, an attribute under "attr" beside "pos" or "words_"."""
    infill_targets: str | None = None
    """File of gaps, {"left": "...", "right": "...", "references": ["..."]} on every line, or aNLG's dev.json."""
    lengths: tuple[int, int] = (10, 40)
    """Shortest and longest target of the length task, in words between START and END (paper: 10 to 40)."""
    limit_targets: int | None = None
    """Try so many targets of each task instead of all, spread evenly over the list; the table says so."""
    baseline: list[str] = field(default_factory=list)
    """Folder of a baseline, as train-baseline makes it, that writes the texts in the model's place; the model still says what
    the targets are. Folders of several fine-tuned models are their product."""
    baseline_beams: int | None = None
    """Width of the baseline's beam search, which writes its best text alone; null: it samples."""
    outside: bool = False
    """Measure with pretrained models too, which make metrics installs: MAUVE against human text, and fluency under a language
    model that never read the corpus."""
    outside_n: int = 200
    """The most texts of a row whose fluency that model measures; it is slow on a CPU."""
    label: str | None = None
    """Who wrote, as tables and figures say it; "FIGURE: POINT" puts the run into the report's figure FIGURE; null: the name of
    the model or of the baseline."""
    out: str = "runs/evaluation"
    """Folder for results.jsonl and summary.json; the same command continues what was begun there."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        super().__post_init__()
        if not self.baseline and self.baseline_beams is not None:
            raise UserError("baseline_beams belongs to --baseline FOLDER.")
        for name in ("n", "samples_per_target", "limit_targets", "baseline_beams", "outside_n"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")
        if self.n < 2:
            raise UserError("n must be at least 2: diversity compares texts with each other.")
        if Path(self.out).is_file():
            raise UserError(f"{self.out} is a file; give --out a folder.")
        if not 1 <= self.lengths[0] <= self.lengths[1]:
            raise UserError(f"lengths must be the shortest and the longest, not {list(self.lengths)}.")
