"""From a control to text: the canvas, the chain of wrappers around the denoiser, and the sampler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.common import UserError, check_seed
from diffusion_lm.control.automaton import BANNED
from diffusion_lm.control.canvas import UNKNOWN, Canvas, Layout
from diffusion_lm.control.control import Control, Each, Latents
from diffusion_lm.control.guidance import Guidance, Pull, Steered
from diffusion_lm.diffusion.clamp import Clamp, HardClamp, SampledClamp, clamped
from diffusion_lm.diffusion.process import Denoise, Gaussian, Prediction
from diffusion_lm.diffusion.samplers import Renoise, Sampler, gaussian_noise
from diffusion_lm.model.denoiser import expected

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM


RESAMPLE_BELOW = 0.5
"""Resample a group where its effective number of particles is below this share of them."""


class Particles:
    """The weights of particles whose potentials are differences of a log-weight.

    Args:
        groups: rows that may take each other's place, index tensors.
        size: B.
        generator: source of the draws.
    """

    def __init__(self, groups: Sequence[Tensor], size: int, generator: torch.Generator) -> None:
        self.groups, self.generator = groups, generator
        self.weights, self.last = torch.zeros(size), torch.zeros(size)

    def resample(self, log_weight: Tensor, below: float = RESAMPLE_BELOW) -> Tensor | None:
        """Take in new log-weights [B] and draw anew where they are uneven.

        Args:
            log_weight: of each row, in nats.
            below: share of effective particles under which a group is resampled; above 1, whatever its weights are.

        Returns:
            The rows that go on in each place, [B]; None where all stay.
        """
        self.weights = self.weights + log_weight - self.last
        self.last = log_weight
        index = torch.arange(len(log_weight))
        for rows in self.groups:
            w = self.weights[rows].softmax(0)
            if 1 / w.square().sum() < below * len(rows):
                index[rows] = rows[systematic(w, self.generator)]
                self.weights[rows] = 0.0
        if bool((index == torch.arange(len(index))).all()):
            return None
        self.last = self.last[index]
        return index


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many indices as there are weights [n], each close to its share (systematic resampling)."""
    n = len(weights)
    ticks = (torch.arange(n) + torch.rand((), generator=generator)) / n
    return torch.searchsorted(weights.cumsum(0), ticks).clamp(max=n - 1)


@dataclass(frozen=True)
class Step:
    """What a callback sees.

    Attributes:
        index: steps done, from 0.
        steps: steps in all.
        t: time.
        rows: which of the n sentences are in the batch, [B].
        ids: the likeliest word at every position, [B, L].
    """

    index: int
    steps: int
    t: float
    rows: list[int]
    ids: Tensor


@dataclass(frozen=True)
class Generation(Sequence[str]):
    """Generated texts; a sequence of strings.

    Attributes:
        ids: token ids, START and END included.
        texts: the sentences.
        words: their tokens between START and END.
        seed: what they were drawn with.
        seconds: how long it took.
        network_evaluations: denoiser and classifier passes a batch.
    """

    ids: list[list[int]]
    texts: list[str]
    words: list[list[str]]
    seed: int
    seconds: float
    network_evaluations: int

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.texts[index]


REWARD_EVERY = 5
"""Steps between two looks at what a reward says, which may be slow."""
OPEN = 0.5
"""Sentences are resampled by their evidence at t from here on: later their words are settled, and copies would stay copies
(docs/log.md)."""
ALWAYS = 2.0
"""No group has so many effective particles: the share under which all are resampled."""


