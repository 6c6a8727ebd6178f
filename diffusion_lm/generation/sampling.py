"""From controls to text: programs, their canvases laid out, the wrappers around the denoiser, and the sampler."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import and_
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lm.common import UserError, check_range, check_seed, own_defaults
from diffusion_lm.control.automaton import BANNED, Automaton, combine
from diffusion_lm.control.canvas import Canvas, Layout
from diffusion_lm.control.control import Control
from diffusion_lm.control.guidance import InnerLoop, Steered
from diffusion_lm.control.program import Host, Program, Promise
from diffusion_lm.diffusion.clamp import SampledClamp, clamped
from diffusion_lm.diffusion.losses import VariationalBound, counted
from diffusion_lm.diffusion.process import UNKNOWN, Denoise, Gaussian, Given, Prediction, Source
from diffusion_lm.diffusion.samplers import gaussian_noise
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.particles import RESAMPLE_BELOW, Particles
from diffusion_lm.model.denoiser import expected
from diffusion_lm.model.gaps import gap_nats
from diffusion_lm.text.batches import padded

T = TypeVar("T")
logger = logging.getLogger(__name__)

REWARD_EVERY = 5
"""Steps between two looks at what a reward says, which may be slow."""
OPEN = 0.5
"""Sentences are resampled by their evidence at t from here on: later their words are settled, and copies would stay copies
(docs/log.md)."""
FREE = -1
"""Group of sentences of which nothing is asked."""
CANDIDATE_DRAWS = 16
"""Noise levels at which the bound of a candidate is estimated, the same for all."""
CANDIDATES_DIFFER = 0.25
"""The u = t^(1/3) at which they begin: below it every candidate is read without fault, and what the bound has there is noise."""
TOGETHER = 256
"""Canvases whose gaps are looked at in one pass."""
MOST_SCALE = 100.0
"""Of classifier-free guidance."""
TRIES = 20
"""How often a sentence is written anew that breaks a promise."""
WORST = 1e6
"""Nats of a candidate that breaks a promise."""
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


class Model(Host, Protocol):
    """What generates, `DiffusionLM`: a host of controls that can be sampled."""

    @property
    def lengths(self) -> Tensor:
        """How often each total length is in the corpus, [max_length + 1]."""

    def autocast(self) -> torch.autocast:
        """In what precision products are taken."""


# -- from controls to programs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A program for each sentence, and the number of its control: sentences of one may take each other's place."""

    programs: list[Program]
    groups: list[int]


def compiled(
    lm: Model,
    n: int,
    control: Control | Sequence[Control | None] | None,
    generator: torch.Generator,
    candidates: int = 1,
) -> Asked:
    """The programs of n sentences, each so many times; a control that stands for many of them is compiled once."""
    controls: list[Any] = list(control) if isinstance(control, list | tuple) else [control] * n
    for each in controls:
        if not isinstance(each, Control | None):
            raise UserError(f"{each!r} is no control; give one such as Length(9), a list of them, or None.")
    if len(controls) != n:
        raise UserError(f"{len(controls)} controls are given for {n} sentences; give one for each, or None.")
    controls = [each for each in controls for _ in range(candidates)]
    canvas = Canvas(lm.max_words)
    programs, groups = [Program(canvas)] * len(controls), [FREE] * len(controls)
    for number, (wanted, rows) in enumerate(_sharers([[] if c is None else [c] for c in controls])):
        for row, program in zip(rows, wanted.compile(lm, [canvas] * len(rows), generator), strict=True):
            programs[row], groups[row] = program, number
    return Asked(programs, groups)


def _sharers(parts: Sequence[Iterable[T]]) -> list[tuple[T, list[int]]]:
    """Each object, told apart by identity, and the sentences that have it."""
    found: dict[int, tuple[T, list[int]]] = {}
    for row, own in enumerate(parts):
        for part in own:
            found.setdefault(id(part), (part, []))[1].append(row)
    return list(found.values())


def lay_out(lm: Model, canvases: Sequence[Canvas], generator: torch.Generator) -> Layout:
    """Where words are wanted: by the canvases and how long the model, else the corpus, has such sentences and their gaps.

    In the padded layout words are wanted everywhere, PAD being one.
    """
    longest, parts = lm.max_words + 2, []
    rows_of: dict[Canvas, list[int]] = {}
    for row, canvas in enumerate(canvases):
        rows_of.setdefault(canvas, []).append(row)
    open_canvases = [canvas for canvas in rows_of if lm.denoiser.knows_given and canvas.is_open()]
    gaps = dict(zip(open_canvases, _gap_log_p(lm, open_canvases), strict=True))
    for canvas, own in rows_of.items():
        rows = torch.tensor(own)
        if lm.padded and canvas == Canvas(lm.max_words):
            known = torch.full((len(rows), longest), UNKNOWN)
            parts.append((rows, Layout(known, known == UNKNOWN)))
        else:
            if canvas in gaps:
                sizes = canvas.sizes_by_model(len(rows), gaps[canvas], generator)
            else:
                sizes = canvas.sizes_by_corpus(len(rows), lm.lengths, generator)
            parts.append((rows, canvas.lay_out(sizes, lm.tokenizer)))
    # In the padded layout PAD behind a sentence whose end is known is known too, and such a model reads it as words.
    size = len(canvases), longest if lm.padded else max(part.known.shape[1] for _, part in parts)
    known, mask = torch.full(size, lm.tokenizer.pad_id), torch.full(size, lm.padded)
    for rows, part in parts:
        known[rows, : part.known.shape[1]] = part.known
        mask[rows, : part.mask.shape[1]] |= part.mask
    return Layout(known, mask)


