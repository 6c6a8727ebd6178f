"""A target of its own for every sentence of a batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.common import UserError
from diffusion_lm.control.canvas import Canvas

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM


@dataclass(frozen=True)
class Latents:
    """All that a control may read of the sampler's state.

    Attributes:
        z: latents z_t, [B, L, D].
        t: time, [B].
        mask: True at positions that exist, [B, L].
        x0_hat: the denoiser's prediction from z_t, [B, L, D].
        logits: of p(w | z_t), [B, L, V].
        vectors: Emb(w) of every word, [V, D].
        generator: source of what a control draws; None for torch's own.
    """

    z: Tensor
    t: Tensor
    mask: Tensor
    x0_hat: Tensor
    logits: Tensor
    vectors: Tensor
    generator: torch.Generator | None = None
    _whole: tuple[Latents, Tensor] | None = field(default=None, repr=False)
    _read: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)

    def rows(self, index: Tensor) -> Latents:
        """Those of some sentences of the batch."""
        z, t, mask, x0_hat, logits = (p[index] for p in (self.z, self.t, self.mask, self.x0_hat, self.logits))
        return Latents(z, t, mask, x0_hat, logits, self.vectors, self.generator, _whole=(self, index))

    def read(self, model: Callable[[Tensor, Tensor, Tensor], list[Tensor]]) -> list[Tensor]:
        """What a classifier says of (z, t, mask); it runs once however many controls and sentences ask."""
        if self._whole is not None:
            whole, index = self._whole
            return [part[index] for part in whole.read(model)]
        if id(model) not in self._read:
            self._read[id(model)] = model(self.z, self.t, self.mask)
        return self._read[id(model)]


class Control(ABC):
    """Something that is wanted of a text. Combine with `&` (both), `|` (either), `~` (not) and `2 * control` (weigh)."""

    reads_prediction = False
    """Whether `energy` reads x0_hat or logits, so that its gradient goes through the denoiser."""

    reweights_last = False
    """Whether `reweight` has to see what all other controls have made of the probabilities."""

    def bind(self, lm: DiffusionLM) -> Control:
        """The control made ready for a model: words looked up, classifiers loaded.

        Raises:
            UserError: if the model cannot be held to this control.
        """
        return self

    def canvas(self, canvas: Canvas) -> Canvas:
        """Hard facts: the number of words, words already known.

        Raises:
            UserError: if they contradict what the canvas already says.
        """
        return canvas

    def drawn(self, n: int, canvas: Canvas, generator: torch.Generator) -> Sequence[Control] | None:
        """A control for each of n sentences, where chance decides what each of them is held to; None where all share one.

        Args:
            n: number of sentences.
            canvas: what is known of all of them.
            generator: source of the draws.
        """
        return None

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:
        """Log p(w | z_t) p(c | w) from log p(w | z_t), up to a constant: [B, L, V] to [B, L, V]."""
        return logits

    def energy(self, latents: Latents) -> Tensor | None:
        """-log p(c | z_t) in nats, [B]; None for a control that has no gradient to follow."""
        return None

    def log_weight(self, texts: Sequence[str]) -> Tensor | None:
        """What a decoded x0_hat is worth in nats, [B], by which sentences are resampled; None for a control without."""
        return None

    def log_evidence(self, logits: Tensor, latents: Latents) -> Tensor | None:
        """Log p(c | z_t), the mean of p(c | w) over the plain p(w | z_t), up to a constant, in nats, [B]; None without one.

        While sentences are open, those of which the same is asked are resampled by it.
        """
        return None

    @abstractmethod
    def success(self, texts: Sequence[str]) -> Tensor:
        """How far each text does what is wanted, in [0, 1], [B]; read off the text alone."""

    @abstractmethod
    def __str__(self) -> str:
        """The control as a flag says it, `food=Japanese`."""

    def rows(self, rows: Sequence[int]) -> Control:
        """The control of some sentences of a batch; itself where all sentences share it."""
        return self

    def parts(self) -> list[Control]:
        """The controls that all have to hold, for a report of each."""
        return [self]

    def joined(self, other: Control) -> Control | None:
        """One control that does what this and another one do, where that is better than `And`."""
        return None

    def __and__(self, other: Control) -> Control:
        """Both."""
        return And(self, other)

    def __or__(self, other: Control) -> Control:
        """Either."""
        return Or(self, other)

    def __invert__(self) -> Control:
        """Not this."""
        return Not(self)

    def __rmul__(self, weight: float) -> Control:
        """This control with its energy times `weight`, which is above 0."""
        return Weighted(self, weight)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


@final
@dataclass(frozen=True)
class And(Control):
    """Both controls: p(a, b | z) = p(a | z) p(b | z), as the paper composes (section 6.2)."""

    a: Control
    b: Control

    @property
    def reads_prediction(self) -> bool:  # type: ignore[override]
        """Whether either part reads the prediction."""
        return self.a.reads_prediction or self.b.reads_prediction

    def bind(self, lm: DiffusionLM) -> Control:
        """Both, bound; controls that can be one are joined, and who has to be last is."""
        controls: list[Control] = []
        for control in self._all():
            joint = ((i, known.joined(control) or control.joined(known)) for i, known in enumerate(controls))
            place, one = next(((i, one) for i, one in joint if one is not None), (len(controls), control))
            controls[place : place + 1] = [one]
        bound = [control.bind(lm) for control in controls]
        return reduce(And, sorted(bound, key=lambda control: control.reweights_last))

    def _all(self) -> list[Control]:
        return [c for part in (self.a, self.b) for c in (part._all() if isinstance(part, And) else [part])]

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return self.b.canvas(self.a.canvas(canvas))

    def drawn(self, n: int, canvas: Canvas, generator: torch.Generator) -> Sequence[Control] | None:  # noqa: D102
        a, b = self.a.drawn(n, canvas, generator), self.b.drawn(n, canvas, generator)
        if a is None and b is None:
            return None
        return [And(*both) for both in zip(a or [self.a] * n, b or [self.b] * n, strict=True)]

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:  # noqa: D102
        return self.b.reweight(self.a.reweight(logits, latents), latents)

    def energy(self, latents: Latents) -> Tensor | None:  # noqa: D102
        return _sum(self.a.energy(latents), self.b.energy(latents))

    def log_weight(self, texts: Sequence[str]) -> Tensor | None:  # noqa: D102
        return _sum(self.a.log_weight(texts), self.b.log_weight(texts))

    def log_evidence(self, logits: Tensor, latents: Latents) -> Tensor | None:  # noqa: D102
        return _sum(self.a.log_evidence(logits, latents), self.b.log_evidence(logits, latents))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return self.a.success(texts) * self.b.success(texts)

    def parts(self) -> list[Control]:  # noqa: D102
        return self.a.parts() + self.b.parts()

    def __str__(self) -> str:
        return f"{self.a} & {self.b}"


def _probability_only(control: Control, canvas: Canvas, sign: str) -> None:
    if control.canvas(canvas) != canvas:
        raise UserError(f"{control} fixes words or their number, which {sign} cannot weigh; combine it with & only.")


def _energy(control: Control, latents: Latents, sign: str) -> Tensor:
    energy = control.energy(latents)
    if energy is None:
        raise UserError(f"{control} has no probability that {sign} could weigh; combine it with & only.")
    return energy


@final
@dataclass(frozen=True)
class Or(Control):
    """At least one of two controls: p(a or b) = 1 - (1 - p(a)) (1 - p(b))."""

    a: Control
    b: Control

    @property
    def reads_prediction(self) -> bool:  # type: ignore[override]
        """Whether either part reads the prediction."""
        return self.a.reads_prediction or self.b.reads_prediction

    def bind(self, lm: DiffusionLM) -> Control:  # noqa: D102
        return Or(self.a.bind(lm), self.b.bind(lm))

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        _probability_only(self.a, canvas, "|")
        _probability_only(self.b, canvas, "|")
        return canvas

    def energy(self, latents: Latents) -> Tensor:  # noqa: D102
        p, q = (torch.exp(-_energy(c, latents, "|")) for c in (self.a, self.b))
        return -torch.log((p + q - p * q).clamp(min=1e-12))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.maximum(self.a.success(texts), self.b.success(texts))

    def __str__(self) -> str:
        return f"({self.a} | {self.b})"


@final
@dataclass(frozen=True)
class Not(Control):
    """Not a control: -log(1 - p(c))."""

    a: Control

    @property
    def reads_prediction(self) -> bool:  # type: ignore[override]
        """Whether the control reads the prediction."""
        return self.a.reads_prediction

    def bind(self, lm: DiffusionLM) -> Control:  # noqa: D102
        return Not(self.a.bind(lm))

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        _probability_only(self.a, canvas, "~")
        return canvas

    def energy(self, latents: Latents) -> Tensor:  # noqa: D102
        # log(1 - e^-E) by expm1 keeps its digits for small E; the floor keeps the gradient finite.
        return -torch.log(-torch.expm1(-_energy(self.a, latents, "~").clamp(min=1e-4)))

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return 1 - self.a.success(texts)

    def __str__(self) -> str:
        return f"~{self.a}"


@final
@dataclass(frozen=True)
class Weighted(Control):
    """A control whose energy counts `weight` times."""

    a: Control
    weight: float

    def __post_init__(self) -> None:
        """Refuse a weight that turns the control round.

        Raises:
            UserError: if it is not a number above 0.
        """
        if not 0 < self.weight < math.inf:
            raise UserError(f"A control's weight is a number above 0, not {self.weight:g}; ~ wants the opposite.")

    @property
    def reads_prediction(self) -> bool:  # type: ignore[override]
        """Whether the control reads the prediction."""
        return self.a.reads_prediction

    @property
    def reweights_last(self) -> bool:  # type: ignore[override]
        """Whether the control has to see what all others have made of the probabilities."""
        return self.a.reweights_last

    def bind(self, lm: DiffusionLM) -> Control:  # noqa: D102
        return Weighted(self.a.bind(lm), self.weight)

    def canvas(self, canvas: Canvas) -> Canvas:  # noqa: D102
        return self.a.canvas(canvas)

    def drawn(self, n: int, canvas: Canvas, generator: torch.Generator) -> Sequence[Control] | None:  # noqa: D102
        drawn = self.a.drawn(n, canvas, generator)
        return drawn and [Weighted(control, self.weight) for control in drawn]

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:  # noqa: D102
        return logits + self.weight * (self.a.reweight(logits, latents) - logits)

    def energy(self, latents: Latents) -> Tensor | None:  # noqa: D102
        energy = self.a.energy(latents)
        return None if energy is None else self.weight * energy

    def log_weight(self, texts: Sequence[str]) -> Tensor | None:  # noqa: D102
        worth = self.a.log_weight(texts)
        return None if worth is None else self.weight * worth

    def log_evidence(self, logits: Tensor, latents: Latents) -> Tensor | None:  # noqa: D102
        evidence = self.a.log_evidence(logits, latents)
        return None if evidence is None else self.weight * evidence

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return self.a.success(texts)

    def __str__(self) -> str:
        return f"{self.weight:g} * {self.a}"


@final
@dataclass(frozen=True, eq=False)
class Each(Control):
    """Controls of sentences, one each or None; what `generate` makes of a list of controls."""

    controls: tuple[Control | None, ...]
    asked: tuple[Control | None, ...] | None = None
    """What was asked of each sentence before chance decided what it is held to; None where nothing was decided."""

    @cached_property
    def groups(self) -> list[tuple[Control, Tensor]]:
        """Each control and the rows that it is wanted of."""
        rows: dict[int, list[int]] = {}
        for row, control in enumerate(self.controls):
            if control is not None:
                rows.setdefault(id(control), []).append(row)
        return [(control, torch.tensor(found)) for found in rows.values() if (control := self.controls[found[0]])]

    @cached_property
    def shared(self) -> tuple[Each, Control] | None:
        """What comes first for each sentence, and what then is the same control for all; None where nothing is."""
        first = self.controls[0]
        if not isinstance(first, And):
            return None
        parts = [c for c in self.controls if isinstance(c, And) and c.b is first.b]
        return (Each(tuple(c.a for c in parts)), first.b) if len(parts) == len(self.controls) else None

    @property
    def reads_prediction(self) -> bool:  # type: ignore[override]
        """Whether any of them reads the prediction."""
        return any(control.reads_prediction for control, _ in self.groups)

    def bind(self, lm: DiffusionLM) -> Each:
        """All of them made ready for a model; one that stands for many sentences is bound once."""
        bound = {id(control): control.bind(lm) for control, _ in self.groups}
        return Each(tuple(None if c is None else bound[id(c)] for c in self.controls))

    def rows(self, rows: Sequence[int]) -> Each:
        """Those of some sentences."""
        asked = None if self.asked is None else tuple(self.asked[row] for row in rows)
        return Each(tuple(self.controls[row] for row in rows), asked)

    @property
    def rivals(self) -> list[Tensor]:
        """The rows of sentences of which the same was asked, which may therefore take each other's place."""
        return [rows for _, rows in Each(self.asked or self.controls).groups]

    def drawn_each(self, max_words: int, generator: torch.Generator) -> Each:
        """The same with what chance decides decided, for every sentence by itself."""
        controls = list(self.controls)
        for control, rows in self.groups:
            drawn = control.drawn(len(rows), control.canvas(Canvas(max_words)), generator)
            for row, own in zip(rows.tolist(), drawn or (), strict=False):
                controls[row] = own
        return Each(tuple(controls), self.controls)

    def canvas(self, canvas: Canvas) -> Canvas:
        """There is no one canvas for all.

        Raises:
            ValueError: always; each control has its own.
        """
        raise ValueError("Each sentence has a canvas of its own; ask its control.")

    def success(self, texts: Sequence[str]) -> Tensor:
        """Of each text by its own control; 1 where nothing is wanted, [B]."""
        wanted = zip(self.controls, texts, strict=True)
        return torch.stack([torch.ones(()) if c is None else c.success([text])[0] for c, text in wanted])

    def __str__(self) -> str:
        return f"{len(self.groups)} controls for {len(self.controls)} sentences"

    def reweight(self, logits: Tensor, latents: Latents) -> Tensor:
        """`Control.reweight`, each on its own sentences."""
        if self.shared is not None:
            # In one go for the whole batch: an automaton for each sentence by itself would take most of the time.
            own, common = self.shared
            return common.reweight(own.reweight(logits, latents), latents)
        out = logits
        for control, index in self.groups:
            index = index.to(logits.device)
            part = logits[index]
            changed = control.reweight(part, latents.rows(index))
            if changed is not part:
                # One copy for all groups: there may be as many as sentences.
                out = logits.clone() if out is logits else out
                out.index_copy_(0, index, changed)
        return out

    def log_weight(self, texts: Sequence[str]) -> Tensor | None:
        """`Control.log_weight`, 0 for a sentence whose control has none; None if all are such."""
        worth = [(rows, control.log_weight([texts[i] for i in rows.tolist()])) for control, rows in self.groups]
        out = torch.zeros(len(texts))
        for rows, values in worth:
            if values is not None:
                out[rows] = values
        return None if all(values is None for _, values in worth) else out

    def log_evidence(self, logits: Tensor, latents: Latents) -> Tensor | None:
        """`Control.log_evidence`, 0 for a sentence whose control has none; None if all are such."""
        return self._by_group(latents, lambda control, rows: control.log_evidence(logits[rows], latents.rows(rows)))

    def energy(self, latents: Latents) -> Tensor | None:
        """`Control.energy`, 0 for a sentence whose control has none; None if all are such."""
        return self._by_group(latents, lambda control, rows: control.energy(latents.rows(rows)))

    def _by_group(self, latents: Latents, value: Callable[[Control, Tensor], Tensor | None]) -> Tensor | None:
        """What each control says of its sentences, put together, [B]."""
        out = None
        for control, rows in self.groups:
            rows = rows.to(latents.z.device)
            values = value(control, rows)
            if values is not None:
                out = latents.z.new_zeros(len(latents.z)) if out is None else out
                out = out.index_add(0, rows, values.to(out.dtype))
        return out
