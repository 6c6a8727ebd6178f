"""What may stand in the model's place in an evaluation: a baseline, or a method of somebody else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from diffusion_lm.control.control import Target


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
        """A `UserError` if it cannot be asked for a task, the name of a control or names joined by "+"."""
        return

    def samples(self, wanted: int) -> int:
        """How many texts it writes for a target where `wanted` are asked for."""
        return wanted

    @abstractmethod
    def write(self, asked: Mapping[str, Target], n: int, seed: int) -> Written:
        """N texts of which each control's target, by its name, is `asked`; the same seed gives the same texts."""
