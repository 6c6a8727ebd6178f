"""Measure one point and print it as JSON; speed.py starts a process of this for every point."""

from __future__ import annotations

import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from points import Point
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lm.common import multiplies_bf16
from diffusion_lm.control import Attribute
from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.flags import read
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.text.encoded import EncodedCorpus, EncodedMeta
from diffusion_lm.text.tokenizer import WordTokenizer, build_word_tokenizer
from diffusion_lm.training.lm import Data, TrainConfig, batches_from
from diffusion_lm.training.trainer import Trainer

WORDS = 820
"""Size of E2E's vocabulary (words seen more than 10 times)."""
SENTENCES = 4000
MEAN, DEVIATION, SHORTEST = 26.5, 7.6, 8
"""Lengths of E2E's sentences in tokens, START and END included."""
FIELDS = {f"field {i}": [f"value {j}" for j in range(n)] for i, n in enumerate((34, 3, 2, 6, 19, 2, 7, 6))}
"""As many values as E2E's eight fields have."""
WARM_UP_STEPS = 2
SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product says how fast the machine multiplies."""


def settings(point: Point, out: str) -> TrainConfig:
    """The recipe, with the point's batch and length."""
    config, _ = read(TrainConfig, [f"--config={point.config}"])
    model, run = replace(config.model, max_length=max(config.model.max_length, point.length or 0)), config.run
    if point.length is not None and model.layout == "padded":
        model = replace(model, max_length=point.length)
    if point.tiny:
        model = replace(model, size="tiny", width=32, layers=1, heads=2)
        run = replace(run, batch_tokens=256, batch_sentences=run.batch_sentences and 8)
    if point.kind == "train":
        sentences = run.batch_sentences and round(run.batch_sentences * point.batch)
        run = replace(run, batch_tokens=round(run.batch_tokens * point.batch), batch_sentences=sentences)
    return replace(config, model=model, run=replace(run, out=out))


def synthetic_corpus(tokenizer: WordTokenizer, max_length: int, length: int | None) -> EncodedCorpus:
    """Random words; lengths as in E2E, or all the same."""
    generator = torch.Generator().manual_seed(0)
    lengths = (MEAN + DEVIATION * torch.randn(SENTENCES, generator=generator)).round().long()
    lengths = lengths.clamp(SHORTEST, max_length)
    if length is not None:
        lengths = torch.full_like(lengths, length)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    ids = torch.randint(4, tokenizer.vocab_size, (int(offsets[-1]),), generator=generator).int()
    ids[offsets[:-1]], ids[offsets[1:] - 1] = tokenizer.start_id, tokenizer.end_id
    meta = EncodedMeta(1, "train", "synthetic", tokenizer.fingerprint, max_length, SENTENCES, len(ids))
    return EncodedCorpus(ids, offsets, torch.arange(SENTENCES), meta)


def tokenizer() -> WordTokenizer:
    """A vocabulary of E2E's size."""
    letters = [chr(ord("a") + i) for i in range(26)]
    words = [a + b + c for a in letters for b in letters for c in letters[:2]][:WORDS]
    return build_word_tokenizer([" ".join(words)], min_count=1)


def train(point: Point, folder: str) -> dict[str, float | None]:
    """Positions a second through whole optimiser steps: gather, forward, backward, clipping, AdamW, EMA."""
    config = settings(point, folder)
    words = tokenizer()
    corpus = synthetic_corpus(words, config.model.max_length, point.length)
    lm = DiffusionLM.new(config.model, words, corpus.length_histogram())
    trainer = Trainer(config, Data(words, corpus, corpus), lm)
    trainer.loss.train()
    batches = batches_from(corpus.lengths, config.run, config.model.canvas, 0)
    # Batches come in some thirty shapes, and a shape's first step also prepares its kernels: as long again is
    # spent on that, as in a run of hours it would be forgotten.
    started, tokens, steps = time.perf_counter(), 0, 0
    with FlopCounterMode(display=False) as counter:
        while steps < WARM_UP_STEPS:
            tokens, steps = tokens + step(trainer, batches), steps + 1
    operations = counter.get_total_flops() / tokens
    while time.perf_counter() - started < point.seconds:
        step(trainer, batches)
    synchronize()
    started, tokens, steps = time.perf_counter(), 0, 0
    while steps == 0 or time.perf_counter() - started < point.seconds:
        tokens, steps = tokens + step(trainer, batches), steps + 1
        if steps % config.run.log_every == 0:
            synchronize()  # as often as a run waits for it
    synchronize()
    seconds = time.perf_counter() - started
    return {
        "tokens_per_second": tokens / seconds,
        "tokens_per_step": tokens / steps,
        "seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in lm.denoiser.parameters()),
        "flops_per_second": operations * tokens / seconds,
    }


def step(trainer: Trainer, batches: Iterator[torch.Tensor]) -> int:
    """One optimiser step, as `Trainer.fit` takes it, without its records and checkpoints."""
    taken = trainer._train_step(next(batches))
    trainer.step += 1
    return taken.tokens


def generate(point: Point, folder: str) -> dict[str, float | None]:
    """Sentences a second in one batch; what a network writes does not change how long it takes."""
    config = settings(point, folder)
    words = tokenizer()
    corpus = synthetic_corpus(words, config.model.max_length, point.length)
    DiffusionLM.new(config.model, words, corpus.length_histogram()).save_pretrained(folder)
    lm = DiffusionLM.from_pretrained(folder)
    shape = AttributeConfig(
        fields=FIELDS,
        embedding_dim=config.model.embedding_dim,
        max_length=config.model.max_length,
        schedule=config.model.schedule,
        lm=lm.fingerprint,
    )
    AttributeModel(shape).save_pretrained(Path(folder, "controls", "attribute"))
    control = Attribute("field 0", "value 0") if point.control else None
    n = int(point.batch)
    counter = FlopCounterMode(display=False)
    # It cannot follow the gradients of a classifier.
    with nullcontext() if point.control else counter:
        lm.generate(n, control, steps=WARM_UP_STEPS, batch_size=n)
    synchronize()
    generation = lm.generate(n, control, steps=point.steps, batch_size=n)
    operations = counter.get_total_flops() / WARM_UP_STEPS * point.steps
    return {
        "samples_per_second": n / generation.seconds,
        "seconds": generation.seconds,
        "network_evaluations": generation.network_evaluations,
        "flops_per_second": None if point.control else operations / generation.seconds,
    }


def matrix_rate() -> float:
    """Operations a second of a large product, in bf16 where the machine multiplies in it: the best of five."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if multiplies_bf16(torch.device(kind)) else torch.float32
    x = torch.randn(SIDE[kind], SIDE[kind], device=kind, dtype=dtype)
    best = float("inf")
    for _ in range(6):  # the first prepares it
        synchronize()
        started = time.perf_counter()
        x @ x
        synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE[kind] ** 3 / best


def synchronize() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> float:
    """The most memory that this process has held so far, in MiB: on the GPU if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def main() -> None:
    """Measure the point that the argument describes."""
    point = Point(**json.loads(sys.argv[1]))
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        figures = {"train": train, "generate": generate}[point.kind](point, folder)
    peak, device = peak_memory(), torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    machine = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**figures, "matrix_rate": matrix_rate(), "peak_mib": peak, "idle_mib": before, **machine}))


if __name__ == "__main__":
    main()
