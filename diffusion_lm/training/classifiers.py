"""Training of the latent classifiers."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.annotate.tagger import UPOS
from diffusion_lm.annotate.trees import Span, read_tree, spans_of
from diffusion_lm.common import UserError, check_seed
from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.control.syntax import NO_CONSTITUENT, SyntaxConfig, SyntaxModel
from diffusion_lm.diffusion.process import diffuse, per_sentence
from diffusion_lm.diffusion.times import stratified
from diffusion_lm.fit import OptimizerConfig, build_optimizer, learning_rate
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.corpus import Corpus, CorpusConfig, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.fields import FIELDS, Document, says
from diffusion_lm.training.tables import labelled


@dataclass(frozen=True)
class LatentTrainConfig:
    """How a classifier of noised word vectors is trained."""

    model: str = "runs/lm"
    """The language model to be steered: a folder."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """Labelled texts; the corpus that the model was trained on."""
    out: str | None = None
    """Where the classifier goes; default the control's folder in the model's folder."""
    width: int = 128
    """Width of the classifier."""
    layers: int = 3
    """Layers of the classifier."""
    heads: int = 4
    """Attention heads."""
    steps: int = 2000
    """Optimiser steps."""
    batch_tokens: int = 4096
    """Positions a step, padding included."""
    lr: float = 2e-3
    """Highest learning rate; warm-up over the first 5 %, then half a cosine to 0."""
    weight_decay: float = 0.05
    """AdamW's decoupled weight decay of matrices."""
    seed: int = 0
    """Seed of weights, batches and noise."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)


LEVELS = 10
"""Bands of noise levels that accuracy is measured in."""
CENTRES = [(i + 0.5) / LEVELS for i in range(LEVELS)]
"""The middle of each."""

Outputs = list[Tensor]
"""Log-probabilities, as the classifier returns them."""


def fit(
    model: nn.Module,
    lm: DiffusionLM,
    encoded: EncodedCorpus,
    loss_of: Callable[[Tensor, Outputs], Tensor],
    config: LatentTrainConfig,
    progress: Callable[[int, float], None] | None,
) -> None:
    """Train a classifier.

    Args:
        model: takes (z, t, mask).
        lm: whose word vectors it reads.
        encoded: the sentences.
        loss_of: from rows of `encoded` and the outputs for them to the loss.
        config: how long, how fast.
        progress: called with (step, loss).

    Raises:
        UserError: if the loss is not finite.
    """
    schedule = OptimizerConfig(lr=config.lr, warmup=config.steps // 20, weight_decay=config.weight_decay)
    optimizer = build_optimizer(model, schedule)
    generator = torch.Generator().manual_seed(config.seed)
    batches: list[Tensor] = []
    for step in range(config.steps):
        batches = batches or token_batches(encoded.lengths, config.batch_tokens, generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, schedule)
        rows = batches.pop()
        loss = loss_of(rows, classify(model, lm, encoded, rows, stratified(len(rows), lm.device)))
        if not torch.isfinite(loss):
            raise UserError(f"The loss is not finite at step {step + 1}; take a lower --lr.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if progress is not None:
            progress(step + 1, loss.item())


def classify(model: nn.Module, lm: DiffusionLM, encoded: EncodedCorpus, rows: Tensor, t: Tensor) -> Outputs:
    """What a classifier says of sentences noised to t."""
    ids, mask = gather(encoded, rows, lm.tokenizer.pad_id, lm.config.canvas)
    with torch.no_grad():
        x0 = lm.embed(ids.to(lm.device))
        z = diffuse(x0, per_sentence(lm.schedule.alpha_bar(t)), torch.randn_like(x0))
    with torch.autocast(lm.device.type, torch.bfloat16, enabled=lm.bf16):
        outputs: Outputs = model(z, t, mask.to(lm.device))
        return outputs


@torch.no_grad()
def by_noise_level(
    model: nn.Module, lm: DiffusionLM, encoded: EncodedCorpus
) -> Iterator[tuple[Tensor, Tensor, Outputs]]:
    """Rows of all sentences, the band of each one's noise level, and the outputs; always with the same noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for rows in token_batches(encoded.lengths, 8192, None):
            t = stratified(len(rows), lm.device)
            yield rows, (t * LEVELS).long().cpu(), [p.cpu() for p in classify(model, lm, encoded, rows, t)]


