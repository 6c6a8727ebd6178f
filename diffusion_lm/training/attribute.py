"""Training of the latent attribute classifier p(field = value | z_t, t) on a frozen language model's vectors."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.control.attribute_model import AttributeConfig, AttributeModel
from diffusion_lm.diffusion.process import diffuse, per_sentence
from diffusion_lm.diffusion.times import stratified
from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.corpus import Corpus, open_corpus
from diffusion_lm.text.document import FIELDS, Document
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.fields import says
from diffusion_lm.training.attribute_config import AttributeTrainConfig
from diffusion_lm.training.config import OptimizerConfig
from diffusion_lm.training.control_folder import save_control
from diffusion_lm.training.optimizer import build_optimizer, learning_rate

LEVELS = 10


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


@dataclass(frozen=True)
class _Labelled:
    """Encoded sentences with the class of each field, [n, F]."""

    encoded: EncodedCorpus
    classes: Tensor


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
    cache = tempfile.TemporaryDirectory(prefix="diffusion-lm-")
    with cache:
        encoded = {
            s: encode_corpus(corpus, s, lm.tokenizer, lm.config.max_length, Path(cache.name))
            for s in ("train", "dev")
        }
        said = {split: _said(corpus, split, encoded[split]) for split in encoded}
        fields = known_values(said["train"], config.min_count)
        if not fields:
            raise UserError(
                f"{config.corpus.source} names no field whose value {config.min_count} of its texts say."
            )
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
        train, dev = (
            _Labelled(encoded[s], torch.tensor([model.classes(f) for f in said[s]])) for s in ("train", "dev")
        )
        _fit(model, lm, train, config, progress)
        accuracy = noise_level_accuracy(model.eval(), lm, dev.encoded, dev.classes)
    save_control(model, out)
    return accuracy


def _fit(
    model: AttributeModel,
    lm: DiffusionLM,
    data: _Labelled,
    config: AttributeTrainConfig,
    progress: Callable[[int, float], None] | None,
) -> None:
    schedule = OptimizerConfig(lr=config.lr, warmup=config.steps // 20, weight_decay=config.weight_decay)
    optimizer = build_optimizer(model, schedule)
    generator = torch.Generator().manual_seed(config.seed)
    batches: list[Tensor] = []
    for step in range(config.steps):
        batches = batches or token_batches(data.encoded.lengths, config.batch_tokens, generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, schedule)
        rows = batches.pop()
        t = stratified(len(rows), lm.device)
        log_p = _classify(model, lm, data.encoded, rows, t)
        classes = data.classes[rows].to(lm.device)
        loss = torch.stack([F.nll_loss(p, classes[:, i]) for i, p in enumerate(log_p)]).sum()
        if not torch.isfinite(loss):
            raise UserError(f"The loss is not finite at step {step + 1}; take a lower --lr.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if progress is not None:
            progress(step + 1, loss.item())


def _classify(
    model: AttributeModel, lm: DiffusionLM, encoded: EncodedCorpus, rows: Tensor, t: Tensor
) -> list[Tensor]:
    """Log-probabilities by field for sentences noised to t."""
    ids, mask = gather(encoded, rows, lm.tokenizer.pad_id, lm.config.canvas)
    with torch.no_grad():
        x0 = lm.embed(ids.to(lm.device))
        z = diffuse(x0, per_sentence(lm.schedule.alpha_bar(t)), torch.randn_like(x0))
    with torch.autocast(lm.device.type, torch.bfloat16, enabled=lm.bf16):
        log_p: list[Tensor] = model(z, t, mask.to(lm.device))
        return log_p


@torch.no_grad()
def noise_level_accuracy(
    model: AttributeModel, lm: DiffusionLM, encoded: EncodedCorpus, classes: Tensor
) -> NoiseLevelAccuracy:
    """Accuracy by noise level on labelled sentences (classes [n, F]), a level a sentence, always with the same noise."""
    hits = torch.zeros(4, LEVELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for rows in token_batches(encoded.lengths, 8192, None):
            t = stratified(len(rows), lm.device)
            log_p = _classify(model, lm, encoded, rows, t)
            band = (t * LEVELS).long().cpu()
            for i, p in enumerate(log_p):
                truth = classes[rows, i]
                right = (p.argmax(-1).cpu() == truth).float()
                said = (truth > 0).float()
                for row, values in enumerate((right * said, said, right, torch.ones_like(said))):
                    hits[row].index_add_(0, band, values)
    centres = [(i + 0.5) / LEVELS for i in range(LEVELS)]
    return NoiseLevelAccuracy(centres, (hits[0] / hits[1]).tolist(), (hits[2] / hits[3]).tolist())
