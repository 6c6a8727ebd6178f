"""p(tag | word and the tags beside it), counted: what the part-of-speech control knows of a model's words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_lm.errors import UserError

TRAIN = "diffusion-lm train-control pos"
TENSORS = ("log_p", "after", "before")


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
    """Log-probabilities of a word's tag, for every word of a language model, in nats.

    The tag beside a word is one of T tags, or T where the sentence begins or ends.

    Attributes:
        config: the tags in their order.
        log_p: of tag t for word w, [V, T].
        after: the same behind a word of tag s, [T + 1, V, T].
        before: the same in front of a word of tag s, [T + 1, V, T].
    """

    config: TagTableConfig
    log_p: Tensor
    after: Tensor
    before: Tensor

    def columns(self, tags: Sequence[str]) -> Tensor:
        """Log p(tag_i | w_i, tag_i-1, tag_i+1) of each word w at each position, up to a constant: [tags, V].

        The two neighbours count as independent given word and tag: p(t | w, l) p(t | w, r) / p(t | w).
        """
        index = torch.tensor([self.config.tags.index(tag) for tag in tags])
        edge = torch.tensor([len(self.config.tags)])
        left, right = torch.cat([edge, index[:-1]]), torch.cat([index[1:], edge])
        return self.after[left, :, index] + self.before[right, :, index] - self.log_p[:, index].T

    def tensors(self) -> dict[str, Tensor]:
        """What is saved, by name."""
        return {name: getattr(self, name) for name in TENSORS}

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"format": 1, **asdict(self.config)}, indent=2))
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in self.tensors().items()}
        save_file(tensors, folder / "model.safetensors")

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
            tensors = load_file(folder / "model.safetensors")
            table = TagTable(TagTableConfig(**values), *(tensors[name].float() for name in TENSORS))
        except Exception as error:
            raise UserError(f"The table of tags in {folder} is truncated or foreign ({error}).") from None
        if table.config.lm != lm:
            raise UserError(
                f"The table of tags in {folder} is of another language model's words; make it for this one "
                f"with: {TRAIN}."
            )
        return table
