"""PPLM as a writer: before each word the language model's memory follows an attribute's gradient (Dathathri et al. 2020)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_lm.baselines.common import (
    BaselineTrainConfig,
    Report,
    Softmaxes,
    Wanted,
    asked_of,
    fit,
    load_baseline,
    save_baseline,
)
from diffusion_lm.baselines.questions import SaidFields
from diffusion_lm.common import UserError
from diffusion_lm.evaluation.scores import weights_hash
from diffusion_lm.evaluation.systems import Writer, Written
from diffusion_lm.model.causal import JudgeConfig, JudgeLM, Past, padded, sample
from diffusion_lm.text.corpus import open_corpus
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


@dataclass(frozen=True)
class PplmConfig(BaselineTrainConfig):
    """How the attribute model is trained; the language model that it reads stays as it is."""

    epochs: float = 2.0
    """Passes over the training sentences."""
    lr: float = 1e-2
    """Highest learning rate, after the warm-up; it then falls along half a cosine to zero."""
    out: str = "runs/pplm"
    """Folder of the result, which holds the language model too."""


def train_pplm(config: PplmConfig, progress: Report | None = None) -> AttributeLM:
    """Train the attribute model, save it with its language model and return both in evaluation mode.

    Raises:
        UserError: the judge or the corpus cannot be used, or its texts have no fields.
    """
    torch.manual_seed(config.seed)
    judge = JudgeLM.from_pretrained(config.judge)
    read = [
        (each, judge.tokenizer.encode_sentence(each.text)) for each in open_corpus(config.corpus).documents("train")
    ]
    read = [(document, ids) for document, ids in read if len(ids) <= judge.config.max_length]
    fields = SaidFields.names(document for document, _ in read)
    if not fields:
        raise UserError("No text of the corpus says a value of a field; PPLM needs a corpus with fields.")
    model = AttributeLM(AttributeLMConfig(judge.config, fields), judge.tokenizer)
    model.lm.load_state_dict(judge.state_dict())
    classes = torch.tensor([model.questions.classes(document) for document, _ in read])

    def loss(rows: list[int]) -> Tensor:
        """Of whole sentences; END is never read."""
        ids = padded([read[i][1][:-1] for i in rows], -1)
        real = (ids >= 0)[..., None]
        with torch.no_grad():
            hidden = model.lm.eval().hidden(ids.clamp(min=0))
        return model.head.nll((hidden * real).sum(1) / real.sum(1), classes[rows])

    fit(model, [len(ids) for _, ids in read], loss, config, progress)
    model.save_pretrained(config.out)
    return model


@dataclass(frozen=True)
class Ascent:
    """How far the memory moves before a word (Diffusion-LM paper, Table 6; the fusion is PPLM's for its discriminators)."""

    updates: int = 30
    """Steps of gradient ascent before each word."""
    step: float = 0.04
    """Length of a step in the memory of one block and one sentence."""
    kl: float = 0.01
    """Weight of KL(perturbed || unperturbed) of the next word."""
    fusion: float = 0.95
    """Share of the perturbed model in the geometric mean with the unperturbed one."""


class Pplm(Writer):
    """The next word is drawn of p_perturbed^fusion p^(1 - fusion), of the whole vocabulary; attributes alone.

    Args:
        folder: what train-baseline pplm made.
        ascent: the steps before each word.
    """

    name = "PPLM"

    def __init__(self, folder: str | Path, ascent: Ascent | None = None) -> None:
        self.model = AttributeLM.from_pretrained(folder)
        self.ascent = ascent or Ascent()
        self.settings = {"baseline": weights_hash(self.model), "pplm": json.dumps(asdict(self.ascent))}

    def check(self, task: str) -> None:
        """See that the task is the attribute.

        Raises:
            UserError: if it is not.
        """
        if task != "attribute":
            raise UserError(f"PPLM's attribute model knows fields and their values, and nothing of {task}.")

    def write(self, target: Any, n: int, seed: int) -> Written:  # noqa: D102
        lm = self.model.lm
        wanted = self.model.questions.of_target(asked_of(target)["attribute"])

        def next_word(ids: Tensor) -> Tensor:
            return fused(self.model, ids, wanted, self.ascent)

        sentences = sample(next_word, lm.ends, n, torch.Generator().manual_seed(seed))
        # A word takes a pass over the prefix, and in every update one over the last word and one over the next.
        words = max(map(len, sentences)) - 1
        return Written([lm.tokenizer.decode(ids) for ids in sentences], words * (2 * self.ascent.updates + 2))


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
            score = model.head.log_p(mean, wanted) - ascent.kl * kl
            gradients = torch.autograd.grad(score.sum(), past)
        past = [each.detach() + ascent.step * _unit(g) for each, g in zip(past, gradients, strict=True)]
    return past


def _unit(gradient: Tensor) -> Tensor:
    """Of length 1 for every sentence, [2, B, heads, L, depth]."""
    length = torch.linalg.vector_norm(gradient, dim=(0, 2, 3, 4), keepdim=True)
    return gradient / length.clamp(min=1e-10)
