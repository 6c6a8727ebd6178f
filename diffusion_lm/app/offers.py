"""What each bundled model can be asked for on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffusion_lm.app.request import Request, clean
from diffusion_lm.common import UserError
from diffusion_lm.control.attribute import Attribute, AttributeModel
from diffusion_lm.control.control import CONTROLS
from diffusion_lm.control.leaves import LeafTable
from diffusion_lm.control.prompt import Prompt
from diffusion_lm.control.syntax import SyntaxModel
from diffusion_lm.generation.pipeline import DiffusionLM, bundled_models
from diffusion_lm.generation.settings import SamplingConfig

BY_MENU = (Attribute.task, Prompt.task)
"""The controls that menus of fields and values ask for; each other one has a line to write in."""
SEPARATOR = ","
"""Between the values of a control whose flag may be repeated."""


@dataclass(frozen=True)
class Offer:
    """What one model can be asked for."""

    lm: DiffusionLM
    lines: tuple[str, ...]
    """The controls that have a line to write in, by their registered names."""
    menus: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values to choose from, by field."""
    writes_from: bool = False
    """Whether the menus make a prompt; else they are attributes."""

    @property
    def by_words(self) -> bool:
        """Whether an attribute can be followed by its words, too, and not by the classifier alone."""
        return bool(self.menus) and not self.writes_from and not self.lm.padded

    @property
    def about(self) -> str:
        """What a visitor should know of the model."""
        size = sum(parameter.numel() for parameter in self.lm.denoiser.parameters()) / 1e6
        words = f"{size:.1f} million parameters and {self.lm.tokenizer.vocab_size:,} words of restaurants"
        if self.writes_from:
            return f"{words}. It reads what is to be said as a source, and fills gaps of a length that it chooses."
        if not self.lm.denoiser.predicts_words:
            return f"{words}. It has the paper's own objective, and takes its 200 steps: some ten times as slow."
        return f"{words}. It is held to what you ask by controls alone, in few steps."

    def request(self, model: str, n: float, chosen: Mapping[str, Any], lines: Mapping[str, Any], **how: Any) -> Request:
        """What a visitor's inputs ask of this model; what it does not offer is left out.

        Raises:
            UserError: something is out of bounds.
        """
        texts = dict[str, tuple[str, ...]]()
        said = {name: value for name in self.menus if (value := clean(chosen.get(name)))}
        if said and self.writes_from:
            texts[str(Prompt.task)] = (", ".join(f"{name} = {value}" for name, value in said.items()),)
        elif said:
            texts[str(Attribute.task)] = tuple(f"{name}={value}" for name, value in said.items())
        for name in self.lines:
            written = clean(lines.get(name))
            parts = written.split(SEPARATOR) if CONTROLS[name].repeats else [written]
            if values := tuple(part.strip() for part in parts if part.strip()):
                texts[name] = values
        by = {"attribute_by": "words" if self.by_words and how.get("exact", True) else "classifier"}
        # Where nothing is counted of words, a classifier of tags and constituents is followed.
        if self.lm.has(SyntaxModel) and not self.lm.has(LeafTable):
            by["syntax_by"] = "classifier"
        by["quality"] = clean(how.get("quality")) or SamplingConfig.quality
        must_say = bool(how.get("must_say")) and self.writes_from and bool(said)
        numbers: dict[str, Any] = {name: _whole(name, how[name]) for name in ("seed", "steps") if how.get(name)}
        numbers |= {"temperature": _number("temperature", how["temperature"])} if how.get("temperature") else {}
        if Attribute.task not in texts:
            by.pop("attribute_by")
        settings: dict[str, Any] = {**by, **numbers}
        return Request(model, _whole("n", n), texts, SamplingConfig(must_say=must_say, **settings))


def offers() -> dict[str, Offer]:
    """The offers of the bundled models, loaded; those of the paper's objective, which are slow, come last."""
    found = {name: DiffusionLM.from_pretrained(name) for name in bundled_models()}
    known = {name: lm.asset(AttributeModel).config.fields for name, lm in found.items() if lm.has(AttributeModel)}
    every = next(iter(known.values()), {})
    out = {}
    for name, lm in found.items():
        lines = tuple(each for each in CONTROLS if each not in BY_MENU and _can(lm, each))
        sources = {each: every.get(each, ()) for each in lm.fields} if _can(lm, str(Prompt.task)) else {}
        out[name] = Offer(lm, lines, sources or known.get(name, {}), bool(sources))
    return dict(sorted(out.items(), key=lambda each: (not each[1].lm.denoiser.predicts_words, each[1].writes_from)))


def fields_of(every: Iterable[Offer]) -> list[str]:
    """The fields of all menus, each once."""
    return list(dict.fromkeys(name for offer in every for name in offer.menus))


def _can(lm: DiffusionLM, name: str) -> bool:
    """Whether a model can be held to a control."""
    try:
        return not CONTROLS[name].describe(lm).startswith("no")
    except UserError:
        return False


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a number, not {clean(value)[:20]}.") from None


def _whole(name: str, value: Any) -> int:
    try:
        if float(value) == int(value):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{name} must be a whole number, not {clean(value)[:20] or 'nothing'}.")
