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
from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.corpus import Corpus, CorpusConfig, open_corpus
from diffusion_lm.text.document import FIELDS, Document
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.fields import says
from diffusion_lm.training.attribute_config import AttributeTrainConfig
from diffusion_lm.training.control_folder import save_control
from diffusion_lm.training.latent import CENTRES, LEVELS, Outputs, by_noise_level, fit


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
        classes = torch.tensor([model.classes(f) for f in said])
        measure = _measure(lm, corpus, Path(cache))
        fit(model, lm, encoded, lambda rows, outputs: _loss(classes, rows, outputs), config, progress)
        accuracy = measure(model.eval())
    save_control(model, out)
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


def _accuracy(
    model: AttributeModel, lm: DiffusionLM, encoded: EncodedCorpus, classes: Tensor
) -> NoiseLevelAccuracy:
    hits = torch.zeros(4, LEVELS)
    for rows, band, outputs in by_noise_level(model, lm, encoded):
        for i, p in enumerate(outputs):
            truth = classes[rows, i]
            right = (p.argmax(-1) == truth).float()
            said = (truth > 0).float()
            for row, values in enumerate((right * said, said, right, torch.ones_like(said))):
                hits[row].index_add_(0, band, values)
    return NoiseLevelAccuracy(CENTRES, (hits[0] / hits[1]).tolist(), (hits[2] / hits[3]).tolist())
