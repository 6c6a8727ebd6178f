"""What the paper reports; the one place of the report that knows controls by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import NamedTuple


class Pair(NamedTuple):
    """Success in percent, and the lm-score (lower is more fluent)."""

    success: float
    lm: float


def _table(columns: Sequence[str], rows: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, dict[str, Pair]]:
    return {system: dict(zip(columns, starmap(Pair, pairs), strict=False)) for system, pairs in rows.items()}


TABLE_2 = _table(
    ["attribute", "pos", "tree", "span", "length"],
    {
        "PPLM": [(9.9, 5.32)],
        "FUDGE": [(69.9, 2.83), (27.0, 7.96), (17.9, 3.39), (54.2, 4.03), (46.9, 3.11)],
        "FT-sample": [(72.5, 2.87), (89.5, 4.72), (64.8, 5.72), (26.3, 2.88), (98.1, 3.84)],
        "FT-search": [(89.9, 1.78), (93.0, 3.31), (76.4, 3.24), (54.4, 2.19), (100.0, 1.83)],
        "Diffusion-LM": [(81.2, 2.55), (90.0, 5.16), (86.0, 3.71), (93.8, 2.53), (99.9, 2.16)],
    },
)
"""System, task: 200 targets of 50 samples."""

TABLE_4 = _table(
    ["tree+attribute: attribute", "tree+attribute: tree", "pos+attribute: attribute", "pos+attribute: pos"],
    {
        "FUDGE": [(61.7, 3.52), (15.4, 3.52), (64.5, 3.52), (24.1, 3.52)],
        "FT-PoE": [(61.7, 2.77), (29.2, 2.77), (29.4, 2.97), (10.5, 2.97)],
        "Diffusion-LM": [(69.8, 5.92), (74.8, 5.92), (63.7, 3.46), (69.1, 3.46)],
    },
)
"""System, tasks and the one whose success it is; the lm-score is of both."""

MEASURES = {"bleu_4": "BLEU-4", "rouge_l": "ROUGE-L", "cider": "CIDEr", "bert_score": "BERTScore"}
"""The columns of Table 5: our name of the measure, and the heading."""

TABLE_5: dict[str, tuple[float, float, float, float]] = {
    "Left-only": (0.9, 16.3, 3.5, 38.5),
    "DELOREAN": (1.6, 19.1, 7.9, 41.7),
    "COLD": (1.8, 19.5, 10.7, 42.7),
    "AR": (6.7, 27.0, 26.9, 89.0),
    "Diffusion-LM": (7.1, 28.3, 30.7, 89.0),
}
"""Infilling of aNLG, in the order of `MEASURES`, 0 to 100."""

E2E_MEASURES = {
    "bleu": "BLEU", "nist": "NIST", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr",
    "slot_errors": "slot errors %",
}  # fmt: skip
"""The columns of the E2E challenge: our name of the measure, and the heading."""

E2E_CHALLENGE: dict[str, tuple[float | None, ...]] = {"TGen, the baseline": (65.93, 8.61, 44.83, 68.50, 2.234, None)}
"""On E2E's test split (Dušek et al. 2020), in the order of `E2E_MEASURES`."""

TABLE_7: tuple[tuple[str, str, float], ...] = (
    ("autoregressive, small", "E2E", 1.77),
    ("diffusion, small", "E2E", 2.28),
    ("autoregressive, small", "ROCStories", 3.05),
    ("diffusion, small", "ROCStories", 3.88),
    ("autoregressive, small", "ROCStories + GPT-J", 2.41),
    ("diffusion, small", "ROCStories + GPT-J", 3.59),
    ("diffusion, medium", "ROCStories + GPT-J", 3.10),
)
"""System, data, nats a token. The diffusion model is that of its Appendix F, not the one of the other tables."""
