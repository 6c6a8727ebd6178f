"""What a control is, the registry of controls, and the algebra that composes them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import and_
from random import Random
from typing import Any, ClassVar, Protocol, final

import torch
from torch import Tensor

from diffusion_lm.annotate.labels import Annotation
from diffusion_lm.common import UserError
from diffusion_lm.control.automaton import Automaton, combine
from diffusion_lm.control.canvas import Canvas
from diffusion_lm.control.program import Asset, Energy, Evidence, Host, Latents, Program, Reward
from diffusion_lm.text.fields import Document


@dataclass(frozen=True)
class Target:
    """What `evaluate` asks for, and where it stands: two lines may ask for the same."""

    value: str
    """As the flag of the control takes it: "food=Japanese", "DET NOUN PUNCT", "5:8:PP"."""
    line: int | None = None
    words: tuple[str, ...] = ()
    """Of the human sentence that it was taken from, where the file has them."""
    references: tuple[str, ...] = ()
    """What people wrote for it, where the file has it."""

    def __str__(self) -> str:
        return self.value if self.line is None else f"{self.line}: {self.value}"


class Ways(Protocol):
    """How controls are followed that can be in more than one way, as `SamplingConfig` has it."""

    @property
    def attribute_by(self) -> str: ...  # noqa: D102

    @property
    def syntax_by(self) -> str | None: ...  # noqa: D102

    @property
    def must_say(self) -> bool: ...  # noqa: D102


class Control(ABC):
    """Something that is wanted of a text. Combine with `&` (both), `|` (either), `~` (not) and `2 * control` (weigh).

    A subclass with a name is registered: a flag of `generate`, a task of `evaluate`, a line of `info`.
    """

    task: ClassVar[str | None] = None
    """The name that it is registered under."""
    flag: ClassVar[str] = ""
    """Of `generate`: the name, unless it is given another."""
    help: ClassVar[str] = ""
    """Of the flag."""
    repeats: ClassVar[bool] = False
    """Whether the flag may be repeated."""
    prompts_are_texts: ClassVar[bool] = False
    """Whether the symbols of `prompt` are words, some of which are rare."""
    example: ClassVar[str] = ""
    """A line of a file of targets; empty for a control that is no task of `evaluate`."""

    def __init_subclass__(cls, name: str | None = None, flag: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if name is not None:
            cls.task, cls.flag = name, flag or name
            CONTROLS[name] = cls

    @abstractmethod
    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:
        """What is wanted of each sentence of a batch, of which the canvases say what is already known.

        Raises:
            UserError: if the model cannot be held to this control, or it contradicts what is known.
        """

    @abstractmethod
    def success(self, texts: Sequence[str]) -> Tensor:
        """How far each text does what is wanted, in [0, 1], [B]; read off the text alone."""

    def __str__(self) -> str:
        """The control as a flag says it, `length=12`: its first field is the flag's value."""
        return f"{self.flag or None}={next(iter(vars(self).values()), '')}"

    @property
    def draws(self) -> bool:
        """Whether chance decides what each sentence is held to, within what all other controls leave possible."""
        return False

    def parts(self) -> list[Control]:
        """The controls that all have to hold, for a report of each."""
        return [self]

    def merged(self, other: Control) -> Control | None:
        """One control that does what this and another one do, where that is better than both side by side."""
        return None

    @classmethod
    def of_texts(cls, texts: Sequence[str], ways: Ways) -> Control:
        """The control that the values of its flag ask for."""
        return reduce(and_, (cls.of_text(text, ways) for text in texts))

    @classmethod
    def of_text(cls, text: str, ways: Ways) -> Control:
        """The control that one value of its flag asks for; a `UserError` if it is none that it takes."""
        return cls(text)  # type: ignore[call-arg]

    @classmethod
    def of_target(cls, target: Target, ways: Ways) -> Control:
        """The control that a target asks for."""
        return cls.of_text(target.value, ways)

    @classmethod
    def describe(cls, host: Host) -> str:
        """What a model can be asked for, for `info`; a `UserError` says why it cannot be."""
        return "yes"

    @classmethod
    def assets(cls, ways: Ways) -> list[type[Asset]]:
        """What the texts depend on beyond the language model, where the model has it."""
        return []

    @classmethod
    def targets_of(cls, documents: Callable[[], Iterable[Document]]) -> list[Target] | None:
        """The targets of `evaluate` that a split of the corpus names; None where it names none."""
        return None

    @classmethod
    def targets(cls, host: Host) -> list[Target]:
        """The targets of `evaluate` where neither a file nor the corpus names them; a `UserError` if there are none."""
        task = cls.task
        raise UserError(f"The task {task} needs a file of targets, --targets.{task} FILE; a line is {cls.example}.")

    @classmethod
    def target(cls, record: Any, line: int) -> Target:
        """The target of a line of a file, which is JSON; a `ValueError` says why it is none."""
        value = record.get(cls.task) if isinstance(record, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"it has no text under the key {cls.task}")
        return Target(value, line, words_of_record(record))

    @classmethod
    def prepared(cls, target: Target, host: Host) -> Target:
        """The target as the model can be asked for it; a `UserError` if it cannot."""
        return target

    @classmethod
    def answer(cls, target: Target, text: str) -> str:
        """The part of a text that is held against the target's references."""
        return text

    @classmethod
    def paper_success(cls, target: Target, texts: Sequence[str]) -> list[float] | None:
        """Success as the paper's evaluator counts it, which rewrites a text before it scores it; None without one."""
        return None

    @classmethod
    def fulfilled(cls, document: Document, labels: Annotation) -> list[str]:
        """All values that a sentence of an annotated corpus fulfils: what targets are drawn and baselines trained from."""
        return []

    @classmethod
    def lessons(cls, document: Document, labels: Annotation) -> list[tuple[str, str]]:
        """All that a baseline learns from a sentence: values, and what is to be written for each, here the text itself."""
        return [(value, document.text) for value in cls.fulfilled(document, labels)]

    @classmethod
    def completed(cls, target: Target, written: str) -> str:
        """The whole text where a baseline has written what its lessons have."""
        return written

    @classmethod
    def draw(cls, document: Document, labels: Annotation, rng: Random) -> dict[str, Any] | None:
        """A line of a file of targets that a sentence fulfils, less its words; None where it fulfils none."""
        values = cls.fulfilled(document, labels)
        return {str(cls.task): rng.choice(values)} if values else None

    @classmethod
    def prompt(cls, value: str) -> list[tuple[str, int]]:
        """A value as symbols for an autoregressive model, each with the number of words before the one it speaks of."""
        return [(f"{cls.task}={value}", 0)]

    def __and__(self, other: Control) -> Control:
        return And(self, _a_control(other))

    def __or__(self, other: Control) -> Control:
        return Or(self, _a_control(other))

    def __invert__(self) -> Control:
        return Not(self)

    def __rmul__(self, weight: float) -> Control:
        """This control with its likelihood to the power `weight`, which is above 0."""
        return Weighted(self, weight)


