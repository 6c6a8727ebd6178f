"""How sentences are drawn: steps, sampler, clamp and guidance, and which of them fit what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from diffusion_lm.common import UserError, check_range
from diffusion_lm.control.guidance import Guidance, InnerLoop, Proximal, Pull
from diffusion_lm.control.program import Program
from diffusion_lm.diffusion.clamp import HOTTEST, Clamp, HardClamp, NoClamp, SampledClamp, SoftClamp
from diffusion_lm.diffusion.samplers import Ancestral, Renoise, Sampler

SHARPEST = 0.1
"""Least temperature of lengths; lower, all that fit the rest of what is asked might be as good as impossible."""

MOST_PAIRS, MOST_HEAD, MOST_SCALE, MOST_BEAMS = 10.0, 10.0, 100.0, 1000
LEAST_POWER, MOST_POWER = 0.1, 10.0
RANGES = {
    "time_power": (LEAST_POWER, MOST_POWER),
    "guide_scale": (0, MOST_SCALE),
    "length_temperature": (SHARPEST, HOTTEST),
    "pairs": (0, MOST_PAIRS),
    "head": (0, MOST_HEAD),
}
"""What a number may be, where one is named."""
DRAWING = {
    "steps": "--steps",
    "time_power": "--time_power",
    "sampler": "--sampler",
    "clamp": "--clamp and --temperature",
    "guidance": "--guidance",
    "pairs": "--pairs",
    "head": "--head",
}
"""What belongs to steps in which words are drawn, and to no search."""
FEW = 30
"""Steps up to which words are drawn together unless a flag says so."""
HEADED, WARM, HASTE = 0.8, 1.3, 6
"""How much a causal head counts and how much higher the temperature then is, since what two agree on is sharper than either; and
steps of free text up to which it is asked: a word after the other it takes time, and a few steps more are the better bargain."""
FEWER, WARMER = (12, 8), 1.08
"""Steps up to which they are tied harder, since later steps repair less, and more of them are near t = 1; the temperature that
undoes how much sharper that is; and steps up to which still more of them are near t = 1."""
Quality = Literal["fast", "balanced", "best"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
"""How much time what is asked is worth: the number of steps, where none is named."""


@dataclass(frozen=True)
class Decoding:
    """How sentences are drawn; None where what is asked decides."""

    steps: int | None = None
    """Denoiser calls."""
    time_power: float | None = None
    """Power of the equally spaced times of the steps: below 1 more of them are near t = 1, where words are decided."""
    sampler: Sampler | None = None
    """How z_t becomes z_s."""
    clamp: Clamp | None = None
    """What x0_hat commits to."""
    guidance: Guidance | None = None
    """How energies are followed."""
    guide_scale: float | None = None
    """What the model says without a source, plus so many times what the source changes (Ho and Salimans 2022)."""
    length_temperature: float | None = None
    """Temperature at which the number of words, of a text or of its gaps, is drawn."""
    pairs: float | None = None
    """How much what stands side by side ties the words that are drawn, 1 as on dev text; 0: they are drawn one by one."""
    head: float | None = None
    """How much a causal head, which reads all words before one, counts beside the pairs; 0: not at all."""
    quality: Quality | None = None
    """How much time it is worth; what is named above beats it."""
    beams: int | None = None
    """How many of the likeliest beginnings of a text a search through the causal head keeps, in place of all steps."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and a quality that is none."""
        if self.quality not in (None, *QUALITIES):
            raise UserError(f"There is no quality {self.quality!r}; give one of: {', '.join(QUALITIES)}.")
        for name, (least, most) in RANGES.items():
            if (value := getattr(self, name)) is not None:
                check_range(name, value, least=least, most=most)
        if self.beams is not None:
            check_range("beams", self.beams, least=1, most=MOST_BEAMS)

    def fitted(
        self,
        programs: Sequence[Program],
        predicts_words: bool,
        has_pairs: bool = False,
        has_head: bool = False,
        heard: float | None = None,
    ) -> Decoding:
        """The same with what fits the programs, as docs/measurements.md has it.

        A model that knows pairs draws sentences as wholes, and few steps do (docs/chain.md). One by one, words of free text are
        closest to human text in many steps, and where only an automaton, the canvas or a gradient holds it, at a lower
        temperature or in fewer. Where single words are held (tags, trees, spans), averaging those that are still possible lets a
        sentence settle. What is written from a source leaves less out one by one, at a lower temperature and a larger scale,
        and if it is not much shorter than such texts are. A head that is to be `heard` so much is heard in any number of steps of
        words that are drawn.
        """
        written_from = any(program.canvas.source for program in programs)
        scale = (2.0 if written_from else 1.0) if self.guide_scale is None else self.guide_scale
        if self.beams is not None:
            return self._searching(scale)
        quality = QUALITIES.index(self.quality or "balanced")
        sampler: Sampler = Renoise()
        moved = any(program.energies or program.rewards for program in programs)
        held = any(program.columns for program in programs)
        followed = any(program.automaton for program in programs)
        # Single words that are held are averaged over, but in few steps drawn, where a head is heard too.
        averaged = held and self.clamp is None and not (has_head and self.quality == "fast" and self.steps is None)
        tied = has_pairs and self._may_tie and not (written_from or moved or averaged)
        power, head = 1.0, self.head or 0.0
        if not predicts_words or isinstance(self.guidance, InnerLoop):
            # The posterior keeps what a gradient has moved; noising afresh forgets it (docs/paper.md).
            steps, clamp = (50, 200, 200), HardClamp()  # type: tuple[int, ...], Clamp
            sampler, tied = Ancestral(), False
        elif tied:
            steps = (10 if held else 8, 14 if held or followed else 10, 14)
            few, warmth = self.steps or steps[quality], 1.0
            if has_head and self.head is None and heard is not None:
                head = heard
            elif has_head and self.head is None and few <= (FEWER[0] if held else HASTE):
                head, warmth = HEADED, 1.0 if held else WARM
            elif few <= FEWER[0] and not held:
                warmth, power = WARMER, 0.75
            clamp = SampledClamp(temperature=warmth * (0.8 if followed and not held else 1.0))
        elif held:
            steps, clamp = (20, 76, 100), SoftClamp(temperature=0.7)
            power = (0.6, 1.0, 1.0)[quality]
        elif followed:
            steps, clamp = (20, 50, 50), SampledClamp(temperature=0.7)
        elif written_from:
            steps, clamp = (16, 40, 100), SampledClamp(temperature=0.5)
        elif moved:
            steps, clamp = (50, 100, 200), SampledClamp()
        elif any(program.canvas.words or program.canvas.template for program in programs):
            steps, clamp = (50, 100, 200), SampledClamp(temperature=0.9)
        else:
            steps, clamp = (50, 200, 200), SampledClamp()
        number = self.steps or steps[quality]
        guidance = self.guidance or (Pull() if predicts_words else Proximal())
        length = (0.25 if written_from else 1.0) if self.length_temperature is None else self.length_temperature
        fewer, fewest = (tied and number <= most for most in FEWER)
        pairs = (1.5 if fewer else float(tied)) if self.pairs is None else self.pairs
        if self.time_power is not None:
            power = self.time_power
        elif fewest:
            power = 0.5
        own = (self.sampler or sampler, self.clamp or clamp, guidance, scale, length, pairs, head)
        return Decoding(number, power, *own, QUALITIES[quality])

    def _searching(self, scale: float) -> Decoding:
        """The same with what a search takes; a `UserError` if something is named that it has no part for."""
        for name, flag in DRAWING.items():
            if getattr(self, name) is not None:
                raise UserError(
                    f"Beams read what the causal head says at t = 1 and neither draw nor step; leave {flag} out, or --beams."
                )
        length = 1.0 if self.length_temperature is None else self.length_temperature
        return Decoding(1, 1.0, Renoise(), NoClamp(), Pull(), scale, length, 0.0, 0.0, self.quality, self.beams)

    @property
    def _may_tie(self) -> bool:
        """Whether words are drawn, each step from noise of its own, and in few steps: in many, pairs would count too often."""
        draws = self.clamp is None or isinstance(self.clamp, SampledClamp)
        return draws and self.pairs != 0 and isinstance(self.sampler, Renoise | None) and (self.steps or 0) <= FEW

    def __str__(self) -> str:
        if self.beams is not None:
            return f"{self.beams} beams, guide scale {self.guide_scale}, length temperature {self.length_temperature}"
        numbers = ", ".join(f"{name.replace('_', ' ')} {getattr(self, name)}" for name in RANGES)
        return f"{self.steps} steps, {self.sampler}, {self.clamp}, {self.guidance}, {numbers}"
