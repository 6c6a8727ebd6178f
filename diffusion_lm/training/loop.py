"""The training loop of the language model.

The noise of a step depends on (seed, step, process) alone, and the batches on (seed, epoch): a run that is
killed and taken up again is the run that was never killed.
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
from dataclasses import asdict, dataclass
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
from diffusion_lm.training.checkpoint import Checkpoint, export_model, latest_checkpoint, save_checkpoint
from diffusion_lm.training.config import TrainConfig
from diffusion_lm.training.data import Data, batches_from
from diffusion_lm.training.disk import explain_full_disk
from diffusion_lm.training.ema import EMA
from diffusion_lm.training.metrics import MetricsLog, Progress
from diffusion_lm.training.optimizer import (
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
)
from diffusion_lm.training.precision import hardware_precision, uses_cpu
from diffusion_lm.training.settings import RUN_FILE, changed_settings
from diffusion_lm.training.signals import StopRequest
from diffusion_lm.training.validate import validate

logger = logging.getLogger(__name__)

T = TypeVar("T")

OnSample = Callable[[int, DiffusionLM], None]

NOT_IN_FINGERPRINT = ("out", "checkpoint_minutes", "validate_every", "sample_every", "log_every")
"""Settings of a run that may change when it is taken up again, as they leave the weights alone."""


class LossModule(nn.Module):
    """The objective as a forward pass, so that DistributedDataParallel sees every parameter it averages."""

    def __init__(self, lm: DiffusionLM) -> None:
        super().__init__()
        self.lm = lm
        self.objective = lm.objective()

    def forward(self, ids: Tensor, mask: Tensor, t: Tensor) -> Terms:  # noqa: D102
        return self.objective(self.lm, ids, mask, t)


@dataclass(frozen=True)
class StepReport:
    """What a step came to, over all processes.

    Attributes:
        terms: mean of each term of the loss over the batch.
        norm: the gradient's, before clipping.
        tokens: positions seen.
    """

    terms: dict[str, float]
    norm: float
    tokens: int


class Trainer:
    """One run: `fit()` trains to the last step, or to a signal, and leaves a model to generate with."""

    def __init__(self, config: TrainConfig, data: Data, lm: DiffusionLM) -> None:
        """Take up the newest intact checkpoint of `config.run.out`, if there is one.

        Raises:
            UserError: if the checkpoint belongs to a run with another model, data or schedule.
        """
        run = config.run
        self.config, self.data, self.lm = config, data, lm
        self.folder = Path(run.out)
        self.accelerator = Accelerator(mixed_precision=hardware_precision(run), cpu=uses_cpu(run))
        self.canvas = config.model.canvas
        self.times: TimeSampler = ImportanceTimes() if run.time_sampling == "importance" else UniformTimes()
        self.step, self.tokens = 0, 0
        optimizer = build_optimizer(lm, config.optimizer)
        self.loss, self.optimizer = self.accelerator.prepare(LossModule(lm), optimizer)
        self.ema = EMA(lm, config.optimizer.ema)
        self._resume()
        self.train_data = data.train.to(self.accelerator.device)

    # -- state -----------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        settings = asdict(self.config)
        for name in NOT_IN_FINGERPRINT:
            settings["run"].pop(name)
        settings["corpus"] = self.data.train.meta.corpus
        settings["tokenizer"] = self.data.tokenizer.fingerprint
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def _resume(self) -> None:
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        found = checkpoint.step if checkpoint else 0
        if self._sum(found) != found * self.accelerator.num_processes:
            raise UserError(
                f"The processes find different checkpoints in {self.folder}; give --run.out a folder that "
                "all machines share."
            )
        if checkpoint is None:
            return
        if checkpoint.run != self._fingerprint():
            raise self._refusal()
        self.lm.load_state_dict(checkpoint.parts["model"])
        load_optimizer_tensors(self.lm, self.optimizer.optimizer, checkpoint.parts["optimizer"])
        self.ema.load(checkpoint.parts["ema"], checkpoint.step)
        self.times.load_state_dict(checkpoint.parts.get("times", {}))
        self.step, self.tokens = checkpoint.step, checkpoint.tokens
        logger.info("Resuming after step %d.", self.step)

    def _refusal(self) -> UserError:
        free = tuple(f"run.{name} " for name in NOT_IN_FINGERPRINT)
        changed = [
            phrase for phrase in changed_settings(self.folder, self.config) if not phrase.startswith(free)
        ]
        return UserError(
            f"{self.folder} holds a run with other settings or another corpus{': ' if changed else ''}"
            f"{', '.join(changed)}; give --run.out another folder, or continue it with its own "
            f"{self.folder / RUN_FILE}."
        )

    def save(self) -> None:
        """Write a checkpoint for resuming, and the averaged weights as a model to generate with.

        Raises:
            UserError: if the disk is full or a weight is not finite; what is on disk then stays as it was.
        """
        ruined = [name for name, value in self.lm.state_dict().items() if not value.isfinite().all()]
        if ruined:
            raise self._not_finite([ruined[0]], self.step)
        if not self.accelerator.is_main_process:
            return
        parts = {
            "model": self.lm.state_dict(),
            "ema": self.ema.state(),
            "optimizer": optimizer_tensors(self.lm, self.optimizer.optimizer),
        }
        if times := self.times.state_dict():
            parts["times"] = times
        checkpoint = Checkpoint(self.step, self.tokens, self._fingerprint(), parts)
        save_checkpoint(self.folder / "checkpoints", checkpoint)
        self._export()

    def _export(self) -> None:
        if self.accelerator.is_main_process:
            with self.ema.in_place():
                export_model(self.lm, self.folder / "model")

    # -- training --------------------------------------------------------------------------------------------

    def fit(self, on_sample: OnSample | None = None) -> None:
        """Train to the last step.

        Args:
            on_sample: called every `sample_every` steps, on the main process, with the averaged weights.

        Raises:
            UserError: if a loss or gradient is not finite, the disk is full, or a signal asked to stop; in
                each case the newest checkpoint is usable, and the same command continues from it.
        """
        run, main = self.config.run, self.accelerator.is_main_process
        if self.step == run.steps:
            self._export()  # which the end of the process may have prevented
        self.loss.train()
        saved = time.monotonic()
        with (
            explain_full_disk(self.folder),
            StopRequest() as stop,
            MetricsLog(self.folder, self.step, enabled=main) as log,
            Progress(self.step, run.steps, enabled=main) as progress,
        ):
            batches = batches_from(self.data.train.lengths, run, self.canvas, self.step)
            while self.step < run.steps:
                report = self._train_step(next(batches))
                self.step += 1
                self.tokens += report.tokens
                progress.advance(report.tokens, sum(report.terms.values()))
                self._report(report, log, on_sample)
                last = self.step == run.steps
                stopping = self._sum(stop.signal is not None) > 0
                if last or stopping or time.monotonic() - saved > 60 * run.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if stopping and not last:
                    raise self._stopped(stop.signal)

    def _report(self, report: StepReport, log: MetricsLog, on_sample: OnSample | None) -> None:
        """Whatever is due after this step: metrics, validation, samples."""
        run = self.config.run
        if not self.accelerator.is_main_process:
            return
        last = self.step == run.steps
        if self.step % run.log_every == 0:
            rate = learning_rate(self.step - 1, run.steps, self.config.optimizer)
            values = {"gradient_norm": report.norm, "lr": rate, "tokens": float(self.tokens)}
            log.write(self.step, {**report.terms, **values}, "train")
        if self.step % run.validate_every == 0 or last:
            log.write(self.step, self._with_average(self._validate), "dev")
        if on_sample and (self.step % run.sample_every == 0 or last):
            self._with_average(lambda: on_sample(self.step, self.lm))

    def _stopped(self, number: int | None) -> UserError:
        name = signal.Signals(number).name if number else "a signal to another process"
        return UserError(f"Stopped by {name} after step {self.step}; the same command continues from there.")

    def _sum(self, value: float) -> float:
        """Sum of a number over the processes."""
        return self._sums([value])[0]

    def _sums(self, values: list[float]) -> list[float]:
        if self.accelerator.num_processes == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        sums: list[float] = self.accelerator.reduce(tensor).tolist()
        return sums

    def _train_step(self, batch: Tensor) -> StepReport:
        """One optimiser step on the sentences of `batch`, which the processes share."""
        run, accelerator = self.config.run, self.accelerator
        torch.manual_seed(hash((run.seed, self.step, accelerator.process_index)) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, run.steps, self.config.optimizer)
        terms, tokens = self._backward(batch)
        norm = float(
            accelerator.clip_grad_norm_(self.loss.parameters(), self.config.optimizer.clip or math.inf)
        )
        bad = [name for name, value in {**terms, "gradient norm": norm}.items() if not math.isfinite(value)]
        if bad:
            raise self._not_finite(bad, self.step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        return StepReport(terms, norm, tokens)

    def _backward(self, batch: Tensor) -> tuple[dict[str, float], int]:
        """Gradients of the mean loss over all of `batch`; the mean of each term, and the positions seen.

        Each process takes every world-th sentence, and each of its parts every accumulate-th of these.
        Gradients are averaged over processes and summed over parts, so each part counts by its share of the
        sentences.
        """
        accelerator, world = self.accelerator, self.accelerator.num_processes
        own = batch[accelerator.process_index :: world]
        split = [own[i :: self.config.run.accumulate] for i in range(self.config.run.accumulate)]
        # A process without a sentence borrows one that counts nothing: the others wait for its gradients.
        parts = [part for part in split if len(part)]
        terms: dict[str, float] = {}
        tokens = 0
        for i, part in enumerate(parts or [batch[:1]]):
            share = len(part) / len(batch) if parts else 0.0
            ids, mask = gather(self.train_data, part, self.data.tokenizer.pad_id, self.canvas)
            t = self.times.sample(len(ids), accelerator.device)
            with accelerator.no_sync(self.loss) if i + 1 < len(parts) else nullcontext():
                losses = self.loss(ids, mask, t.t)
                total = sum(losses.values())
                assert isinstance(total, Tensor)
                accelerator.backward((t.weight * total).mean() * (share * world))
            self.times.update(t.t, total)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + (t.weight * value).mean().item() * share
            tokens += int(mask.sum()) if parts else 0
        *means, tokens_seen = self._sums([*terms.values(), tokens])
        return dict(zip(terms, means, strict=True)), int(tokens_seen)

    def _not_finite(self, names: list[str], step: int) -> UserError:
        return UserError(
            f"Training stopped at step {step}: {' and '.join(names)} not finite; earlier checkpoints are "
            "intact, and a lower --optimizer.lr, a longer --optimizer.warmup or --run.precision no may help."
        )

    def _with_average(self, action: Callable[[], T]) -> T:
        """Run something with the averaged weights in place and without dropout."""
        self.lm.eval()
        try:
            with self.ema.in_place(), torch.no_grad(), self.accelerator.autocast():
                return action()
        finally:
            self.lm.train()

    def _validate(self) -> dict[str, float]:
        dev = self.data.dev.to(self.accelerator.device)
        return validate(self.lm, dev, self.data.tokenizer.pad_id, self.canvas)
