"""The infilling task's figures: what was written into the gaps against what people wrote (paper, section 6.2, Table 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from diffusion_lm.evaluation.infill_targets import InfillTarget
from diffusion_lm.evaluation.mbr import choose
from diffusion_lm.evaluation.references import ReferenceScores, TokenVectors, reference_scores, remembered
from diffusion_lm.evaluation.results import Sample

DRAWS = 5
"""Samples of each target whose figures are averaged; the texts of a target are alike but for chance."""


def infill_scores(
    groups: Mapping[str, Sequence[Sample]], asked: Mapping[str, InfillTarget], token_vectors: TokenVectors
) -> dict[str, ReferenceScores]:
    """Figures of the gaps alone, the context left out.

    Args:
        groups: the samples by the name of their target; each has as many.
        asked: the targets by their name.
        token_vectors: of the BERTScore.

    Returns:
        mbr: of each target the sample of least risk by sentence BLEU, as in the paper.
        sample: the mean over the first `DRAWS` samples of each target.
        human: the first reference against the others, of the targets that have several; absent where none has.
    """
    token_vectors = remembered(token_vectors)
    targets = [asked[name] for name in groups]
    references = [target.references for target in targets]
    gaps = [
        [target.middle(sample.text) for sample in samples]
        for target, samples in zip(targets, groups.values(), strict=True)
    ]
    chosen = [middles[choose(middles)] for middles in gaps]
    draws = [
        reference_scores(texts, references, token_vectors) for texts in list(zip(*gaps, strict=True))[:DRAWS]
    ]
    scores = {"mbr": reference_scores(chosen, references, token_vectors), "sample": _mean(draws)}
    several = [each for each in references if len(each) > 1]
    if several:
        first, others = [each[0] for each in several], [each[1:] for each in several]
        scores["human"] = reference_scores(first, others, token_vectors)
    return scores


def _mean(draws: Sequence[ReferenceScores]) -> ReferenceScores:
    """The mean of each figure; all are of as many texts."""
    figures = [asdict(draw) for draw in draws]
    means = {name: sum(each[name] for each in figures) / len(figures) for name in figures[0]}
    return ReferenceScores(**{**means, "n": draws[0].n})
