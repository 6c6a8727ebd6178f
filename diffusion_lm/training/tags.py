"""Counting of p(tag | word) over a tagged corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lm.annotate.base import Tagger
from diffusion_lm.annotate.spacy_tagger import SpacyTagger
from diffusion_lm.control.tag_table import TagTable, TagTableConfig
from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.corpus import open_corpus
from diffusion_lm.text.spacing import bare, split_words
from diffusion_lm.text.tokenizer import WordTokenizer
from diffusion_lm.training.control_folder import save_control
from diffusion_lm.training.tags_config import TagTrainConfig

BATCH = 512
BACK_OFF = 2.0
"""Pseudo-counts of a word beside a certain tag, spread as the word's tags are anywhere."""


class TagCounts(NamedTuple):
    """How often a word has a tag.

    Attributes:
        alone: [V, T].
        after: behind a word of each tag, or at the sentence's start (T), [T + 1, V, T].
        before: in front of a word of each tag, or at the sentence's end (T), [T + 1, V, T].
    """

    alone: Tensor
    after: Tensor
    before: Tensor


def smoothed(counts: Tensor, prior: Tensor, weight: float) -> Tensor:
    """Log-probabilities from counts [..., T], with `weight` pseudo-counts spread as the prior [..., T] says."""
    # A tag that was never seen is as good as impossible, and still finite.
    pseudo = counts + weight * prior.clamp(min=1e-6)
    return (pseudo / pseudo.sum(-1, keepdim=True)).log()


def table_of(counts: TagCounts, config: TagTableConfig, smoothing: float) -> TagTable:
    """The log-probabilities of counts; rare words lean on all words, rare neighbours on the word alone."""
    log_p = smoothed(counts.alone, counts.alone.sum(0) / counts.alone.sum(), smoothing)
    after, before = (smoothed(c, log_p.exp(), BACK_OFF) for c in (counts.after, counts.before))
    return TagTable(config, log_p, after, before)


def count_tags(
    sentences: Sequence[str],
    lm: DiffusionLM,
    tagger: Tagger,
    progress: Callable[[int, int], None] | None = None,
) -> TagCounts:
    """Count the tags of a language model's words.

    Args:
        sentences: texts.
        lm: whose words are counted.
        tagger: what says the tags, `tagger.labels` in order.
        progress: called with (sentences done, all sentences).
    """
    column = {tag: i for i, tag in enumerate(tagger.labels)}
    n, v = len(column), lm.vocab_size
    counts = TagCounts(torch.zeros(v, n), torch.zeros(n + 1, v, n), torch.zeros(n + 1, v, n))
    for start in range(0, len(sentences), BATCH):
        texts = sentences[start : start + BATCH]
        tags = tagger.tag([[bare(word) for word in split_words(text)] for text in texts])
        for text, found in zip(texts, tags, strict=True):
            ids = torch.tensor(lm.tokenizer.encode(text), dtype=torch.long)
            index = torch.tensor([n, *(column[tag] for tag in found), n])
            here, one = index[1:-1], torch.ones(len(ids))
            counts.alone.index_put_((ids, here), one, accumulate=True)
            counts.after.index_put_((index[:-2], ids, here), one, accumulate=True)
            counts.before.index_put_((index[2:], ids, here), one, accumulate=True)
        if progress is not None:
            progress(start + len(texts), len(sentences))
    return counts


def train_tags(config: TagTrainConfig, progress: Callable[[int, int], None] | None = None) -> TagTable:
    """Count the table and save it with its language model.

    Args:
        config: what to count in.
        progress: called with (sentences done, all sentences).

    Raises:
        UserError: if the model or the corpus is unusable, or the model's tokens are no words.
    """
    lm = DiffusionLM.from_pretrained(config.model)
    assert lm.folder is not None
    if not isinstance(lm.tokenizer, WordTokenizer):
        raise UserError(f"{config.model} writes pieces of words, which have no tags; train one on words.")
    tagger = SpacyTagger()
    documents = open_corpus(config.corpus).documents("train")
    sentences = [document.text for document in islice(documents, config.sentences)]
    counts = count_tags(sentences, lm, tagger, progress)
    certainty = float(counts.alone.amax(1).sum() / counts.alone.sum())
    about = TagTableConfig(list(tagger.labels), "spacy", len(sentences), certainty, lm.fingerprint)
    table = table_of(counts, about, config.smoothing)
    save_control(table, Path(config.out) if config.out else lm.folder / "controls" / "pos")
    return table
