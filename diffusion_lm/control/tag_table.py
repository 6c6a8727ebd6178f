"""p(tag | word), counted: what the training-free part-of-speech control knows of a language model's words."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.errors import UserError

TRAIN = "diffusion-lm train-control pos"


@dataclass(frozen=True)
class TagTableConfig:
    """What was counted, and with what."""

    tags: list[str]
    tagger: str
    sentences: int
    certainty: float
    """Share of the corpus's words that have their word's most frequent tag."""
    lm: str


@dataclass(frozen=True)
class TagTable:
    """Log p(tag | word) of every word of a language model.

    Attributes:
        config: the tags in the order of the columns.
        log_p: [V, tags], in nats.
    """

    config: TagTableConfig
    log_p: Tensor

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"format": 1, **asdict(self.config)}, indent=2))
        save_file({"log_p": self.log_p.to(dtype).contiguous()}, folder / "model.safetensors")

    @staticmethod
    def from_pretrained(folder: str | Path, lm: str) -> TagTable:
        """Load the table of a language model.

        Args:
            folder: where it is.
            lm: fingerprint of the language model that will be steered.

        Raises:
            UserError: if the folder is missing or damaged, or the table belongs to another language model.
        """
        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise UserError(f"{folder} holds no table of tags; make one with: {TRAIN}.")
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf8"))
            values.pop("format")
            table = TagTable(
                TagTableConfig(**values), load_file(folder / "model.safetensors")["log_p"].float()
            )
        except Exception as error:
            raise UserError(f"The table of tags in {folder} is truncated or foreign ({error}).") from None
        if table.config.lm != lm:
            raise UserError(
                f"The table of tags in {folder} is of another language model's words; make it for this one "
                f"with: {TRAIN}."
            )
        return table
