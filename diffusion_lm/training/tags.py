"""Counting of p(tag | word) over a tagged corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

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


def tag_log_probabilities(counts: Tensor, smoothing: float) -> Tensor:
    """Log p(tag | word) from counts [V, tags], with `smoothing` pseudo-counts a word spread as all the tags are."""
    prior = counts.sum(0) / counts.sum()
    # A tag that was never seen is as good as impossible, and still finite.
    smoothed = counts + smoothing * prior.clamp(min=1e-6)
    return (smoothed / smoothed.sum(1, keepdim=True)).log()


def count_tags(
    sentences: Sequence[str], lm: DiffusionLM, tagger: Tagger, progress: Callable[[int], None] | None = None
) -> Tensor:
    """How often each word of the model has each tag: [V, tags].

    Args:
        sentences: texts.
        lm: whose words are counted.
        tagger: what says the tags, `tagger.labels` in order.
        progress: called with the number of sentences done.
    """
    column = {tag: i for i, tag in enumerate(tagger.labels)}
    counts = torch.zeros(lm.vocab_size, len(column))
    done = 0
    for texts in (sentences[i : i + BATCH] for i in range(0, len(sentences), BATCH)):
        tags = tagger.tag([[bare(word) for word in split_words(text)] for text in texts])
        for text, found in zip(texts, tags, strict=True):
            for i, tag in zip(lm.tokenizer.encode(text), found, strict=True):
                counts[i, column[tag]] += 1
        done += len(texts)
        if progress is not None:
            progress(done)
    return counts


def train_tags(config: TagTrainConfig, progress: Callable[[int], None] | None = None) -> TagTable:
    """Count the table and save it with its language model.

    Args:
        config: what to count in.
        progress: called with the number of sentences done.

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
    certainty = float(counts.amax(1).sum() / counts.sum())
    about = TagTableConfig(list(tagger.labels), "spacy", len(sentences), certainty, lm.fingerprint)
    table = TagTable(about, tag_log_probabilities(counts, config.smoothing))
    save_control(table, Path(config.out) if config.out else lm.folder / "controls" / "pos")
    return table
