"""The latent classifier p(field = value | z_t, t)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion_lm.errors import UserError
from diffusion_lm.model.config import ModelConfig
from diffusion_lm.model.transformer import Transformer

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
        shape = ModelConfig(
            width=config.width, layers=config.layers, heads=config.heads, max_length=config.max_length
        )
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
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(
            json.dumps({"format": 1, **asdict(self.config)}, indent=2, ensure_ascii=False)
        )
        save_file(
            {k: v.to(dtype).contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors"
        )

    @staticmethod
    def from_pretrained(folder: str | Path, lm: str) -> AttributeModel:
        """Load the classifier of a language model.

        Args:
            folder: where it is.
            lm: fingerprint of the language model that will be steered.

        Raises:
            UserError: if the folder is missing or damaged, or the classifier was trained on another language model.
        """
        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise UserError(
                f"{folder} holds no attribute classifier; train one with: diffusion-lm train-control attribute."
            )
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf8"))
            values.pop("format")
            model = AttributeModel(AttributeConfig(**values))
            model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        except Exception as error:
            raise UserError(
                f"The attribute classifier in {folder} is truncated or foreign ({error})."
            ) from None
        if model.config.lm != lm:
            raise UserError(
                f"The attribute classifier in {folder} reads another language model's vectors; train it on this one "
                "with: diffusion-lm train-control attribute."
            )
        return model.eval().requires_grad_(False)
