"""Counting of p(tag | word) over an annotated corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lm.annotate.spacy_tagger import UPOS
from diffusion_lm.control.tag_table import TagTable, TagTableConfig
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.training.control_folder import save_control
from diffusion_lm.training.labels import Progress, labelled
from diffusion_lm.training.tags_config import TagTrainConfig


def count_tags(
    sentences: Iterable[tuple[Sequence[int], Sequence[str]]],
    tags: Sequence[str],
    vocab_size: int,
    *,
    tagger: str,
    smoothing: float,
    lm: str,
) -> TagTable:
    """Count the tags of a language model's words.

    Args:
        sentences: token ids and their tags.
        tags: all tags, in the table's order.
        vocab_size: V.
        tagger: name of who gave the tags.
        smoothing: see `TagTableConfig`.
        lm: fingerprint of the language model.
    """
    column = {tag: i for i, tag in enumerate(tags)}
    edge, number = len(column), 0
    words: list[int] = []
    lefts: list[int] = []
    heres: list[int] = []
    rights: list[int] = []
    for ids, found in sentences:
        number += 1
        index = [edge, *(column[tag] for tag in found), edge]
        words += ids
        lefts += index[:-2]
        heres += index[1:-1]
        rights += index[2:]
    word, here = torch.tensor(words), torch.tensor(heres)
    alone = torch.zeros(vocab_size, len(column), dtype=torch.int32)
    alone.index_put_((word, here), torch.ones(len(word), dtype=torch.int32), accumulate=True)
    certainty = float(alone.amax(1).sum() / alone.sum())
    config = TagTableConfig(list(tags), tagger, number, certainty, smoothing, lm)
    after, before = (tally(torch.tensor(side), word, here) for side in (lefts, rights))
    return TagTable(config, alone, after, before)


def tally(*columns: Tensor) -> Tensor:
    """Each different row of some columns [n] and how often it occurs, int32 [rows, columns + 1]."""
    rows, counts = torch.stack(columns, dim=1).unique(dim=0, return_counts=True)
    return torch.cat([rows, counts[:, None]], dim=1).to(torch.int32)


def train_tags(config: TagTrainConfig, progress: Progress | None = None) -> TagTable:
    """Count the table and save it with its language model.

    Args:
        config: what to count in.
        progress: called with (sentences labelled, all sentences).

    Raises:
        UserError: if the model, the corpus or the labels are unusable, or the model's tokens are no words.
    """
    lm = DiffusionLM.from_pretrained(config.model)
    assert lm.folder is not None
    sentences = (
        (ids, label.pos) for ids, label in labelled(lm, config.model, config.corpus, config.labels, progress)
    )
    table = count_tags(
        sentences, UPOS, lm.vocab_size, tagger="spacy", smoothing=config.smoothing, lm=lm.fingerprint
    )
    save_control(table, Path(config.out) if config.out else lm.folder / "controls" / "pos")
    return table