class _Batch:
    """A batch while it is sampled: the chain denoiser - reweighting - known words, and the guide of z_s."""

    def __init__(
        self,
        lm: DiffusionLM,
        control: Control | None,
        guidance: Guidance,
        layout: Layout,
        sampler: Sampler,
        generator: torch.Generator,
    ) -> None:
        self.lm, self.control, self.generator = lm, control, generator
        self.vectors = lm.embedding.vectors()
        self.known = layout.known.to(self.vectors.device)
        self.mask = layout.mask.to(self.vectors.device)
        self.previous: Tensor | None = None
        self.passes = 0
        self.steered = Steered(control, self._reweighted, self.mask, self.vectors) if control is not None else None
        self.follow = guidance.guide(self.steered) if self.steered else None
        self.particles: Particles | None = None
        self.ids = self.known
        self.step = 0
        self.sampler = sampler
        self.reward: Tensor | None = None
        self.evidence: Tensor | None = None

    def denoise(self, z: Tensor, t: Tensor) -> Prediction:
        """The whole chain but the clamp."""
        prediction = self._reweighted(z, t)
        self.previous = prediction.x0
        assert prediction.logits is not None
        self.ids = prediction.logits.argmax(-1)
        return prediction

    def guide(self, z: Tensor, step: Gaussian, s: Tensor) -> Tensor:
        """z_s moved along the control's energy, and sentences resampled by what they are worth."""
        if self.follow is not None:
            z = self.follow(z, step, s)
        self.step += 1
        if self.step % REWARD_EVERY == 0:
            self._look()
        if self.reward is None and self.evidence is None:
            return z
        if not self.sampler.branches:
            if self.reward is None:
                return z
            raise UserError(
                "A reward needs a sampler that draws noise and remembers nothing, so that copies of a sentence part: "
                "take renoise or ddpm."
            )
        index = self._resample(RESAMPLE_BELOW)
        return z if index is None else z[index.to(z.device)]

    def finish(self) -> None:
        """The last resampling by a reward: of the sentences as they now stand, whatever their weights are."""
        self._look()
        if self.reward is not None:
            self._resample(ALWAYS)

    def _look(self) -> None:
        """What the control's reward says of the sentences as they stand."""
        if self.control is not None:
            texts = [
                self.lm.tokenizer.decode(ids[mask].tolist()) for ids, mask in zip(self.ids, self.mask, strict=True)
            ]
            self.reward = self.control.log_weight(texts)

    def _resample(self, below: float) -> Tensor | None:
        """Which sentences go on in each place, [B], moved there; None where all stay."""
        worth = sum(part for part in (self.reward, self.evidence) if part is not None)
        assert isinstance(worth, Tensor)
        if self.particles is None:
            every = torch.arange(len(worth))
            groups = self.control.rivals if isinstance(self.control, Each) else [every]
            self.particles = Particles(groups, len(worth), self.generator)
        index = self.particles.resample(worth, below)
        if index is None:
            return None
        # A sentence takes along its words, its length, and what chance has held it to.
        here = index.to(self.mask.device)
        self.known, self.mask, self.ids = self.known[here], self.mask[here], self.ids[here]
        self.reward, self.evidence = (part if part is None else part[index] for part in (self.reward, self.evidence))
        if self.previous is not None:
            self.previous = self.previous[here]
        assert self.control is not None and self.steered is not None
        self.control = self.steered.control = self.control.rows(index.tolist())
        self.steered.mask = self.mask
        return index

    def _reweighted(self, z: Tensor, t: Tensor) -> Prediction:
        """The model's prediction, with what the canvas and the control know of single words."""
        self.passes += 1
        x0, logits = self.lm.denoise(z, t, self.mask, self.previous)
        assert logits is not None
        free = self.known == UNKNOWN
        given = self.known.clamp(min=0)
        changed = self.lm.config.layout == "exact"
        if changed:
            # Between START and END stand words: no START, END, PAD, and no UNK, which no reader could read.
            special = torch.zeros(self.lm.vocab_size, dtype=torch.bool, device=logits.device)
            special[: self.lm.tokenizer.pad_id + 1] = True
            logits = logits.masked_fill(free[..., None] & special, BANNED)
            changed = self.lm.predicts_words
        one_hot = torch.full_like(logits, BANNED).scatter(-1, given[..., None], 0.0)
        logits = torch.where(free[..., None], logits, one_hot)
        if self.control is not None:
            latents = Latents(z, t, self.mask, x0, logits, self.vectors, self.generator)
            if float(t[0]) >= OPEN:
                evidence = self.control.log_evidence(logits, latents)
                self.evidence = None if evidence is None else evidence.detach().float().cpu()
            reweighted = self.control.reweight(logits, latents)
            changed |= reweighted is not logits
            logits = reweighted
        if changed:
            x0 = expected(logits, self.vectors)
        return Prediction(torch.where(free[..., None], x0, F.embedding(given, self.vectors)), logits)

    @property
    def evaluations(self) -> int:
        """Denoiser and classifier passes so far."""
        return self.passes + (self.steered.passes if self.steered else 0)


