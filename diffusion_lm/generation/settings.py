"""The settings of sampling and steering, which `generate` and `evaluate` share, and the parts that they name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from diffusion_lm.common import Settings, UserError, device_named, number
from diffusion_lm.control.guidance import Adagrad, Guidance, Proximal, Pull
from diffusion_lm.diffusion.clamp import CLAMPS, COLDEST, HOTTEST
from diffusion_lm.diffusion.samplers import SAMPLERS
from diffusion_lm.generation.decoding import (
    LEAST_POWER,
    MOST_BEAMS,
    MOST_HEAD,
    MOST_PAIRS,
    MOST_POWER,
    MOST_SCALE,
    SHARPEST,
    Decoding,
    Quality,
)


@dataclass(frozen=True)
class SamplingConfig(Settings):
    """How texts are drawn and how controls are followed."""

    quality: Quality = "balanced"
    """How much time what is asked is worth, where no flag below says otherwise: fast (8 to 50 steps), balanced (10 to 200),
    best (14 to 200); -v says what was taken."""
    steps: int | None = number(None, least=1, most=100_000)
    """Denoising steps; null: what fits the controls and the quality."""
    time_power: float | None = number(None, least=LEAST_POWER, most=MOST_POWER)
    """Power of the steps' times, which are equally spaced at 1: below 1 more of them are near t = 1, where words are decided;
    null: 0.5 in 8 steps or fewer of a model that knows pairs, else 1."""
    sampler: Literal["ddpm", "renoise", "ddim", "dpm-solver++"] | None = None
    """How z_s follows from z_t; null: renoise, the paper's formula; ddpm, as its code has it, where the model does not predict
    words or the paper's guidance is followed."""
    clamp: Literal["hard", "soft", "sample", "off"] | None = None
    """How x0_hat commits to words; null: what fits the controls."""
    temperature: float | None = number(None, above=0, least=COLDEST, most=HOTTEST)
    """Temperature of the soft and the sample clamp (sample if none is given): below 1 commits, above 1
    varies; null: 1."""
    clamp_from: float | None = number(None, least=0, most=1)
    """Clamp where t <= clamp_from; null: at every step. It belongs to --clamp."""
    attribute_by: Literal["classifier", "words"] = "classifier"
    """How an attribute is followed: by the classifier, which knows many ways to say a value, or by the value's own
    words, which are never missed."""
    syntax_by: Literal["words", "classifier"] | None = None
    """How parts of speech, trees and spans are followed: by what is counted of words, exactly and at no cost, or by the
    gradient of a classifier, as in the paper; null: words, with the paper's guidance the classifier."""
    guidance: Literal["pull", "proximal", "paper", "adagrad"] | None = None
    """How a classifier is followed: pull (along the gradient, as far as it takes), proximal (to the likeliest point near the
    sampler's own step), paper (the sign steps that the paper's code takes, with its numbers for the task), adagrad (the same as
    the paper's text has it); null: pull where the model predicts words, else proximal."""
    guidance_rate: float | None = number(None, above=0, most=1e6)
    """Size of an update; null: the guidance's own."""
    guidance_steps: int | None = number(None, least=1, most=100_000)
    """Updates a step; null: the guidance's own."""
    guidance_fluency: float | None = number(None, least=0, most=1e6)
    """All but pull: weight of staying near the sampler's own step (the paper's lambda); null: the guidance's own."""
    guide_scale: float | None = number(None, least=0, most=MOST_SCALE)
    """How much a prompt counts: 1 as the model says, above 1 more (classifier-free guidance, one more pass a step); null: 2."""
    length_temperature: float | None = number(None, least=SHARPEST, most=HOTTEST)
    """Temperature at which the number of words is drawn where nothing rules it; null: 1, 0.25 where words are drawn from a
    prompt."""
    pairs: float | None = number(None, least=0, most=MOST_PAIRS)
    """How much the pairs of words that stand side by side tie what is drawn (docs/chain.md), for the sample clamp; 0: words are
    drawn one by one; null: 1 where the model has a table of them, 1.5 in 12 steps or fewer."""
    head: float | None = number(None, least=0, most=MOST_HEAD)
    """How much a causal head, which reads all the words before one, counts beside the pairs (docs/chain.md); 0: not at all; null:
    0.8 where the model has one and takes 6 steps or fewer, or holds tags, a tree or spans and draws words in 12 or fewer; or
    what the head was trained to, in any number of steps (train-control head --heard)."""
    must_say: bool = False
    """Hold each value that a prompt asks for by an automaton too, which never misses; what says another value is written anew."""
    beams: int | None = number(None, least=1, most=MOST_BEAMS)
    """Search for the likeliest text through the causal head, which has read both sides of a gap, and keep so many beginnings of
    it (docs/chain.md): 16 passes, no steps, and little variety; null: words are drawn."""
    candidates: int | None = number(None, least=1, most=1000)
    """Texts that are drawn for each that is wanted, each of a length of its own; the likeliest by the model's bound is kept. With
    beams the lengths that are searched, the likeliest first; null: 1, with beams 3, with beams and a
    prompt 8."""
    batch_size: int = number(64, least=1, most=100_000)
    """Sentences that are denoised together."""
    seed: int = 0
    """Seed of everything that is drawn: the same seed gives the same sentences again."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: an accelerator where there is one."""

    def __post_init__(self) -> None:
        """Refuse settings that do not fit together."""
        super().__post_init__()
        if self.temperature is not None and self.clamp in ("hard", "off"):
            raise UserError(f"The {self.clamp} clamp has no temperature; take --clamp soft or --clamp sample.")
        if self.clamp_from is not None and self.clamp is None:
            raise UserError("clamp_from says when to clamp; say how too: --clamp hard, soft or sample.")
        options = self._options()
        if options and self.guidance is None:
            raise UserError(
                f"guidance_{next(iter(options))} belongs to a guidance; say which, such as --guidance pull."
            )
        if self.guidance == "pull" and "fluency" in options:
            raise UserError("--guidance pull has no guidance_fluency; take proximal, paper or adagrad.")
        if self.syntax_by is None:
            by = "classifier" if self.guidance in ("paper", "adagrad") else "words"
            object.__setattr__(self, "syntax_by", by)
        device_named(self.device)

    def decoding(self, task: str) -> Decoding:
        """What the settings name; None where they name nothing. `task` is what `Guidance.paper` has numbers for."""
        options = _given(temperature=self.temperature, from_time=self.clamp_from)
        clamp = CLAMPS[self.clamp or "sample"](**options) if self.clamp or options else None
        sampler = SAMPLERS[self.sampler]() if self.sampler else None
        guidance = self._guidance(task)
        own = (self.guide_scale, self.length_temperature, self.pairs, self.head, self.quality, self.beams)
        return Decoding(self.steps, self.time_power, sampler, clamp, guidance, *own)

    def _options(self) -> dict[str, Any]:
        return _given(rate=self.guidance_rate, steps=self.guidance_steps, fluency=self.guidance_fluency)

    def _guidance(self, task: str) -> Guidance | None:
        paper = Guidance.paper(task) if self.guidance in ("paper", "adagrad") else None
        known = {"pull": Pull(), "proximal": Proximal(), "paper": paper, "adagrad": paper and Adagrad(**vars(paper))}
        found: Any = known[self.guidance] if self.guidance else None
        return found and replace(found, **self._options())


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
