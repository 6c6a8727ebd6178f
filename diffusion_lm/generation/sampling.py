"""From controls to text: programs, their canvases laid out, the wrappers around the denoiser, and the sampler."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.common import UserError, check_range, check_seed, own_defaults, same_noise
from diffusion_lm.control.automaton import BANNED
from diffusion_lm.control.canvas import Layout
from diffusion_lm.control.control import Control
from diffusion_lm.control.guidance import InnerLoop, Steered
from diffusion_lm.control.head import CausalHead
from diffusion_lm.control.pairs import PairTable
from diffusion_lm.control.program import Program
from diffusion_lm.diffusion.chain import draw
from diffusion_lm.diffusion.clamp import SampledClamp, clamped
from diffusion_lm.diffusion.losses import VariationalBound, counted
from diffusion_lm.diffusion.process import UNKNOWN, Denoise, Gaussian, Given, Prediction, Source, average
from diffusion_lm.diffusion.samplers import gaussian_noise
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.layout import FREE, Asked, Model, compiled, lay_out, length_nats, read_sources, sharers
from diffusion_lm.generation.particles import RESAMPLE_BELOW, Particles
from diffusion_lm.generation.promises import broken, keep_promises

T = TypeVar("T")
logger = logging.getLogger(__name__)

REWARD_EVERY = 5
"""Steps between two looks at what a reward says, which may be slow."""
OPEN = 0.5
"""Sentences are resampled by their evidence at t from here on: later their words are settled, and copies would stay copies
(docs/log.md)."""
CANDIDATE_DRAWS = 16
"""Noise levels at which the bound of a candidate is estimated, the same for all."""
CANDIDATES_DIFFER = 0.25
"""The u = t^(1/3) at which they begin: below it every candidate is read without fault, and what the bound has there is noise."""
WORST = 1e6
"""Nats of a candidate that breaks a promise."""
OVERHEAD = 12.0
"""What each position of a batch costs whatever its size, in sentences."""
LAST = 1.5
"""The last step is at t = 1 / steps, the one before at twice that, each to the power of the times."""
COMMIT = 0.1
"""Share of the temperature at which the words that remain are drawn together."""
ALWAYS = 2.0
"""No group has so many effective particles: the share under which all are resampled."""


@dataclass(frozen=True)
class Step:
    """What a callback sees: of `steps` steps the one after `index` others, at time t."""

    index: int
    steps: int
    t: float
    rows: list[int]
    """Which of the n sentences are in the batch, [B]."""
    ids: Tensor
    """The likeliest word at every position, [B, L]."""


@dataclass(frozen=True)
class Generation(Sequence[str]):
    """Generated texts; a sequence of strings."""

    ids: list[list[int]]
    """Token ids, START and END included."""
    texts: list[str]
    words: list[list[str]]
    """Tokens between START and END."""
    seed: int
    seconds: float
    network_evaluations: int
    """Denoiser and classifier passes a batch."""
    decoding: Decoding

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.texts[index]


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


class _Batch:
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
        special = torch.arange(lm.tokenizer.vocab_size, device=self.vectors.device) <= lm.tokenizer.pad_id
        # In the padded layout PAD is a word, and END is one too where its place is not known.
        ended = (self.known == lm.tokenizer.end_id).any(1)
        special[lm.tokenizer.pad_id] = not lm.padded
        banned = (special & (ended[:, None] | (not lm.padded)))[:, None]
        # Between START and END stand words: no START, END, PAD, and no UNK, which no reader could read. What is known stands.
        words = torch.arange(lm.tokenizer.vocab_size, device=self.vectors.device)
        free = (self.known == UNKNOWN)[..., None]
        self.banned = torch.where(free, banned, words != self.known[..., None])
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
        self.said = said = self._predicted(z, t)
        assert said.logits is not None
        logits = said.logits.masked_fill(self.banned, BANNED)
        free = (self.known == UNKNOWN)[..., None]
        if self.evidence_of and float(t[0]) >= OPEN:
            self.evidence = self._evidence(logits)
        if self.columns is not None:  # words that are known stay, whatever is said of them
            logits = torch.where(free, logits + self.columns, logits)
        for automaton, rows in self.automata:
            held = automaton.constrain(logits[rows], self.mask[rows], self.generator)
            logits = logits.index_copy(0, rows, held)
        exact = not self.lm.padded and self.lm.denoiser.predicts_words
        moved = exact or self.columns is not None or self.automata
        if not moved:
            return Prediction(torch.where(free, said.x0, F.embedding(self.known.clamp(min=0), self.vectors)), logits)
        return Prediction(average(self.vectors), logits)  # of a word that is known, its vector

    def _predicted(self, z: Tensor, t: Tensor) -> Prediction:
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


@torch.no_grad()
@own_defaults()
def generate(
    lm: Model,
    n: int,
    control: Control | Sequence[Control | None] | None,
    decoding: Decoding,
    *,
    candidates: int,
    seed: int,
    batch_size: int,
    callback: Callable[[Step], None] | None,
) -> Generation:
    """See `DiffusionLM.generate`."""
    whole = {"n": n, "batch_size": batch_size, "steps": decoding.steps, "candidates": candidates}
    for name, value in whole.items():
        if value is not None:
            check_range(name, value, least=1, most=1_000_000)
            if value != int(value):
                raise UserError(f"{name} must be a whole number, not {value}.")
    check_seed(seed)
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    asked = compiled(lm, n, control, generator, candidates)
    _check_followed(asked.programs, decoding)
    decoding = decoding.fitted(asked.programs, lm.denoiser.predicts_words, lm.has(PairTable), lm.has(CausalHead))
    if decoding.pairs and not isinstance(decoding.clamp, SampledClamp):
        raise UserError("Pairs tie words that are drawn; take --clamp sample with --pairs, or leave it out.")
    if decoding.pairs and not lm.has(PairTable):
        raise UserError(
            "This model has no table of pairs; make one (diffusion-lm train-control pairs), or leave --pairs out."
        )
    if decoding.head and not decoding.pairs:
        raise UserError(
            "A causal head speaks beside pairs, and none tie words here; give --pairs 1 too, or leave --head out."
        )
    if decoding.head and not lm.has(CausalHead):
        raise UserError(
            "This model has no causal head; train one (diffusion-lm train-control head), or leave --head out."
        )
    logger.info("Decoding with %s.", decoding)
    draw = partial(_draw, lm, decoding=decoding, generator=generator, batch_size=batch_size)
    ids, nats, evaluations = draw(asked, callback=callback, weigh=candidates > 1)
    if candidates > 1:
        worse = [bool(broken(lm, program, own)) for program, own in zip(asked.programs, ids, strict=True)]
        nats = nats + WORST * torch.tensor(worse)
        best = (nats.view(n, candidates).argmin(1) + candidates * torch.arange(n)).tolist()
        ids, asked = [ids[i] for i in best], Asked([asked.programs[i] for i in best], [asked.groups[i] for i in best])
    evaluations += keep_promises(lm, asked, ids, generator, partial(draw, callback=None, weigh=False))
    texts = [lm.tokenizer.decode(sentence) for sentence in ids]
    words = [lm.tokenizer.words(sentence) for sentence in ids]
    return Generation(ids, texts, words, seed, time.perf_counter() - started, evaluations, decoding)


def _draw(
    lm: Model,
    asked: Asked,
    *,
    decoding: Decoding,
    generator: torch.Generator,
    batch_size: int,
    callback: Callable[[Step], None] | None,
    weigh: bool,
) -> tuple[list[list[int]], Tensor, int]:
    """The sentences, if they are to be weighed their nats a word, [n], and the passes of a batch."""
    assert decoding.length_temperature is not None
    layout = lay_out(lm, [program.canvas for program in asked.programs], generator, decoding.length_temperature)
    ids: list[list[int]] = [[] for _ in asked.programs]
    nats, evaluations, lengths = torch.zeros(len(ids)), 0, layout.mask.sum(-1)
    # Sentences of like length share a batch, so that little of it is padding.
    # Sentences that a reward weighs against each other stay together; on an accelerator more of them cost nothing.
    whole = lm.denoiser.device.type != "cpu" or any(program.rewards for program in asked.programs)
    for rows in _batches(lengths, batch_size, math.inf if whole else OVERHEAD):
        width = int(lengths[rows].max())
        part = Layout(layout.known[rows, :width], layout.mask[rows, :width])
        here = Asked([asked.programs[i] for i in rows.tolist()], [asked.groups[i] for i in rows.tolist()])
        batch = _Batch(lm, here, part, decoding, generator)
        for row, sentence in zip(rows.tolist(), _sample(batch, decoding, rows, callback), strict=True):
            ids[row] = sentence
        if weigh:
            nats[rows] = batch.nats()
        evaluations = batch.passes + batch.steered.passes
    return ids, nats, evaluations


def _batches(lengths: Tensor, batch_size: int, overhead: float) -> Iterator[Tensor]:
    """The sentences of each batch, of like length, cut where that takes the least time.

    A batch of B sentences, the longest of L words, takes about L (B + overhead). With an infinite one nothing is cut but by
    the batch size.
    """
    for rows in torch.argsort(lengths, stable=True).split(batch_size):
        longest, counts = lengths[rows].unique_consecutive(return_counts=True)
        ends = [0, *counts.cumsum(0).tolist()]
        # The cheapest way to cut the first k lengths, and where its last batch begins.
        least, begins = [0.0], [0]
        for k, length in enumerate(longest.tolist(), start=1):
            costs = [least[j] + length * (ends[k] - ends[j] + overhead) for j in range(k)]
            begins.append(
                min(range(k), key=costs.__getitem__)
            )  # of equal costs, as of infinite ones, the longest batch
            least.append(costs[begins[-1]])
        parts, k = [], len(longest)
        while k:
            parts.append(rows[ends[begins[k]] : ends[k]])
            k = begins[k]
        yield from reversed(parts)


def _check_followed(programs: Sequence[Program], decoding: Decoding) -> None:
    """See that the paper's guidance has a classifier to follow, where anything but the canvas is asked for."""
    held = any(program.columns or program.automaton or program.rewards for program in programs)
    if isinstance(decoding.guidance, InnerLoop) and held and not any(program.energies for program in programs):
        raise UserError(
            "The paper's guidance follows classifiers, and nothing that is asked for has one: take --attribute or, by "
            "--syntax_by classifier, --pos, --tree or --span (train-control attribute and train-control syntax train them)."
        )


