"""Validation on the dev split: the loss by noise level, and the likelihood bound."""

from __future__ import annotations

import torch

from diffusion_lm.diffusion.losses import VariationalBound, spread_times
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.encoded import EncodedCorpus

LEVELS = 10
SENTENCES = 512
SEED = 0


@torch.no_grad()
def validate(lm: DiffusionLM, dev: EncodedCorpus, pad_id: int, canvas: int | None) -> dict[str, float]:
    """The loss and the likelihood bound on at most 512 dev sentences, always with the same noise.

    Returns:
        `loss`; each of its terms by name; `loss_t0.05` ... `loss_t0.95`, the mean of the loss in ten bands of
        t, without bands that no sentence falls in; and `bound`, nats a token, an upper bound on -log p(w
        given length).
    """
    objective, bound = lm.objective(), VariationalBound(steps=None)
    lengths = torch.full_like(dev.lengths, canvas).cpu() if canvas else dev.lengths.cpu()
    chosen = torch.arange(0, len(lengths), max(1, len(lengths) // SENTENCES))[:SENTENCES]
    sums: dict[str, float] = {}
    levels = torch.zeros(2, LEVELS)
    seen = 0
    device = dev.offsets.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        for batch in token_batches(lengths[chosen], 4096, None):
            ids, mask = gather(dev, chosen[batch], pad_id, canvas)
            u = spread_times(seen, len(ids), device)
            terms = objective(lm, ids, mask, u)
            nats = bound.estimate(lm, ids, mask, seen)
            loss = sum(terms.values())
            assert isinstance(loss, torch.Tensor)
            for name, value in {**terms, "loss": loss, "bound": nats}.items():
                sums[name] = sums.get(name, 0.0) + value.sum().item()
            band = (u * LEVELS).long().cpu()
            levels[0].index_add_(0, band, loss.float().cpu())
            levels[1].index_add_(0, band, torch.ones(len(ids)))
            seen += len(ids)
    by_level = {
        f"loss_t{(i + 0.5) / LEVELS:.2f}": total / count
        for i, (total, count) in enumerate(levels.T.tolist())
        if count
    }
    return {name: value / seen for name, value in sums.items()} | by_level
