"""Latent classifiers: small transformers on noised word vectors, which the energies of controls read."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from diffusion_lm.common import autocast, number, same_noise
from diffusion_lm.control.program import Asset, AssetConfig, Host
from diffusion_lm.diffusion.times import stratified
from diffusion_lm.fit import Limits, OptimizerConfig, fit
from diffusion_lm.model.transformer import Transformer
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.corpus import open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus

LEVELS = 10
CENTRES = [(i + 0.5) / LEVELS for i in range(LEVELS)]
"""The middles of the bands of noise levels that accuracy is measured in."""

Outputs = list[Tensor]
"""What a classifier returns: log-probabilities, or states that they are read from."""


@dataclass(frozen=True)
class NetworkTrainConfig(AssetConfig):
    """How a network is trained beside a language model, which stays as it is."""

    width: int = number(128, least=1)
    """Its width."""
    steps: int = number(2000, least=1)
    """Optimiser steps."""
    minutes: float | None = number(None, above=0)
    """Time after which it ends, if the steps are not done before."""
    batch_tokens: int = number(4096, least=1)
    """Positions a step, padding included."""
    lr: float = number(2e-3, above=0)
    """Highest learning rate; warm-up over the first 5 %, then half a cosine to 0."""
    weight_decay: float = number(0.05, least=0)
    """AdamW's decoupled weight decay of matrices."""
    seed: int = 0
    """Seed of weights, batches and noise."""


@dataclass(frozen=True)
class LatentTrainConfig(NetworkTrainConfig):
    """How a classifier of noised word vectors is trained."""

    layers: int = number(3, least=1)
    """Its layers."""
    heads: int = number(4, least=1)
    """Attention heads."""
    min_count: int = number(20, least=1)
    """A value, or a label, is learned if so many training texts have it."""


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """How large a classifier is, and what it reads."""

    embedding_dim: int
    max_length: int
    schedule: str
    lm: str
    width: int = 128
    layers: int = 3
    heads: int = 4


