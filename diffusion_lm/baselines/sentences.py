"""The labelled sentences that a language model can be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from diffusion_lm.annotate.corpus_labels import Annotation
from diffusion_lm.baselines.config import LabelledTrainConfig
from diffusion_lm.evaluation.judge import JudgeLM
from diffusion_lm.text.document import Document
from diffusion_lm.training.labels import labelled_documents


class Sentence(NamedTuple):
    """A sentence, what is known of it, and how a language model reads it."""

    document: Document
    labels: Annotation
    ids: list[int]
    """START words END."""


def sentences(config: LabelledTrainConfig, judge: JudgeLM) -> Iterator[Sentence]:
    """Those of the training split that are not too long for the language model.

    Raises:
        UserError: the corpus or its labels cannot be used.
    """
    for document, labels in labelled_documents(config.corpus, config.labels):
        ids = judge.tokenizer.encode_sentence(document.text)
        if len(ids) <= judge.config.max_length:
            yield Sentence(document, labels, ids)
