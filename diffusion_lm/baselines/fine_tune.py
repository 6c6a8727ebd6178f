"""Fine-tune a language model to one control: prompts in front of the sentences that fulfil them (Table 2's FT)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lm.baselines.fine_tune_config import FineTuneConfig
from diffusion_lm.baselines.fit import Report, fit
from diffusion_lm.baselines.padded import padded
from diffusion_lm.baselines.prompted_lm import PromptedConfig, PromptedLM
from diffusion_lm.baselines.prompts import PROMPTS, Prompt, Prompts
from diffusion_lm.baselines.sentences import sentences
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.judge import JudgeLM

PADDING = ""


class Example(NamedTuple):
    """A sentence and all prompts that it fulfils."""

    prompts: list[Prompt]
    ids: list[int]
    """START words END."""


def examples(config: FineTuneConfig, judge: JudgeLM, prompts: Prompts) -> list[Example]:
    """The training sentences that fulfil at least one prompt and that the language model can read.

    Raises:
        UserError: the corpus cannot be read, or no sentence fulfils one.
    """
    found = [
        Example(options, ids)
        for document, labels, ids in sentences(config, judge)
        if (options := prompts.options(document, labels))
    ]
    if not found:
        raise UserError(f"No sentence of the corpus has a prompt for {config.task}.")
    return found


def prompted(judge: JudgeLM, task: str, data: Sequence[Example]) -> PromptedLM:
    """A judge that reads prompts, not yet trained to; the places of its symbols start as the judge's positions."""
    symbols = sorted({symbol.text for each in data for prompt in each.prompts for symbol in prompt})
    model = PromptedLM(PromptedConfig(task, [PADDING, *symbols], judge.config), judge.tokenizer)
    model.lm.load_state_dict(judge.state_dict())
    with torch.no_grad():
        model.places.weight.copy_(judge.positions.weight)
    return model


def fine_tune(config: FineTuneConfig, progress: Report | None = None) -> PromptedLM:
    """Fine-tune a judge's weights, save the result and return it in evaluation mode.

    Raises:
        UserError: the judge, the corpus or the labels cannot be used.
    """
    torch.manual_seed(config.seed)
    judge, rng = JudgeLM.from_pretrained(config.judge), random.Random(config.seed)
    data = examples(config, judge, PROMPTS[config.task])
    model = prompted(judge, config.task, data)

    def loss(rows: list[int]) -> Tensor:
        """Of sentences, each behind one of its prompts, drawn anew."""
        prompts = model.encode([rng.choice(data[i].prompts) for i in rows])
        ids = padded([data[i].ids for i in rows], -1)
        return model.nll(prompts, ids.clamp(min=0), ids >= 0)

    fit(model, [len(each.ids) + max(map(len, each.prompts)) for each in data], loss, config, progress)
    model.save_pretrained(config.folder)
    return model
