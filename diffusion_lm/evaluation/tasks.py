"""What a model is asked to do: one class a task. A new one is a class and an entry of `TASKS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from diffusion_lm.control import Control, Infill, Length
from diffusion_lm.control.guidance import COMPOSITION
from diffusion_lm.control.tree import our_parser
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.config import EvaluateConfig
from diffusion_lm.evaluation.fingerprint import tensors_hash, weights_hash
from diffusion_lm.evaluation.infill_targets import InfillTarget, read_infill_targets
from diffusion_lm.evaluation.sampling import attribute_of, pos_of, span_of, tree_of
from diffusion_lm.evaluation.sentence_targets import (
    POS_EXAMPLE,
    SPAN_EXAMPLE,
    TREE_EXAMPLE,
    Record,
    SentenceTarget,
    pos_target,
    read_records,
    span_target,
    tree_target,
    with_trees,
)
from diffusion_lm.evaluation.targets import AttributeTarget, parse_attribute, read_attribute_targets

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM

T = TypeVar("T")


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
