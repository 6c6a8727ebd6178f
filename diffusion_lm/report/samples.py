"""Which texts a report shows: picked by a rule, the misses included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from diffusion_lm.report.collection import Collection, Measured
from diffusion_lm.report.read import Text

T = TypeVar("T")

TARGETS, TEXTS = 3, 2


@dataclass(frozen=True)
class Sample:
    """A target and texts for it, the one that misses most first."""

    target: str
    texts: Sequence[Text]


@dataclass(frozen=True)
class Samples:
    """What a system wrote for a task."""

    system: str
    task: str
    targets: Sequence[Sample]


def samples(found: Collection) -> list[Samples]:
    """For each system and task the targets with the lowest, the middle and the highest success.

    Of each the text with the lowest success and the one with the highest. Free text has one target: texts at even distances.
    """
    return [
        Samples(system, task, _targets(each))
        for system in found.systems
        for (name, task), each in found.measured.items()
        if name == system and each.texts
    ]


def _targets(each: Measured) -> list[Sample]:
    groups = by_target(each.texts)
    chosen = spread(sorted(groups, key=lambda target: mean_success(groups[target])), TARGETS)
    count = TEXTS * TARGETS // len(chosen)
    return [Sample(target, spread(sorted(groups[target], key=success_of), count)) for target in chosen]


def by_target(texts: Sequence[Text]) -> dict[str, list[Text]]:
    """Texts by what was asked for."""
    groups: dict[str, list[Text]] = {}
    for text in texts:
        groups.setdefault(text.target, []).append(text)
    return groups


def mean_success(texts: Sequence[Text]) -> float:
    """Of the texts of one target."""
    return sum(map(success_of, texts)) / len(texts)


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at even distances, the first and the last among them; all if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, count - 1))] for i in range(count)]


def success_of(text: Text) -> float:
    """How far a text does what is wanted; one that nothing is wanted of cannot miss."""
    return 1.0 if text.success is None else text.success