def _gap_log_p(lm: Model, canvases: Sequence[Canvas]) -> Iterator[Tensor]:
    """For each canvas how likely each number of words is for each of its gaps, in nats, [gaps, max_length - 1]."""
    for first in range(0, len(canvases), TOGETHER):
        some = canvases[first : first + TOGETHER]
        outlines = [canvas.outline(lm.tokenizer) for canvas in some]
        known = padded(outlines, lm.tokenizer.pad_id).to(lm.denoiser.device)
        sizes = torch.tensor([len(outline) for outline in outlines], device=known.device)
        mask = torch.arange(known.shape[1], device=known.device) < sizes[:, None]
        with lm.autocast():
            logits = lm.denoiser.gap_logits(known, mask, _read(lm, [canvas.source for canvas in some]))
        for own, row in zip(logits.log_softmax(-1), known == UNKNOWN, strict=True):
            yield own[row]


def _read(lm: Model, sources: Sequence[Sequence[int] | None]) -> Source | None:
    """What sentences are written from, as the network reads it; None where none is."""
    if not any(sources):
        return None
    with lm.autocast():
        return lm.denoiser.read(padded([each or () for each in sources], UNKNOWN).to(lm.denoiser.device))


# -- a batch ---------------------------------------------------------------------------------------------------------


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
        self.source = _read(lm, [program.canvas.source for program in asked.programs])
        self.previous: Tensor | None = None
        self.passes = self.step = 0
        self.ids = self.known
        special = torch.arange(lm.tokenizer.vocab_size, device=self.vectors.device) <= lm.tokenizer.pad_id
        # In the padded layout PAD is a word, and END is one too where its place is not known.
        ended = (self.known == lm.tokenizer.end_id).any(1)
        special[lm.tokenizer.pad_id] = not lm.padded
        self.banned = (special & (ended[:, None] | (not lm.padded)))[:, None]
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
            return [(part, torch.tensor(rows, device=device)) for part, rows in _sharers(parts)]

        self.automata = shared([[p.automaton] if p.automaton else [] for p in self.programs])
        self.steered.energies = shared([p.energies for p in self.programs])
        self.rewards = shared([p.rewards for p in self.programs])

    def denoise(self, z: Tensor, t: Tensor) -> Prediction:
        """The whole chain but the clamp."""
        prediction = self._reweighted(z, t)
        self.previous = prediction.x0
        assert prediction.logits is not None
        self.ids = prediction.logits.argmax(-1)
        return prediction

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
        written, total = counted(self.mask, given).sum(1), torch.zeros(len(self.mask))
        if given is not None:
            total += gap_nats(self.lm.denoiser, self.known, self.mask, self.source).cpu()
        elif not self.lm.padded:
            p = (self.lm.lengths + 1) / (self.lm.lengths + 1).sum()
            total -= p[self.mask.sum(1).cpu()].log()
        bound, size = VariationalBound(steps=None), len(self.mask)
        device = self.mask.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), self.lm.autocast():
            torch.manual_seed(0)
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
        self.known, self.mask, self.ids = self.known[here], self.mask[here], self.ids[here]
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
        x0, logits = self._predicted(z, t)
        assert logits is not None
        free = self.known == UNKNOWN
        given = self.known.clamp(min=0)
        # Between START and END stand words: no START, END, PAD, and no UNK, which no reader could read.
        logits = logits.masked_fill(free[..., None] & self.banned, BANNED)
        one_hot = torch.full_like(logits, BANNED).scatter(-1, given[..., None], 0.0)
        logits = torch.where(free[..., None], logits, one_hot)
        if self.evidence_of and float(t[0]) >= OPEN:
            self.evidence = self._evidence(logits)
        if self.columns is not None:  # words that are known stay, whatever is said of them
            logits = torch.where(free[..., None], logits + self.columns, logits)
        for automaton, rows in self.automata:
            held = automaton.constrain(logits[rows], self.mask[rows], self.generator)
            logits = logits.index_copy(0, rows, held)
        exact = not self.lm.padded and self.lm.denoiser.predicts_words
        if exact or self.columns is not None or self.automata:
            x0 = expected(logits, self.vectors)
        return Prediction(torch.where(free[..., None], x0, F.embedding(given, self.vectors)), logits)

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
            without.x0 + scale * (with_source.x0 - without.x0),
            without.logits + scale * (with_source.logits - without.logits),
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
    if decoding.guide_scale is not None:
        check_range("guide_scale", decoding.guide_scale, least=0, most=MOST_SCALE)
    check_seed(seed)
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    asked = compiled(lm, n, control, generator, candidates)
    _check_followed(asked.programs, decoding)
    decoding = decoding.fitted(asked.programs, lm.denoiser.predicts_words)
    logger.info("Decoding with %s.", decoding)
    draw = partial(_draw, lm, decoding=decoding, generator=generator, batch_size=batch_size)
    ids, nats, evaluations = draw(asked, callback=callback, weigh=candidates > 1)
    if candidates > 1:
        broken = [bool(_broken(lm, program, own)) for program, own in zip(asked.programs, ids, strict=True)]
        nats = nats + WORST * torch.tensor(broken)
        best = (nats.view(n, candidates).argmin(1) + candidates * torch.arange(n)).tolist()
        ids, asked = [ids[i] for i in best], Asked([asked.programs[i] for i in best], [asked.groups[i] for i in best])
    evaluations += _keep_promises(lm, asked, ids, generator, partial(draw, callback=None, weigh=False))
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
    layout = lay_out(lm, [program.canvas for program in asked.programs], generator)
    ids: list[list[int]] = [[] for _ in asked.programs]
    nats, evaluations, lengths = torch.zeros(len(ids)), 0, layout.mask.sum(-1)
    # Sentences of like length share a batch, so that little of it is padding.
    for rows in torch.argsort(lengths, stable=True).split(batch_size):
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


