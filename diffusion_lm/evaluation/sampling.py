"""From the names in the configuration to the parts that `generate` takes."""

from __future__ import annotations

from collections.abc import Callable

from diffusion_lm.control import Attribute, Said
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


def guidance_of(config: SamplingConfig, task: str) -> Guidance:
    """The guidance for a task."""
    return GUIDANCE[config.guidance](config, task)


def attribute_of(config: SamplingConfig) -> type[Attribute] | type[Said]:
    """The kind of control that an attribute is."""
    return ATTRIBUTES[config.attribute_by]
