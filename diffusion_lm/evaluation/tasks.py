"""What a model is asked to do: one class a task. A new one is a class and an entry of `TASKS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from diffusion_lm.annotate.trees import bracket_f1, read_tree
from diffusion_lm.common import UserError
from diffusion_lm.control import Control, Infill, Length
from diffusion_lm.control.guidance import COMPOSITION
from diffusion_lm.control.pos import spacy_tagger
from diffusion_lm.control.span import Span
from diffusion_lm.control.tree import our_parser
from diffusion_lm.evaluation.scores import tensors_hash, weights_hash
from diffusion_lm.evaluation.targets import (
    POS_EXAMPLE,
    SPAN_EXAMPLE,
    TREE_EXAMPLE,
    AttributeTarget,
    InfillTarget,
    Record,
    SentenceTarget,
    parse_attribute,
    pos_target,
    read_attribute_targets,
    read_infill_targets,
    read_records,
    span_target,
    tree_target,
    with_trees,
)
from diffusion_lm.generation.settings import SamplingConfig, attribute_of, pos_of, span_of, tree_of
from diffusion_lm.text.corpus import CorpusConfig
from diffusion_lm.text.spacing import words_of

if TYPE_CHECKING:
    from nltk import Tree

    from diffusion_lm.generation.pipeline import DiffusionLM


T = TypeVar("T")


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


class Task(ABC, Generic[T]):
    """Targets, and the control that asks for each; `str(target)` names it in the results."""

    name: str
    """The name in the configuration and in the results."""

    def __init__(self, config: EvaluateConfig, lm: DiffusionLM) -> None:
        self.config, self.lm = config, lm

    @abstractmethod
    def targets(self) -> list[T]:
        """All targets, in the order of the report.

        Raises:
            UserError: the targets cannot be read, or the model cannot be asked for them.
        """

    @abstractmethod
    def control(self, target: T) -> Control | None:
        """What is wanted of the texts, not yet bound to the model; None for free text."""

    def parts(self, target: T) -> dict[str, Any]:
        """The target of each single task that this one is made of, by the task's name; none where nothing is asked for."""
        return {self.name: target}

    def words(self, target: T) -> tuple[str, ...]:
        """Of the human sentence that a target was taken from; none where it is not known."""
        return ()

    @property
    def samples(self) -> int:
        """Texts for each target."""
        return self.config.samples_per_target

    @property
    def guided_as(self) -> str:
        """The name that `Guidance.paper` has numbers for."""
        return self.name

    def settings(self) -> dict[str, str]:
        """What changes the texts of this task beyond the configuration and the language model."""
        return {}


@final
class Unconditional(Task[str]):
    """Free text; lengths are drawn from the training corpus's histogram."""

    name = "unconditional"

    def targets(self) -> list[str]:  # noqa: D102
        return [""]

    def control(self, target: str) -> None:  # noqa: D102
        return None

    def parts(self, target: str) -> dict[str, Any]:  # noqa: D102
        return {}

    @property
    def samples(self) -> int:  # noqa: D102
        return self.config.n


@final
class AttributeTask(Task[AttributeTarget]):
    """Semantic content (paper section 6.1): each target of a file, or all that the classifier knows."""

    name = "attribute"

    def targets(self) -> list[AttributeTarget]:  # noqa: D102
        known = self.lm.attribute_model().config.fields
        if self.config.targets is not None:
            return read_attribute_targets(self.config.targets, known)
        return [AttributeTarget(field, value) for field, values in known.items() for value in values]

    def control(self, target: AttributeTarget) -> Control:  # noqa: D102
        return attribute_of(self.config)(target.field, target.value)

    def settings(self) -> dict[str, str]:  # noqa: D102
        return _attribute_settings(self.lm)


@final
class LengthTask(Task[int]):
    """Every number of words from the shortest to the longest of `lengths` (paper: 10 to 40)."""

    name = "length"

    def targets(self) -> list[int]:  # noqa: D102
        shortest, longest = self.config.lengths
        return list(range(shortest, longest + 1))

    def control(self, target: int) -> Length:  # noqa: D102
        return Length(target)


class _SentenceTask(Task[SentenceTarget]):
    """A task whose targets were taken from sentences, one JSON object a line of a file."""

    def words(self, target: SentenceTarget) -> tuple[str, ...]:
        return target.words


def _file(path: str | None, flag: str, what: str) -> str:
    if path is None:
        raise UserError(f"This task needs a file of {what}: --{flag} FILE.")
    return path


