"""Two processes that talk through gloo; this file is also what each of them runs, once for all tests."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion_lm.diffusion import losses
from diffusion_lm.diffusion.times import Times
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.training import trainer as run
from diffusion_lm.training.trainer import Trainer

SETTINGS: dict[str, Any] = {"run_steps": 60, "optimizer_lr": 1e-2, "model_self_conditioning": False}
BATCHES = [torch.arange(n) for n in (5, 8, 1)]
"""Split unevenly, evenly, and so that one process has nothing."""


def noiseless_gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Gradient, loss and tokens of each of BATCHES, with nothing drawn at random, so that processes agree."""
    found = {}
    sample, randn_like = trainer.times.sample, losses.torch.randn_like
    trainer.times.sample = lambda n, device: Times(torch.full((n,), 0.5), torch.ones(n))
    losses.torch.randn_like = torch.zeros_like
    with torch.no_grad():
        trainer.network.head.out.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))  # it is zero
    for i, batch in enumerate(BATCHES):
        terms, tokens = trainer._backward(batch)
        loss, seen = trainer._sums([float(terms["words"]), tokens])
        found |= {f"{i}/loss": torch.tensor(float(loss)), f"{i}/tokens": torch.tensor(float(seen))}
        found |= {f"{i}/{name}": p.grad.clone() for name, p in trainer.network.named_parameters()}
        for optimizer in trainer.optimizers:
            optimizer.zero_grad()
    trainer.times.sample, losses.torch.randn_like = sample, randn_like
    with torch.no_grad():
        trainer.network.head.out.weight.zero_()
    return found


class Observed(Trainer):
    """Before it trains it looks at the gradients of BATCHES; afterwards it writes down all that it has."""

    def fit(self, on_sample: Any = None) -> None:
        found = noiseless_gradients(self)
        super().fit(on_sample)
        found |= {f"model/{name}": value for name, value in self.network.state_dict().items()}
        found |= {f"ema/{name}": value for name, value in self.ema.state().items()}
        save_file(found, self.folder / f"process{self.accelerator.process_index}.safetensors")


def observed_run(out: Path) -> None:
    toy_config = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["toy_config"]
    run.Trainer = Observed
    run.train(toy_config(out, **SETTINGS))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have trained."""
    out = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([*launcher, __file__, str(out)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which this process has trained alone."""
    out = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Trainer", Observed)
        observed_run(out)
    return out


def observed(out: Path, process: int) -> dict[str, torch.Tensor]:
    return load_file(out / f"process{process}.safetensors")


def curve(out: Path) -> list[float]:
    records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [record["words"] for record in records if record["split"] == "train"]


def test_both_end_with_the_same_weights(two):
    a, b = observed(two, 0), observed(two, 1)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    saved = DiffusionLM.from_pretrained(two).denoiser.state_dict()
    assert all(torch.equal(saved[name.removeprefix("ema/")], a[name]) for name in a if name.startswith("ema/"))


@pytest.mark.parametrize("batch", range(len(BATCHES)))
def test_their_gradient_is_that_of_the_whole_batch(one, two, batch):
    alone, shared = observed(one, 0), observed(two, 0)
    names = [name for name in alone if name.startswith(f"{batch}/")]
    assert f"{batch}/transformer.blocks.0.up.weight" in names
    assert alone[f"{batch}/tokens"] == shared[f"{batch}/tokens"]
    for name in names:
        torch.testing.assert_close(shared[name], alone[name], rtol=1e-4, atol=1e-6)


def test_their_loss_falls_as_that_of_one(one, two):
    """They draw other noise, so the curves agree on average only."""
    alone, shared = curve(one), curve(two)
    assert len(alone) == len(shared) == SETTINGS["run_steps"]
    for first, last in ((0, 10), (20, 40), (40, 60)):
        a, b = sum(alone[first:last]), sum(shared[first:last])
        assert b == pytest.approx(a, rel=0.05)
    assert sum(shared[40:]) / 20 < 0.8 * shared[0]


def test_only_the_main_process_writes(two):
    assert len(curve(two)) == SETTINGS["run_steps"]
    assert len((two / "samples.jsonl").read_text().splitlines()) == 1
    assert len(list((two / "tensorboard").iterdir())) == 1


if __name__ == "__main__":
    observed_run(Path(sys.argv[1]))
