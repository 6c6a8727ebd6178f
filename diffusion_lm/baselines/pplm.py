"""PPLM as a writer: before each word the language model's memory follows an attribute's gradient (Dathathri et al. 2020)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.baselines.asked import asked_of
from diffusion_lm.baselines.attribute_lm import AttributeLM
from diffusion_lm.baselines.past import Past, read_all, read_word
from diffusion_lm.baselines.softmaxes import Wanted
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.decode import Ends, sample
from diffusion_lm.evaluation.fingerprint import weights_hash
from diffusion_lm.evaluation.judge import JudgeLM
from diffusion_lm.evaluation.writer import Writer, Written


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
        ends = Ends(lm.tokenizer.start_id, lm.tokenizer.end_id, lm.config.max_length)

        def next_word(ids: Tensor) -> Tensor:
            return fused(self.model, ids, wanted, self.ascent)

        sentences = sample(next_word, ends, n, torch.Generator().manual_seed(seed))
        # A word takes a pass over the prefix, and in every update one over the last word and one over the next.
        words = max(map(len, sentences)) - 1
        return Written([lm.tokenizer.decode(ids) for ids in sentences], words * (2 * self.ascent.updates + 2))


def fused(model: AttributeLM, ids: Tensor, wanted: Wanted, ascent: Ascent) -> Tensor:
    """Log-probabilities of the next word up to a constant, [B, V], after words [B, L].

    After START alone there is no memory to perturb, and the first word is the language model's own.
    """
    if ids.shape[1] == 1:
        return model.lm.logits(model.lm.hidden(ids)[:, -1])
    prefix = Prefix(model.lm, ids)
    before, _ = prefix.read(prefix.past)
    after, _ = prefix.read(perturbed(model, prefix, wanted, ascent))
    # Words that the model never writes are at -inf in both, and stay there.
    return ascent.fusion * after + (1 - ascent.fusion) * before


class Prefix:
    """What has been written, [B, L] ids: a memory, `past`, of all words but the last, and the last one."""

    def __init__(self, lm: JudgeLM, ids: Tensor) -> None:
        hidden, self.past = read_all(lm, ids[:, :-1])
        self.lm, self.words = lm, ids.shape[1]
        self.said = hidden.sum(1)
        self.last = lm.embedding(ids[:, -1])

    def read(self, past: Past) -> tuple[Tensor, Tensor]:
        """The next word's log-probabilities [B, V], and the mean state [B, H], if the memory were `past`.

        The mean is over the words' states: those before the last as they were, that of the last one as the memory makes it,
        and that of the next word, which is read in expectation, as the mean of all embeddings. Without it a changed memory
        could raise the attribute's probability and leave the next word as it is.
        """
        state, longer = read_word(self.lm, self.last, past)
        log_p = self.lm.logits(state).log_softmax(-1)
        ahead, _ = read_word(self.lm, log_p.exp() @ self.lm.embedding.weight, longer)
        return log_p, (self.said + state + ahead) / (self.words + 1)


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
