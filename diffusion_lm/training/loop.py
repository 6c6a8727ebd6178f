"""The training loop of the language model.

The noise of a step depends on (seed, step, process) alone, and the batches on (seed, epoch): a run that is killed and
taken up again is the run that was never killed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffusion_lm.diffusion.losses import Terms
from diffusion_lm.diffusion.times import ImportanceTimes, TimeSampler, UniformTimes
from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.text.batches import gather
from diffusion_lm.training.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from diffusion_lm.training.config import RunConfig, TrainConfig
from diffusion_lm.training.data import Data, batches_from
from diffusion_lm.training.ema import EMA
from diffusion_lm.training.metrics import MetricsLog, Progress
from diffusion_lm.training.optimizer import (
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
)
from diffusion_lm.training.signals import StopRequest
from diffusion_lm.training.validate import validate

logger = logging.getLogger(__name__)

T = TypeVar("T")


class LossModule(nn.Module):
    """The objective as a module's forward pass, so that DistributedDataParallel sees every parameter it averages."""

    def __init__(self, lm: DiffusionLM) -> None:
        super().__init__()
        self.lm = lm
        self.objective = lm.objective()

    def forward(self, ids: Tensor, mask: Tensor, t: Tensor) -> Terms:  # noqa: D102
        return self.objective(self.lm, ids, mask, t)


