"""PPLM's attribute model: linear classifiers on the mean of a frozen language model's states."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from diffusion_lm.baselines.folder import load_baseline, save_baseline
from diffusion_lm.baselines.questions import SaidFields
from diffusion_lm.baselines.softmaxes import Softmaxes
from diffusion_lm.evaluation.judge import JudgeConfig, JudgeLM
from diffusion_lm.text.tokenizer import Tokenizer

KIND = "language model with an attribute model"


@dataclass(frozen=True)
class AttributeLMConfig:
    """What the attribute model knows; saved as `config.json`."""

    lm: JudgeConfig
    """Shape of the language model."""
    fields: dict[str, list[str]]
    """The values of each field that texts say."""


class AttributeLM(nn.Module):
    """A frozen language model, and for each field p(value or none | mean of the last hidden states)."""

    def __init__(self, config: AttributeLMConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.lm = JudgeLM(config.lm, tokenizer).requires_grad_(False)
        self.questions = SaidFields(config.fields)
        self.head = Softmaxes(config.lm.width, self.questions.sizes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write both models into `folder`, made if need be."""
        save_baseline(folder, KIND, dataclasses.asdict(self.config), self, self.lm.tokenizer)

    @staticmethod
    def from_pretrained(folder: str | Path) -> AttributeLM:
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            UserError: the folder is missing, holds something else, or is damaged.
        """

        def build(config: dict[str, Any], tokenizer: Tokenizer) -> AttributeLM:
            return AttributeLM(AttributeLMConfig(JudgeConfig(**config["lm"]), config["fields"]), tokenizer)

        return load_baseline(folder, KIND, build, "train-baseline pplm")
