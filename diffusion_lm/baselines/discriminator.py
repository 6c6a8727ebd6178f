"""FUDGE's future discriminators: p(control | prefix, next word) for five controls, in one network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.baselines.folder import load_baseline, save_baseline
from diffusion_lm.baselines.questions import LeavesAhead, Questions, SaidFields, TagsAhead, WordsToCome
from diffusion_lm.baselines.softmaxes import Softmaxes
from diffusion_lm.baselines.span_head import SpanHead
from diffusion_lm.evaluation.judge import JudgeConfig, JudgeLM
from diffusion_lm.text.tokenizer import Tokenizer

KIND = "language model with future discriminators"


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What the discriminators know; saved as `config.json`."""

    lm: JudgeConfig
    """Shape of the language model, and of the discriminators' trunk."""
    fields: dict[str, list[str]]
    """The values of each field that texts say."""
    tags: list[list[str]]
    """Universal tags."""
    leaves: list[list[str]]
    """Tags of trees, sets of labels that open, sets that close."""
    chains: list[str]
    """Labels of constituents above the same words, joined from the top: "S+VP"."""


class Discriminator(nn.Module):
    """A frozen language model and, beside it, a causal transformer with a head for each control.

    The label is predicted from the trunk's state of the prefix, h_t, and the embedding of the next word, e(w): z = f(A h_t + B
    e(w)). Yang and Klein read the prefix and the word together with a whole network, which costs a pass for each of 200
    candidates; so it costs one pass a word and a perceptron of two layers a candidate. It is trained as it is used, on the
    word that really comes next. The trunk starts as the language model's weights, and all heads are trained together.
    """

    def __init__(self, config: DiscriminatorConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        width = config.lm.width
        self.lm = JudgeLM(config.lm, tokenizer).requires_grad_(False)
        self.trunk = JudgeLM(config.lm, tokenizer)
        self.prefix = nn.Linear(width, width)
        self.word = nn.Linear(width, width, bias=False)
        self.inner = nn.Linear(width, width)
        self.questions: dict[str, Questions] = {
            "length": WordsToCome(config.lm.max_length),
            "pos": TagsAhead(config.tags),
            "tree": LeavesAhead(config.leaves),
        }
        if config.fields:
            self.questions["attribute"] = SaidFields(config.fields)
        self.heads = nn.ModuleDict(
            {name: Softmaxes(width, asked.sizes) for name, asked in self.questions.items()}
        )
        self.span = SpanHead(width, config.chains)

    def states(self, hidden: Tensor, words: Tensor) -> Tensor:
        """What the heads read, [..., H], of the trunk's states of prefixes [..., H] and the next words [...]."""
        z = F.gelu(self.prefix(hidden) + self.word(self.trunk.embedding(words)))
        return z + F.gelu(self.inner(z))

    def head(self, name: str) -> Softmaxes:
        """The softmaxes of a control other than span."""
        head = self.heads[name]
        assert isinstance(head, Softmaxes)
        return head

    def save_pretrained(self, folder: str | Path) -> None:
        """Write all of it, the language model too, into `folder`, made if need be."""
        save_baseline(folder, KIND, dataclasses.asdict(self.config), self, self.lm.tokenizer)

    @staticmethod
    def from_pretrained(folder: str | Path) -> Discriminator:
        """Load what `save_pretrained` wrote, in evaluation mode.

        Raises:
            UserError: the folder is missing, holds something else, or is damaged.
        """

        def build(config: dict[str, Any], tokenizer: Tokenizer) -> Discriminator:
            config["lm"] = JudgeConfig(**config["lm"])
            return Discriminator(DiscriminatorConfig(**config), tokenizer)

        return load_baseline(folder, KIND, build, "train-baseline fudge")