def hardware_precision(config: RunConfig) -> str:
    """'bf16' where asked for, or where `auto` finds that the hardware multiplies in bf16; else 'no'."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available() and config.device != "cpu":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no"


class Trainer:
    """One run: `fit()` trains to the last step, or to a signal, and leaves a model that `from_pretrained` loads."""

    def __init__(self, config: TrainConfig, data: Data, lm: DiffusionLM) -> None:
        """Take up the newest intact checkpoint of `config.run.out`, if there is one.

        Raises:
            UserError: if the checkpoint belongs to a run with another model, data or schedule.
        """
        run = config.run
        self.config, self.data, self.lm = config, data, lm
        self.folder = Path(run.out)
        self.accelerator = Accelerator(
            mixed_precision=hardware_precision(run), cpu=run.device == "cpu", gradient_accumulation_steps=1
        )
        self.canvas = config.model.max_length if config.model.layout == "padded" else None
        self.times: TimeSampler = ImportanceTimes() if run.time_sampling == "importance" else UniformTimes()
        self.step, self.tokens = 0, 0
        optimizer = build_optimizer(lm, config.optimizer)
        self.loss, self.optimizer = self.accelerator.prepare(LossModule(lm), optimizer)
        self.ema = EMA(lm, config.optimizer.ema)
        self._resume()
        self.train_data = data.train.to(self.accelerator.device)

    # -- state ---------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        settings = asdict(self.config)
        for free in ("out", "checkpoint_minutes", "validate_every", "sample_every", "log_every"):
            settings["run"].pop(free)
        settings["corpus"] = self.data.train.meta.corpus
        settings["tokenizer"] = self.data.tokenizer.fingerprint
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def _resume(self) -> None:
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        if checkpoint is None:
            return
        if checkpoint.run != self._fingerprint():
            raise UserError(
                f"{self.folder} holds a run with other settings or another corpus; give --run.out another folder, or "
                f"continue it with its own {self.folder / 'run.yaml'}."
            )
        self.lm.load_state_dict(checkpoint.parts["model"])
        load_optimizer_tensors(self.lm, self.optimizer.optimizer, checkpoint.parts["optimizer"])
        self.ema.load(checkpoint.parts["ema"], checkpoint.step)
        self.times.load_state_dict(checkpoint.parts.get("times", {}))
        self.step, self.tokens = checkpoint.step, checkpoint.tokens
        logger.info("Resuming after step %d.", self.step)

    def save(self) -> None:
        """Write a checkpoint for resuming, and the averaged weights as a model to generate with."""
        if not self.accelerator.is_main_process:
            return
        parts = {
            "model": self.lm.state_dict(),
            "ema": self.ema.state(),
            "optimizer": optimizer_tensors(self.lm, self.optimizer.optimizer),
        }
        if times := self.times.state_dict():
            parts["times"] = times
        save_checkpoint(self.folder / "checkpoints", Checkpoint(self.step, self.tokens, self._fingerprint(), parts))
        self.ema.swap()
        try:
            self.lm.save_pretrained(self.folder / "model")
        finally:
            self.ema.swap()

    # -- training ------------------------------------------------------------------------------------------------

    def fit(self, on_sample: Callable[[int, DiffusionLM], None] | None = None) -> None:
        """Train to the last step.

        Args:
            on_sample: called every `sample_every` steps on the main process with the averaged weights in place.

        Raises:
            UserError: if a loss or gradient is not finite, the disk is full, or a signal asked to stop; in each case the
                newest checkpoint is usable, and the same command continues from it.
        """
        run, main = self.config.run, self.accelerator.is_main_process
        batches = batches_from(self.data.train.lengths, run, self.canvas, self.step)
        saved = time.monotonic()
        self.loss.train()
        with (
            StopRequest() as stop,
            MetricsLog(self.folder, enabled=main) as log,
            Progress(self.step, run.steps, enabled=main) as progress,
        ):
            while self.step < run.steps:
                terms, norm, tokens = self._train_step(next(batches))
                self.step += 1
                self.tokens += tokens
                progress.advance(tokens, sum(terms.values()))
                if self.step % run.log_every == 0:
                    rate = learning_rate(self.step - 1, run.steps, self.config.optimizer)
                    log.write(self.step, {**terms, "gradient_norm": norm, "lr": rate, "tokens": float(self.tokens)}, "train")
                last = self.step == run.steps
                if main and (self.step % run.validate_every == 0 or last):
                    log.write(self.step, self._with_average(self._validate), "dev")
                if main and on_sample and (self.step % run.sample_every == 0 or last):
                    self._with_average(lambda: on_sample(self.step, self.lm))
                stopping = self._any_process(stop.signal is not None)
                if last or stopping or time.monotonic() - saved > 60 * run.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if stopping and not last:
                    name = signal.Signals(stop.signal).name if stop.signal else "a signal to another process"
                    raise UserError(f"Stopped by {name} after step {self.step}; the same command continues from there.")

    def _any_process(self, flag: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return flag
        total = self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device))
        return bool(total > 0)

    def _train_step(self, batch: Tensor) -> tuple[dict[str, float], float, int]:
        """One optimiser step on the sentences of `batch`; the mean of each term, the gradient norm, the tokens seen."""
        run, accelerator = self.config.run, self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        torch.manual_seed(hash((run.seed, self.step, rank)) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, run.steps, self.config.optimizer)
        # Each process takes every world-th sentence, and each part every accumulate-th of these; at least one.
        parts = [p for i in range(run.accumulate) if len(p := batch[rank::world][i :: run.accumulate])]
        parts = parts or [batch[:1]]
        terms: dict[str, float] = {}
        tokens = 0
        for i, part in enumerate(parts):
            ids, mask = gather(self.train_data, part, self.data.tokenizer.pad_id, self.canvas)
            t = self.times.sample(len(ids), accelerator.device)
            with accelerator.no_sync(self.loss) if i + 1 < len(parts) else nullcontext():
                losses = self.loss(ids, mask, t.t)
                total = sum(losses.values())
                assert isinstance(total, Tensor)
                accelerator.backward((t.weight * total).mean() / len(parts))
            self.times.update(t.t, total)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + (t.weight * value).mean().item() / len(parts)
            tokens += int(mask.sum()) * world
        norm = float(accelerator.clip_grad_norm_(self.loss.parameters(), self.config.optimizer.clip or math.inf))
        self._check_finite(terms, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        return terms, norm, tokens

    def _check_finite(self, terms: dict[str, float], norm: float) -> None:
        bad = [name for name, value in {**terms, "gradient norm": norm}.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"Training stopped at step {self.step + 1}: {' and '.join(bad)} not finite; the last checkpoint is intact. "
                "A lower --optimizer.lr, a longer --optimizer.warmup or --run.precision no usually helps."
            )

    def _with_average(self, action: Callable[[], T]) -> T:
        """Run something with the averaged weights in place and without dropout."""
        self.ema.swap()
        self.lm.eval()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                return action()
        finally:
            self.lm.train()
            self.ema.swap()

    def _validate(self) -> dict[str, float]:
        return validate(self.lm, self.data.dev.to(self.accelerator.device), self.data.tokenizer.pad_id, self.canvas)