CONTROLS: dict[str, type[Control]] = {}


def asked_by(texts: Mapping[str, Sequence[str]], ways: Ways) -> dict[str, Control]:
    """What the values of flags ask for, by the registered name of their control, in the order of the registry."""
    return {name: kind.of_texts(texts[name], ways) for name, kind in CONTROLS.items() if texts.get(name)}


def together(controls: Iterable[Control]) -> Control | None:
    """All of several controls at once; None where there is none."""
    found = list(controls)
    return reduce(and_, found) if found else None


def _a_control(other: object) -> Control:
    if not isinstance(other, Control):
        raise UserError(f"& and | combine controls, such as Keyword('pub') & Length(9); {other!r} is none.")
    return other


def words_of_record(record: Any) -> tuple[str, ...]:
    """The words of the sentence that a target was taken from, under the key `words_`, where it has them.

    START, END and the line break that ends the original's texts are no words. A `ValueError` if it is no list of words.
    """
    words = record.get("words_", []) if isinstance(record, dict) else []
    if not isinstance(words, list) or not all(isinstance(word, str) and word and "\0" not in word for word in words):
        raise ValueError("it has no list of words under the key words_")
    if words[:1] == ["START"] and words[-1:] == ["END"]:
        words = words[1:-1]
    return tuple(word for word in words if word != "\n")


def _together(programs: Iterable[tuple[Program, Program]], what: str) -> Iterator[Program]:
    """What both of two programs want, the second having been compiled on the first one's canvas; `what` names them."""
    known: dict[tuple[int, int], Automaton] = {}
    for a, b in programs:
        automaton, canvas = a.automaton or b.automaton, b.canvas
        if a.automaton and b.automaton:
            key = id(a.automaton), id(b.automaton)
            if key not in known:
                known[key] = combine(a.automaton, b.automaton, lambda one, other: one and other, what)
            automaton = known[key]
            canvas = canvas.with_allowed(automaton.lengths(canvas.max_words), what)
        columns, evidence = a.columns + b.columns, a.evidence + b.evidence
        rest = a.energies + b.energies, a.rewards + b.rewards, a.promises + b.promises
        yield Program(canvas, columns, evidence, automaton, *rest)


@final
@dataclass(frozen=True)
class And(Control):
    """Both controls: p(a, b | z) = p(a | z) p(b | z), as the paper composes (section 6.2)."""

    a: Control
    b: Control

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:
        """One after another, each on the canvas that the last one leaves; what draws comes last."""
        first, *rest = sorted(self._merged(), key=lambda control: control.draws)
        programs = first.compile(host, canvases, generator)
        for control in rest:
            more = control.compile(host, [program.canvas for program in programs], generator)
            programs = list(_together(zip(programs, more, strict=True), str(self)))
        return programs

    def _all(self) -> list[Control]:
        return [c for part in (self.a, self.b) for c in (part._all() if isinstance(part, And) else [part])]

    def _merged(self) -> list[Control]:
        controls: list[Control] = []
        for control in self._all():
            joint = ((i, known.merged(control) or control.merged(known)) for i, known in enumerate(controls))
            place, one = next(((i, one) for i, one in joint if one is not None), (len(controls), control))
            controls[place : place + 1] = [one]
        return controls

    @property
    def draws(self) -> bool:  # noqa: D102
        return self.a.draws or self.b.draws

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return self.a.success(texts) * self.b.success(texts)

    def parts(self) -> list[Control]:  # noqa: D102
        return self.a.parts() + self.b.parts()

    def __str__(self) -> str:
        return f"{self.a} & {self.b}"


