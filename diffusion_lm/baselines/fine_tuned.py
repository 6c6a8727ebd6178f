"""FT: language models fine-tuned to prompts; one, or the product of several; by sampling or by beam search."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lm.baselines.common import Baseline, BaselineLM, LabelledTrainConfig, Lesson, sentences, unlabelled
from diffusion_lm.common import UserError
from diffusion_lm.control.control import CONTROLS, Target
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, NextWord, beam_search
from diffusion_lm.store import Kind
from diffusion_lm.text.batches import padded
from diffusion_lm.text.tokenizer import UNK, Tokenizer

Prompt = Sequence[tuple[str, int]]
"""Symbols, each with the number of words before the one that it speaks of (`Control.prompt`)."""
PADDING = ""
OFTEN = 11
"""How often a word of a prompt has to be seen to have a symbol of its own; else it is UNK, in prompts that are texts."""


@dataclass(frozen=True)
class PromptedConfig:
    """What a fine-tuned language model is; saved as its `config.json`."""

    task: str
    """The control that its prompts say."""
    symbols: list[str]
    """All symbols of prompts; the first is the padding."""
    lm: JudgeConfig


class PromptedLM(BaselineLM):
    """p(words, END | prompt, START): the symbols stand in front.

    A symbol's vector is the sum of what it says and of the position that predicts the word it speaks of. The language model
    knows its positions, so a new control need not learn what "the 23rd word" is.
    """

    kind = Kind("fine-tuned language model", "diffusion-lm train-baseline ft")
    Config = PromptedConfig
    config: PromptedConfig

    def __init__(self, config: PromptedConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.symbols = nn.Embedding(len(config.symbols), config.lm.width)
        self.places = nn.Embedding(config.lm.max_length - 1, config.lm.width)
        for table in (self.symbols, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.index = {symbol: i for i, symbol in enumerate(config.symbols)}

    @classmethod
    def of(cls, judge: JudgeLM, task: str, symbols: set[str]) -> Self:
        """A judge that reads prompts, not yet trained to; the places of its symbols start as the judge's positions.

        Of prompts that are texts the places are their own, and a symbol starts as the judge's vector of the word.
        """
        model = cls(PromptedConfig(task, [PADDING, *sorted(symbols)], judge.config), judge.tokenizer)
        model.lm.load_state_dict(judge.state_dict())
        with torch.no_grad():
            if not CONTROLS[task].prompts_are_texts:
                model.places.weight.copy_(judge.positions.weight)
                return model
            for symbol, i in model.index.items():
                if (known := judge.tokenizer.id(symbol)) is not None:
                    model.symbols.weight[i] = judge.embedding.weight[known]
        return model

    def encode(self, prompts: Sequence[Prompt]) -> Tensor:
        """The ids of the prompts' symbols and their places, [B, P, 2], padded on the right.

        Raises:
            UserError: if a symbol was never seen in training, or a place lies beyond the longest sentence.
        """
        who, most = f"The fine-tuned model for {self.config.task}", self.places.num_embeddings - 1
        for symbol, place in (pair for prompt in prompts for pair in prompt):
            if symbol not in self.index and UNK not in self.index:
                raise UserError(f"{who} has never seen the symbol {symbol!r}.")
            if place > most:
                raise UserError(f"{who} writes at most {most} words, but the target speaks of word {place + 1}.")
        ids = padded(
            [[self.index.get(symbol, self.index.get(UNK, 0)) for symbol, _ in prompt] for prompt in prompts], 0
        )
        return torch.stack([ids, padded([[place for _, place in prompt] for prompt in prompts], 0)], -1)

    def logits(self, prompt: Tensor, ids: Tensor) -> Tensor:
        """Next-word logits after each word, [B, L, V], of prompts [B, P, 2] and words [B, L] from START on."""
        return self.lm.logits(self._hidden(prompt, ids))

    def next_word(self, prompt: Tensor, ids: Tensor) -> Tensor:
        """The logits after the last word alone, [B, V]."""
        return self.lm.logits(self._hidden(prompt, ids)[:, -1])

    def _hidden(self, prompt: Tensor, ids: Tensor) -> Tensor:
        before = self.symbols(prompt[..., 0]) + self.places(prompt[..., 1])
        x = torch.cat([before, self.lm.placed(self.lm.embedding(ids))], dim=1)
        return self.lm.step(self.lm.dropout(x))[0][:, prompt.shape[1] :]

    def nll(self, prompt: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Mean -log p of the words and END, in nats a token, [], of sentences [B, L] where mask [B, L] is True."""
        targets, real = ids[:, 1:], mask[:, 1:]
        return F.cross_entropy(self.logits(prompt, ids[:, :-1])[real], targets[real])


