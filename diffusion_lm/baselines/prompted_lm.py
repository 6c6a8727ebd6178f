"""A causal language model that reads a prompt of symbols before the sentence (Table 2's FT, at the size of our judge)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lm.baselines.folder import load_baseline, save_baseline
from diffusion_lm.baselines.padded import padded
from diffusion_lm.baselines.prompts import Prompt
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.judge import JudgeConfig, JudgeLM
from diffusion_lm.text.tokenizer import Tokenizer

KIND = "fine-tuned language model"


@dataclass(frozen=True)
class PromptedConfig:
    """What a fine-tuned language model is; saved as its `config.json`."""

    task: str
    """The control that its prompts say."""
    symbols: list[str]
    """All symbols of prompts; the first is the padding."""
    lm: JudgeConfig
    """Shape of the language model that was fine-tuned."""


class PromptedLM(nn.Module):
    """p(words, END | prompt, START): the symbols stand in front.

    A symbol's vector is the sum of what it says and of the position that predicts the word it speaks of. The language model
    knows its positions, so a new control need not learn what "the 23rd word" is.
    """

    def __init__(self, config: PromptedConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.lm = JudgeLM(config.lm, tokenizer)
        self.symbols = nn.Embedding(len(config.symbols), config.lm.width)
        self.places = nn.Embedding(config.lm.max_length - 1, config.lm.width)
        for table in (self.symbols, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.index = {symbol: i for i, symbol in enumerate(config.symbols)}

    def encode(self, prompts: Sequence[Prompt]) -> Tensor:
        """The ids of the prompts' symbols and their places, [B, P, 2], padded on the right.

        Raises:
            UserError: if a symbol was never seen in training, or a place lies beyond the longest sentence.
        """
        for symbol in (symbol for prompt in prompts for symbol in prompt):
            if symbol.text not in self.index:
                raise UserError(
                    f"The fine-tuned model for {self.config.task} has never seen the symbol {symbol.text!r}."
                )
            if symbol.place >= self.places.num_embeddings:
                raise UserError(
                    f"The fine-tuned model for {self.config.task} writes at most {self.places.num_embeddings - 1} words, "
                    f"but the target speaks of word {symbol.place + 1}."
                )
        ids = padded([[self.index[symbol.text] for symbol in prompt] for prompt in prompts], 0)
        return torch.stack([ids, padded([[symbol.place for symbol in prompt] for prompt in prompts], 0)], -1)

    def logits(self, prompt: Tensor, ids: Tensor) -> Tensor:
        """Next-word logits after each word, [B, L, V], of prompts [B, P, 2] and words [B, L] from START on."""
        return self.lm.logits(self._hidden(prompt, ids))

    @torch.no_grad()
    def next_word(self, prompt: Tensor, ids: Tensor) -> Tensor:
        """The logits after the last word alone, [B, V]."""
        return self.lm.logits(self._hidden(prompt, ids)[:, -1])

    def _hidden(self, prompt: Tensor, ids: Tensor) -> Tensor:
        lm, width = self.lm, prompt.shape[1]
        before = self.symbols(prompt[..., 0]) + self.places(prompt[..., 1])
        words = lm.embedding(ids) + lm.positions.weight[: ids.shape[1]]
        x = lm.dropout(torch.cat([before, words], dim=1))
        for block in lm.blocks:
            x = block(x)
        return lm.norm(x[:, width:])

    def nll(self, prompt: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Mean -log p of the words and END, in nats a token, [], of sentences [B, L] where mask [B, L] is True."""
        targets, real = ids[:, 1:], mask[:, 1:]
        return nn.functional.cross_entropy(self.logits(prompt, ids[:, :-1])[real], targets[real])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into `folder`, made if need be."""
        save_baseline(folder, KIND, dataclasses.asdict(self.config), self, self.lm.tokenizer)

    @staticmethod
    def from_pretrained(folder: str | Path) -> PromptedLM:
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            UserError: the folder is missing, is none of a fine-tuned model, or is damaged.
        """

        def build(config: dict[str, Any], tokenizer: Tokenizer) -> PromptedLM:
            return PromptedLM(PromptedConfig(**{**config, "lm": JudgeConfig(**config["lm"])}), tokenizer)

        return load_baseline(folder, KIND, build, "train-baseline ft")