@final
class PosTask(_SentenceTask):
    """Parts of speech (paper section 6.1): the tag sequences of a file."""

    name = "pos"

    def targets(self) -> list[SentenceTarget]:  # noqa: D102
        path = _file(self.config.pos_targets, "pos_targets", "tag sequences")
        return read_records(path, pos_target, POS_EXAMPLE)

    def control(self, target: SentenceTarget) -> Control:  # noqa: D102
        return pos_of(self.config, target.value)

    def settings(self) -> dict[str, str]:  # noqa: D102
        return _pos_settings(self.config, self.lm)


@final
class TreeTask(_SentenceTask):
    """Syntax trees (paper section 6.1): those of a file, or the parses of its sentences."""

    name = "tree"

    def targets(self) -> list[SentenceTarget]:  # noqa: D102
        path = _file(self.config.tree_targets, "tree_targets", "trees or sentences")
        return with_trees(read_records(path, tree_target, TREE_EXAMPLE), our_parser())

    def control(self, target: SentenceTarget) -> Control:  # noqa: D102
        return tree_of(self.config, target.value)

    def settings(self) -> dict[str, str]:  # noqa: D102
        return _syntax_settings(self.config, self.lm)


@final
class SpanTask(_SentenceTask):
    """Syntax spans (paper section 6.1): those of a file."""

    name = "span"

    def targets(self) -> list[SentenceTarget]:  # noqa: D102
        path = _file(self.config.span_targets, "span_targets", "spans")
        return read_records(path, span_target, SPAN_EXAMPLE)

    def control(self, target: SentenceTarget) -> Control:  # noqa: D102
        return span_of(self.config, target.value)

    def settings(self) -> dict[str, str]:  # noqa: D102
        return _syntax_settings(self.config, self.lm)


def _attribute_settings(lm: DiffusionLM) -> dict[str, str]:
    return {"classifier": weights_hash(lm.attribute_model())}


def _syntax_settings(config: EvaluateConfig, lm: DiffusionLM) -> dict[str, str]:
    if config.syntax_by == "classifier":
        return {"syntax": weights_hash(lm.syntax_model())}
    table = lm.leaf_table()
    return {"table": tensors_hash(table.tensors()), "tags": tensors_hash(table.tags.tensors())}


def _pos_settings(config: EvaluateConfig, lm: DiffusionLM) -> dict[str, str]:
    if config.syntax_by == "classifier":
        return _syntax_settings(config, lm)
    leaves = _syntax_settings(config, lm) if lm.has_control("tree") else {}
    return {**leaves, "universal": tensors_hash(lm.tag_table().tensors())}


@dataclass(frozen=True)
class Composed:
    """A target taken from a sentence, and an attribute."""

    sentence: SentenceTarget
    attribute: AttributeTarget

    def __str__(self) -> str:
        return f"{self.sentence} & {self.attribute}"


class _ComposedTask(Task[Composed]):
    """Semantic content together with another control (paper section 6.2), on the lines of one file."""

    example: str

    @staticmethod
    @abstractmethod
    def parse(record: Record, line: int) -> SentenceTarget:
        """The other control's target of a line."""

    def targets(self) -> list[Composed]:
        path = _file(self.config.compose_targets, "compose_targets", "targets with an attribute each")
        known = self.lm.attribute_model().config.fields

        def parse(record: Record, line: int) -> Composed:
            return Composed(self.parse(record, line), parse_attribute(record.get("attr"), known))

        return read_records(path, parse, self.example)

    def parts(self, target: Composed) -> dict[str, Any]:
        return dict(zip(self.name.split("+"), (target.sentence, target.attribute), strict=True))

    def words(self, target: Composed) -> tuple[str, ...]:
        return target.sentence.words

    @property
    def guided_as(self) -> str:
        return COMPOSITION


@final
class PosAttributeTask(_ComposedTask):
    """Parts of speech and semantic content together."""

    name = "pos+attribute"
    example = '{"pos": ["DET", "NOUN"], "attr": ["food", ":", "Fast", "food"]}'
    parse = staticmethod(pos_target)

    def control(self, target: Composed) -> Control:  # noqa: D102
        return pos_of(self.config, target.sentence.value) & attribute_of(self.config)(
            target.attribute.field, target.attribute.value
        )

    def settings(self) -> dict[str, str]:  # noqa: D102
        return {**_pos_settings(self.config, self.lm), **_attribute_settings(self.lm)}


