"""PPLM: before each word the language model's memory follows an attribute's gradient (Dathathri et al. 2020)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from diffusion_lm.baselines.common import Baseline, BaselineLM, BaselineTrainConfig, Lesson, unlabelled
from diffusion_lm.baselines.questions import SaidFields, Wanted
from diffusion_lm.common import Settings, UserError, number
from diffusion_lm.control.attribute import known_values, said_fields
from diffusion_lm.control.control import Target
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, NextWord, Past
from diffusion_lm.store import Kind
from diffusion_lm.text.batches import padded
from diffusion_lm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class AttributeLMConfig:
    """What the attribute model knows; saved as `config.json`."""

    lm: JudgeConfig
    fields: dict[str, list[str]]
    """The values of each field that texts say."""


class AttributeLM(BaselineLM):
    """A frozen language model, and for each field p(value or none | mean of the last hidden states)."""

    kind = Kind("language model with an attribute model", "diffusion-lm train-baseline pplm")
    Config = AttributeLMConfig
    config: AttributeLMConfig

    def __init__(self, config: AttributeLMConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config, tokenizer)
        self.lm.requires_grad_(False)
        self.said = SaidFields(config.lm.width, config.fields)


@dataclass(frozen=True)
class PplmConfig(BaselineTrainConfig):
    """How the attribute model is trained; the language model that it reads stays as it is."""

    epochs: float = number(2.0, above=0)
    lr: float = number(1e-2, above=0)


@dataclass(frozen=True)
class Ascent(Settings):
    """How far the memory moves before a word (Diffusion-LM paper, Table 6; the fusion is PPLM's for its discriminators)."""

    updates: int = number(30, least=0)
    """Steps of gradient ascent before each word."""
    step: float = number(0.04, above=0)
    """Length of a step in the memory of one block and one sentence."""
    kl: float = number(0.01, least=0)
    """Weight of KL(perturbed || unperturbed) of the next word."""
    fusion: float = number(0.95, least=0, most=1)
    """Share of the perturbed model in the geometric mean with the unperturbed one."""


class Pplm(Baseline, name="pplm"):
    """The next word is drawn of p_perturbed^fusion p^(1 - fusion), of the whole vocabulary; attributes alone."""

    about = "train what an autoregressive model's activations follow (PPLM), to compare with"
    name = "PPLM"
    Config = PplmConfig
    Model = AttributeLM

    def __init__(self, model: AttributeLM, ascent: Ascent | None = None) -> None:
        super().__init__(model)
        self.model, self.ascent = model, ascent or Ascent()
        self.settings["pplm"] = json.dumps(asdict(self.ascent))
        # A word takes a pass over the prefix, and in every update one over the last word and one over the next.
        self.passes = 2 * self.ascent.updates + 2

    @classmethod
    def lesson(cls, config: PplmConfig, judge: JudgeLM) -> Lesson:
        """The attribute model on the states of whole sentences; END is never read."""
        read = [(said_fields(document), ids) for document, _, ids in unlabelled(config, judge)]
        fields = known_values([said for said, _ in read], 1)
        if not fields:
            raise UserError("No text of the corpus says a value of a field; PPLM needs a corpus with fields.")
        model = AttributeLM(AttributeLMConfig(judge.config, fields), judge.tokenizer)
        model.lm.load_state_dict(judge.state_dict())
        classes = torch.tensor([model.said.classes(said) for said, _ in read])

        def loss(rows: list[int]) -> Tensor:
            ids = padded([read[i][1][:-1] for i in rows], -1).to(model.lm.device)
            real = (ids >= 0)[..., None]
            with torch.no_grad():
                hidden = model.lm.eval().hidden(ids.clamp(min=0))
            return model.said.nll((hidden * real).sum(1) / real.sum(1), classes[rows].to(ids.device))

        return Lesson(model, [len(ids) for _, ids in read], loss)

    def check(self, task: str) -> None:  # noqa: D102
        if task != "attribute":
            raise UserError(f"PPLM's attribute model knows fields and their values, and nothing of {task}.")

    def next_word(self, asked: Mapping[str, Target]) -> NextWord:  # noqa: D102
        (wanted,) = self.model.said.of_target(asked["attribute"].value)
        return lambda ids: fused(self.model, ids, wanted, self.ascent)


def fused(model: AttributeLM, ids: Tensor, wanted: Wanted, ascent: Ascent) -> Tensor:
    """Log-probabilities of the next word up to a constant, [B, V], after words [B, L].

    After START alone there is no memory to perturb, and the first word is the language model's own.
    """
    if ids.shape[1] == 1:
        return model.lm.next_word(ids)
    prefix = Prefix(model.lm, ids)
    before, _ = prefix.read(prefix.past)
    after, _ = prefix.read(perturbed(model, prefix, wanted, ascent))
    # Words that the model never writes are at -inf in both, and stay there.
    return ascent.fusion * after + (1 - ascent.fusion) * before


class Prefix:
    """What has been written, [B, L] ids: a memory, `past`, of all words but the last, and the last one."""

    def __init__(self, lm: JudgeLM, ids: Tensor) -> None:
        hidden, self.past = lm.step(lm.placed(lm.embedding(ids[:, :-1])))
        self.lm, self.words = lm, ids.shape[1]
        self.said = hidden.sum(1)
        self.last = lm.placed(lm.embedding(ids[:, -1:]), self.words - 1)

    def read(self, past: Past) -> tuple[Tensor, Tensor]:
        """The next word's log-probabilities [B, V], and the mean state [B, H], if the memory were `past`.

        The mean is over the words' states: those before the last as they were, that of the last one as the memory makes it,
        and that of the next word, which is read in expectation, as the mean of all embeddings. Without it a changed memory
        could raise the attribute's probability and leave the next word as it is.
        """
        state, longer = self.lm.step(self.last, past)
        log_p = self.lm.logits(state).log_softmax(-1)
        ahead, _ = self.lm.step(self.lm.placed(log_p.exp() @ self.lm.embedding.weight, self.words), longer)
        return log_p[:, 0], (self.said + state[:, 0] + ahead[:, 0]) / (self.words + 1)


def perturbed(model: AttributeLM, prefix: Prefix, wanted: Wanted, ascent: Ascent) -> Past:
    """The memory after gradient ascent on log p(attribute) - kl KL(perturbed || unperturbed).

    What moves is the keys and values of all words before the last, in every block; a step in one block is as long as
    `ascent.step`, for every sentence of the batch by itself (PPLM with gamma = 1). The memory starts afresh at each word.
    """
    with torch.no_grad():
        before, _ = prefix.read(prefix.past)
    possible, past = before.isfinite(), prefix.past
    for _ in range(ascent.updates):
        with torch.enable_grad():
            past = [each.detach().requires_grad_() for each in past]
            log_p, mean = prefix.read(past)
            ratio = torch.where(possible, log_p - before, 0.0)
            kl = (log_p.exp() * ratio).sum(-1)
            score = model.said.log_p(mean, wanted) - ascent.kl * kl
            gradients = torch.autograd.grad(score.sum(), past)
        # Keys and values are [2, B, heads, L, depth].
        lengths = [torch.linalg.vector_norm(g, dim=(0, 2, 3, 4), keepdim=True).clamp(min=1e-10) for g in gradients]
        moved = zip(past, gradients, lengths, strict=True)
        past = [each.detach() + ascent.step * gradient / length for each, gradient, length in moved]
    return past
