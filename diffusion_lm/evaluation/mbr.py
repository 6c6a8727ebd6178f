"""Minimum-Bayes-risk choice among sampled texts (paper, section 4.3; Kumar and Byrne 2004)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from diffusion_lm.errors import UserError

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

Utility = Callable[[str, str], float]
"""(hypothesis, reference) -> how well the one stands for the other; more is better."""


@cache
def _bleu() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    # Smoothed, an order that a short text lacks counts 1 of 1, effective or not; sacrebleu would warn at every call.
    return BLEU(lowercase=True, smooth_method="add-k", smooth_value=1, effective_order=True)


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """Sentence BLEU-4 with one added to the counts of word pairs and longer, 0 to 100: the paper's utility."""
    return float(_bleu().sentence_score(hypothesis, [reference]).score)


def mean_utilities(candidates: Sequence[str], utility: Utility = sentence_bleu) -> list[float]:
    """The mean utility of each candidate against all the others; one that stands there twice counts twice.

    Raises:
        UserError: there are fewer than two candidates.
    """
    if len(candidates) < 2:
        raise UserError("A choice of least risk compares texts with each other, so it needs at least two.")
    known = cache(utility)  # samples repeat each other, short ones often
    return [
        sum(known(hypothesis, other) for j, other in enumerate(candidates) if j != i) / (len(candidates) - 1)
        for i, hypothesis in enumerate(candidates)
    ]


def choose(candidates: Sequence[str], utility: Utility = sentence_bleu) -> int:
    """The number of the candidate with the highest mean utility, the first of equals; a single one is chosen."""
    if len(candidates) == 1:
        return 0
    means = mean_utilities(candidates, utility)
    return means.index(max(means))
