"""The run that trains a language model."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from tqdm.auto import tqdm

from diffusion_lm.common import UserError
from diffusion_lm.diffusion.distillation import Distillation
from diffusion_lm.diffusion.losses import Terms
from diffusion_lm.diffusion.times import ImportanceTimes, TimeSampler, UniformTimes
from diffusion_lm.fit import EMA, build_optimizers, follow, learning_rate
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import Denoiser, ModelConfig
from diffusion_lm.model.gaps import gap_nats
from diffusion_lm.model.given import draw_known, sentence_ends
from diffusion_lm.store import append_line, explain_full_disk, write_whole
from diffusion_lm.text.batches import draw_sources, gather
from diffusion_lm.training.checkpoint import Checkpoint, load_optimizer_tensors, optimizer_tensors
from diffusion_lm.training.lm import RUN_FILE, Data, TrainConfig, batches_from, of_init, prepare, save_settings
from diffusion_lm.training.validation import validate

logger = logging.getLogger(__name__)

METRICS, SAMPLED = "metrics.jsonl", "samples.jsonl"
SAMPLES, SAMPLE_STEPS = 4, 50
LENGTHS_SHARE = 0.25
"""Share of a batch that the lengths of gaps are learned from."""


@contextmanager
def stop_request() -> Iterator[list[int]]:
    """Inside the `with` block the first signal is put into the list; a second one of the same kind acts as usual."""
    heard: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.signal(number, previous[number])

    if threading.current_thread() is threading.main_thread():  # the only one in which Python hears signals
        for number in (int(signal.SIGTERM), int(signal.SIGINT)):
            # None stands for a handler that was not set from Python.
            previous[number] = signal.signal(number, note) or signal.SIG_DFL
    try:
        yield heard
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def forget_after(path: Path, step: int) -> None:
    """Drop the lines of later steps from a file of records: a killed run has written what will be written again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf8").splitlines():
        with suppress(ValueError, KeyError, TypeError):  # of a line that was cut when the process was killed
            if json.loads(line)["step"] <= step:
                kept.append(f"{line}\n")
    write_whole(path, "".join(kept))


def _board(folder: Path, step: int, *, enabled: bool) -> AbstractContextManager[Any]:
    """TensorBoard's writer, where it is installed and wanted; it forgets points of later steps."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        return nullcontext()
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) if enabled else nullcontext()


OnSample = Callable[[int, DiffusionLM], None]
FREE = ("run.out", "run.checkpoint_minutes", "run.validate_every", "run.sample_every", "run.log_every")
"""Settings of a run that may change when it is taken up again, as they leave the weights alone."""


def flat(config: TrainConfig) -> dict[str, Any]:
    """The settings that the weights depend on, by group and name."""
    groups = asdict(config).items()
    every = {f"{group}.{name}": value for group, settings in groups for name, value in settings.items()}
    return {name: value for name, value in every.items() if name not in FREE}


class LossModule(nn.Module):
    """The objective as a forward pass, so that DistributedDataParallel sees every parameter it averages."""

    def __init__(self, network: Denoiser, teacher: Denoiser | None = None) -> None:
        super().__init__()
        self.network = network
        self.objective: Callable[..., Terms] = network.objective() if teacher is None else Distillation(teacher)

    def forward(
        self, ids: Tensor, mask: Tensor, t: Tensor, known: Tensor | None = None, source: Tensor | None = None
    ) -> Terms:
        """The terms of the objective, [B] each; where words are given, `length` too: nats of the gaps' sizes, a word."""
        if known is None:
            return self.objective(self.network, ids, mask, t)
        given = self.network.read_given(known, source)
        terms = self.objective(self.network, ids, mask, t, given)
        # Lengths are learned fast, so some of the sentences do.
        some = torch.randperm(len(ids), device=ids.device)[: math.ceil(len(ids) * LENGTHS_SHARE)]
        few = given.rows(some)
        nats = gap_nats(self.network, few.known, mask[some], few.source) / few.counted(mask[some]).sum(1)
        terms["length"] = torch.zeros_like(t).index_copy(0, some, nats * (len(ids) / len(some)))
        if source is None and self.network.config.max_source:
            # DistributedDataParallel waits for a gradient of every parameter.
            terms["length"] = terms["length"] + 0 * self.network.source_position.weight.sum()
        return terms


