"""From samples to the figures of a row: fluency, success with its interval, diversity, copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from diffusion_lm.evaluation.diversity import distinct, normalise_space, self_bleu, verbatim_share
from diffusion_lm.evaluation.report import Row
from diffusion_lm.evaluation.results import Sample
from diffusion_lm.text.spacing import bare, split_words

RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(Row):
    """A row with what the table has no column for."""

    task: str = ""
    """Name of the task, or who wrote where there is none: human, judge."""
    system: str = ""
    """Who wrote the texts."""
    distinct_2_count: int | None = None
    """Number of different word pairs."""
    diversity_n: int | None = None
    """Number of texts that the distinct counts and self-BLEU are of."""
    success_interval: tuple[float, float] | None = None
    """95 % interval of `success`: percentiles of the bootstrap over targets."""
    success_paper_interval: tuple[float, float] | None = None
    """The same of `success_paper`; None where several controls are asked for at once."""
    nats_interval: tuple[float, float] | None = None
    """The same of `nats_per_token`; over texts where there are no targets."""
    parts: dict[str, float] = field(default_factory=dict)
    """Mean success of each of several controls, by the name of its task."""
    parts_interval: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """The 95 % interval of each of `parts`."""
    parts_paper: dict[str, float] = field(default_factory=dict)
    """Mean paper-compatible success of each of several controls."""
    outside_n: int | None = None
    """Number of texts that `outside_nats` is of."""
    targets: int | None = None
    """Number of targets tried."""
    targets_in_all: int | None = None
    """Number of targets that there are."""


@dataclass(frozen=True)
class TargetScore:
    """One target of a task."""

    target: str
    success: float | None
    nats_per_token: float
    n: int
    parts: dict[str, float] = field(default_factory=dict)
    """Mean success of each of several controls, by the name of its task."""
    paper: dict[str, float] = field(default_factory=dict)
    """Mean paper-compatible success of each control, by the name of its task."""


def words_of(text: str) -> list[str]:
    """The words and marks of a text, whatever the model's tokens are."""
    return [bare(word) for word in split_words(text)]


def some_of(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """A random `most` of the texts in their order, or all if there are not more."""
    if len(texts) <= most:
        return list(texts)
    chosen = np.random.default_rng(seed).choice(len(texts), most, replace=False)
    return [texts[i] for i in sorted(chosen)]


def diversity_of(texts: Sequence[str], most: int, seed: int) -> dict[str, int | float]:
    """Distinct words and pairs and self-BLEU of at most `most` texts, as fields of `EvaluationRow`."""
    texts = some_of(texts, most, seed)
    words = [words_of(text) for text in texts]
    pairs = distinct(words, 2)
    figures = {
        "distinct_1": distinct(words, 1).count,
        "distinct_2": pairs.ratio,
        "distinct_2_count": pairs.count,
        "diversity_n": len(texts),
    }
    return figures if len(texts) < 2 else {**figures, "self_bleu": self_bleu(words, sample=None)}


def target_scores(groups: dict[str, list[Sample]]) -> list[TargetScore]:
    """The score of each target; success is the mean over its samples."""
    return [
        TargetScore(
            target,
            _mean_success(samples),
            nats_per_token(samples),
            len(samples),
            _means([sample.parts for sample in samples]),
            _means([sample.paper for sample in samples]),
        )
        for target, samples in groups.items()
    ]


def nats_per_token(samples: Sequence[Sample]) -> float:
    """Total nats over total tokens, END counted."""
    return sum(sample.nats for sample in samples) / sum(sample.tokens for sample in samples)


def success_of(success: Iterable[float | None], seed: int) -> tuple[float | None, tuple[float, float] | None]:
    """The mean over the targets' successes, and its 95 % bootstrap interval (None for a single target)."""
    values = [value for value in success if value is not None]
    if not values:
        return None, None
    return sum(values) / len(values), bootstrap(values, [1] * len(values), seed)


def bootstrap(values: Sequence[float], weights: Sequence[float], seed: int) -> tuple[float, float] | None:
    """The 95 % interval of sum(values) / sum(weights) when units are drawn anew with replacement; None for a single unit."""
    if len(values) < 2:
        return None
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    ratios = np.asarray(values)[draws].sum(1) / np.asarray(weights)[draws].sum(1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def nats_interval(groups: Mapping[str, Sequence[Sample]], seed: int) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the nats a token: over targets, since texts for one target are alike, or else over texts."""
    units = list(groups.values())
    if len(units) == 1:
        units = [[sample] for sample in units[0]]
    nats = [sum(sample.nats for sample in unit) for unit in units]
    return bootstrap(nats, [sum(sample.tokens for sample in unit) for unit in units], seed)


def copied(texts: Iterable[str], training_texts: Iterable[str]) -> set[str]:
    """Those of the texts that stand in the training set; the training set is streamed, never held."""
    wanted = {normalise_space(text) for text in texts}
    return {known for text in training_texts if (known := normalise_space(text)) in wanted}


def originals(words: Iterable[Sequence[str]], training_texts: Iterable[str]) -> list[str]:
    """The training texts that have just these words, one for each list of words that is found; they are streamed."""
    wanted = {tuple(each) for each in words}
    found: dict[tuple[str, ...], str] = {}
    for text in training_texts:
        if wanted and (key := tuple(words_of(text))) in wanted:
            found[key] = text
    return list(found.values())


def make_row(
    label: str,
    groups: dict[str, list[Sample]],
    *,
    task: str,
    system: str,
    of: int,
    human: float,
    copies: AbstractSet[str],
    most: int,
    seed: int,
) -> EvaluationRow:
    """The row of a system.

    Args:
        label: its name in the table.
        groups: its samples by target.
        task: name of the task.
        system: who wrote.
        of: number of targets that there are.
        human: nats a token of human text.
        copies: texts that stand in the training set.
        most: the most texts whose diversity is measured.
        seed: seed of the evaluation.
    """
    samples = [sample for group in groups.values() for sample in group]
    texts = [sample.text for sample in samples]
    scores = target_scores(groups)
    success, interval = success_of((score.success for score in scores), seed)
    # Of several controls at once the paper counts each by itself.
    alone = [score.paper.get(task) for score in scores]
    paper, paper_interval = success_of(alone, seed)
    parts = _means([score.parts for score in scores])
    seconds = [sample.seconds for sample in samples if sample.seconds is not None]
    passes = [s.network_evaluations for s in samples if s.network_evaluations is not None]
    return EvaluationRow(
        name=label,
        task=task,
        system=system,
        nats_per_token=nats_per_token(samples),
        human_nats_per_token=human,
        success=success,
        success_interval=interval,
        success_paper=paper,
        success_paper_interval=paper_interval,
        nats_interval=nats_interval(groups, seed),
        parts=parts,
        parts_interval={name: success_of((score.parts[name] for score in scores), seed)[1] for name in parts},
        parts_paper=_means([score.paper for score in scores]) if parts else {},
        verbatim=verbatim_share(texts, copies),
        evaluations=max(passes) if passes else None,
        seconds=sum(seconds) if seconds else None,
        n=len(texts),
        seed=seed,
        targets=len(groups),
        targets_in_all=of,
        **diversity_of(texts, most, seed),  # type: ignore[arg-type]
    )


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure that all have."""
    return {name: sum(each[name] for each in figures) / len(figures) for name in figures[0]}


def _mean_success(samples: Sequence[Sample]) -> float | None:
    values = [sample.success for sample in samples if sample.success is not None]
    return sum(values) / len(values) if values else None
