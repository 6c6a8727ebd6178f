"""What a model is asked to do: one class a task. A new one is a class and an entry of `TASKS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from diffusion_lm.control import Control, Length, Pos
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.config import EvaluateConfig
from diffusion_lm.evaluation.fingerprint import tensors_hash, weights_hash
from diffusion_lm.evaluation.pos_targets import PosTarget, read_pos_targets
from diffusion_lm.evaluation.sampling import attribute_of
from diffusion_lm.evaluation.targets import AttributeTarget, read_attribute_targets

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM

T = TypeVar("T")


class Task(ABC, Generic[T]):
    """Targets, and the control that asks for each; `str(target)` names it in the results."""

    name: str
    """The name in the configuration, in the results and in `Guidance.paper`."""

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

    @property
    def samples(self) -> int:
        """Texts for each target."""
        return self.config.samples_per_target

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
        return {"classifier": weights_hash(self.lm.attribute_model())}


@final
class LengthTask(Task[int]):
    """Every number of words from the shortest to the longest of `lengths` (paper: 10 to 40)."""

    name = "length"

    def targets(self) -> list[int]:  # noqa: D102
        shortest, longest = self.config.lengths
        return list(range(shortest, longest + 1))

    def control(self, target: int) -> Length:  # noqa: D102
        return Length(target)


@final
class PosTask(Task[PosTarget]):
    """Parts of speech (paper section 6.1): the tag sequences of a file."""

    name = "pos"

    def targets(self) -> list[PosTarget]:  # noqa: D102
        if self.config.pos_targets is None:
            raise UserError("The pos task needs a file of tag sequences: --pos_targets pos.jsonl.")
        return read_pos_targets(self.config.pos_targets)

    def control(self, target: PosTarget) -> Pos:  # noqa: D102
        return Pos(target.tags)

    def settings(self) -> dict[str, str]:  # noqa: D102
        return {"table": tensors_hash(self.lm.tag_table().tensors())}


TASKS: dict[str, type[Task[Any]]] = {
    task.name: task for task in (Unconditional, AttributeTask, LengthTask, PosTask)
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