class LatentClassifier(Asset, nn.Module):
    """Base: a trunk over (z [B, L, D], t [B], mask [B, L]), and what training, saving and loading have in common."""

    Shape: ClassVar[type[LatentConfig]]
    accuracy: dict[str, list[float]] | None = None
    """On dev, after training: what is measured, by name, in each band of noise levels."""

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        size = config.width, config.layers, config.heads
        self.transformer = Transformer(config.embedding_dim, size, config.max_length)
        self.norm = nn.LayerNorm(config.width)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    @classmethod
    @abstractmethod
    def labels(cls, config: Any, host: Host, split: str, encoded: EncodedCorpus) -> Sequence[Any]:
        """What there is to know of each encoded sentence of a split."""

    @classmethod
    @abstractmethod
    def known(cls, labels: Sequence[Any], config: Any) -> dict[str, Any]:
        """The classes of an untrained classifier, as keywords of its `Shape`."""

    @abstractmethod
    def classes(self, labels: Sequence[Any]) -> Any:
        """The labels of sentences as `loss` and `hits` take them."""

    def count(self, labels: Sequence[Any]) -> None:
        """Keep what is counted in the labels and not trained; nothing by default."""
        return

    @abstractmethod
    def loss(self, classes: Any, rows: Tensor, outputs: Outputs) -> Tensor:
        """The loss, [], of some sentences."""

    @abstractmethod
    def hits(self, classes: Any, rows: Tensor, outputs: Outputs) -> dict[str, tuple[Tensor, Tensor]]:
        """What is measured, by name: the right ones [B], and of how many [B]."""

    @classmethod
    def make(cls, config: LatentTrainConfig, host: Host, progress: Callable[[int, int], None] | None = None) -> Self:
        """Train on a model's frozen vectors; a `UserError` if corpus or labels are unusable, or the loss is not finite."""
        torch.manual_seed(config.seed)
        network = host.denoiser
        with tempfile.TemporaryDirectory(prefix="diffusion-lm-") as cache:
            train, labels = cls._split(config, host, "train", cache)
            dev, dev_labels = cls._split(config, host, "dev", cache)
            space = {name: getattr(network.config, name) for name in ("embedding_dim", "max_length", "schedule")}
            size = {name: getattr(config, name) for name in ("width", "layers", "heads")}
            shape = cls.Shape(**cls.known(labels, config), **space, **size, lm=host.fingerprint)
            model = cls(shape).to(network.device)
            model.count(labels)
            classes, generator = model.classes(labels), torch.Generator().manual_seed(config.seed)

            def batches() -> Sequence[Tensor]:
                return token_batches(train.lengths, config.batch_tokens, generator)

            def loss_of(rows: Tensor) -> Tensor:
                return model.loss(classes, rows, model.read(host, train, rows, stratified(len(rows), network.device)))

            optimizer = OptimizerConfig(
                lr=config.lr, warmup=config.steps // 20, weight_decay=config.weight_decay, ema=0
            )
            limits = Limits(steps=config.steps, minutes=config.minutes)
            report = None if progress is None else lambda done: progress(done.steps, config.steps)
            fit(model, batches, loss_of, limits, optimizer, on_step=report)
            model.accuracy = model.accuracy_on(host, dev, dev_labels)
        return model

    @classmethod
    def _split(cls, config: Any, host: Host, split: str, cache: str) -> tuple[EncodedCorpus, Sequence[Any]]:
        corpus = open_corpus(replace(config.corpus, long="leave_out"))  # labels are of whole documents
        encoded = encode_corpus(corpus, split, host.tokenizer, host.denoiser.config.max_length, Path(cache))
        return encoded, cls.labels(config, host, split, encoded)

    def read(self, host: Host, encoded: EncodedCorpus, rows: Tensor, t: Tensor) -> Outputs:
        """What the classifier says of sentences noised to t."""
        network = host.denoiser
        ids, mask = gather(encoded, rows, host.tokenizer.pad_id, network.config.canvas)
        with torch.no_grad():
            x0 = network.embed(ids.to(network.device))
            z = network.schedule.noised(x0, t)
        with autocast(network.device):
            return self(z, t, mask.to(network.device))

    @torch.no_grad()
    def accuracy_on(self, host: Host, encoded: EncodedCorpus, labels: Sequence[Any]) -> dict[str, list[float]]:
        """Accuracy by noise level, a level a sentence, always with the same noise."""
        self.eval()
        classes, sums = self.classes(labels), dict[str, Tensor]()
        with same_noise(host.denoiser.device):
            for rows in token_batches(encoded.lengths, 8192, None):
                t = stratified(len(rows), host.denoiser.device)
                band = (t * LEVELS).long().cpu()
                for name, hits in self.hits(classes, rows, self.read(host, encoded, rows, t)).items():
                    sums.setdefault(name, torch.zeros(2, LEVELS)).index_add_(1, band, torch.stack(hits).cpu().float())
        return {name: (right / of).tolist() for name, (right, of) in sums.items()}

    def dev_accuracy(self, host: Host, config: LatentTrainConfig) -> dict[str, list[float]]:
        """Accuracy of a trained classifier on the dev split of a corpus."""
        with tempfile.TemporaryDirectory(prefix="diffusion-lm-") as cache:
            return self.accuracy_on(host, *self._split(config, host, "dev", cache))

    def summary(self) -> str:
        """Accuracy on dev by noise level, a line a band."""
        if self.accuracy is None:
            return f"{sum(p.numel() for p in self.parameters()):,} parameters"
        rows = ["Accuracy on dev, by noise level:", f"t     {'  '.join(self.accuracy)}"]
        for i, t in enumerate(CENTRES):
            rows.append(f"{t:.2f}  " + "  ".join(f"{v[i]:>{len(n)}.1%}" for n, v in self.accuracy.items()))
        return "\n".join(rows)

    def tensors(self) -> dict[str, Tensor]:  # noqa: D102
        return self.state_dict()

    @classmethod
    def build(cls, config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Self:  # noqa: D102
        model = cls(cls.Shape(**config))
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return model.eval().requires_grad_(False)