class Taken(NamedTuple):
    """A step of this process, which the device may still be at: its share of each term, [], the norm, [], positions seen."""

    terms: dict[str, Tensor]
    norm: Tensor
    tokens: int


class StepReport(NamedTuple):
    """Over all processes: the mean of each term of the loss, the norm of the gradient before clipping, positions seen."""

    terms: dict[str, float]
    norm: float
    tokens: int


class Trainer:
    """One run: `fit()` trains to the last step, or to a signal, and leaves a model to generate with.

    It has a loop of its own, not that of `diffusion_lm.fit`: its steps are shared by processes, numbered for good, and
    each draws from a seed of its own, so that a run can be taken up anywhere bit for bit. Batches are put together on the
    CPU, and what a step has given is read when it is due, so that an accelerator is not waited for at each.
    """

    def __init__(self, config: TrainConfig, data: Data, lm: DiffusionLM) -> None:
        """Take up the newest intact checkpoint of `config.run.out`; a `UserError` if it is of a run with other settings."""
        run, config = config.run, replace(config, model=lm.config)
        self.config, self.data, self.lm, self.network = config, data, lm, lm.denoiser
        self.folder = Path(run.out)
        teacher = None if run.teacher is None else _teacher(run.teacher, lm)
        self.accelerator = Accelerator(mixed_precision=run.mixed_precision, cpu=run.on_cpu)
        self.canvas, self.step, self.tokens = config.model.canvas, 0, 0
        # Where there is no other device to wait for, each step is read as it is taken.
        self.at_once = self.accelerator.device.type == "cpu"
        self.ends = sentence_ends(data.tokenizer)
        self.times: TimeSampler = ImportanceTimes() if run.time_sampling == "importance" else UniformTimes()
        self.board: Any = None
        optimizers = build_optimizers(lm.denoiser, config.optimizer)
        loss = LossModule(lm.denoiser, teacher and teacher.to(self.accelerator.device))
        self.loss, *self.optimizers = self.accelerator.prepare(loss, *optimizers)
        self.ema = EMA(lm.denoiser, config.optimizer.ema, first=run.init_share)
        self._resume()
        if self.accelerator.is_main_process:
            forget_after(self.folder / METRICS, self.step)

    def _settings(self) -> dict[str, Any]:
        """All that the weights depend on, by name."""
        found = {"text": self.data.train.meta.corpus, "vocabulary": self.data.tokenizer.fingerprint}
        return flat(self.config) | found

    def _resume(self) -> None:
        checkpoint = Checkpoint.latest(self.folder / "checkpoints")
        found = checkpoint.step if checkpoint else 0
        if self._sums([found])[0] != found * self.accelerator.num_processes:
            raise UserError(
                f"The processes find different checkpoints in {self.folder}; give --run.out a folder that all share."
            )
        if checkpoint is None:
            return
        here = json.loads(json.dumps(self._settings()))
        # What a checkpoint does not say, being older than the setting, is the default.
        saved = flat(TrainConfig(model=ModelConfig().filled())) | checkpoint.settings
        changed = [name for name in dict.fromkeys([*saved, *here]) if saved.get(name) != here.get(name)]
        if checkpoint.step == saved.get("run.steps") and here["run.steps"] > checkpoint.step:
            changed = [name for name in changed if name != "run.steps"]  # it has ended, and more is wanted
        if changed:
            told = ", ".join(f"{name} ({saved.get(name)} there, {here.get(name)} here)" for name in changed)
            raise UserError(
                f"{self.folder} holds a run with other settings or another corpus: {told}; give --run.out another "
                f"folder, or continue it with its own {self.folder / RUN_FILE}."
            )
        self.network.load_state_dict(checkpoint.parts["model"])
        load_optimizer_tensors(self.network, self.optimizers, checkpoint.parts["optimizer"])
        self.ema.load(checkpoint.parts["ema"], checkpoint.step)
        self.times.load_state_dict(checkpoint.parts.get("times", {}))
        self.step, self.tokens = checkpoint.step, checkpoint.tokens
        logger.info("Resuming after step %d.", self.step)

    def save(self) -> None:
        """Write a checkpoint for resuming, and the averaged weights as a model to generate with.

        Raises:
            UserError: the disk is full or a weight is not finite; what is on disk then stays as it was.
        """
        ruined = [name for name, value in self.network.state_dict().items() if not value.isfinite().all()]
        if ruined:
            raise _not_finite([ruined[0]], self.step)
        parts = {
            "model": self.network.state_dict(),
            "ema": self.ema.state(),
            "optimizer": optimizer_tensors(self.network, self.optimizers),
            "times": self.times.state_dict(),
        }
        if self.accelerator.is_main_process:
            Checkpoint(self.step, self.tokens, self._settings(), parts).save(self.folder / "checkpoints")
        self._export()

    def _export(self) -> None:
        if self.accelerator.is_main_process:
            with self.ema.in_place():
                self.lm.save_pretrained(self.folder / "model", model_card_kwargs={"name": str(self.config.run.out)})

    def fit(self, on_sample: OnSample | None = None) -> None:
        """Train to the last step; `on_sample` is called with the averaged weights in place, on the main process.

        Raises:
            UserError: a loss or gradient is not finite, the disk is full, or a signal asked to stop; in each case the
                newest checkpoint is usable, and the same command continues from it.
        """
        run, main = self.config.run, self.accelerator.is_main_process
        if self.step == run.steps:
            self._export()  # which the end of the process may have prevented
        self.loss.train()
        saved, first = time.monotonic(), self.tokens
        with (
            explain_full_disk(self.folder),
            stop_request() as heard,
            tqdm(total=run.steps, initial=self.step, disable=not main, unit="step", dynamic_ncols=True) as bar,
            _board(self.folder, self.step, enabled=main) as self.board,
        ):
            batches, taken = batches_from(self.data.train.lengths, run, self.canvas, self.step), list[Taken]()
            while self.step < run.steps:
                taken.append(self._train_step(next(batches)))
                self.step += 1
                last, stopping = self.step == run.steps, self._sums([len(heard)])[0] > 0
                if not (last or stopping or self._due()):
                    continue
                reports = self._read(taken)
                taken.clear()
                self.tokens += sum(report.tokens for report in reports)
                loss = sum(reports[-1].terms.values())
                rate = (self.tokens - first) / max(bar.format_dict["elapsed"], 1e-9)
                bar.set_postfix({"loss": f"{loss:.3f}", "tokens/s": f"{rate:,.0f}"}, refresh=False)
                bar.update(len(reports))
                if main:
                    self._report(reports[-1], on_sample)
                if last or stopping or time.monotonic() - saved > 60 * run.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if stopping and not last:
                    name = signal.Signals(heard[0]).name if heard else "a signal to another process"
                    raise UserError(f"Stopped by {name} after step {self.step}; the same command continues from there.")

    def _due(self) -> bool:
        """Whether what this step has given is wanted now."""
        run = self.config.run
        often = (run.log_every, run.validate_every, run.sample_every)
        return self.at_once or any(self.step % n == 0 for n in often)

    def _read(self, taken: Sequence[Taken]) -> list[StepReport]:
        """What the last steps have given, over all processes; a `UserError` names the first that was not finite."""
        # The device is waited for once.
        rows = torch.stack([torch.stack([*own.terms.values(), own.norm]) for own in taken]).tolist()
        reports = []
        for step, (row, own) in enumerate(zip(rows, taken, strict=True), start=self.step - len(taken) + 1):
            *terms, norms, tokens = self._sums([*row, own.tokens])
            report = StepReport(
                dict(zip(own.terms, terms, strict=True)), norms / self.accelerator.num_processes, int(tokens)
            )
            values = {**report.terms, "gradient norm": report.norm}
            if bad := [name for name, value in values.items() if not math.isfinite(value)]:
                raise _not_finite(bad, step)
            reports.append(report)
        return reports

    def _report(self, report: StepReport, on_sample: OnSample | None) -> None:
        """Whatever is due after this step: metrics, validation, samples."""
        run, last = self.config.run, self.step == self.config.run.steps
        if self.step % run.log_every == 0:
            rate = learning_rate(self.step - 1, run.steps, self.config.optimizer)
            values = {"gradient_norm": report.norm, "lr": rate, "tokens": float(self.tokens)}
            self._log({**report.terms, **values}, "train")
        if self.step % run.validate_every == 0 or last:
            with self._averaged():
                dev = self.data.dev.to(self.accelerator.device)
                self._log(validate(self.network, dev, self.data.tokenizer.pad_id, self.canvas), "dev")
        if on_sample and (self.step % run.sample_every == 0 or last):
            with self._averaged():
                on_sample(self.step, self.lm)

    def _log(self, values: dict[str, float], split: str) -> None:
        """Record values of this step as a line, where what is not finite is null, and as points in TensorBoard."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        append_line(self.folder / METRICS, {"step": self.step, "split": split, "time": time.time(), **finite})
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{split}/{name}", value, self.step)

    def _sums(self, values: Sequence[float]) -> Sequence[float]:
        """Sums of numbers over the processes."""
        if self.accelerator.num_processes == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return list(self.accelerator.reduce(tensor).tolist())

    def _train_step(self, batch: Tensor) -> Taken:
        """One optimiser step on the sentences of `batch`, which the processes share."""
        run, config, accelerator = self.config.run, self.config.optimizer, self.accelerator
        torch.manual_seed(hash((run.seed, self.step, accelerator.process_index)) % 2**63)
        terms, tokens = self._backward(batch)
        norm = accelerator.clip_grad_norm_(self.loss.parameters(), config.clip or math.inf)
        assert isinstance(norm, Tensor)
        # A step that would ruin the weights is not taken; where that cannot be known yet, the run ends before they are saved.
        if not self.at_once or bool(norm.isfinite()):
            follow(self.optimizers, learning_rate(self.step, run.steps, config))
            self.ema.update()
        return Taken(terms, norm.detach(), tokens)

    def _backward(self, batch: Tensor) -> tuple[dict[str, Tensor], int]:
        """Gradients of the mean loss over all of `batch`; this process's share of the mean of each term, and of positions.

        Each process takes every world-th sentence, and each of its parts every accumulate-th of these. Gradients are
        averaged over processes and summed over parts, so each part counts by its share of the sentences.
        """
        accelerator, world = self.accelerator, self.accelerator.num_processes
        own = batch[accelerator.process_index :: world]
        split = [own[i :: self.config.run.accumulate] for i in range(self.config.run.accumulate)]
        # A process without a sentence borrows one that counts nothing: the others wait for its gradients.
        parts = [part for part in split if len(part)]
        terms: dict[str, Tensor] = {}
        tokens, device = 0, accelerator.device
        for i, part in enumerate(parts or [batch[:1]]):
            share = len(part) / len(batch) if parts else 0.0
            ids, mask = gather(self.data.train, part, self.data.tokenizer.pad_id, self.canvas)
            tokens += int(mask.sum()) if parts else 0
            t = self.times.sample(len(ids), device)
            inputs = [x if x is None else x.to(device) for x in (ids, mask, *self._given(part, ids, mask))]
            with accelerator.no_sync(self.loss) if i + 1 < len(parts) else nullcontext():
                losses = self.loss(*inputs[:2], t.t, *inputs[2:])
                total = sum(losses.values())
                assert isinstance(total, Tensor)
                accelerator.backward((t.weight * total).mean() * (share * world))
            # How long a text is says nothing of t.
            self.times.update(t.t, total - losses.get("length", 0.0))
            for name, value in losses.items():
                own_share = (t.weight * value.detach()).mean() * share
                terms[name] = terms[name] + own_share if name in terms else own_share
        return terms, tokens

    def _given(self, rows: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What is given of some sentences, drawn anew at every step, and their sources."""
        model = self.network.config
        if not model.given:
            return None, None
        source = draw_sources(self.data.train, rows, model.source_dropout or 0.0)
        return draw_known(ids, mask, model.given, self.ends, threes=self.config.corpus.threes), source

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside the `with` block the averaged weights are in place, without dropout and gradients."""
        self.network.eval()
        try:
            with self.ema.in_place(), torch.no_grad(), self.accelerator.autocast():
                yield
        finally:
            self.network.train()


def _not_finite(names: list[str], step: int) -> UserError:
    return UserError(
        f"Training stopped at step {step}: {' and '.join(names)} not finite; earlier checkpoints are intact, and a lower "
        "--optimizer.lr, a longer --optimizer.warmup or --run.precision no may help."
    )


def train(config: TrainConfig) -> None:
    """Train a language model, or take up the run that `config.run.out` holds.

    The folder then holds `model` (for `DiffusionLM.from_pretrained`), `run.yaml`, `tokenizer.json`, `metrics.jsonl`,
    `samples.jsonl`, TensorBoard events, and what resuming needs: `cache` and `checkpoints`. Under `accelerate launch` or
    `torchrun` each process calls this, and they share every batch.

    Raises:
        UserError: a setting or the corpus cannot be used, the folder holds another run, the loss is not finite, the disk
            is full, or a signal asked to stop.
    """
    # The others wait while the main process encodes the corpus, however large it is.
    processes = PartialState(cpu=config.run.on_cpu, timeout=timedelta(hours=2))
    out = Path(config.run.out)
    with explain_full_disk(out):
        with processes.main_process_first():
            start = None if config.run.init is None else DiffusionLM.from_pretrained(config.run.init, "cpu")
            if start is not None:
                config = replace(config, model=of_init(config.model, start.config, str(config.run.init)))
            config = replace(config, model=config.model.filled())
            out.mkdir(parents=True, exist_ok=True)
            data = prepare(config, out, None if start is None else start.tokenizer)
        torch.manual_seed(config.run.seed)
        lm = DiffusionLM.new(config.model, data.tokenizer, data.train.length_histogram(), data.train.meta.fields)
        if start is not None:
            lm.denoiser.take_over(start.denoiser)
            if config.run.freeze_embeddings:
                lm.denoiser.embedding.requires_grad_(False)
                _keep_controls(start, lm, out / "model", writes=processes.is_main_process)
        trainer = Trainer(config, data, lm)
        if processes.is_main_process:
            data.tokenizer.save(out)
            save_settings(out, config)
            forget_after(out / SAMPLED, trainer.step)
        trainer.fit(on_sample=partial(_sample, out / SAMPLED, config.run.seed))
    if processes.num_processes > 1:
        trainer.accelerator.end_training()


def _teacher(name: str, student: DiffusionLM) -> Denoiser:
    """The network whose two passes one pass of a student is to match; a `UserError` if it cannot teach that."""
    teacher = DiffusionLM.from_pretrained(name, "cpu")
    if not (teacher.denoiser.predicts_words and teacher.config.self_conditioning):
        raise UserError(f"{name} has nothing to teach: it does not predict words, or is not self-conditioned.")
    if teacher.fingerprint != student.fingerprint:
        raise UserError(
            f"A student has the word vectors of its teacher {name}; give --run.init {name} and --run.freeze_embeddings true."
        )
    return teacher.denoiser.requires_grad_(False)


def _keep_controls(start: DiffusionLM, lm: DiffusionLM, folder: Path, *, writes: bool) -> None:
    """Put what was made for the controls of a model beside one with the same word vectors."""
    if start.folder is None:
        return
    if writes and (start.folder / "controls").is_dir() and not (folder / "controls").exists():
        shutil.copytree(start.folder / "controls", folder / "controls")
    lm.folder = folder


def _sample(path: Path, seed: int, step: int, lm: DiffusionLM) -> None:
    """Log a few sentences and append them to a file, always from the same noise."""
    texts = lm.generate(SAMPLES, steps=SAMPLE_STEPS, seed=seed).texts
    append_line(path, {"step": step, "seed": seed, "texts": texts})
    logger.info("Samples after step %d:%s", step, "".join(f"\n  {text}" for text in texts))
