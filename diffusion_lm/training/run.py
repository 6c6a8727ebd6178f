"""A training run from its settings to the trained model."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from diffusion_lm.errors import UserError
from diffusion_lm.model.diffusion_lm import DiffusionLM
from diffusion_lm.training.config import RunConfig, TrainConfig
from diffusion_lm.training.data import prepare
from diffusion_lm.training.disk import explain_full_disk
from diffusion_lm.training.loop import OnSample, Trainer
from diffusion_lm.training.metrics import Records
from diffusion_lm.training.precision import uses_cpu
from diffusion_lm.training.settings import save_settings

logger = logging.getLogger(__name__)

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
        raise UserError(
            f"--run.out {path} cannot be made a folder ({error.strerror}); give another."
        ) from None


def _check(run: RunConfig) -> None:
    """Refuse numbers with which no step can be taken."""
    for name in ("steps", "batch_tokens", "accumulate", "validate_every", "sample_every", "log_every"):
        if getattr(run, name) < 1:
            raise UserError(f"--run.{name} must be 1 or more, not {getattr(run, name)}.")
    if run.batch_sentences is not None and run.batch_sentences < 1:
        raise UserError(f"--run.batch_sentences must be 1 or more, not {run.batch_sentences}.")
