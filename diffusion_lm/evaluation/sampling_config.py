"""The settings of sampling and steering that `generate` and `evaluate` share.

Nothing heavy may be imported here: the flags of commands are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion_lm.errors import UserError, check_seed


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
            raise UserError(
                f"The {self.clamp} clamp has no temperature; take --clamp soft or --clamp sample."
            )
        if self.clamp_from is not None and self.clamp is None:
            raise UserError("clamp_from says when to clamp; say how too: --clamp hard, soft or sample.")
        if self.guidance != "default" and (self.guidance_rate, self.guidance_steps) != (None, None):
            raise UserError("guidance_rate and guidance_steps belong to --guidance default.")
