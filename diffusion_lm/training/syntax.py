"""Training of the latent classifiers of tags and constituents on a frozen language model's vectors."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.annotate.corpus_labels import Annotation
from diffusion_lm.annotate.spacy_tagger import UPOS
from diffusion_lm.annotate.trees import Span, read_tree, spans_of
from diffusion_lm.control.syntax_model import NO_CONSTITUENT, SyntaxConfig, SyntaxModel
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.corpus import CorpusConfig, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.training.control_folder import save_control
from diffusion_lm.training.labels import labelled
from diffusion_lm.training.latent import CENTRES, LEVELS, Outputs, by_noise_level, fit
from diffusion_lm.training.syntax_config import SyntaxTrainConfig

NO_LABEL = -100

Labelled = tuple[Annotation, Sequence[Span]]
"""A sentence's labels, and the constituents of its tree."""


@dataclass(frozen=True)
class SyntaxAccuracy:
    """How well the classifiers know the syntax of a noised dev text.

    Attributes:
        t: middle of each band of noise levels.
        tags: share of words with the right tag, by band.
        spans: labelled F1 of the constituents, each span's likeliest label taken by itself, by band.
    """

    t: list[float]
    tags: list[float]
    spans: list[float]


@dataclass(frozen=True)
class _Labels:
    """Classes of encoded sentences; those of START and END and below the chart's diagonal are `NO_LABEL`."""

    tags: list[Tensor]
    spans: list[list[tuple[int, int, int]]]

    def tags_of(self, rows: Tensor, width: int) -> Tensor:
        """Tags, [B, L]."""
        out = torch.full((len(rows), width), NO_LABEL)
        for row, number in zip(out, rows.tolist(), strict=True):
            row[1 : len(self.tags[number]) + 1] = self.tags[number]
        return out

    def chart_of(self, rows: Tensor, width: int) -> Tensor:
        """Chains, [B, L, L]."""
        out = torch.full((len(rows), width, width), NO_LABEL)
        for chart, number in zip(out, rows.tolist(), strict=True):
            n = len(self.tags[number])
            first, last = torch.triu_indices(n, n) + 1
            chart[first, last] = NO_CONSTITUENT
            if self.spans[number]:
                first, last, label = torch.tensor(self.spans[number]).T
                chart[first, last] = label
        return out


def _labels(encoded: EncodedCorpus, labels: Sequence[Labelled], model: SyntaxModel) -> _Labels:
    tag = {name: i for i, name in enumerate(model.config.tags)}
    chain = {name: i + 1 for i, name in enumerate(model.config.chains)}
    found = [labels[row] for row in encoded.rows.tolist()]
    return _Labels(
        [torch.tensor([tag[name] for name in label.pos]) for label, _ in found],
        # Words are positions 1 to n; a span is named by its first and its last.
        [[(s.start + 1, s.stop, chain[s.label]) for s in spans if s.label in chain] for _, spans in found],
    )


def _loss(labels: _Labels, rows: Tensor, outputs: Outputs) -> Tensor:
    """Cross-entropy of a tag and of a cell of the chart, in nats."""
    tags, chart = outputs
    width, device = tags.shape[1], tags.device
    return F.nll_loss(
        tags.flatten(0, 1), labels.tags_of(rows, width).to(device).flatten(), ignore_index=NO_LABEL
    ) + F.nll_loss(
        chart.flatten(0, 2), labels.chart_of(rows, width).to(device).flatten(), ignore_index=NO_LABEL
    )