@dataclass(frozen=True)
class AttributeTrainConfig(LatentTrainConfig):
    """How the latent attribute classifier is trained, on texts with fields."""

    min_count: int = 20
    """A value is learned if so many training texts say it."""


@dataclass(frozen=True)
class NoiseLevelAccuracy:
    """How well the classifier knows what a noised dev text says.

    Attributes:
        t: middle of each band of noise levels.
        said: accuracy on fields whose value the text says, by band.
        overall: accuracy on all fields ("unsaid" among them), by band.
    """

    t: list[float]
    said: list[float]
    overall: list[float]


def said_fields(document: Document) -> dict[str, str]:
    """The fields of a document whose value stands in its text, by whole words in any case.

    The gold meaning of a text also has values that the text only implies ("moderate" as "mid-priced"). What `Attribute`
    promises is that the text *says* the value, so these are what the classifier learns.
    """
    return {name: value for name, value in document.fields.items() if says(document.text, value)}


def known_values(documents: Sequence[dict[str, str]], min_count: int) -> dict[str, list[str]]:
    """Values of each field that at least `min_count` texts say, most frequent first; the fields in canonical order."""
    counts: dict[str, Counter[str]] = {}
    for fields in documents:
        for name, value in fields.items():
            counts.setdefault(name, Counter())[value] += 1
    order = [*(f for f in FIELDS if f in counts), *sorted(set(counts) - set(FIELDS))]
    values = {name: [v for v, n in counts[name].most_common() if n >= min_count] for name in order}
    return {name: kept for name, kept in values.items() if kept}


def _said(corpus: Corpus, split: str, encoded: EncodedCorpus) -> list[dict[str, str]]:
    """What each encoded sentence says; documents that were not encoded are passed over."""
    kept = set(encoded.rows.tolist())
    return [said_fields(d) for row, d in enumerate(corpus.documents(split)) if row in kept]


def train_attribute(
    config: AttributeTrainConfig, progress: Callable[[int, float], None] | None = None
) -> NoiseLevelAccuracy:
    """Train the classifier and save it with its language model.

    Args:
        config: what to train on, how large, how long.
        progress: called with (step, loss) after every step.

    Returns:
        Accuracy on the dev split by noise level.

    Raises:
        UserError: if the model or the corpus is unusable, or the corpus names no fields.
    """
    torch.manual_seed(config.seed)
    lm = DiffusionLM.from_pretrained(config.model)
    assert lm.folder is not None
    out = Path(config.out) if config.out else lm.folder / "controls" / "attribute"
    corpus = open_corpus(config.corpus)
    with tempfile.TemporaryDirectory(prefix="diffusion-lm-") as cache:
        encoded = encode_corpus(corpus, "train", lm.tokenizer, lm.config.max_length, Path(cache))
        said = _said(corpus, "train", encoded)
        fields = known_values(said, config.min_count)
        if not fields:
            raise UserError(f"{config.corpus.source} names no field whose value {config.min_count} of its texts say.")
        shape = AttributeConfig(
            fields,
            lm.config.embedding_dim,
            lm.config.max_length,
            lm.config.schedule,
            lm.fingerprint,
            config.width,
            config.layers,
            config.heads,
        )
        model = AttributeModel(shape).to(lm.device)
        classes = torch.tensor([model.classes(f) for f in said])
        measure = _measure(lm, corpus, Path(cache))
        fit(model, lm, encoded, lambda rows, outputs: _loss(classes, rows, outputs), config, progress)
        accuracy = measure(model.eval())
    model.save_pretrained(out)
    return accuracy


def _loss(classes: Tensor, rows: Tensor, outputs: Outputs) -> Tensor:
    """Sum over the fields of the cross-entropy, in nats; classes [n, F]."""
    wanted = classes[rows].to(outputs[0].device)
    return torch.stack([F.nll_loss(p, wanted[:, i]) for i, p in enumerate(outputs)]).sum()


def attribute_accuracy(model: AttributeModel, lm: DiffusionLM, source: CorpusConfig) -> NoiseLevelAccuracy:
    """Accuracy on the dev split by noise level, a level a sentence, always with the same noise."""
    with tempfile.TemporaryDirectory(prefix="diffusion-lm-") as cache:
        return _measure(lm, open_corpus(source), Path(cache))(model)


