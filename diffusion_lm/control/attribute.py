"""Semantic content: a field of the meaning has a value (paper section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from diffusion_lm.control.attribute_model import AttributeModel
from diffusion_lm.control.base import Control, Latents
from diffusion_lm.text.fields import canonical_field, canonical_value, says

if TYPE_CHECKING:
    from diffusion_lm.model.diffusion_lm import DiffusionLM


@final
@dataclass(frozen=True)
class Attribute(Control):
    """The text says that `field` is `value`; energy -log p(field = value | z_t, t) of the latent classifier."""

    field: str
    value: str
    model: AttributeModel | None = None

    def bind(self, lm: DiffusionLM) -> Control:
        """Look the field and the value up and load the model's classifier.

        Raises:
            UserError: if the model has no attribute classifier, or the field or value is unknown to it.
        """
        model = lm.attribute_model()
        field = canonical_field(self.field, model.config.fields)
        value = canonical_value(field, self.value, model.config.fields[field])
        return replace(self, field=field, value=value, model=model)

    def energy(self, latents: Latents) -> Tensor:  # noqa: D102
        if self.model is None:
            raise ValueError("Bind the control to a model first: control.bind(lm).")
        fields = self.model.config.fields
        log_p = latents.read(self.model)[list(fields).index(self.field)]
        return -log_p[:, fields[self.field].index(self.value) + 1]

    def success(self, texts: Sequence[str]) -> Tensor:  # noqa: D102
        return torch.tensor([float(says(text, self.value)) for text in texts])

    def __str__(self) -> str:
        return f"{self.field}={self.value}"