def _sample(
    batch: _Batch, decoding: Decoding, rows: Tensor, callback: Callable[[Step], None] | None
) -> Iterator[list[int]]:
    lm, clamp, steps = batch.lm, decoding.clamp, decoding.steps
    assert clamp is not None and steps is not None and decoding.time_power is not None

    def report(index: int, t: Tensor, z: Tensor, prediction: Prediction) -> None:
        if callback is not None and prediction.logits is not None:
            callback(Step(index, steps, float(t[0]), rows.tolist(), prediction.logits.argmax(-1)))

    if isinstance(clamp, SampledClamp):
        head = lm.asset(CausalHead) if decoding.head else None
        together = partial(batch.draw_together, lm.asset(PairTable), head, decoding) if decoding.pairs else None
        clamp = replace(clamp, generator=clamp.generator or batch.generator, together=together)
    denoise: Denoise = clamped(batch.denoise, clamp, batch.vectors)
    shape = (*batch.mask.shape, lm.denoiser.config.embedding_dim)
    z = gaussian_noise(batch.vectors.new_empty(shape), batch.generator)
    with lm.autocast():
        batch.sampler(
            denoise,
            lm.denoiser.schedule,
            z,
            steps,
            power=decoding.time_power,
            guide=batch.guide,
            callback=report,
            generator=batch.generator,
        )
    batch.finish()
    for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True):
        yield ids[mask].tolist()
