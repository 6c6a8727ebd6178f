"""From the names in the configuration to the parts that `generate` takes."""

from __future__ import annotations

from collections.abc import Callable

from diffusion_lm.control import Attribute, Control, Pos, Said, Span, Tree
from diffusion_lm.control.by_classifier import PosByClassifier, SpanByClassifier, TreeByClassifier
from diffusion_lm.control.guidance import Guidance, Pull
from diffusion_lm.diffusion.clamp import CLAMPS, Clamp
from diffusion_lm.diffusion.samplers import SAMPLERS, Sampler
from diffusion_lm.evaluation.sampling_config import SamplingConfig


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
