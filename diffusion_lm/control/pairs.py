"""Which words stand side by side, counted: what a model needs to draw sentences as wholes in few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.common import UserError, own_defaults, same_noise
from diffusion_lm.control.program import Asset, AssetConfig, Host
from diffusion_lm.control.tables import tally
from diffusion_lm.diffusion.chain import FAINT, Pairs, Ties, log_likelihood
from diffusion_lm.diffusion.process import UNKNOWN, Given
from diffusion_lm.model.gaps import ends_known
from diffusion_lm.store import Kind
from diffusion_lm.text.batches import padded
from diffusion_lm.text.corpus import open_corpus

TIMES = tuple(i / 10 for i in range(11))
"""Where the strength of the chain is measured."""
SENTENCES = 128
"""Of the dev split, by which it is."""
STRONGEST, NEARNESS = 1.5, 0.02
"""The strengths that are tried, and how closely the best is found."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class PairConfig:
    """What was counted, and for which model."""

    vocab_size: int
    sentences: int
    strengths: list[float]
    """k(t) at `TIMES`: that under which the dev split's sentences are likeliest."""
    nats: list[float]
    """A word of them at `TIMES`, drawn one by one."""
    tied: list[float]
    """The same under the chain."""
    lm: str


@dataclass(frozen=True)
class PairTable(Asset, name="pairs"):
    """How often words stand side by side, and how much that tells beyond what the denoiser knows, by t."""

    about = "count which words stand side by side, so that text is drawn in a tenth of the steps (docs/chain.md)"
    kind = Kind("table of pairs", "diffusion-lm train-control pairs")
    Config = AssetConfig
    config: PairConfig
    counts: Tensor
    """As `Pairs` has them."""

    def ties(self, t: float, temperature: float = 1.0, device: torch.device | None = None) -> Ties:
        """R^(k(t) / temperature)."""
        place = t * (len(TIMES) - 1)
        low = min(int(place), len(TIMES) - 2)
        one, other = self.config.strengths[low : low + 2]
        return self._pairs.ties((one + (place - low) * (other - one)) / temperature, device)

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self.counts.cpu(), self.config.vocab_size)

    @classmethod
    @own_defaults()
    def make(cls, config: AssetConfig, host: Host, progress: Callable[[int, int], None] | None = None) -> PairTable:
        """Count them in the training split, and find k(t) on the dev split.

        Raises:
            UserError: the model does not predict words, or fills a canvas with PAD; or dev texts are longer than it writes.
        """
        check_draws(host)
        corpus, encode = open_corpus(config.corpus), host.tokenizer.encode_sentence
        rows = [torch.tensor(encode(document.text)) for document in corpus.documents("train")]
        table = tally(torch.cat([row[:-1] for row in rows]), torch.cat([row[1:] for row in rows]))
        dev = (encode(document.text) for document in corpus.documents("dev"))
        texts = [ids for ids in islice(dev, 4 * SENTENCES) if 2 < len(ids) <= host.max_words + 2][::4]
        if not texts:
            raise UserError(
                f"No text of the dev split has {host.max_words} words or fewer, as many as the model writes."
            )
        pairs = Pairs(table, host.tokenizer.vocab_size)
        found = []
        for done, t in enumerate(TIMES):
            found.append(_strength(host, pairs, texts, t))
            if progress is not None:
                progress(done + 1, len(TIMES))
        strengths, nats, tied = ([round(value, 4) for value in column] for column in zip(*found, strict=True))
        return cls(PairConfig(pairs.vocab_size, len(rows), strengths, nats, tied, host.fingerprint), table)

    def summary(self) -> str:  # noqa: D102
        config, half = self.config, len(TIMES) // 2
        return (
            f"{len(self.counts):,} pairs of {config.sentences:,} sentences; they make a word of dev text likelier, "
            f"{config.tied[-1]:.2f} nats for {config.nats[-1]:.2f} at t = 1, {config.tied[half]:.2f} for "
            f"{config.nats[half]:.2f} at t = .5."
        )

    def tensors(self) -> dict[str, Tensor]:  # noqa: D102
        return {"counts": self.counts}

    @classmethod
    def build(cls, config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> PairTable:  # noqa: D102
        return cls(PairConfig(**config), tensors["counts"])


def check_draws(host: Host) -> None:
    """A `UserError` unless p(w | z_t) of a model is of words and of as many as a sentence has."""
    if host.padded or not host.denoiser.predicts_words:
        raise UserError(
            "Only a model with --model.objective cross_entropy and the exact layout draws sentences as wholes."
        )


@torch.no_grad()
def _strength(host: Host, pairs: Pairs, texts: list[list[int]], t: float) -> tuple[float, float, float]:
    """k(t), and nats a word at strength 0 and at k(t): -log p(w | z_t) is convex in the strength."""
    device, net = host.denoiser.device, host.denoiser
    ids = padded(texts, host.tokenizer.pad_id).to(device)
    mask = (
        torch.arange(ids.shape[1], device=device) < torch.tensor([len(text) for text in texts], device=device)[:, None]
    )
    ends = ends_known(ids, mask)
    given = Given(ends) if net.knows_given else None
    times = torch.full((len(ids),), t, device=device)
    with same_noise(device):
        x0 = net.embed(ids)
        z = net.schedule.noised(x0, times)
    said = net(z, times, mask, None, given)
    if net.config.self_conditioning:
        said = net(z, times, mask, said.x0, given)
    assert said.logits is not None
    known = ends != UNKNOWN
    fixed = torch.full_like(said.logits, -torch.inf).scatter(-1, ids[..., None], 0.0)
    p = torch.where(known[..., None], fixed, said.logits.float()).softmax(-1).clamp(min=FAINT)
    words = int((mask & ~known).sum())

    def nats(strength: float) -> float:
        return -float(log_likelihood(p, ids, mask, pairs.ties(strength, device)).sum()) / words

    low, high = 0.0, STRONGEST
    one, other = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    of_one, of_other = nats(one), nats(other)
    while high - low > NEARNESS:  # each cut needs one new value: the other point is one of the last cut's
        if of_one < of_other:
            high, other, of_other = other, one, of_one
            one = high - GOLDEN * (high - low)
            of_one = nats(one)
        else:
            low, one, of_one = one, other, of_other
            other = low + GOLDEN * (high - low)
            of_other = nats(other)
    best = (low + high) / 2
    return best, nats(0.0), nats(best)
