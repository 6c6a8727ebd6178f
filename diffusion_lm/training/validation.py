"""The loss and the bound on dev text, at noise levels and with noise that are always the same."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from diffusion_lm.common import same_noise
from diffusion_lm.diffusion.losses import Terms, VariationalBound, spread_times
from diffusion_lm.model.denoiser import Denoiser
from diffusion_lm.model.gaps import ends_known, gap_nats
from diffusion_lm.text.batches import gather, gather_sources, token_batches
from diffusion_lm.text.encoded import EncodedCorpus

LEVELS, SENTENCES = 10, 512


@torch.no_grad()
def validate(network: Denoiser, dev: EncodedCorpus, pad_id: int, canvas: int | None) -> dict[str, float]:
    """The loss and the likelihood bound on at most 512 dev sentences, always with the same noise.

    `loss`; each of its terms by name; `loss_t0.05` ... `loss_t0.95`, its mean in ten bands of t, without bands that no
    sentence falls in; and `bound`, nats a token, an upper bound on -log p(w given length). All are of free text; where the
    sentences have a source, `source_loss`, `source_length` and `source_bound` are of what is written from it.
    """
    lengths = torch.full_like(dev.lengths, canvas).cpu() if canvas else dev.lengths.cpu()
    chosen = torch.arange(0, len(lengths), max(1, len(lengths) // SENTENCES))[:SENTENCES]
    found: dict[str, list[Tensor]] = defaultdict(list)
    device, seen = dev.offsets.device, 0
    with same_noise(device):
        for batch in token_batches(lengths[chosen], 4096, None):
            ids, mask = gather(dev, chosen[batch], pad_id, canvas)
            u = spread_times(seen, len(ids), device)
            values = _figures(network, ids, mask, u) | {"t": u}
            if (source := gather_sources(dev, chosen[batch])) is not None:
                own = _figures(network, ids, mask, u, source)
                values |= {f"source_{name}": own[name] for name in ("loss", "length", "bound")}
            for name, value in values.items():
                found[name].append(value.double().cpu())
            seen += len(ids)
    columns = {name: torch.cat(parts) for name, parts in found.items()}
    band = (columns.pop("t").float() * LEVELS).long()
    for i in band.unique().tolist():
        columns[f"loss_t{(i + 0.5) / LEVELS:.2f}"] = columns["loss"][band == i]
    return {name: column.mean().item() for name, column in columns.items()}


def _figures(network: Denoiser, ids: Tensor, mask: Tensor, u: Tensor, source: Tensor | None = None) -> Terms:
    """The terms of the loss, its sum but for the length, and the bound, of texts of which none but START and END is given."""
    known = ends_known(ids, mask) if network.knows_given else None
    given = None if known is None else network.read_given(known, source)
    terms = network.objective()(network, ids, mask, u, given)
    terms["loss"] = torch.stack(list(terms.values())).sum(0)
    if given is not None:
        terms["length"] = gap_nats(network, given.known, mask, given.source) / given.counted(mask).sum(1)
    terms["bound"] = VariationalBound(steps=None).estimate(network, ids, mask, u, given)
    return terms
