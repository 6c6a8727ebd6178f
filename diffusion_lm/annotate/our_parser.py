"""The project's own constituency parser: spaCy's features, a span network, CKY."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from diffusion_lm.annotate.base import Parser
from diffusion_lm.annotate.cky import best_spans
from diffusion_lm.annotate.features import Words, equal_length_batches, features
from diffusion_lm.annotate.span_parser import NULL, SpanParser, span_index
from diffusion_lm.annotate.trees import tree_of
from diffusion_lm.errors import UserError

if TYPE_CHECKING:
    from nltk import Tree

Chart = dict[tuple[int, int], str]

_BATCH_WORDS = 1024


@torch.no_grad()
def charts(model: SpanParser, sentences: Sequence[Words]) -> list[Chart]:
    """The best chart of each sentence, for a model in eval mode."""
    out: list[Chart] = [{} for _ in sentences]
    for rows in equal_length_batches([len(words.tags) for words in sentences], _BATCH_WORDS):
        logits = model(
            torch.stack([sentences[row].classes for row in rows]),
            torch.stack([sentences[row].vectors for row in rows]),
        )
        size = len(sentences[rows[0]].tags)
        odds, labels = (logits[..., NULL + 1 :] - logits[..., NULL, None]).max(-1)
        starts, stops = span_index(size)
        scores = np.full((len(rows), size, size + 1), -np.inf)
        scores[:, starts.numpy(), stops.numpy()] = odds.numpy()
        best = np.zeros(scores.shape, np.intp)
        best[:, starts.numpy(), stops.numpy()] = labels.numpy()
        for row, spans, names in zip(rows, best_spans(scores), best.tolist(), strict=True):
            out[row] = {(i, j): model.config.labels[names[i][j]] for i, j in spans}
    return out


@final
class OurParser(Parser):
    """Parses whole lines of words; what it takes for the words' tags are spaCy's fine tags."""

    def __init__(self, model: SpanParser) -> None:
        self.model = model.eval()

    @staticmethod
    def from_pretrained(folder: str | Path) -> OurParser:
        """Load the parser in a folder.

        Raises:
            UserError: if the folder holds none, or a damaged one.
        """
        return OurParser(SpanParser.from_pretrained(folder))

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree]:
        """The trees of sentences given as words.

        Raises:
            UserError: if a sentence has no words.
        """
        for row, words in enumerate(sentences):
            if not words:
                raise UserError(f"Sentence {row + 1} has no words, and so no tree; leave it out.")
        found = list(features(sentences, self.model.config.vocabulary))
        return [
            tree_of(words, each.tags, chart)
            for words, each, chart in zip(sentences, found, charts(self.model, found), strict=True)
        ]