def train_syntax(
    config: SyntaxTrainConfig, progress: Callable[[int, float], None] | None = None
) -> SyntaxAccuracy:
    """Train the classifiers and save them with their language model.

    Args:
        config: what to train on, how large, how long.
        progress: called with (step, loss) after every step.

    Returns:
        Accuracy on the dev split by noise level.

    Raises:
        UserError: if the model, the corpus or the labels are unusable, or the model's tokens are no words.
    """
    torch.manual_seed(config.seed)
    lm = DiffusionLM.from_pretrained(config.model)
    assert lm.folder is not None
    parts = _labelled_split(lm, config.corpus, config.labels, "train")
    often = Counter(span.label for _, spans in parts for span in spans)
    shape = SyntaxConfig(
        list(UPOS),
        [label for label, count in often.most_common() if count >= config.min_count],
        lm.config.embedding_dim,
        lm.config.max_length,
        lm.config.schedule,
        lm.fingerprint,
        config.width,
        config.layers,
        config.heads,
    )
    model = SyntaxModel(shape).to(lm.device)
    with tempfile.TemporaryDirectory(prefix="diffusion-lm-") as cache:
        train = encode_corpus(
            open_corpus(config.corpus), "train", lm.tokenizer, lm.config.max_length, Path(cache)
        )
        labels = _labels(train, parts, model)
        measure = _measure(lm, config.corpus, config.dev_labels, Path(cache))
        fit(model, lm, train, lambda rows, outputs: _loss(labels, rows, outputs), config, progress)
        accuracy = measure(model.eval())
    save_control(model, Path(config.out) if config.out else lm.folder / "controls" / "syntax")
    return accuracy


def _labelled_split(lm: DiffusionLM, corpus: CorpusConfig, file: str, split: str) -> list[Labelled]:
    return [
        (label, spans_of(read_tree(label.tree)))
        for _, label in labelled(lm, "This model", corpus, file, split=split)
    ]


def syntax_accuracy(model: SyntaxModel, lm: DiffusionLM, corpus: CorpusConfig, labels: str) -> SyntaxAccuracy:
    """Accuracy on the dev split by noise level, a level a sentence.

    Args:
        model: the classifiers.
        lm: the language model that they read.
        corpus: where the sentences are.
        labels: the file of the dev split's labels; made if it does not hold them.
    """
    with tempfile.TemporaryDirectory(prefix="diffusion-lm-") as cache:
        return _measure(lm, corpus, labels, Path(cache))(model)


def _measure(
    lm: DiffusionLM, corpus: CorpusConfig, file: str, cache: Path
) -> Callable[[SyntaxModel], SyntaxAccuracy]:
    """What measures classifiers on dev; a dev split that is unusable is refused before anything is trained."""
    dev = encode_corpus(open_corpus(corpus), "dev", lm.tokenizer, lm.config.max_length, cache)
    labels = _labelled_split(lm, corpus, file, "dev")
    return lambda model: _accuracy(model, lm, dev, _labels(dev, labels, model))


def _accuracy(model: SyntaxModel, lm: DiffusionLM, encoded: EncodedCorpus, labels: _Labels) -> SyntaxAccuracy:
    words, right, shared, named = torch.zeros(4, LEVELS)
    for rows, band, (tags, chart) in by_noise_level(model, lm, encoded):
        truth, spans = labels.tags_of(rows, tags.shape[1]), labels.chart_of(rows, tags.shape[1])
        is_word, is_span = truth != NO_LABEL, spans != NO_LABEL
        words.index_add_(0, band, is_word.sum(1).float())
        right.index_add_(0, band, ((tags.argmax(-1) == truth) & is_word).sum(1).float())
        guess = torch.where(is_span, chart.argmax(-1), NO_CONSTITUENT)
        wanted = torch.where(is_span, spans, NO_CONSTITUENT)
        both = (guess == wanted) & (wanted != NO_CONSTITUENT)
        shared.index_add_(0, band, both.sum((1, 2)).float())
        total = (guess != NO_CONSTITUENT).sum((1, 2)) + (wanted != NO_CONSTITUENT).sum((1, 2))
        named.index_add_(0, band, total.float())
    return SyntaxAccuracy(CENTRES, (right / words).tolist(), (2 * shared / named).tolist())