def _measure(lm: DiffusionLM, corpus: Corpus, cache: Path) -> Callable[[AttributeModel], NoiseLevelAccuracy]:
    """What measures a classifier on dev; a dev split that is unusable is refused before anything is trained."""
    encoded = encode_corpus(corpus, "dev", lm.tokenizer, lm.config.max_length, cache)
    said = _said(corpus, "dev", encoded)
    return lambda model: _accuracy(model, lm, encoded, torch.tensor([model.classes(each) for each in said]))


def _accuracy(model: AttributeModel, lm: DiffusionLM, encoded: EncodedCorpus, classes: Tensor) -> NoiseLevelAccuracy:
    hits = torch.zeros(4, LEVELS)
    for rows, band, outputs in by_noise_level(model, lm, encoded):
        for i, p in enumerate(outputs):
            truth = classes[rows, i]
            right = (p.argmax(-1) == truth).float()
            said = (truth > 0).float()
            for row, values in enumerate((right * said, said, right, torch.ones_like(said))):
                hits[row].index_add_(0, band, values)
    return NoiseLevelAccuracy(CENTRES, (hits[0] / hits[1]).tolist(), (hits[2] / hits[3]).tolist())


@dataclass(frozen=True)
class SyntaxTrainConfig(LatentTrainConfig):
    """How the latent classifiers of tags and constituents are trained."""

    labels: str = "runs/labels.jsonl"
    """The file of the training split's labels, as annotate writes it; made if it does not hold them."""
    dev_labels: str = "runs/labels-dev.jsonl"
    """The same of the dev split."""
    min_count: int = 20
    """A chain of labels is learned if it occurs so often."""


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


def _syntax_loss(labels: _Labels, rows: Tensor, outputs: Outputs) -> Tensor:
    """Cross-entropy of a tag and of a cell of the chart, in nats."""
    tags, chart = outputs
    width, device = tags.shape[1], tags.device
    return F.nll_loss(
        tags.flatten(0, 1), labels.tags_of(rows, width).to(device).flatten(), ignore_index=NO_LABEL
    ) + F.nll_loss(chart.flatten(0, 2), labels.chart_of(rows, width).to(device).flatten(), ignore_index=NO_LABEL)


def train_syntax(config: SyntaxTrainConfig, progress: Callable[[int, float], None] | None = None) -> SyntaxAccuracy:
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
        train = _encoded_whole(lm, config.corpus, "train", Path(cache))
        labels = _labels(train, parts, model)
        measure = _syntax_measure(lm, config.corpus, config.dev_labels, Path(cache))
        fit(model, lm, train, lambda rows, outputs: _syntax_loss(labels, rows, outputs), config, progress)
        accuracy = measure(model.eval())
    model.save_pretrained(Path(config.out) if config.out else lm.folder / "controls" / "syntax")
    return accuracy


def _encoded_whole(lm: DiffusionLM, corpus: CorpusConfig, split: str, cache: Path) -> EncodedCorpus:
    # The labels are of whole documents.
    whole = open_corpus(replace(corpus, long="leave_out"))
    return encode_corpus(whole, split, lm.tokenizer, lm.config.max_length, cache)


def _labelled_split(lm: DiffusionLM, corpus: CorpusConfig, file: str, split: str) -> list[Labelled]:
    return [
        (label, spans_of(read_tree(label.tree))) for _, label in labelled(lm, "This model", corpus, file, split=split)
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
        return _syntax_measure(lm, corpus, labels, Path(cache))(model)


def _syntax_measure(
    lm: DiffusionLM, corpus: CorpusConfig, file: str, cache: Path
) -> Callable[[SyntaxModel], SyntaxAccuracy]:
    """What measures classifiers on dev; a dev split that is unusable is refused before anything is trained."""
    dev = _encoded_whole(lm, corpus, "dev", cache)
    labels = _labelled_split(lm, corpus, file, "dev")
    return lambda model: _syntax_accuracy(model, lm, dev, _labels(dev, labels, model))


def _syntax_accuracy(model: SyntaxModel, lm: DiffusionLM, encoded: EncodedCorpus, labels: _Labels) -> SyntaxAccuracy:
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
