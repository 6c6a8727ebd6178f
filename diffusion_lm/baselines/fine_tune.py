"""Fine-tune a language model to one control: prompts in front of the sentences that fulfil them (Table 2's FT)."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lm.baselines.fine_tune_config import FineTuneConfig
from diffusion_lm.baselines.prompted_lm import PromptedConfig, PromptedLM
from diffusion_lm.baselines.prompts import PROMPTS, Prompts
from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.judge import JudgeLM
from diffusion_lm.text.batches import token_batches
from diffusion_lm.training.labels import labelled_documents

logger = logging.getLogger(__name__)

PADDING = ""
WARM_UP = 0.05


class Example(NamedTuple):
    """A sentence and all prompts that it fulfils."""

    prompts: list[list[str]]
    ids: list[int]
    """START words END."""


class FineTuneProgress(NamedTuple):
    """What is reported after every epoch."""

    epoch: int
    nats: float
    """A token, of the epoch's batches, with dropout."""
    seconds: float


def examples(config: FineTuneConfig, judge: JudgeLM, prompts: Prompts) -> list[Example]:
    """The training sentences that fulfil at least one prompt and that the language model can read.

    Raises:
        UserError: the corpus cannot be read, or no sentence fulfils one.
    """
    found = []
    for document, labels in labelled_documents(config.corpus, config.labels):
        options = prompts.options(document, labels)
        ids = judge.tokenizer.encode_sentence(document.text)
        if options and len(ids) <= judge.config.max_length:
            found.append(Example(options, ids))
    if not found:
        raise UserError(f"No sentence of the corpus has a prompt for {config.task}.")
    return found


def fine_tune(
    config: FineTuneConfig, progress: Callable[[FineTuneProgress], None] | None = None
) -> PromptedLM:
    """Fine-tune a judge's weights, save the result and return it in evaluation mode.

    Raises:
        UserError: the judge, the corpus or the labels cannot be used.
    """
    torch.manual_seed(config.seed)
    judge, prompts = JudgeLM.from_pretrained(config.judge), PROMPTS[config.task]
    data = examples(config, judge, prompts)
    symbols = sorted({symbol for each in data for prompt in each.prompts for symbol in prompt})
    longest = max(len(prompt) for each in data for prompt in each.prompts)
    model = PromptedLM(
        PromptedConfig(config.task, [PADDING, *symbols], longest, judge.config), judge.tokenizer
    )
    model.lm.load_state_dict(judge.state_dict())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    rng, order = random.Random(config.seed), torch.Generator().manual_seed(config.seed)
    started, done, total = time.monotonic(), 0, math.ceil(config.epochs * _steps(data, config, rng, order))
    epoch = 0
    while done < total:
        epoch += 1
        nats, count = 0.0, 0
        for prompt, ids, mask in _batches(model, data, config, rng, order):
            if done == total:
                break
            with torch.autocast("cpu", torch.bfloat16):
                loss = model.train().nll(prompt, ids, mask)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _share(done / total)
            optimizer.step()
            optimizer.zero_grad()
            done, nats, count = done + 1, nats + float(loss.detach()), count + 1
        report = FineTuneProgress(epoch, nats / count, time.monotonic() - started)
        logger.info("%s", report)
        if progress is not None:
            progress(report)
    model.save_pretrained(config.folder)
    return model.eval()


def _share(fraction: float) -> float:
    """Of the highest learning rate: a linear warm-up, then half a cosine."""
    return min(1.0, (fraction + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * fraction))


def _steps(
    data: Sequence[Example], config: FineTuneConfig, rng: random.Random, order: torch.Generator
) -> int:
    lengths = torch.tensor([len(each.ids) + len(rng.choice(each.prompts)) for each in data])
    return len(token_batches(lengths, config.batch_tokens, order))


def _batches(
    model: PromptedLM,
    data: Sequence[Example],
    config: FineTuneConfig,
    rng: random.Random,
    order: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """An epoch: a prompt of each sentence drawn anew; prompts [B, P], words [B, L] and their mask."""
    chosen = [model.encode(rng.choice(each.prompts)) for each in data]
    lengths = torch.tensor([len(each.ids) + len(prompt) for each, prompt in zip(data, chosen, strict=True)])
    for rows in token_batches(lengths, config.batch_tokens, order):
        ids = _padded([data[i].ids for i in rows.tolist()], -1)
        yield _padded([chosen[i] for i in rows.tolist()], 0), ids.clamp(min=0), ids >= 0


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
