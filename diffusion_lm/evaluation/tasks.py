"""What an evaluation is asked for: free text, the targets of a control, or of several controls at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from diffusion_lm.annotate.tagger import check_words
from diffusion_lm.common import UserError, number
from diffusion_lm.control.control import CONTROLS, Control, Target, Ways
from diffusion_lm.control.program import Host
from diffusion_lm.evaluation.targets import read_records
from diffusion_lm.generation.settings import SamplingConfig
from diffusion_lm.text.corpus import NO_CORPUS, CorpusConfig
from diffusion_lm.text.fields import Document

FREE = "unconditional"
"""The task of free text."""
QUICK = {
    "tasks": [FREE, "attribute", "length"],
    "attribute_by": "words",
    "n": 200,
    "samples_per_target": 5,
    "limit_targets": 10,
}
"""What a quick evaluation takes where nothing else is said."""


@dataclass(frozen=True)
class EvaluateConfig(SamplingConfig):
    """A whole evaluation: which model does which tasks, and who judges."""

    FIRST = (
        "model",
        "quick",
        "tasks",
        "targets",
        "judge",
        "corpus.source",
        "n",
        "samples_per_target",
        "quality",
        "out",
    )

    model: str = "e2e-small"
    """Name of a bundled model, folder of a model, or hub id."""
    judge: str = "e2e-judge"
    """Folder of the judge, as train-judge writes it, or the name of a bundled one."""
    corpus: CorpusConfig = field(default_factory=partial(CorpusConfig, source=NO_CORPUS))
    """Where the human sentences come from: dev is compared with, train is searched for verbatim copies. 'none': fluency is held
    against what the judge keeps of its own corpus, and nothing else is compared."""
    tasks: list[str] = field(default_factory=lambda: [FREE])
    """What the model has to do: unconditional, a control such as attribute, length, pos, tree, span, infill, or several at once
    such as pos+attribute; may be repeated. --tasks list says which there are."""
    targets: dict[str, str] = field(default_factory=dict)
    """File of the targets of a task, --targets.pos FILE or --targets.pos+attribute FILE: JSON lines such as {"pos": ["DET",
    "NOUN"]}, {"tree": "(S ...)"}, {"words_": ["The", "pub"]} whose tree is wanted, {"spans": [[3, 5, "PP"]]}, {"length": 12},
    ["food", ":", "Thai"], which is {"attr": [...]} beside another control's. Without one, all attributes that the model knows, or
    10 to 40 words."""
    split: Literal["test", "dev"] = "test"
    """Split of the corpus whose sources are the targets of data2text."""
    quick: bool = False
    """A table in two minutes: without other flags 200 free texts, and 10 targets x 5 of attribute (by words) and length."""
    n: int = number(1000, least=2)
    """Number of unconditional samples, of human sentences and of the judge's own samples; also the most texts
    of a task whose diversity is measured, since distinct words and self-BLEU grow with their number."""
    samples_per_target: int = number(50, least=1)
    """Number of samples for each target of a control (paper: 50)."""
    limit_targets: int | None = number(None, least=1)
    """Try so many targets of each task instead of all, spread evenly over the list; the table says so."""
    baseline: list[str] = field(default_factory=list)
    """Folder of a baseline, as train-baseline makes it, that writes the texts in the model's place; the model still says what
    the targets are. Folders of several fine-tuned models are their product."""
    baseline_beams: int | None = number(None, least=1)
    """Width of the baseline's beam search, which writes its best text alone; null: it samples."""
    texts: str | None = None
    """File of texts that were written elsewhere, to be scored in the model's place: JSON lines with task, target and text, as
    the texts.jsonl of an evaluation has them; the model still says what the targets are."""
    outside: bool = False
    """Measure with pretrained models too, which make metrics installs: MAUVE against human text, and fluency under a language
    model that never read the corpus."""
    outside_n: int = number(200, least=1)
    """The most texts of a row whose fluency that model measures; it is slow on a CPU."""
    label: str | None = None
    """Who wrote, as tables and figures say it; "FIGURE: POINT" puts the run into the report's figure FIGURE; null: the name of
    the model or of the baseline."""
    out: str = "runs/evaluation"
    """Folder for texts.jsonl and run.json; the same command continues what was begun there."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not self.baseline and self.baseline_beams is not None:
            raise UserError("baseline_beams belongs to --baseline FOLDER.")
        if self.baseline and self.texts is not None:
            raise UserError("--texts and --baseline both say who wrote; give one.")
        if Path(self.out).is_file():
            raise UserError(f"{self.out} is a file; give --out a folder.")
        if self.outside and self.corpus.source == NO_CORPUS:
            raise UserError("--outside compares with human text; say where it is, --corpus.source FOLDER.")
        if self.quick:
            usual = EvaluateConfig()
            for name, value in QUICK.items():
                if getattr(self, name) == getattr(usual, name):
                    object.__setattr__(self, name, value)


Asked = Mapping[str, Target]
"""What is asked of a text: the target of each control by its name; of free text nothing."""


def name_of(asked: Asked) -> str:
    """How results call what is asked: the values, after the number of the line that they stand on."""
    line = next((target.line for target in asked.values() if target.line is not None), None)
    values = " & ".join(target.value for target in asked.values())
    return values if line is None else f"{line}: {values}"


@dataclass(frozen=True)
class Task:
    """The controls that are asked for together, by name; none for free text."""

    name: str
    controls: Mapping[str, type[Control]]

    def asks(self, asked: Asked, ways: Ways) -> dict[str, Control]:
        """The control of each part of what is asked, by its name."""
        return {part: self.controls[part].of_target(target, ways) for part, target in asked.items()}

    def targets(
        self, host: Host, path: str | None, documents: Callable[[], Iterable[Document]] = tuple
    ) -> dict[str, Asked]:
        """All that is asked, by its name: the targets of a file in its order, or without one those that the control names.

        `documents` gives the split of the corpus that may name them.

        Raises:
            UserError: the targets cannot be read, repeat each other, or the model cannot be asked for them.
        """
        if not self.controls:
            return {"": {}}
        lines = " and ".join(kind.example for kind in self.controls.values())
        out: dict[str, Asked] = {}

        def ask(targets: Mapping[str, Target]) -> None:
            check_words([target.words for target in targets.values()])
            asked = {name: self.controls[name].prepared(target, host) for name, target in targets.items()}
            if name_of(asked) in out:
                raise UserError(f"it repeats the target {name_of(asked)!r}")
            out[name_of(asked)] = asked

        kinds, flag = self.controls, f"--targets.{self.name} FILE"
        if path is not None:
            read_records(path, lambda record, row: ask({n: k.target(record, row) for n, k in kinds.items()}), lines)
        elif len(kinds) > 1:
            raise UserError(f"The task {self.name} needs a file of targets, {flag}; a line is {lines}.")
        else:
            kind = kinds[self.name]
            for target in kind.targets_of(documents) or kind.targets(host):
                ask({self.name: target})
        return out


def known_tasks() -> dict[str, str]:
    """A line of the targets of each task, by its name; none of free text."""
    return {FREE: ""} | {name: kind.example for name, kind in CONTROLS.items() if kind.example}


def find_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks with these names, each once.

    Raises:
        UserError: there is no such task, or none is named.
    """
    kinds = {name: kind for name, kind in CONTROLS.items() if kind.example}
    known = ", ".join(known_tasks())
    if not names:
        raise UserError(f"No task is given; the tasks are {known}.")
    tasks = []
    for name in dict.fromkeys(names):
        parts = [] if name == FREE else name.split("+")
        if not kinds.keys() >= set(parts) or len(set(parts)) < len(parts):
            raise UserError(f"There is no task {name!r}; the tasks are {known}, and several with a +.")
        tasks.append(Task(name, {part: kinds[part] for part in parts}))
    return tasks
