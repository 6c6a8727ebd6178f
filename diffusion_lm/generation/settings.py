"""The settings of sampling and steering, which `generate` and `evaluate` share, and the parts that they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from diffusion_lm.common import Settings, UserError, device_named, number
from diffusion_lm.control.guidance import Guidance, Pull
from diffusion_lm.diffusion.clamp import CLAMPS, COLDEST, HOTTEST
from diffusion_lm.diffusion.samplers import SAMPLERS
from diffusion_lm.generation.sampling import Decoding


@dataclass(frozen=True)
class SamplingConfig(Settings):
    """How texts are drawn and how controls are followed."""

    steps: int | None = number(None, least=1, most=100_000)
    """Denoising steps; null: what fits the controls, 50 to 200."""
    sampler: Literal["ddpm", "renoise", "ddim", "dpm-solver++"] | None = None
    """How z_s follows from z_t; null: renoise, the paper's step."""
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
    syntax_by: Literal["words", "classifier"] = "words"
    """How parts of speech, trees and spans are followed: by what is counted of words, exactly and at no cost, or by the
    gradient of a classifier, as in the paper."""
    guidance: Literal["default", "paper"] = "default"
    """How a classifier is followed: default (along the gradient), or paper (its sign steps of three updates a
    step, with its numbers for the task)."""
    guidance_rate: float | None = number(None, above=0, most=1e6)
    """default guidance: length of an update; null: its own default."""
    guidance_steps: int | None = number(None, least=1, most=100_000)
    """default guidance: updates a step; null: its own default."""
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
        if self.guidance != "default" and (self.guidance_rate, self.guidance_steps) != (None, None):
            raise UserError("guidance_rate and guidance_steps belong to --guidance default.")
        device_named(self.device)

    def decoding(self, task: str) -> Decoding:
        """What the settings name; None where they name nothing. `task` is what `Guidance.paper` has numbers for."""
        options = _given(temperature=self.temperature, from_time=self.clamp_from)
        clamp = CLAMPS[self.clamp or "sample"](**options) if self.clamp or options else None
        pull = Pull(**_given(steps=self.guidance_steps, rate=self.guidance_rate))
        guidance = Guidance.paper(task) if self.guidance == "paper" else pull
        return Decoding(self.steps, SAMPLERS[self.sampler]() if self.sampler else None, clamp, guidance)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
