"""From the names in the configuration to the parts that `generate` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diffusion_lm.control.guidance import Guidance, Tilt
from diffusion_lm.diffusion.clamp import CLAMPS, Clamp
from diffusion_lm.diffusion.samplers import SAMPLERS, Sampler
from diffusion_lm.evaluation.config import EvaluateConfig


def sampler_of(config: EvaluateConfig) -> Sampler | None:
    """The sampler, None for the model's own default."""
    return None if config.sampler is None else SAMPLERS[config.sampler]()


def clamp_of(config: EvaluateConfig, seed: int) -> Clamp | None:
    """The clamp, None for the model's own default; one that draws words draws them by `seed`."""
    if (config.clamp, config.temperature, config.clamp_from) == (None, None, None):
        return None
    options: dict[str, Any] = {}
    if config.clamp_from is not None:
        options["from_time"] = config.clamp_from
    if config.temperature is not None:
        options["temperature"] = config.temperature
    if config.clamp == "sample":
        # A stream of its own: the words must not be drawn with the numbers that the noise is made of.
        options["generator"] = torch.Generator().manual_seed(seed + 1_000_003)
    return CLAMPS[config.clamp or "soft"](**options)


def _tilt(config: EvaluateConfig, task: str) -> Guidance:
    given = {"scale": config.guidance_scale, "limit": config.guidance_limit}
    return Tilt(**{name: value for name, value in given.items() if value is not None})


GUIDANCE: dict[str, Callable[[EvaluateConfig, str], Guidance]] = {
    "default": _tilt,
    "paper": lambda config, task: Guidance.paper(task),
}
"""The ways to follow an energy, by name."""


def guidance_of(config: EvaluateConfig, task: str) -> Guidance:
    """The guidance for a task."""
    return GUIDANCE[config.guidance](config, task)
