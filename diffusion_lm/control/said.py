"""Semantic content without a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.automaton import Automaton
from diffusion_lm.control.keyword import phrase_language
from diffusion_lm.control.language import Language
from diffusion_lm.text.fields import canonical_field, canonical_value, says

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM


@final
@dataclass(frozen=True)
class Said(Language):
    """The text says the value itself, as the paper counts success: exact, without a classifier.

    `Attribute` knows that a value has many surface forms; this one has one, and never misses it.
    """

    field: str
    value: str
    automaton: Automaton | None = dataclasses.field(default=None, repr=False, compare=False)

    def bind(self, lm: DiffusionLM) -> Language:
        """Look the field and the value up in the model's attribute classifier, which is not run.

        Raises:
            UserError: if the field or value is unknown, or its words are not in the vocabulary.
        """
        fields = lm.attribute_model().config.fields
        name = canonical_field(self.field, fields)
        value = canonical_value(name, self.value, fields[name])
        automaton = phrase_language(lm, value, f"{name}={value}")
        return dataclasses.replace(self, field=name, value=value, automaton=automaton)

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.tensor([float(says(text, self.value)) for text in texts])

    def __str__(self) -> str:
        return f"{self.field}={self.value}"
