"""Whatever else writes texts for targets: a baseline, or a method of somebody else's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple


class Written(NamedTuple):
    """The texts for a target, and what they cost."""

    texts: list[str]
    network_evaluations: int | None = None


class Writer(ABC):
    """A method that `evaluate` holds against the model's targets and scores as it scores the model.

    Attributes:
        name: what stands in the table.
        settings: what the texts depend on beyond target and seed; results of other settings are not continued.
    """

    name: str
    settings: dict[str, str]

    def check(self, task: str) -> None:
        """See that it can be asked for a task.

        Raises:
            UserError: if it cannot.
        """
        return

    def samples(self, wanted: int) -> int:
        """How many texts it writes for a target where `wanted` are asked for."""
        return wanted

    @abstractmethod
    def write(self, target: Any, n: int, seed: int) -> Written:
        """N texts for a target of `evaluation.tasks`; the same seed gives the same texts."""
