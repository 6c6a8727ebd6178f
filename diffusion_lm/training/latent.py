"""The loop that trains any latent classifier: frozen word vectors, noised to a random t."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from diffusion_lm.diffusion.process import diffuse, per_sentence
from diffusion_lm.diffusion.times import stratified
from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.encoded import EncodedCorpus
from diffusion_lm.training.config import OptimizerConfig
from diffusion_lm.training.latent_config import LatentTrainConfig
from diffusion_lm.training.optimizer import build_optimizer, learning_rate

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
