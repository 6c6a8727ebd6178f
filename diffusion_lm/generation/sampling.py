"""From controls to text: programs, their canvases laid out, the wrappers around the denoiser, and the sampler."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from diffusion_lm.common import UserError, check_range, check_seed, own_defaults
from diffusion_lm.control.canvas import Layout
from diffusion_lm.control.control import Control
from diffusion_lm.control.guidance import InnerLoop
from diffusion_lm.control.head import CausalHead
from diffusion_lm.control.pairs import PairTable
from diffusion_lm.control.program import Program
from diffusion_lm.diffusion.clamp import SampledClamp, clamped
from diffusion_lm.diffusion.process import Denoise, Prediction
from diffusion_lm.diffusion.samplers import gaussian_noise
from diffusion_lm.generation.batch import Batch
from diffusion_lm.generation.beams import OnBatch, beam_search
from diffusion_lm.generation.decoding import Decoding
from diffusion_lm.generation.layout import Asked, Model, compiled, lay_out
from diffusion_lm.generation.promises import broken, keep_promises

logger = logging.getLogger(__name__)

WORST = 1e6
"""Nats of a candidate that breaks a promise."""
OVERHEAD = 12.0
"""What each position of a batch costs whatever its size, in sentences."""


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


@torch.no_grad()
@own_defaults()
def generate(
    lm: Model,
    n: int,
    control: Control | Sequence[Control | None] | None,
    decoding: Decoding,
    *,
    candidates: int | None,
    seed: int,
    batch_size: int,
    callback: Callable[[Step], None] | None,
) -> Generation:
    """See `DiffusionLM.generate`."""
    whole = {
        "n": n, "batch_size": batch_size, "steps": decoding.steps, "candidates": candidates, "beams": decoding.beams,
    }  # fmt: skip
    for name, value in whole.items():
        if value is not None:
            check_range(name, value, least=1, most=1_000_000)
            if value != int(value):
                raise UserError(f"{name} must be a whole number, not {value}.")
    check_seed(seed)
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    drawn = 1 if candidates is None or decoding.beams is not None else candidates
    asked = compiled(lm, n, control, generator, drawn)
    _check_followed(asked.programs, decoding)
    decoding = fitted(lm, decoding, asked.programs)
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
    if decoding.beams is not None:
        search = partial(
            beam_search, lm, decoding=decoding, sizes=candidates, generator=generator, batch_size=batch_size
        )
        ids, evaluations = search(asked, on_batch=_reported_to(callback))
        # Each is then searched for by itself, and would often be what another has become.
        evaluations += keep_promises(lm, asked, ids, generator, partial(search, there=ids))
    else:
        draw = partial(_draw, lm, decoding=decoding, generator=generator, batch_size=batch_size)
        ids, nats, evaluations = draw(asked, callback=callback, weigh=drawn > 1)
        if drawn > 1:
            worse = [bool(broken(lm, program, own)) for program, own in zip(asked.programs, ids, strict=True)]
            best = ((nats + WORST * torch.tensor(worse)).view(n, drawn).argmin(1) + drawn * torch.arange(n)).tolist()
            ids = [ids[i] for i in best]
            asked = Asked([asked.programs[i] for i in best], [asked.groups[i] for i in best])
        again = partial(draw, callback=None, weigh=False)
        evaluations += keep_promises(lm, asked, ids, generator, lambda broken: again(broken)[::2])
    texts = [lm.tokenizer.decode(sentence) for sentence in ids]
    words = [lm.tokenizer.words(sentence) for sentence in ids]
    return Generation(ids, texts, words, seed, time.perf_counter() - started, evaluations, decoding)


def _reported_to(callback: Callable[[Step], None] | None) -> OnBatch | None:
    """A search as a callback sees it: of one step, at t = 1."""
    return None if callback is None else lambda rows, ids: callback(Step(0, 1, 1.0, list(rows), ids))


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
        batch = Batch(lm, here, part, decoding, generator)
        for row, sentence in zip(rows.tolist(), _sample(batch, decoding, rows, callback), strict=True):
            ids[row] = sentence
        if weigh:
            nats[rows] = batch.nats()
        evaluations = batch.passes + batch.steered.passes
    return ids, nats, evaluations


def fitted(lm: Model, decoding: Decoding, programs: Sequence[Program]) -> Decoding:
    """How sentences are drawn of this model, with what fits the programs and what was made for it."""
    heard = lm.asset(CausalHead).config.heard if lm.has(CausalHead) else None
    return decoding.fitted(programs, lm.denoiser.predicts_words, lm.has(PairTable), lm.has(CausalHead), heard)


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
            # Of equal costs, as of infinite ones, the longest batch.
            begins.append(min(range(k), key=costs.__getitem__))
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
    batch: Batch, decoding: Decoding, rows: Tensor, callback: Callable[[Step], None] | None
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
