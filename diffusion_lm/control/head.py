"""A causal head: what the words of a sentence say of the next one, read beside the states of a denoiser that stays as it is.

The chain (`diffusion.chain`) ties a word to the one before it. The head reads all before it:

    p(w | z_t) = prod_i p(w_i | w_1 .. w_i-1, z_t),

a recurrent cell over the denoiser's states h_i(z_t) and the words so far, whose logits are added to the denoiser's own.
It is learned by likelihood, with the denoiser frozen, so that all that was made for the model's controls stays right.
Words are drawn one after the other, so what counts is how few operations each of them takes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.common import autocast, number, same_noise
from diffusion_lm.control.latent import NetworkTrainConfig
from diffusion_lm.control.pairs import check_draws
from diffusion_lm.control.program import Asset, Host
from diffusion_lm.diffusion.chain import Opinion
from diffusion_lm.diffusion.process import UNKNOWN, Prediction
from diffusion_lm.diffusion.times import stratified
from diffusion_lm.fit import Limits, OptimizerConfig, fit
from diffusion_lm.model.gaps import ends_known
from diffusion_lm.model.given import draw_known, sentence_ends
from diffusion_lm.model.transformer import LayerNorm
from diffusion_lm.store import Kind
from diffusion_lm.text.batches import draw_sources, gather, gather_sources, token_batches
from diffusion_lm.text.corpus import open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus

TIMES = (1.0, 0.8, 0.5, 0.2)
"""Where it is measured."""
NEAR_NOISE = 0.25
"""Power of the uniform times that it learns at: most are near t = 1, where words are decided (docs/log.md)."""
SENTENCES = 256
"""Of the dev split, by which it is."""


@dataclass(frozen=True)
class HeadTrainConfig(NetworkTrainConfig):
    """How a causal head is trained."""

    steps: int = number(1200, least=1)
    """Optimiser steps; on E2E more of them learn the training split by heart."""
    lr: float = number(3e-3, above=0)
    """Highest learning rate of AdamW; warm-up over the first 5 %, then a line to 0."""
    go_on: bool = False
    """Go on from the head that the model has, such as one that --run.init took along; its width stays."""
    heard: float | None = number(None, least=0)
    """How much it counts where no flag says otherwise, in any number of steps of words that are drawn, as fits a model that has
    learned little of its corpus; null: as in the README, in few steps alone."""


@dataclass(frozen=True)
class HeadConfig:
    """Its shape, for which model, and what it came to."""

    vocab_size: int
    hidden: int
    """Width of the denoiser's states."""
    width: int
    lm: str
    heard: float | None = None
    """How much it counts in any number of steps, where no flag says otherwise."""
    nats: list[float] = field(default_factory=list)
    """A word of dev text at `TIMES`, by the denoiser alone."""
    ordered: list[float] = field(default_factory=list)
    """The same by the head."""


