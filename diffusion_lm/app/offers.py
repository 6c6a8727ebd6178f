"""What each bundled model can be asked for on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffusion_lm.app.request import OPEN_TO_VISITORS, Request, clean
from diffusion_lm.common import UserError
from diffusion_lm.control.attribute import Attribute, AttributeModel
from diffusion_lm.control.control import CONTROLS
from diffusion_lm.control.prompt import Prompt
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
        # The paper's layout knows neither automata nor what is counted of words; its classifiers do.
        by = {"attribute_by": "words" if self.by_words and how.pop("exact", True) else "classifier"}
        by |= {"syntax_by": "classifier"} if self.lm.padded else {}
        must_say = bool(how.pop("must_say", False)) and self.writes_from and bool(said)
        numbers = {name: _whole(name, how[name]) for name in ("seed", "steps") if how.get(name)}
        numbers |= {"temperature": float(how["temperature"])} if how.get("temperature") else {}
        settings = {name: value for name, value in {**by, **numbers}.items() if name in OPEN_TO_VISITORS}
        if Attribute.task not in texts:
            settings.pop("attribute_by")
        return Request(model, _whole("n", n), texts, SamplingConfig(must_say=must_say, **settings))


def offers() -> dict[str, Offer]:
    """The offers of the bundled models, loaded; those that can be asked for most come first."""
    found = {name: DiffusionLM.from_pretrained(name) for name in bundled_models()}
    known = {name: lm.asset(AttributeModel).config.fields for name, lm in found.items() if lm.has(AttributeModel)}
    every = next(iter(known.values()), {})
    out = {}
    for name, lm in found.items():
        lines = tuple(each for each in CONTROLS if each not in BY_MENU and _can(lm, each))
        sources = {each: every.get(each, ()) for each in lm.fields} if _can(lm, str(Prompt.task)) else {}
        out[name] = Offer(lm, lines, sources or known.get(name, {}), bool(sources))
    return dict(sorted(out.items(), key=lambda each: (each[1].writes_from, -len(each[1].lines))))


def fields_of(every: Iterable[Offer]) -> list[str]:
    """The fields of all menus, each once."""
    return list(dict.fromkeys(name for offer in every for name in offer.menus))


def _can(lm: DiffusionLM, name: str) -> bool:
    """Whether a model can be held to a control."""
    try:
        return not CONTROLS[name].describe(lm).startswith("no")
    except UserError:
        return False


def _whole(name: str, value: Any) -> int:
    try:
        if float(value) == int(value):
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{name} must be a whole number, not {clean(value)[:20] or 'nothing'}.")
