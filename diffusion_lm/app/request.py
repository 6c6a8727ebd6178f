"""What a visitor asks for, within bounds: the control that it means, and the same as a command and as Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from diffusion_lm.common import Settings, UserError, number
from diffusion_lm.control.control import CONTROLS, And, Control, asked_by, together
from diffusion_lm.control.guidance import COMPOSITION
from diffusion_lm.generation.settings import SamplingConfig

MOST_SENTENCES, MOST_STEPS = 8, 200
MOST_TEXTS = 8
"""Values of one control."""
MOST_CHARACTERS = 600
"""Of all that is written for one control."""
OPEN_TO_VISITORS = ("quality", "steps", "temperature", "seed", "attribute_by", "syntax_by", "must_say")
"""The settings that the page may change; all others stay at their defaults."""


@dataclass(frozen=True)
class Request(Settings):
    """One request: which model writes how many sentences, held to what, drawn how.

    Raises:
        UserError: something is out of bounds; the sentence says what.
    """

    model: str
    """Name of a bundled model."""
    n: int = number(4, least=1, most=MOST_SENTENCES)
    """Number of sentences."""
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is asked of each control, by the control's registered name, as its flag takes it."""
    settings: SamplingConfig = field(default_factory=SamplingConfig)
    """How texts are drawn and controls followed."""

    def __post_init__(self) -> None:
        """Refuse what is beyond the page's bounds."""
        super().__post_init__()
        if (self.settings.steps or 1) > MOST_STEPS:
            raise UserError(f"This page takes at most {MOST_STEPS} steps, not {self.settings.steps}.")
        for name, texts in self.texts.items():
            if name not in CONTROLS:
                raise UserError(f"There is no control {name!r}; the controls are {', '.join(CONTROLS)}.")
            if len(texts) > MOST_TEXTS or sum(map(len, texts)) > MOST_CHARACTERS:
                most = f"{MOST_TEXTS} values of {MOST_CHARACTERS} characters together"
                raise UserError(f"This page takes at most {most} for {name}; ask for less.")

    def control(self) -> Control | None:
        """All that is asked for, joined by `&`; None for free sentences."""
        return together(asked_by(self.texts, self.settings).values())

    def decoding(self) -> dict[str, Any]:
        """The keywords of `DiffusionLM.generate` that differ from what it does by itself."""
        given, usual = vars(self.settings.decoding(COMPOSITION)), vars(SamplingConfig().decoding(COMPOSITION))
        return {name: value for name, value in given.items() if value != usual[name]}

    def command(self) -> str:
        """The command line that writes the same sentences."""
        words = ["diffusion-lm", "generate", "--model", self.model, *_flag("n", str(self.n))]
        for name, kind in CONTROLS.items():  # in whose order the command line reads them
            for text in self.texts.get(name, ()):
                words += _flag(kind.flag or name, _one_item(text) if kind.repeats else text)
        usual = SamplingConfig()
        for name in OPEN_TO_VISITORS:
            value = getattr(self.settings, name)
            if name == "seed" or value != getattr(usual, name):
                words += _flag(name, str(value).lower() if isinstance(value, bool) else str(value))
        return shlex.join(words)

    def python(self) -> str:
        """The Python program that writes the same sentences."""
        parts, keywords = terms(self.control()), self.decoding()
        imports = ["from diffusion_lm import DiffusionLM"]
        if parts:
            names = sorted({type(part).__name__ for part in parts})
            imports.append(f"from diffusion_lm.control import {', '.join(names)}")
        modules: dict[str, list[str]] = {}
        for value in keywords.values():
            if type(value).__module__ != "builtins":
                modules.setdefault(type(value).__module__, []).append(type(value).__name__)
        imports += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(modules.items())]
        lines = [*imports, "", f"lm = DiffusionLM.from_pretrained({code(self.model)})"]
        if parts:
            lines.append(f"control = {' & '.join(map(code, parts))}")
        options = "".join(f"{name}={code(value)}, " for name, value in keywords.items())
        asked = "control, " if parts else ""
        lines.append(f'print(*lm.generate({self.n}, {asked}{options}seed={self.settings.seed}), sep="\\n")')
        return "\n".join(lines) + "\n"


def clean(text: object) -> str:
    """A visitor's text on one line, without signs that no sentence has."""
    written = "" if text is None else str(text)
    return " ".join("".join(sign if sign.isprintable() else " " for sign in written).split())


def code(value: object) -> str:
    """A value as Python; of a dataclass the arguments that are not its defaults."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # as the house writes text; Python reads it the same
    if not hasattr(value, "__dataclass_fields__"):
        return repr(value)
    given, by_name = [], False
    for each in fields(value):  # type: ignore[arg-type]
        own = getattr(value, each.name)
        if not each.compare or not each.init or own == _default(each):
            by_name = True
            continue
        given.append(f"{each.name}={code(own)}" if by_name or each.kw_only else code(own))
    return f"{type(value).__name__}({', '.join(given)})"


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def terms(control: Control | None) -> list[Control]:
    """The controls that `&` joins, in their order, however they are nested: a model is held to them in the same way."""
    if isinstance(control, And):
        return [*terms(control.a), *terms(control.b)]
    return [] if control is None else [control]


def _flag(name: str, value: str) -> list[str]:
    """A flag and its value; as one word where the value would else look like a flag."""
    dashes = f"-{name}" if len(name) == 1 else f"--{name}"
    return [f"{dashes}={value}"] if value.startswith("-") else [dashes, value]


def _one_item(text: str) -> str:
    """A value of a flag that repeats; in brackets of its own where it would else be read as a list."""
    return json.dumps([text], ensure_ascii=False) if text.startswith("[") and text.endswith("]") else text
