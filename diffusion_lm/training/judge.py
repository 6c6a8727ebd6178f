"""Train the judge (`diffusion_lm.model.causal`) on an encoded corpus."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lm.common import Settings, UserError, autocast, device_named, number
from diffusion_lm.fit import Limits, OptimizerConfig, Progress, fit
from diffusion_lm.model.causal import JudgeConfig, JudgeLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.encoded import EncodedCorpus
from diffusion_lm.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CausalTrainConfig(Settings):
    """How an autoregressive model learns: the judge, and the baselines that are made of it."""

    epochs: float = number(12.0, above=0)
    """Passes over the training sentences; the learning rate reaches zero at the end of the last."""
    minutes: float | None = number(None, above=0)
    """Time limit; where it comes before the last epoch, the learning rate reaches zero with it."""
    batch_tokens: int = number(4096, least=1)
    """Positions a step, padding included."""
    lr: float = number(1.5e-3, above=0)
    """Highest learning rate, after the warm-up; it then falls along half a cosine to zero."""
    warmup: int = number(200, least=0)
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = number(0.1, least=0)
    """AdamW's decoupled weight decay of the matrices; embeddings, gains and biases have none."""
    seed: int = 0
    """Seed of the initial weights, the dropout and the order of the batches."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cpu, cuda, or auto: cuda where there is one."""

    def fit(
        self, model: nn.Module, lengths: Tensor, loss_of: Loss, on_epoch: Callable[[Progress], None] | None
    ) -> None:
        """Train a model on sentences of these lengths; `loss_of` is from the numbers of some of them to their loss, []."""
        adam = OptimizerConfig(lr=self.lr, warmup=self.warmup, weight_decay=self.weight_decay, beta2=0.98, ema=0)
        order = torch.Generator().manual_seed(self.seed)
        batches = partial(token_batches, lengths, self.batch_tokens, order)
        fit(model, batches, loss_of, Limits(epochs=self.epochs, minutes=self.minutes), adam, on_epoch=on_epoch)


@dataclass(frozen=True)
class JudgeTrainConfig(CausalTrainConfig):
    """How a judge is trained; the corpus is the caller's."""

    width: int = number(256, least=1)
    """Width of the residual stream; a multiple of `heads`."""
    layers: int = number(4, least=1)
    """Number of transformer blocks."""
    heads: int = number(4, least=1)
    """Attention heads a block."""
    max_length: int = number(128, least=2)
    """Longest sentence in tokens, START and END included."""
    dropout: float = number(0.15, least=0, below=1)
    """Dropout on the embedding and on every residual branch."""
    out: str | None = None
    """Folder that always holds the best judge so far; None keeps it in memory only."""


class JudgeProgress(NamedTuple):
    """What `train_judge` reports after each pass: nats a token on all of dev, and the lowest so far."""

    at: Progress
    dev_nats: float
    best_nats: float


def train_judge(
    encoded_train: EncodedCorpus,
    encoded_dev: EncodedCorpus,
    tokenizer: Tokenizer,
    config: JudgeTrainConfig,
    progress: Callable[[JudgeProgress], None] | None = None,
) -> JudgeLM:
    """Train a judge and return it as it was at its best evaluation on dev, in evaluation mode.

    All of dev is scored after every epoch. Both splits were encoded with the tokenizer, which is saved with the judge.

    Raises:
        UserError: a split is empty, a sentence is longer than `max_length`, or the loss is not finite.
    """
    for split, lengths in (("train", encoded_train.lengths), ("dev", encoded_dev.lengths)):
        if len(lengths) == 0:
            raise UserError(f"The judge's {split} split is empty.")
        if (longest := int(lengths.max())) > config.max_length:
            raise UserError(f"A {split} sentence has {longest} tokens, more than max_length, {config.max_length}.")
    torch.manual_seed(config.seed)
    device = device_named(config.device, "--judge.device")
    shape = (config.width, config.layers, config.heads, config.max_length, config.dropout)
    model = JudgeLM(JudgeConfig(tokenizer.vocab_size, *shape), tokenizer).to(device)
    best_nats, best_weights = math.inf, dict[str, Tensor]()

    def loss(rows: Tensor) -> Tensor:
        ids, mask = gather(encoded_train, rows, tokenizer.pad_id)
        with autocast(device):
            return model.nll(ids.to(device), mask.to(device)).sum() / int(mask[:, 1:].sum())

    def keep_the_best(at: Progress) -> None:
        nonlocal best_nats, best_weights
        dev_nats = corpus_nats(model, encoded_dev)
        if not math.isfinite(dev_nats):
            raise UserError(f"The judge's dev loss is not finite after step {at.steps}; take a lower lr.")
        if dev_nats < best_nats:
            best_nats = dev_nats
            best_weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            if config.out is not None:
                model.save_pretrained(config.out)
        report = JudgeProgress(at, dev_nats, best_nats)
        logger.info("%s", report)
        if progress is not None:
            progress(report)

    config.fit(model, encoded_train.lengths, loss, keep_the_best)
    model.load_state_dict(best_weights)
    model.human_nats = corpus_nats(model, encoded_dev, exact=True)
    if config.out is not None:
        model.save_pretrained(config.out)
    return model


def corpus_nats(model: JudgeLM, encoded: EncodedCorpus, *, exact: bool = False) -> float:
    """The nats a token, END counted, over all of a corpus; but for `exact` in the precision of training, for no report."""
    with nullcontext() if exact else autocast(model.device):
        nats, counts = model.score([ids.tolist() for ids in encoded.ids.split(encoded.lengths.tolist())])
    return float(nats.sum() / counts.sum())