def _by_formula(formula: Callable[..., Tensor], sign: str, controls: Sequence[Control], *asked: Any) -> list[Program]:
    """Programs whose one energy is a formula of those of some controls, compiled for what is `asked`.

    A `UserError` if one has more than energies: no formula for "either" and "not" speaks of anything but a probability.
    """
    canvases, compiled = asked[1], [control.compile(*asked) for control in controls]
    for control, programs in zip(controls, compiled, strict=True):
        if not all(p.is_a_probability(canvas) for p, canvas in zip(programs, canvases, strict=True)):
            raise UserError(f"{control} has no probability that {sign} could weigh; combine it with & only.")

    @cache  # one object for all sentences that share their energies, so that a batch computes it once
    def energy(*parts: tuple[Energy, ...]) -> Energy:
        def of(latents: Latents) -> Tensor:
            return formula(*(torch.stack([each.terms * each.of(latents) for each in part]).sum(0) for part in parts))

        return Energy(of, any(each.reads_prediction for part in parts for each in part))

    return [
        Program(canvas, energies=(energy(*(program.energies for program in row)),))
        for canvas, *row in zip(canvases, *compiled, strict=True)
    ]


def _either(a: Tensor, b: Tensor) -> Tensor:
    p, q = torch.exp(-a), torch.exp(-b)
    return -torch.log((p + q - p * q).clamp(min=1e-12))


def _opposite(a: Tensor) -> Tensor:
    # log(1 - e^-E) by expm1 keeps its digits for small E; the floor keeps the gradient finite.
    return -torch.log(-torch.expm1(-a.clamp(min=1e-4)))


@final
@dataclass(frozen=True)
class Or(Control):
    """At least one of two controls: p(a or b) = 1 - (1 - p(a)) (1 - p(b))."""

    a: Control
    b: Control

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        return _by_formula(_either, "|", (self.a, self.b), host, canvases, generator)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.maximum(self.a.success(texts), self.b.success(texts))

    def __str__(self) -> str:
        return f"({self.a} | {self.b})"


@final
@dataclass(frozen=True)
class Not(Control):
    """Not a control: -log(1 - p(c))."""

    a: Control

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:  # noqa: D102
        return _by_formula(_opposite, "~", (self.a,), host, canvases, generator)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return 1 - self.a.success(texts)

    def __str__(self) -> str:
        return f"~{self.a}"


@final
@dataclass(frozen=True)
class Weighted(Control):
    """A control whose likelihood counts `weight` times."""

    a: Control
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise UserError(f"A control's weight is a number above 0, not {self.weight:g}; ~ wants the opposite.")

    def compile(self, host: Host, canvases: Sequence[Canvas], generator: torch.Generator) -> list[Program]:
        """The control's programs, scaled; a `UserError` if the control never misses, so that no weight changes it."""
        programs = self.a.compile(host, canvases, generator)
        if any(program.automaton or program.promises for program in programs):
            raise UserError(f"{self.a} is never missed, so a weight changes nothing; leave {self.weight:g} * out.")

        @cache  # one object for all sentences that share one
        def energy(each: Energy) -> Energy:
            return Energy(lambda latents: self.weight * each.of(latents), each.reads_prediction, each.terms)

        @cache
        def reward(each: Reward) -> Reward:
            return lambda texts: self.weight * each(texts)

        return [
            replace(
                program,
                columns=tuple(self.weight * columns for columns in program.columns),
                evidence=tuple(Evidence(self.weight * each.power, each.columns) for each in program.evidence),
                energies=tuple(map(energy, program.energies)),
                rewards=tuple(map(reward, program.rewards)),
            )
            for program in programs
        ]

    @property
    def draws(self) -> bool:  # noqa: D102
        return self.a.draws

    def merged(self, other: Control) -> Control | None:
        """None; a `UserError` if it would be one with the other, which has a weight of its own, or must not stand beside it."""
        if self.a.merged(other) or other.merged(self.a):
            raise UserError(f"{self} and {other} count as one; weigh both, {self.weight:g} * (a & b), or neither.")
        return None

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return self.a.success(texts)

    def parts(self) -> list[Control]:  # noqa: D102
        return self.a.parts() if len(self.a.parts()) > 1 else [self]

    def __str__(self) -> str:
        return f"{self.weight:g} * {self.a}"