def _broken(lm: Model, program: Program, ids: Sequence[int]) -> list[tuple[Promise, str]]:
    """What a sentence, START words END, does not do of what is promised: the promises, and what of each."""
    if not program.promises:
        return []
    text = lm.tokenizer.decode(ids)
    return [(promise, name) for promise in program.promises for name in promise.broken(text)]


Held = dict[tuple[Promise, str], Automaton]
"""What a sentence is held to."""


def _keep_promises(
    lm: Model,
    asked: Asked,
    ids: list[list[int]],
    generator: torch.Generator,
    draw: Callable[[Asked], tuple[list[list[int]], Tensor, int]],
) -> int:
    """Put another in the place of each sentence that breaks a promise, until none does; the passes that this took.

    A sentence is held to all that was broken in its place, by one automaton, and so breaks only others the next time. An
    automaton of all that is promised would have thousands of states, and most sentences keep most of it anyway.

    Raises:
        UserError: a sentence still breaks one after `TRIES`.
    """
    held: list[Held] = [{} for _ in ids]
    passes = 0
    for _ in range(TRIES):
        found = [_broken(lm, program, own) for program, own in zip(asked.programs, ids, strict=True)]
        rows = [row for row, broken in enumerate(found) if broken]
        if not rows:
            return passes
        programs = []
        for row in rows:
            held[row] |= {(promise, name): promise.way(name, generator) for promise, name in found[row]}
            try:
                programs.append(_held_to(asked.programs[row], held[row]))
            except UserError:  # too much at once for an automaton, or for a sentence: what is newly broken alone
                held[row] = {key: held[row][key] for key in found[row]}
                programs.append(_held_to(asked.programs[row], held[row]))
        # Each is held to its own, so none takes another's place.
        again, _, more = draw(Asked(programs, list(range(len(rows)))))
        passes += more
        for row, sentence in zip(rows, again, strict=True):
            ids[row] = sentence
    raise UserError(f"After {TRIES} tries a text does not say all that it has to; ask for less.")


def _held_to(program: Program, held: Held) -> Program:
    """The program with an automaton of all that a sentence is held to."""
    what, own = "All that has to be said", [] if program.automaton is None else [program.automaton]
    joint = reduce(lambda a, b: combine(a, b, and_, what), [*own, *held.values()])
    canvas = program.canvas.with_allowed(joint.lengths(program.canvas.max_words), what)
    return replace(program, canvas=canvas, automaton=joint)


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
    assert clamp is not None and steps is not None

    def report(index: int, t: Tensor, z: Tensor, prediction: Prediction) -> None:
        if callback is not None and prediction.logits is not None:
            callback(Step(index, steps, float(t[0]), rows.tolist(), prediction.logits.argmax(-1)))

    if isinstance(clamp, SampledClamp) and clamp.generator is None:
        clamp = replace(clamp, generator=batch.generator)
    denoise: Denoise = clamped(batch.denoise, clamp, batch.vectors)
    shape = (*batch.mask.shape, lm.denoiser.config.embedding_dim)
    z = gaussian_noise(batch.vectors.new_empty(shape), batch.generator)
    with lm.autocast():
        batch.sampler(
            denoise, lm.denoiser.schedule, z, steps, guide=batch.guide, callback=report, generator=batch.generator
        )
    batch.finish()
    for ids, mask in zip(batch.ids.cpu(), batch.mask.cpu(), strict=True):
        yield ids[mask].tolist()
