"""Sentences while they are sampled together: the chain denoiser - programs - known words, and the guide of z_s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.common import UserError, same_noise
from diffusion_lm.control.automaton import BANNED
from diffusion_lm.control.canvas import Layout
from diffusion_lm.control.guidance import Steered
from diffusion_lm.control.head import CausalHead
from diffusion_lm.control.pairs import PairTable
from diffusion_lm.diffusion.chain import draw
from diffusion_lm.diffusion.losses import VariationalBound, counted
from diffusion_lm.diffusion.process import UNKNOWN, Gaussian, Given, Prediction, Source, average
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.layout import FREE, Asked, Model, length_nats, read_sources, sharers
from diffusion_lm.generation.particles import RESAMPLE_BELOW, Particles

T = TypeVar("T")

REWARD_EVERY = 5
"""Steps between two looks at what a reward says, which may be slow."""
OPEN = 0.5
"""Sentences are resampled by their evidence at t from here on: later their words are settled, and copies would stay copies
(docs/log.md)."""
CANDIDATE_DRAWS = 16
"""Noise levels at which the bound of a candidate is estimated, the same for all."""
CANDIDATES_DIFFER = 0.25
"""The u = t^(1/3) at which they begin: below it every candidate is read without fault, and what the bound has there is noise."""
LAST = 1.5
"""The last step is at t = 1 / steps, the one before at twice that, each to the power of the times."""
COMMIT = 0.1
"""Share of the temperature at which the words that remain are drawn together."""
ALWAYS = 2.0
"""No group has so many effective particles: the share under which all are resampled."""


def _stacked(columns: Sequence[Iterable[Tensor]], length: int, vectors: Tensor) -> Tensor | None:
    """What is added to the logits of each sentence's words, which follow START, [B, L, V]; None where nothing is."""
    out = None
    for row, own in enumerate(columns):
        for part in own:
            if out is None:
                out = vectors.new_zeros(len(columns), length, part.shape[-1])
            words = out[row, 1 : 1 + len(part)] if part.ndim == 2 else out[row]
            words += part[: len(words)].to(vectors) if part.ndim == 2 else part.to(vectors)
    return out