@final
class TreeAttributeTask(_ComposedTask):
    """A syntax tree and semantic content together."""

    name = "tree+attribute"
    example = '{"words_": ["The", "pub"], "attr": ["food", ":", "Fast", "food"]}'
    parse = staticmethod(tree_target)

    def targets(self) -> list[Composed]:  # noqa: D102
        found = super().targets()
        trees = with_trees([target.sentence for target in found], our_parser())
        return [Composed(tree, target.attribute) for tree, target in zip(trees, found, strict=True)]

    def control(self, target: Composed) -> Control:  # noqa: D102
        return tree_of(self.config, target.sentence.value) & attribute_of(self.config)(
            target.attribute.field, target.attribute.value
        )

    def settings(self) -> dict[str, str]:  # noqa: D102
        return {**_syntax_settings(self.config, self.lm), **_attribute_settings(self.lm)}


@final
class InfillTask(Task[InfillTarget]):
    """Infilling (paper section 6.2): what stands left and right of a gap is given, a word that the model lacks as UNK."""

    name = "infill"

    def targets(self) -> list[InfillTarget]:  # noqa: D102
        path = _file(self.config.infill_targets, "infill_targets", "gaps")
        return [target.known_to(self.lm.tokenizer) for target in read_infill_targets(path)]

    def control(self, target: InfillTarget) -> Control:  # noqa: D102
        return Infill(target.template)

    def words(self, target: InfillTarget) -> tuple[str, ...]:  # noqa: D102
        return target.words


TASKS: dict[str, type[Task[Any]]] = {
    task.name: task
    for task in (
        Unconditional,
        AttributeTask,
        LengthTask,
        PosTask,
        TreeTask,
        SpanTask,
        PosAttributeTask,
        TreeAttributeTask,
        InfillTask,
    )
}
"""The tasks by name."""


def find_tasks(names: list[str]) -> list[type[Task[Any]]]:
    """The tasks with these names, each once.

    Raises:
        UserError: there is no such task, or none is named.
    """
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        wrong = f"There is no task {unknown[0]!r}" if unknown else "No task is given"
        raise UserError(f"{wrong}; the tasks are {', '.join(TASKS)}.")
    return [TASKS[name] for name in dict.fromkeys(names)]


PADDING = "."
"""The word that the original pads a text with before it parses it."""
TOLERANCE = 2
"""Words by which a length may be missed (paper section 6.1; the original's code asks for the exact one)."""


def attribute(value: Sequence[str], words: Sequence[str]) -> float:
    """1 where the value is a substring of the joined words, in their case, be it within a longer word."""
    return float(" ".join(value) in " ".join(words))


def pos(wanted: Sequence[str], tags: Sequence[str]) -> float:
    """Share of the wanted tags that stand in their place; tags beyond the wanted number are cut off."""
    return sum(a == b for a, b in zip(wanted, tags, strict=False)) / max(1, len(wanted))


def fitted(words: Sequence[str], length: int) -> list[str]:
    """The words cut to a length, or padded to it with full stops, as the original does before it parses them."""
    return [*words[:length], *[PADDING] * (length - len(words))]


def tree(wanted: Tree, found: Tree) -> float:
    """Labelled bracket F1 of the wanted tree and the parse of the fitted words; tags do not count."""
    return bracket_f1([wanted], [found])


def length(wanted: int, words: Sequence[str]) -> float:
    """1 where the text has the wanted number of words, or up to two more or fewer."""
    return float(abs(len(words) - wanted) <= TOLERANCE)


def _attribute(target: AttributeTarget, texts: Sequence[str]) -> list[float]:
    value = words_of(target.value)
    return [attribute(value, words_of(text)) for text in texts]


def _pos(target: SentenceTarget, texts: Sequence[str]) -> list[float]:
    wanted = target.value.split()
    tags = spacy_tagger().tag([words_of(text) for text in texts])
    return [pos(wanted, found) for found in tags]


def _tree(target: SentenceTarget, texts: Sequence[str]) -> list[float]:
    wanted = read_tree(target.value)
    length = len(wanted.leaves())
    trees = our_parser().parse([fitted(words_of(text), length) for text in texts])
    return [tree(wanted, found) for found in trees]


def _span(target: SentenceTarget, texts: Sequence[str]) -> list[float]:
    return Span(target.value).success(texts).tolist()


def _length(target: int, texts: Sequence[str]) -> list[float]:
    return [length(target, words_of(text)) for text in texts]


PAPER_JUDGES: dict[str, Callable[[Any, Sequence[str]], list[float]]] = {
    "attribute": _attribute,
    "pos": _pos,
    "tree": _tree,
    "span": _span,
    "length": _length,
}
"""(target, texts) to the success of each text in [0, 1], by the name of the task; infilling has none."""
