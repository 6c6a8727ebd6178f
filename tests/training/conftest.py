"""A toy run that takes a second: one layer of width 32 on the toy corpus, in fp32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from diffusion_lm.fit import OptimizerConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.training.lm import Data, RunConfig, TokenizerConfig, TrainConfig, prepare
from diffusion_lm.training.trainer import Trainer


def toy_config(out: Path | str, **settings: Any) -> TrainConfig:
    """A toy run; settings are named as flags are, with an underscore for the dot: `optimizer_lr=1.0`."""
    config = TrainConfig(
        model=ModelConfig(size="tiny", width=32, layers=1, heads=2, embedding_dim=8, max_length=24),
        tokenizer=TokenizerConfig(min_count=1),
        optimizer=OptimizerConfig(lr=3e-3, warmup=5),
        run=RunConfig(
            out=str(out),
            steps=10,
            batch_tokens=256,
            precision="no",
            device="cpu",
            validate_every=1000,
            sample_every=1000,
            log_every=1,
        ),
    )
    for name, value in settings.items():
        group, _, key = name.partition("_")
        config = replace(config, **{group: replace(getattr(config, group), **{key: value})})
    return config


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process; a test may want others."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The toy corpus, encoded."""
    folder = tmp_path_factory.mktemp("toy")
    return prepare(toy_config(folder), folder)


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., TrainConfig]:
    """`make_config(run_steps=20)`: a toy run in a folder of this test; `out` names another one in it."""
    return lambda out="run", **settings: toy_config(tmp_path / out, **settings)


@pytest.fixture
def make_trainer(data: Data) -> Callable[[TrainConfig], Trainer]:
    """A trainer with the seeded weights that `train` would begin with."""

    def make(config: TrainConfig) -> Trainer:
        torch.manual_seed(config.run.seed)
        return Trainer(config, data, DiffusionLM.new(config.model, data.tokenizer, data.train.length_histogram()))

    return make


@pytest.fixture
def saved_tensors() -> Callable[[TrainConfig, int], dict[str, torch.Tensor]]:
    """Every tensor of a run's checkpoint of a step, by part and name."""

    def read(config: TrainConfig, step: int) -> dict[str, torch.Tensor]:
        files = Path(config.run.out, "checkpoints", f"step-{step:08d}").glob("*.safetensors")
        # Copies, as the loaded tensors are maps of files that the test may damage.
        return {name: value.clone() for file in files for name, value in load_file(file).items()}

    return read
