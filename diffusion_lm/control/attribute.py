"""Semantic content: a field of the meaning has a value (paper section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from diffusion_lm.control.control import Control, Latents
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.model.transformer import Transformer
from diffusion_lm.store import Kind, load, save
from diffusion_lm.text.fields import canonical_field, canonical_value, says

if TYPE_CHECKING:
    from diffusion_lm.generation.pipeline import DiffusionLM


KIND = Kind("attribute classifier", "diffusion-lm train-control attribute")
UNSAID = 0
"""Class of a field that the text does not say; value i of the list is class i + 1."""


@dataclass(frozen=True)
class AttributeConfig:
    """What the classifier knows and how large it is."""

    fields: dict[str, list[str]]
    embedding_dim: int
    max_length: int
    schedule: str
    lm: str
    width: int = 128
    layers: int = 3
    heads: int = 4


class AttributeModel(nn.Module):
    """A small bidirectional transformer on noised word vectors, with one softmax a field.

    The paper's classifier is a GPT-2-small that spells the value out (appendix C); the values of a field are few, so a
    softmax over them and "unsaid" says the same in one pass.
    """

    def __init__(self, config: AttributeConfig) -> None:
        super().__init__()
        self.config = config
        shape = ModelConfig(width=config.width, layers=config.layers, heads=config.heads, max_length=config.max_length)
        self.transformer = Transformer(shape, config.embedding_dim)
        self.norm = nn.LayerNorm(config.width)
        self.pool = nn.Linear(config.width, len(config.fields))
        self.sizes = [len(values) + 1 for values in config.fields.values()]
        self.out = nn.ModuleList(nn.Linear(config.width, size) for size in self.sizes)

    def forward(self, z: Tensor, t: Tensor, mask: Tensor) -> list[Tensor]:
        """Log-probabilities of the classes of each field: z [B, L, D], t [B], mask [B, L] to [B, values + 1] each."""
        hidden = self.norm(self.transformer(z, t, mask)).float()
        # Each field looks where it is said: attention pooling with one learned query a field.
        with torch.autocast(z.device.type, enabled=False):
            weights = self.pool(hidden).masked_fill(~mask[..., None], -torch.inf).softmax(1)
            pooled = torch.einsum("blf,blh->fbh", weights, hidden)
            return [out(pooled[i]).log_softmax(-1) for i, out in enumerate(self.out)]

    def classes(self, fields: dict[str, str]) -> list[int]:
        """The class of each field for a text that says these values."""
        return [
            values.index(fields[name]) + 1 if fields.get(name) in values else UNSAID
            for name, values in self.config.fields.items()
        ]

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors."""
        save(folder, KIND, asdict(self.config), {k: v.to(dtype) for k, v in self.state_dict().items()})

    @staticmethod
    def from_pretrained(folder: str | Path, lm: str) -> AttributeModel:
        """Load the classifier of a language model.

        Args:
            folder: where it is.
            lm: fingerprint of the language model that will be steered.

        Raises:
            UserError: if the folder is missing or damaged, or the classifier was trained on another language model.
        """

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> AttributeModel:
            model = AttributeModel(AttributeConfig(**config))
            model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
            return model.eval().requires_grad_(False)

        return load(folder, KIND, build, lm)


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
