"""FUDGE as a writer: a language model whose next words future discriminators reweight (Yang and Klein 2021)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lm.annotate.trees import Span
from diffusion_lm.baselines.asked import asked_of
from diffusion_lm.baselines.discriminator import Discriminator
from diffusion_lm.control.span import read_span
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.decode import Ends, sample
from diffusion_lm.evaluation.fingerprint import weights_hash
from diffusion_lm.evaluation.writer import Writer, Written

WEIGHTS = {"attribute": 8.0, "pos": 20.0, "tree": 20.0, "span": 20.0, "length": 2.0}
"""Lambda of each control (paper, Table 6)."""
BEFORE, AFTER = 200, 10
"""Likeliest words that are looked at, and that may be drawn (paper, Table 6: precondition and posterior top-K)."""

Evidence = Callable[[Tensor, int], Tensor]
"""(states of prefixes and candidates [B, K, H], place of the candidates from 0) -> log p(control | prefix, candidate), [B, K]."""


class Fudge(Writer):
    """p(w | prefix) p(control | prefix, w)^lambda, among the likeliest words; several controls are several factors.

    Args:
        folder: what train-baseline fudge made.
        weights: lambda by the name of the control.
        before: likeliest words of the language model that are looked at.
        after: likeliest words after reweighting that may be drawn.
    """

    name = "FUDGE"

    def __init__(
        self,
        folder: str | Path,
        weights: Mapping[str, float] = WEIGHTS,
        before: int = BEFORE,
        after: int = AFTER,
    ) -> None:
        self.model = Discriminator.from_pretrained(folder)
        self.weights, self.before, self.after = weights, before, after
        self.settings = {
            "baseline": weights_hash(self.model),
            "fudge": json.dumps([dict(weights), before, after]),
        }

    def check(self, task: str) -> None:
        """See that there is a discriminator for every control of the task.

        Raises:
            UserError: if there is not.
        """
        known = {*self.model.questions, "span"}
        if missing := [name for name in task.split("+") if name not in known]:
            raise UserError(
                f"The baseline has no discriminator for {missing[0]}, but for {', '.join(sorted(known))}."
            )

    def write(self, target: Any, n: int, seed: int) -> Written:  # noqa: D102
        model = self.model
        evidence = [
            (self.weights[name], _evidence(model, name, part)) for name, part in asked_of(target).items()
        ]
        tokenizer = model.lm.tokenizer
        ends = Ends(tokenizer.start_id, tokenizer.end_id, model.lm.config.max_length)

        def next_word(ids: Tensor) -> Tensor:
            hidden = model.trunk.hidden(ids)[:, -1:]

            def fulfils(words: Tensor) -> Tensor:
                states = model.states(hidden, words)
                return sum((w * log_p(states, ids.shape[1] - 1) for w, log_p in evidence), torch.zeros(()))

            logits = model.lm.logits(model.lm.hidden(ids)[:, -1])
            return reweighted(logits, fulfils, self.before, self.after)

        sentences = sample(next_word, ends, n, torch.Generator().manual_seed(seed))
        # The language model's pass and the trunk's.
        evaluations = 2 * (max(map(len, sentences)) - 1)
        return Written([tokenizer.decode(ids) for ids in sentences], evaluations)


def reweighted(logits: Tensor, fulfils: Callable[[Tensor], Tensor], before: int, after: int) -> Tensor:
    """Log-probabilities, up to a constant, [B, V]; -inf for words that may not be drawn.

    Args:
        logits: of the language model, [B, V].
        fulfils: from the likeliest words [B, K] to lambda log p(control | prefix, word), [B, K].
        before: K.
        after: words that may be drawn.
    """
    log_p, words = logits.log_softmax(-1).topk(min(before, logits.shape[-1]))
    scores, places = (log_p + fulfils(words)).topk(min(after, words.shape[-1]))
    return torch.full_like(logits, -torch.inf).scatter(1, words.gather(1, places), scores)


def _evidence(model: Discriminator, name: str, target: Any) -> Evidence:
    """What a discriminator says of a target; tags and a tree also fix the number of words."""
    if name == "span":
        spans = _spans(model, target.value)
        return lambda states, place: model.span.log_p(states, place, spans)
    asked = {name: target}
    if (words := model.questions[name].words(target)) is not None:
        asked["length"] = words
    # A target that cannot be fulfilled is refused before the first word.
    for each, value in asked.items():
        model.questions[each].of_target(value, 0)

    def log_p(states: Tensor, place: int) -> Tensor:
        parts = [
            model.head(each).log_p(states, model.questions[each].of_target(value, place))
            for each, value in asked.items()
        ]
        return torch.stack(parts).sum(0)

    return log_p


def _spans(model: Discriminator, text: str) -> list[Span]:
    spans = [read_span(each) for each in text.split()]
    if unknown := [span.label for span in spans if span.label not in model.span.index]:
        raise UserError(f"No tree that the baseline was trained on has a constituent {unknown[0]}.")
    return spans
