"""A target of its own for every sentence of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.base import And, Control, Latents
from diffusion_lm.control.canvas import Canvas

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM


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
        return [
            (control, torch.tensor(found)) for found in rows.values() if (control := self.controls[found[0]])
        ]

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
        worth = [
            (rows, control.log_weight([texts[i] for i in rows.tolist()])) for control, rows in self.groups
        ]
        out = torch.zeros(len(texts))
        for rows, values in worth:
            if values is not None:
                out[rows] = values
        return None if all(values is None for _, values in worth) else out

    def log_evidence(self, logits: Tensor, latents: Latents) -> Tensor | None:
        """`Control.log_evidence`, 0 for a sentence whose control has none; None if all are such."""
        return self._by_group(
            latents, lambda control, rows: control.log_evidence(logits[rows], latents.rows(rows))
        )

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
