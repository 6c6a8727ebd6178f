"""The settings of sampling and steering, and the parts that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from diffusion_lm.common import UserError, check_seed
from diffusion_lm.control import Attribute, Control, Pos, Said, Span, Tree
from diffusion_lm.control.guidance import Guidance, Pull
from diffusion_lm.control.syntax import PosByClassifier, SpanByClassifier, TreeByClassifier
from diffusion_lm.diffusion.clamp import CLAMPS, Clamp
from diffusion_lm.diffusion.samplers import SAMPLERS, Sampler


@dataclass(frozen=True)
class SamplingConfig:
    """How texts are drawn and how controls are followed."""

    steps: int = 200
    """Denoising steps."""
    sampler: Literal["ddpm", "renoise", "ddim", "dpm-solver++"] | None = None
    """How z_s follows from z_t; null: renoise, the paper's step."""
    clamp: Literal["hard", "soft", "sample", "off"] | None = None
    """How x0_hat commits to words; null: sample for a model that predicts words, else hard."""
    temperature: float | None = None
    """Temperature of the soft and the sample clamp (sample if none is given): below 1 commits, above 1
    varies; null: 1."""
    clamp_from: float | None = None
    """Clamp where t <= clamp_from; null: at every step. It belongs to --clamp."""
    attribute_by: Literal["classifier", "words"] = "classifier"
    """How an attribute is followed: by the classifier, which knows many ways to say a value, or by the value's own
    words, which are never missed."""
    syntax_by: Literal["words", "classifier"] = "words"
    """How parts of speech, trees and spans are followed: by what is counted of words, exactly and at no cost, or by the
    gradient of a classifier, as in the paper."""
    guidance: Literal["default", "paper"] = "default"
    """How a classifier is followed: default (along the gradient), or paper (its sign steps of three updates a
    step, with its numbers for the task)."""
    guidance_rate: float | None = None
    """default guidance: length of an update; null: its own default."""
    guidance_steps: int | None = None
    """default guidance: updates a step; null: its own default."""
    batch_size: int = 64
    """Sentences that are denoised together."""
    seed: int = 0
    """Seed of everything that is drawn: the same seed gives the same sentences again."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: an accelerator where there is one."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}.")
        check_seed(self.seed)
        if self.guidance_steps is not None and self.guidance_steps < 1:
            raise UserError(f"guidance_steps must be at least 1, not {self.guidance_steps}.")
        if self.temperature is not None and self.temperature <= 0:
            raise UserError(f"temperature must be above 0, not {self.temperature}.")
        if self.temperature is not None and self.clamp in ("hard", "off"):
            raise UserError(f"The {self.clamp} clamp has no temperature; take --clamp soft or --clamp sample.")
        if self.clamp_from is not None and self.clamp is None:
            raise UserError("clamp_from says when to clamp; say how too: --clamp hard, soft or sample.")
        if self.guidance != "default" and (self.guidance_rate, self.guidance_steps) != (None, None):
            raise UserError("guidance_rate and guidance_steps belong to --guidance default.")


def sampler_of(config: SamplingConfig) -> Sampler | None:
    """The sampler, None for the model's own default."""
    return None if config.sampler is None else SAMPLERS[config.sampler]()


def clamp_of(config: SamplingConfig) -> Clamp | None:
    """The clamp, None for the model's own default."""
    if (config.clamp, config.temperature, config.clamp_from) == (None, None, None):
        return None
    options = {"temperature": config.temperature, "from_time": config.clamp_from}
    given = {name: value for name, value in options.items() if value is not None}
    return CLAMPS[config.clamp or "sample"](**given)


def _pull(config: SamplingConfig, task: str) -> Guidance:
    default = Pull()
    rate = default.rate if config.guidance_rate is None else config.guidance_rate
    return Pull(default.steps if config.guidance_steps is None else config.guidance_steps, rate)


GUIDANCE: dict[str, Callable[[SamplingConfig, str], Guidance]] = {
    "default": _pull,
    "paper": lambda config, task: Guidance.paper(task),
}
"""The ways to follow an energy, by name."""


ATTRIBUTES: dict[str, type[Attribute] | type[Said]] = {"classifier": Attribute, "words": Said}
"""The kinds of attribute control, by name."""


def pos_of(config: SamplingConfig, tags: str) -> Control:
    """The control for parts of speech."""
    return Pos(tags) if config.syntax_by == "words" else PosByClassifier(of=Pos(tags))


def tree_of(config: SamplingConfig, tree: str) -> Control:
    """The control for a tree."""
    return Tree(tree) if config.syntax_by == "words" else TreeByClassifier(of=Tree(tree))


def span_of(config: SamplingConfig, spans: str) -> Control:
    """The control for spans."""
    return Span(spans) if config.syntax_by == "words" else SpanByClassifier(of=Span(spans))


def guidance_of(config: SamplingConfig, task: str) -> Guidance:
    """The guidance for a task."""
    return GUIDANCE[config.guidance](config, task)


def attribute_of(config: SamplingConfig) -> type[Attribute] | type[Said]:
    """The kind of control that an attribute is."""
    return ATTRIBUTES[config.attribute_by]
