"""Figures of pretrained models that never read the corpus: MAUVE of free text, and fluency."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from diffusion_lm.evaluation.pretrained import OutsideJudge, SentenceEncoder, mauve
from diffusion_lm.evaluation.scores import some_of
from diffusion_lm.evaluation.systems import reservoir
from diffusion_lm.text.corpus import Corpus


def outside_figures(
    frame: pd.DataFrame, corpus: Corpus, most: int, seed: int, device: torch.device
) -> tuple[dict[str, dict[str, float | None]], str]:
    """Fluency under the outside judge of every task's texts, and MAUVE of free text; and what to hold them against.

    A corpus's dev split may differ from its training split in what is talked about, as E2E's does in the names of restaurants,
    and a model can only be like what it has read. So MAUVE is taken against both.

    Args:
        frame: the texts.
        corpus: where human text comes from.
        most: the most texts of a task whose fluency is measured.
        seed: of the choice of texts and of k-means.
        device: where the models run.
    """
    judge, encoder = OutsideJudge.from_package(device), SentenceEncoder.from_package(device)
    human = list(frame.loc[frame["task"] == "human", "text"])
    known = set(human)
    dev = (document.text for document in corpus.documents("dev") if document.text not in known)
    others = reservoir(dev, len(human), seed)
    train = reservoir((document.text for document in corpus.documents("train")), 2 * len(human), seed)
    of_human, (of_train, more_train) = encoder.sentences(human), encoder.sentences(train).tensor_split(2)
    # Of fewer texts MAUVE would be lower for that alone.
    of_others = encoder.sentences(others) if len(others) == len(human) else None

    def against(features: Tensor, others: Tensor | None) -> float | None:
        return None if others is None else mauve(features, others, seed)

    found: dict[str, dict[str, float | None]] = {}
    for task, rows in frame.groupby("task", sort=False):
        found[str(task)] = figures = _fluency(judge, list(rows["text"]), most, seed)
        if rows["success"].isna().all():
            features = of_human if task == "human" else encoder.sentences(list(rows["text"]))
            figures["mauve"] = against(features, of_others if task == "human" else of_human)
            figures["mauve_train"] = against(features, of_train)
    note = (
        "MAUVE is on MiniLM's features, not the paper's: read it beside human text. Against dev the human row's own figure, "
        "which is of other dev texts, is the ceiling; against train it is "
        f"{mauve(of_train, more_train, seed):.3f}, of other training texts. Outside nats are of at most {most:,} texts a row, a "
        "token of SmolLM2's."
    )
    return found, note


def _fluency(judge: OutsideJudge, texts: Sequence[str], most: int, seed: int) -> dict[str, float | None]:
    """Nats a token of at most so many of the texts; none where all are empty."""
    chosen = [text for text in some_of(texts, most, seed) if text.strip()]
    if not chosen:
        return {}
    nats, tokens = judge.score(chosen)
    return {"outside_nats": float(nats.sum() / tokens.sum()), "outside_n": len(chosen)}