class CausalHead(Asset, nn.Module, name="head"):
    """p(w_i | w_1 .. w_i-1, z_t) from a denoiser's states."""

    about = "train a causal head beside the model, for text in 4 to 6 steps (docs/chain.md)"
    kind = Kind("causal head", "diffusion-lm train-control head")
    Config = HeadTrainConfig
    config: HeadConfig

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.norm = LayerNorm(config.hidden)
        self.cell = nn.GRU(config.hidden + width, width, batch_first=True)
        self.word = nn.Embedding(config.vocab_size, width)
        self.out = nn.Linear(width, config.vocab_size)
        nn.init.zeros_(self.out.weight)  # at first it says what the denoiser says
        nn.init.zeros_(self.out.bias)

    def forward(self, said: Prediction, words: Tensor) -> Tensor:
        """Logits of the words of texts [B, L] behind the first, each given those before it, [B, L - 1, V]."""
        assert said.logits is not None
        return said.logits[:, 1:] + self.out(self.remembered(said, words)).float()

    def remembered(self, said: Prediction, words: Tensor) -> Tensor:
        """The memory of the cell at the words of texts [B, L] behind the first, [B, L - 1, width]."""
        assert said.hidden is not None
        with torch.autocast(words.device.type, enabled=False):
            states = self.norm(said.hidden[:, 1:].float())
            return self.cell(torch.cat([states, self.word(words[:, :-1])], dim=-1))[0]

    def reader(self, said: Prediction) -> Callable[[int, Tensor, Tensor], Tensor]:
        """The cell word by word: (position, the words before it [B], the memory [B, width]) to the memory there [B, width].

        B may be several times as many as there are sentences; each is then read in several ways, all of them once and again.
        """
        assert said.hidden is not None
        (seeing, keeping, of_seen, of_kept), width = self.cell.all_weights[0], self.config.width
        of_state, of_word = seeing.split([self.config.hidden, width], dim=1)
        with torch.autocast(said.hidden.device.type, enabled=False):  # casts would cost more than they save
            # All that need not wait for a word is done for all positions at once.
            states = F.linear(self.norm(said.hidden.float()), of_state, of_seen)
            words = self.word.weight @ of_word.T

        def of(i: int, before: Tensor, memory: Tensor) -> Tensor:
            with torch.autocast(memory.device.type, enabled=False):
                here = states[:, i]
                if (ways := len(before) // len(here)) > 1:
                    here = here.repeat(ways, 1)
                seen = here + words[before]
                kept = F.linear(memory, keeping, of_kept)
                gates = (seen[:, : 2 * width] + kept[:, : 2 * width]).sigmoid()
                new = torch.addcmul(seen[:, 2 * width :], gates[:, :width], kept[:, 2 * width :]).tanh()
                return torch.lerp(new, memory, gates[:, width:])

        return of

    def opinion(self, said: Prediction, power: float) -> Opinion:
        """Log p(w_i | w_1 .. w_i-1, z_t) times a power, up to a constant, of each word once that before it is drawn."""
        assert said.logits is not None
        read = self.reader(said)
        with torch.autocast(said.logits.device.type, enabled=False):
            logits, out = power * (said.logits.float() + self.out.bias), power * self.out.weight.T
        memory = torch.zeros(len(logits), self.config.width, device=logits.device)

        def of(i: int, before: Tensor) -> Tensor:
            nonlocal memory
            memory = read(i, before, memory)
            with torch.autocast(memory.device.type, enabled=False):
                return torch.addmm(logits[:, i], memory, out)

        return of

    @classmethod
    def make(
        cls, config: HeadTrainConfig, host: Host, progress: Callable[[int, int], None] | None = None
    ) -> CausalHead:
        """Train it beside a model.

        Raises:
            UserError: the model does not predict words, or fills a canvas with PAD; the corpus is unusable; or the loss is not
                finite.
        """
        check_draws(host)
        torch.manual_seed(config.seed)
        network = host.denoiser
        before = host.asset(cls) if config.go_on else None
        width = config.width if before is None else before.config.width
        shape = HeadConfig(host.tokenizer.vocab_size, network.config.shape[0], width, host.fingerprint, config.heard)
        head = cls(shape).to(network.device)
        if before is not None:
            head.load_state_dict(before.state_dict())
        corpus, ends, threes = open_corpus(config.corpus), sentence_ends(host.tokenizer), config.corpus.threes
        longest = network.config.max_source or 0
        with tempfile.TemporaryDirectory(prefix="diffusion-lm-") as cache:
            train, dev = (
                encode_corpus(corpus, split, host.tokenizer, network.config.max_length, Path(cache), longest).to(
                    network.device
                )
                for split in ("train", "dev")
            )

            def known_of(ids: Tensor, mask: Tensor, share: float) -> Tensor:
                return draw_known(ids, mask, share, ends, threes=threes) if share else ends_known(ids, mask)

            def loss_of(rows: Tensor) -> Tensor:
                ids, mask = gather(train, rows, host.tokenizer.pad_id)
                t = stratified(len(rows), network.device) ** NEAR_NOISE
                known = known_of(ids, mask, network.config.given or 0.0)
                source = draw_sources(train, rows, network.config.source_dropout or 0.0) if longest else None
                return head._nats(host, ids, mask, t, known, source)[0]

            generator = torch.Generator().manual_seed(config.seed)
            optimizer = OptimizerConfig(
                lr=config.lr, warmup=config.steps // 20, decay="linear", weight_decay=config.weight_decay, ema=0.99
            )  # fmt: skip
            fit(
                head,
                lambda: token_batches(train.lengths, config.batch_tokens, generator),
                loss_of,
                Limits(steps=config.steps, minutes=config.minutes),
                optimizer,
                on_step=None if progress is None else lambda done: progress(done.steps, config.steps),
            )
            ordered, nats = head._measured(host, dev, partial(known_of, share=float(threes)))
            head.config = replace(shape, ordered=ordered, nats=nats)
        return head.requires_grad_(False)

    def _nats(
        self, host: Host, ids: Tensor, mask: Tensor, t: Tensor, known: Tensor, source: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Nats a word of texts noised to t [B], by the head and by the denoiser alone, [] each."""
        network = host.denoiser
        with torch.no_grad(), autocast(network.device):
            given = network.read_given(known, source) if network.knows_given else None
            x0 = network.embed(ids)
            z = network.schedule.noised(x0, t)
            said = network.predict(z, t, mask, given)
        counts = (mask & (known == UNKNOWN))[:, 1:]
        words = ids[:, 1:][counts]
        assert said.logits is not None
        alone = said.logits[:, 1:][counts]
        with autocast(network.device):
            logits = alone + self.out(self.remembered(said, ids)[counts]).float()
        return F.cross_entropy(logits, words), F.cross_entropy(alone, words)

    @torch.no_grad()
    def _measured(
        self, host: Host, dev: EncodedCorpus, known_of: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[list[float], list[float]]:
        """Nats a word of dev text that is not known at `TIMES`, from its source, by the head and by the denoiser alone."""
        found: list[tuple[float, float]] = []
        with same_noise(host.denoiser.device):
            for t in TIMES:
                sums = torch.zeros(2)
                batches = token_batches(dev.lengths[:SENTENCES], 8192, None)
                for rows in batches:
                    ids, mask = gather(dev, rows, host.tokenizer.pad_id)
                    times = torch.full((len(rows),), t, device=ids.device)
                    both = self._nats(host, ids, mask, times, known_of(ids, mask), gather_sources(dev, rows))
                    sums += torch.stack(both).cpu() / len(batches)
                found.append((sums[0].item(), sums[1].item()))
        ordered, nats = ([round(value, 4) for value in column] for column in zip(*found, strict=True))
        return ordered, nats

    def summary(self) -> str:  # noqa: D102
        config = self.config
        told = ", ".join(
            f"{own:.2f} for {alone:.2f} at t = {t}"
            for t, own, alone in zip(TIMES, config.ordered, config.nats, strict=True)
        )
        return f"{sum(p.numel() for p in self.parameters()):,} parameters; nats a word of dev text: {told}."

    def tensors(self) -> dict[str, Tensor]:  # noqa: D102
        return self.state_dict()

    @classmethod
    def build(cls, config: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> CausalHead:  # noqa: D102
        head = cls(HeadConfig(**config))
        head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return head.eval().requires_grad_(False)