@dataclass(frozen=True)
class FineTuneConfig(LabelledTrainConfig):
    """Which control a language model is fine-tuned to, and how."""

    task: str = "attribute"
    """What its prompts say: a control that sentences of a corpus can fulfil, such as attribute, pos, tree, span, length."""

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range, and a control that has no prompts."""
        super().__post_init__()
        known = [name for name, kind in CONTROLS.items() if {"fulfilled", "lessons"} & vars(kind).keys()]
        if self.task not in known:
            raise UserError(f"A model is fine-tuned to one of {', '.join(known)}, not to {self.task}.")


class FineTuned(Baseline, name="ft"):
    """Table 2's FT-sample and FT-search (whose best text alone is written); of several models, Table 4's FT-PoE.

    Each model is for another control; two that do not go together are a `UserError`.
    """

    about = "fine-tune an autoregressive model to one control, to compare with"
    Config = FineTuneConfig
    Model = PromptedLM

    def __init__(self, models: Sequence[PromptedLM], beams: int | None = None) -> None:
        super().__init__(models[0])
        self.experts = {model.config.task: model for model in models}
        if len(self.experts) < len(models):
            raise UserError("Two of the fine-tuned models are for the same control; give one for each.")
        if len({model.lm.tokenizer.fingerprint for model in models}) > 1:
            raise UserError("The fine-tuned models have not the same words; make them from one language model.")
        self.beams, self.passes = beams, len(models)
        how = "sampled" if beams is None else f"{beams} beams"
        self.name = f"{'FT' if len(models) == 1 else 'FT-PoE'}, {how}"
        self.settings = {"baseline": " ".join(map(weights_hash, models)), "decoding": how}

    @classmethod
    def open(cls, folders: Sequence[str | Path], beams: int | None = None) -> Self:  # noqa: D102
        return cls([PromptedLM.from_pretrained(folder) for folder in folders], beams)

    @classmethod
    def folder(cls, config: FineTuneConfig) -> str:  # noqa: D102
        return config.out or f"runs/ft-{config.task}"

    @classmethod
    def lesson(cls, config: FineTuneConfig, judge: JudgeLM) -> Lesson:
        """What is to be written, each behind its prompt; of those that a sentence has, one is drawn anew at every step."""
        control, rng, encode = CONTROLS[config.task], random.Random(config.seed), judge.tokenizer.encode_sentence
        # What a text is written from is no label.
        known = unlabelled(config, judge) if control.prompts_are_texts else sentences(config, judge)
        read: list[list[tuple[Prompt, list[int]]]] = [
            [(control.prompt(value), encode(text)) for value, text in lessons]
            for document, labels, _ in known
            if (lessons := control.lessons(document, labels))
        ]
        if not read:
            raise UserError(f"No sentence of the corpus has a prompt for {config.task}.")
        seen = Counter(symbol for pairs in read for prompt, _ in pairs for symbol, _ in prompt)
        symbols = (
            {symbol for symbol, n in seen.items() if n >= OFTEN} | {UNK} if control.prompts_are_texts else set(seen)
        )
        model = PromptedLM.of(judge, config.task, symbols)

        def loss(rows: list[int]) -> Tensor:
            pairs = [rng.choice(read[i]) for i in rows]
            device = model.lm.device
            ids = padded([ids for _, ids in pairs], -1).to(device)
            return model.nll(model.encode([prompt for prompt, _ in pairs]).to(device), ids.clamp(min=0), ids >= 0)

        return Lesson(model, [max(len(prompt) + len(ids) for prompt, ids in pairs) for pairs in read], loss)

    def check(self, task: str) -> None:  # noqa: D102
        if set(task.split("+")) != set(self.experts):
            raise UserError(f"The baseline was fine-tuned to {'+'.join(self.experts)}, not to {task}.")

    def samples(self, wanted: int) -> int:  # noqa: D102
        return wanted if self.beams is None else 1

    def decode(self, next_word: NextWord, n: int, seed: int) -> list[list[int]]:  # noqa: D102
        if self.beams is None:
            return super().decode(next_word, n, seed)
        return beam_search(next_word, self.lm.ends, self.beams)[:1]

    def next_word(self, asked: Mapping[str, Target]) -> NextWord:  # noqa: D102
        prompts = [self.experts[t].encode([CONTROLS[t].prompt(asked[t].value)]) for t in self.experts]
        read = list(zip(self.experts.values(), prompts, strict=True))
        return lambda ids: product([model.next_word(prompt.expand(len(ids), -1, -1), ids) for model, prompt in read])


def product(logits: Sequence[Tensor]) -> Tensor:
    """Log-probabilities of a product of K experts, [B, V], from the logits of each, [B, V].

    It is their geometric mean, made to sum to one: p(w) ~ (prod_k p_k(w))^(1/K). Each expert is a whole language model, so
    the plain product would count what they agree on, the language, K times; and a model's product with itself is that model.
    """
    return torch.stack([each.log_softmax(-1) for each in logits]).mean(0).log_softmax(-1)