@torch.no_grad()
def generate(
    lm: DiffusionLM,
    n: int,
    control: Control | Sequence[Control | None] | None,
    *,
    steps: int,
    sampler: Sampler | None,
    clamp: Clamp | None,
    guidance: Guidance | None,
    seed: int,
    batch_size: int,
    callback: Callable[[Step], None] | None,
) -> Generation:
    """See `DiffusionLM.generate`."""
    if n < 1 or steps < 1 or batch_size < 1:
        raise UserError(f"n, steps and batch_size are at least 1, not {n}, {steps} and {batch_size}.")
    check_seed(seed)
    started = time.perf_counter()
    if control is not None and not isinstance(control, Control):
        if len(control) != n:
            raise UserError(f"{len(control)} controls are given for {n} sentences; give one for each, or None.")
        control = Each(tuple(control))
    control = control.bind(lm) if control is not None else None
    sampler, guidance = sampler or Renoise(), guidance or Pull()
    clamp = clamp or (SampledClamp() if lm.predicts_words else HardClamp())
    generator = torch.Generator().manual_seed(seed)
    control = _drawn(lm, n, control, generator)
    layout = lay_out(lm, n, control, generator)
    ids: list[list[int]] = [[] for _ in range(n)]
    evaluations = 0
    lengths = layout.mask.sum(-1)
    # Sentences of like length share a batch, so that little of it is padding.
    for rows in torch.argsort(lengths, stable=True).split(batch_size):
        width = int(lengths[rows].max())
        part = Layout(layout.known[rows, :width], layout.mask[rows, :width])
        here = control.rows(rows.tolist()) if control is not None else None
        batch = _Batch(lm, here, guidance, part, sampler, generator)
        for row, sentence in zip(rows.tolist(), _sample(batch, clamp, steps, generator, rows, callback), strict=True):
            ids[row] = sentence
        evaluations = batch.evaluations
    tokenizer = lm.tokenizer
    return Generation(
        ids,
        [tokenizer.decode(sentence) for sentence in ids],
        [tokenizer.words(sentence) for sentence in ids],
        seed,
        time.perf_counter() - started,
        evaluations,
    )


def _drawn(lm: DiffusionLM, n: int, control: Control | None, generator: torch.Generator) -> Control | None:
    """The control with what chance decides decided: one for each sentence where they then differ."""
    if isinstance(control, Each):
        return control.drawn_each(lm.max_words, generator)
    drawn = control.drawn(n, control.canvas(Canvas(lm.max_words)), generator) if control is not None else None
    return control if drawn is None else Each(tuple(drawn), (control,) * n)


def lay_out(lm: DiffusionLM, n: int, control: Control | None, generator: torch.Generator) -> Layout:
    """Where words are wanted: by the control and the corpus's lengths; in the padded layout the whole canvas, PAD as a word."""
    if isinstance(control, Each):
        return _lay_out_each(lm, control, generator)
    canvas = Canvas(lm.max_words)
    if control is not None:
        canvas = control.canvas(canvas)
    padded, t = lm.config.layout == "padded", lm.tokenizer
    if padded and canvas == Canvas(lm.max_words):
        known = torch.full((n, lm.config.max_length), UNKNOWN)
        return Layout(known, torch.ones_like(known, dtype=torch.bool))
    layout = canvas.lay_out(n, lm.length_counts, t.start_id, t.end_id, t.pad_id, generator)
    if padded:
        # Where a sentence ends is known then, and so is all PAD behind it, which such a model reads as words.
        known = F.pad(layout.known, (0, lm.config.max_length - layout.known.shape[1]), value=t.pad_id)
        return Layout(known, torch.ones_like(known, dtype=torch.bool))
    return layout


def _lay_out_each(lm: DiffusionLM, each: Each, generator: torch.Generator) -> Layout:
    free = torch.tensor([row for row, control in enumerate(each.controls) if control is None], dtype=torch.long)
    groups: list[tuple[Control | None, Tensor]] = [*each.groups, (None, free)]
    parts = [(rows, lay_out(lm, len(rows), control, generator)) for control, rows in groups if len(rows)]
    width = max(part.known.shape[1] for _, part in parts)
    known = torch.full((len(each.controls), width), lm.tokenizer.pad_id)
    mask = torch.zeros(len(each.controls), width, dtype=torch.bool)
    for rows, part in parts:
        known[rows, : part.known.shape[1]] = part.known
        mask[rows, : part.mask.shape[1]] = part.mask
    return Layout(known, mask)


def _sample(
    batch: _Batch,
    clamp: Clamp,
    steps: int,
    generator: torch.Generator,
    rows: Tensor,
    callback: Callable[[Step], None] | None,
) -> Iterator[list[int]]:
    lm = batch.lm

    def report(index: int, t: Tensor, z: Tensor, prediction: Prediction) -> None:
        if callback is not None and prediction.logits is not None:
            callback(Step(index, steps, float(t[0]), rows.tolist(), prediction.logits.argmax(-1)))

    if isinstance(clamp, SampledClamp) and clamp.generator is None:
        clamp = replace(clamp, generator=generator)
    denoise: Denoise = clamped(batch.denoise, clamp, batch.vectors)
    shape = (*batch.mask.shape, lm.config.embedding_dim)
    z = gaussian_noise(batch.vectors.new_empty(shape), generator)
    with torch.autocast(z.device.type, torch.bfloat16, enabled=lm.bf16):
        batch.sampler(denoise, lm.schedule, z, steps, guide=batch.guide, callback=report, generator=generator)
    batch.finish()
    for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True):
        yield ids[mask].tolist()
