"""What a reader of the table has to know: which row to compare with which, intervals, subsets, misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffusion_lm.evaluation.references import ReferenceScores
from diffusion_lm.evaluation.rows import EvaluationRow, TargetScore

WORST = 5


def notes(
    rows: Sequence[EvaluationRow], left_out: int, scores: Mapping[str, Sequence[TargetScore]]
) -> list[str]:
    """The remarks under the table.

    Args:
        rows: the table; the first is human text as written, the second the same in the model's vocabulary.
        left_out: human sentences that are longer than the judge can read.
        scores: the score of each target, by the name of the row.
    """
    raw, known = rows[0], rows[1]
    remarks = [
        f"Distinct words of the model are to be compared with {known.name!r} ({known.distinct_1:,}), where "
        f"each word that the model's vocabulary lacks counts as the one word UNK; {raw.name!r} "
        f"({raw.distinct_1:,}) counts words as people wrote them.",
        "Distinct pairs: " + "; ".join(f"{row.name} {row.distinct_2_count:,}" for row in rows) + ".",
    ]
    for row in rows:
        if row.diversity_n is not None and row.diversity_n != raw.diversity_n:
            remarks.append(
                f"{row.name}: distinct counts and self-BLEU are of {row.diversity_n:,} texts, not "
                f"{raw.diversity_n:,} as for human text: do not compare them."
            )
        elif row.n != row.diversity_n:
            remarks.append(
                f"{row.name}: distinct counts and self-BLEU are of a random {row.diversity_n:,} of its "
                f"{row.n:,} texts."
            )
        remarks += _success(row, scores.get(row.name, ()))
    if left_out:
        remarks.append(f"Left out: {left_out} of the human sentences drawn, longer than the judge reads.")
    return remarks


def _success(row: EvaluationRow, scores: Sequence[TargetScore]) -> list[str]:
    if row.success is None or row.targets is None or row.targets_in_all is None:
        return []
    text = f"{row.name}: success {row.success:.1%}"
    if row.success_interval is not None:
        low, high = row.success_interval
        text += f", 95 % interval {low:.1%} to {high:.1%} (bootstrap over {row.targets} targets)"
    for name in set.intersection(*(set(score.parts) for score in scores)) if scores else ():
        text += f"; {name} by itself {sum(score.parts[name] for score in scores) / len(scores):.1%}"
    if row.targets < row.targets_in_all:
        text += f"; only {row.targets} of {row.targets_in_all} targets were tried"
    missed = sorted((s.success, s.target) for s in scores if s.success is not None and s.success < 1)
    if missed:
        text += "; lowest: " + ", ".join(f"{target} {share:.0%}" for share, target in missed[:WORST])
    return [text + "."]


def versus_references(label: str, scores: Mapping[str, ReferenceScores]) -> str:
    """The remark on a task whose texts were held against references: the figures of each way to choose a text."""
    figures = "; ".join(
        f"{name} {each.bleu_4:.1f} / {each.rouge_l:.1f} / {each.cider:.1f} / {each.bert_score:.1f} ({each.n:,} texts)"
        for name, each in scores.items()
    )
    return (
        f"{label}: BLEU-4 / ROUGE-L / CIDEr / BERTScore on MiniLM against the references: {figures}. "
        "The paper's choice by mbr on aNLG: 7.1 / 28.3 / 30.7, and a BERTScore on another encoder."
    )


def versus_originals(
    label: str, nats: float, original: float, found: int, train: float, success: float | None
) -> str:
    """The remark on the sentences that targets were taken from.

    Args:
        label: name of the row.
        nats: a token of its texts.
        original: nats a token of the sentences that the targets were taken from.
        found: how many of these stand in the training split.
        train: nats a token of random training sentences.
        success: mean success of the sentences that the targets were taken from, by the same judge.
    """
    return (
        f"{label}: {nats - original:+.3f} nats against the human sentences that its targets were taken from ({original:.3f}). "
        f"{found} of these stand in the training split, and a judge that was trained on them (without --hold_out) knows them: "
        f"random training sentences score {train:.3f} under it."
        + ("" if success is None else f" The sentences' own success is {success:.1%}.")
    )
