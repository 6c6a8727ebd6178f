"""Training of the language model."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
import yaml
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from diffusion_lm.common import UserError, check_seed, cpu_multiplies_bf16, gpu_multiplies_bf16
from diffusion_lm.diffusion.losses import Terms, VariationalBound, spread_times
from diffusion_lm.diffusion.times import ImportanceTimes, TimeSampler, UniformTimes
from diffusion_lm.fit import EMA, OptimizerConfig, build_optimizer, learning_rate
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.store import explain_full_disk, write_whole
from diffusion_lm.text.batches import gather, token_batches
from diffusion_lm.text.corpus import Corpus, CorpusConfig, open_corpus
from diffusion_lm.text.encoded import EncodedCorpus, encode_corpus
from diffusion_lm.text.tokenizer import Tokenizer, build_bpe_tokenizer, build_word_tokenizer
from diffusion_lm.training.checkpoint import Checkpoint, export_model, latest_checkpoint, save_checkpoint
from diffusion_lm.training.trainer import (
    MetricsLog,
    Progress,
    Records,
    StopRequest,
    load_optimizer_tensors,
    optimizer_tensors,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: Literal["word", "bpe"] = "word"
    """word: reversible words and marks; bpe: byte-level pieces, for any corpus."""
    min_count: int = 11
    """word: a word is kept if the training split has it at least so often (paper: more than 10)."""
    vocab_size: int = 8192
    """bpe: number of tokens."""


@dataclass(frozen=True)
class RunConfig:
    """How long, how large, where to."""

    out: str = "runs/lm"
    """Folder of the run: the model, metrics.jsonl, TensorBoard events and checkpoints for resuming."""
    steps: int = 1000
    """Optimiser steps."""
    batch_tokens: int = 3072
    """Positions a step, padding included, over all processes; batches hold sentences of like length."""
    batch_sentences: int | None = None
    """Sentences a step instead of a token budget (the paper's 64)."""
    accumulate: int = 1
    """Parts into which each step's batch is split to save memory."""
    time_sampling: Literal["uniform", "importance"] = "uniform"
    """How t is drawn (paper: uniform for L_simple, importance for L_vlb)."""
    precision: Literal["auto", "bf16", "no"] = "auto"
    """auto: bf16 autocast where the hardware multiplies in bf16."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: an accelerator where there is one."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints."""
    validate_every: int = 1000
    """Steps between validations on the dev split."""
    sample_every: int = 2000
    """Steps between printed samples, always from the same seed."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        check_seed(self.seed)


def uses_cpu(config: RunConfig) -> bool:
    """Whether a run is on the CPU: because it asks for it, or has nothing else."""
    return config.device == "cpu" or not torch.accelerator.is_available()


def hardware_precision(config: RunConfig) -> str:
    """'bf16' where asked for, or where `auto` finds that the hardware multiplies in bf16; else 'no'."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if (cpu_multiplies_bf16() if uses_cpu(config) else gpu_multiplies_bf16()) else "no"


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """What to read."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes tokens."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What to train."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How to train it."""
    run: RunConfig = field(default_factory=RunConfig)
    """How long, how large, where to."""


RUN_FILE = "run.yaml"


def save_settings(folder: Path, config: DataclassInstance) -> None:
    """Write `run.yaml`; as a configuration file of the same command it starts the same run."""
    write_whole(folder / RUN_FILE, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def changed_settings(folder: Path, config: TrainConfig) -> list[str]:
    """In which settings a run differs from the one that wrote the folder's `run.yaml`.

    Returns:
        Phrases such as "optimizer.lr (0.003 there, 0.001 here)"; none if there is no readable `run.yaml`.
    """
    try:
        saved = dict(_flat(yaml.safe_load((folder / RUN_FILE).read_text(encoding="utf8"))))
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return []
    here = dict(_flat(asdict(config)))
    return [
        f"{name} ({saved.get(name)} there, {here.get(name)} here)"
        for name in dict.fromkeys([*saved, *here])
        if saved.get(name) != here.get(name)
    ]


def _flat(tree: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


logger = logging.getLogger(__name__)

_FORMAT = 1  # to be raised when a tokenizer of the same settings comes out differently


@dataclass(frozen=True)
class Data:
    """A corpus made ready.

    Attributes:
        corpus: where the texts are read.
        tokenizer: built on the training split.
        train: encoded training sentences.
        dev: encoded dev sentences.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    train: EncodedCorpus
    dev: EncodedCorpus


def build_tokenizer(corpus: Corpus, config: TokenizerConfig) -> Tokenizer:
    """The tokenizer of a corpus's training split."""
    texts = (document.text for document in corpus.documents("train"))
    if config.kind == "word":
        return build_word_tokenizer(texts, config.min_count)
    return build_bpe_tokenizer(texts, config.vocab_size)


def _cached_tokenizer(corpus: Corpus, config: TokenizerConfig, cache: Path) -> Tokenizer:
    """The tokenizer from the cache, if it was built there from the same text with the same settings."""
    key = json.dumps([_FORMAT, corpus.fingerprint("train"), asdict(config)])
    folder = cache / f"tokenizer-{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}"
    if folder.exists():
        try:
            return Tokenizer.load(folder)
        except UserError as error:
            logger.warning("The cache is damaged and is built again: %s", error)
    tokenizer = build_tokenizer(corpus, config)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return tokenizer


def prepare(config: TrainConfig, folder: Path) -> Data:
    """Open the corpus, build the tokenizer and encode both splits, or take them from `folder`/cache.

    Raises:
        UserError: if the corpus cannot be read or a split is empty.
    """
    corpus = open_corpus(config.corpus)
    cache = folder / "cache"
    tokenizer = _cached_tokenizer(corpus, config.tokenizer, cache)
    train, dev = (encode_corpus(corpus, split, tokenizer, config.model.max_length, cache) for split in ("train", "dev"))
    return Data(corpus, tokenizer, train, dev)


def epoch_batches(lengths: torch.Tensor, config: RunConfig, canvas: int | None, epoch: int) -> list[torch.Tensor]:
    """The batches of an epoch, the same for the same seed and epoch: sentence numbers, one tensor a step."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    if config.batch_sentences is not None:
        order = torch.randperm(len(lengths), generator=generator)
        return list(order.split(config.batch_sentences))
    return token_batches(torch.full_like(lengths, canvas) if canvas else lengths, config.batch_tokens, generator)


def batches_from(lengths: torch.Tensor, config: RunConfig, canvas: int | None, step: int) -> Iterator[torch.Tensor]:
    """The batches of steps `step`, `step` + 1, ... without end, the same wherever a run is taken up."""
    epoch = 0
    while True:
        batches = epoch_batches(lengths, config, canvas, epoch)
        yield from batches[step:]
        step = max(0, step - len(batches))
        epoch += 1


LEVELS = 10
SENTENCES = 512
SEED = 0


@torch.no_grad()
def validate(lm: DiffusionLM, dev: EncodedCorpus, pad_id: int, canvas: int | None) -> dict[str, float]:
    """The loss and the likelihood bound on at most 512 dev sentences, always with the same noise.

    Returns:
        `loss`; each of its terms by name; `loss_t0.05` ... `loss_t0.95`, the mean of the loss in ten bands of
        t, without bands that no sentence falls in; and `bound`, nats a token, an upper bound on -log p(w
        given length).
    """
    objective, bound = lm.objective(), VariationalBound(steps=None)
    lengths = torch.full_like(dev.lengths, canvas).cpu() if canvas else dev.lengths.cpu()
    chosen = torch.arange(0, len(lengths), max(1, len(lengths) // SENTENCES))[:SENTENCES]
    sums: dict[str, float] = {}
    levels = torch.zeros(2, LEVELS)
    seen = 0
    device = dev.offsets.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        for batch in token_batches(lengths[chosen], 4096, None):
            ids, mask = gather(dev, chosen[batch], pad_id, canvas)
            u = spread_times(seen, len(ids), device)
            terms = objective(lm, ids, mask, u)
            nats = bound.estimate(lm, ids, mask, seen)
            loss = sum(terms.values())
            assert isinstance(loss, torch.Tensor)
            for name, value in {**terms, "loss": loss, "bound": nats}.items():
                sums[name] = sums.get(name, 0.0) + value.sum().item()
            band = (u * LEVELS).long().cpu()
            levels[0].index_add_(0, band, loss.float().cpu())
            levels[1].index_add_(0, band, torch.ones(len(ids)))
            seen += len(ids)
    by_level = {
        f"loss_t{(i + 0.5) / LEVELS:.2f}": total / count for i, (total, count) in enumerate(levels.T.tolist()) if count
    }
    return {name: value / seen for name, value in sums.items()} | by_level


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
        changed = [phrase for phrase in changed_settings(self.folder, self.config) if not phrase.startswith(free)]
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
        norm = float(accelerator.clip_grad_norm_(self.loss.parameters(), self.config.optimizer.clip or math.inf))
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


SAMPLES, SAMPLE_STEPS = 4, 50


def train(config: TrainConfig) -> None:
    """Train a language model, or take up the run that `config.run.out` holds.

    The folder then holds `model` (for `DiffusionLM.from_pretrained`), `run.yaml`, `tokenizer.json`,
    `metrics.jsonl`, `samples.jsonl`, TensorBoard events, and what resuming needs: `cache` and `checkpoints`.
    Under `accelerate launch` or `torchrun` each process calls this, and they share every batch.

    Raises:
        UserError: if a setting or the corpus cannot be used, the folder holds another run, the loss is not
            finite, the disk is full, or a signal asked to stop.
    """
    _check(config.run)
    # The others wait while the main process encodes the corpus, however large it is.
    processes = PartialState(cpu=uses_cpu(config.run), timeout=timedelta(hours=2))
    out = Path(config.run.out)
    with explain_full_disk(out):
        with processes.main_process_first():
            _make_folder(out)
            data = prepare(config, out)
        torch.manual_seed(config.run.seed)
        lm = DiffusionLM(config.model, data.tokenizer, data.train.length_histogram())
        trainer = Trainer(config, data, lm)
        if not processes.is_main_process:
            trainer.fit()
        else:
            data.tokenizer.save(out)
            save_settings(out, config)
            with Records(out / "samples.jsonl", trainer.step) as records:
                trainer.fit(on_sample=_sample_into(records, config.run.seed))
    if processes.num_processes > 1:
        trainer.accelerator.end_training()


def _sample_into(records: Records, seed: int) -> OnSample:
    """What logs a few sentences and keeps them in samples.jsonl, always from the same noise."""

    def sample(step: int, lm: DiffusionLM) -> None:
        texts = lm.generate(SAMPLES, steps=SAMPLE_STEPS, seed=seed).texts
        records.write({"step": step, "seed": seed, "texts": texts})
        logger.info("Samples after step %d:%s", step, "".join(f"\n  {text}" for text in texts))

    return sample


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"--run.out {path} cannot be made a folder ({error.strerror}); give another.") from None


def _check(run: RunConfig) -> None:
    """Refuse numbers with which no step can be taken."""
    for name in ("steps", "batch_tokens", "accumulate", "validate_every", "sample_every", "log_every"):
        if getattr(run, name) < 1:
            raise UserError(f"--run.{name} must be 1 or more, not {getattr(run, name)}.")
    if run.batch_sentences is not None and run.batch_sentences < 1:
        raise UserError(f"--run.batch_sentences must be 1 or more, not {run.batch_sentences}.")