class Batch:
    """A batch while it is sampled: the chain denoiser - programs - known words, and the guide of z_s."""

    def __init__(self, lm: Model, asked: Asked, layout: Layout, decoding: Decoding, generator: torch.Generator) -> None:
        assert decoding.sampler is not None and decoding.guidance is not None
        self.lm, self.generator, self.sampler, self.scale = lm, generator, decoding.sampler, decoding.guide_scale
        self.programs = asked.programs
        self.vectors = lm.denoiser.embedding.vectors()
        self.known = layout.known.to(self.vectors.device)
        self.mask = layout.mask.to(self.vectors.device)
        self.source = read_sources(lm, [program.canvas.source for program in asked.programs])
        self.previous: Tensor | None = None
        self.passes = self.step = 0
        self.found: Tensor | None = self.known
        self.logits: Tensor | None = None
        self.said: Prediction | None = None
        # Between START and END stand words: no START, END, PAD, and no UNK, which no reader could read. What is known stands.
        words = torch.arange(lm.tokenizer.vocab_size, device=self.vectors.device)
        banned = (words <= lm.tokenizer.pad_id).repeat(len(self.known), 1)
        if lm.padded:  # PAD is a word, and so are START and END where their places are not known
            banned[:, lm.tokenizer.pad_id] = False
            ended = (self.known == lm.tokenizer.end_id).any(1, keepdim=True)
            banned[:, [lm.tokenizer.start_id, lm.tokenizer.end_id]] = ended
        free = (self.known == UNKNOWN)[..., None]
        self.banned = torch.where(free, banned[:, None], words != self.known[..., None])
        groups = torch.tensor(asked.groups)
        rivals = [(groups == number).nonzero().flatten() for number in groups[groups != FREE].unique()]
        self.particles = Particles(rivals, len(groups), generator)
        self.reward: Tensor | None = None
        self.evidence: Tensor | None = None
        self.steered = Steered(self._reweighted, self.mask, self.vectors)
        self.follow = decoding.guidance.guide(self.steered)
        self._regroup()

    def _regroup(self) -> None:
        """What the programs want of words, and which sentences share an automaton, an energy or a reward."""
        device = self.vectors.device
        self.columns = _stacked([program.columns for program in self.programs], self.mask.shape[1], self.vectors)
        evidence = [(row, each) for row, program in enumerate(self.programs) for each in program.evidence]
        self.evidence_of = [(row, each.power, each.columns.to(self.vectors)) for row, each in evidence]

        def shared(parts: Sequence[Iterable[T]]) -> list[tuple[T, Tensor]]:
            return [(part, torch.tensor(rows, device=device)) for part, rows in sharers(parts)]

        self.automata = shared([[p.automaton] if p.automaton else [] for p in self.programs])
        self.steered.energies = shared([p.energies for p in self.programs])
        self.rewards = shared([p.rewards for p in self.programs])

    def denoise(self, z: Tensor, t: Tensor) -> Prediction:
        """The whole chain but the clamp."""
        prediction = self._reweighted(z, t)
        self.previous = prediction.x0
        self.found, self.logits = None, prediction.logits
        return prediction

    @property
    def ids(self) -> Tensor:
        """The words as they stand: drawn together for good, else the likeliest, [B, L]."""
        if self.found is None:
            assert self.logits is not None
            self.found = self.logits.argmax(-1)
        return self.found

    def draw_together(
        self,
        table: PairTable,
        head: CausalHead | None,
        decoding: Decoding,
        p: Tensor,
        t: float,
        temperature: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Words of each sentence, tied by which stand side by side and by what the head says of them.

        At the last step they are nearly the likeliest, and remain.
        """
        assert decoding.steps is not None and decoding.pairs is not None and decoding.time_power is not None
        last = t < (LAST / decoding.steps) ** decoding.time_power
        if last:
            p, temperature = (p / p.amax(-1, keepdim=True)) ** (1 / COMMIT), temperature * COMMIT
        opinion = None
        if head is not None:
            assert self.said is not None and decoding.head is not None
            opinion = head.opinion(self.said, decoding.head / temperature)
        words = draw(p, self.mask, table.ties(t, temperature / decoding.pairs, p.device), generator, opinion)
        if last:
            self.found = words
        return words

    def guide(self, z: Tensor, step: Gaussian, s: Tensor) -> Tensor:
        """z_s moved along the energies, and sentences resampled by what they are worth."""
        z = self.follow(z, step, s)
        self.step += 1
        if self.step % REWARD_EVERY == 0:
            self._look()
        if self.reward is not None and not self.sampler.branches:
            raise UserError("A reward needs a sampler in which copies of a sentence part; take renoise or ddpm.")
        if (self.reward is None and self.evidence is None) or not self.sampler.branches:
            return z
        index = self._resample(RESAMPLE_BELOW)
        return z if index is None else z[index.to(z.device)]

    def finish(self) -> None:
        """The last resampling by a reward: of the sentences as they now stand, whatever their weights are."""
        self._look()
        if self.reward is not None:
            self._resample(ALWAYS)

    def nats(self) -> Tensor:
        """An estimate of the model's bound on -log p(sentence | what is given), lengths counted, in nats a word, [B].

        The noise levels at which all sentences are alike are left out (`CANDIDATES_DIFFER`).
        """
        self.passes += CANDIDATE_DRAWS
        given = Given(self.known, self.source) if self.lm.denoiser.knows_given else None
        written, total = counted(self.mask, given).sum(1), length_nats(self.lm, self.mask, given)
        bound, size, device = VariationalBound(steps=None), len(self.mask), self.mask.device
        with same_noise(device), self.lm.autocast():
            for k in range(CANDIDATE_DRAWS):
                level = CANDIDATES_DIFFER + (1 - CANDIDATES_DIFFER) * (k + 0.5) / CANDIDATE_DRAWS
                u = torch.full((size,), level, device=device)
                each = bound.estimate(self.lm.denoiser, self.ids, self.mask, u, given)
                total += (1 - CANDIDATES_DIFFER) * (each * written).float().cpu() / CANDIDATE_DRAWS
        return total / written.cpu()

    def _look(self) -> None:
        """What the rewards say of the sentences as they stand."""
        if not self.rewards:
            return
        decode = self.lm.tokenizer.decode
        texts = [decode(ids[mask].tolist()) for ids, mask in zip(self.ids, self.mask, strict=True)]
        self.reward = torch.zeros(len(texts))
        for reward, rows in self.rewards:
            self.reward.index_add_(0, rows.cpu(), reward([texts[i] for i in rows.tolist()]).float().cpu())

    def _resample(self, below: float) -> Tensor | None:
        """Which sentences go on in each place, [B], moved there; None where all stay."""
        worth = sum(part for part in (self.reward, self.evidence) if part is not None)
        assert isinstance(worth, Tensor)
        index = self.particles.resample(worth, below)
        if index is None:
            return None
        # A sentence takes along its words, its length, and what chance has held it to.
        here = index.to(self.mask.device)
        self.known, self.mask, self.found = self.known[here], self.mask[here], self.ids[here]
        self.banned = self.banned[here]
        self.source = self.source and self.source.rows(here)
        self.reward, self.evidence = (part if part is None else part[index] for part in (self.reward, self.evidence))
        self.previous = None if self.previous is None else self.previous[here]
        self.programs = [self.programs[row] for row in index.tolist()]
        self.steered.mask = self.mask
        self._regroup()
        return index

    def _reweighted(self, z: Tensor, t: Tensor) -> Prediction:
        """The model's prediction, with what the canvas and the programs know of single words."""
        self.said = said = self.predicted(z, t)
        assert said.logits is not None
        logits = said.logits.masked_fill(self.banned, BANNED)
        free = (self.known == UNKNOWN)[..., None]
        if self.evidence_of and float(t[0]) >= OPEN:
            self.evidence = self._evidence(logits)
        if self.columns is not None:  # words that are known stay, whatever is said of them
            logits = torch.where(free, logits + self.columns, logits)
        for automaton, rows in self.automata:
            if len(rows) == len(logits):  # nothing to take apart
                logits = automaton.constrain(logits, self.mask, self.generator)
                continue
            held = automaton.constrain(logits[rows], self.mask[rows], self.generator)
            logits = logits.index_copy(0, rows, held)
        exact = not self.lm.padded and self.lm.denoiser.predicts_words
        moved = exact or self.columns is not None or self.automata
        if not moved:
            return Prediction(torch.where(free, said.x0, F.embedding(self.known.clamp(min=0), self.vectors)), logits)
        return Prediction(average(self.vectors), logits)  # of a word that is known, its vector

    def predicted(self, z: Tensor, t: Tensor) -> Prediction:
        """What the network says, which classifier-free guidance moves away from what it says without the source."""

        def ask(source: Source | None) -> Prediction:
            self.passes += 1
            given = Given(self.known, source) if self.lm.denoiser.knows_given else None
            said: Prediction = self.lm.denoiser(z, t, self.mask, self.previous, given)
            return said

        with_source = ask(self.source)
        if self.source is None or self.scale == 1:
            return with_source
        without, scale = ask(None), self.scale
        assert scale is not None and with_source.logits is not None and without.logits is not None
        return Prediction(
            lambda _: without.x0 + scale * (with_source.x0 - without.x0),
            without.logits + scale * (with_source.logits - without.logits),
            with_source.hidden,
        )

    def _evidence(self, logits: Tensor) -> Tensor:
        """Log of the mean of each sentence's likelihood over p(w | z_t), summed over its words, to its power: [B]."""
        log_p, total = logits.log_softmax(-1), logits.new_zeros(len(logits))
        for row, power, columns in self.evidence_of:
            total[row] += power * (log_p[row, 1 : 1 + len(columns)] + columns).logsumexp(-1).sum().detach()
        return total.float().cpu()
