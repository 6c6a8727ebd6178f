from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_lm.common import UserError

# Trains and, when step 12 is under way, waits to be killed.
CHILD = """
import runpy, sys, time
from diffusion_lm.training.trainer import Trainer, train

step = Trainer._train_step
def slow(self, batch):
    report = step(self, batch)
    if self.step == 11:
        print("ready", flush=True)
        time.sleep(60)
    return report
Trainer._train_step = slow
toy_config = runpy.run_path(sys.argv[1])["toy_config"]
train(toy_config(sys.argv[2], run_steps=16, run_checkpoint_minutes=0.0))
"""


def assert_identical(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def stop_in_step(trainer, step, number):
    """The trainer gets a signal while it takes a step, counted from 1."""
    take = trainer._train_step

    def signalled(batch):
        if trainer.step + 1 == step:
            signal.raise_signal(number)
        return take(batch)

    trainer._train_step = signalled


def steps_logged(config):
    lines = Path(config.run.out, "metrics.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines) if record["split"] == "train"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_stopped_continues_as_if_it_had_not_been(make_config, make_trainer, saved_tensors, number):
    hard = {"model_dropout": 0.1, "run_time_sampling": "importance", "optimizer_weight_decay": 0.1, "run_accumulate": 2}
    hard["optimizer_blocks"] = "muon"
    whole, stopped = make_config("whole", **hard), make_config("stopped", **hard)
    make_trainer(whole).fit()
    trainer = make_trainer(stopped)
    stop_in_step(trainer, 4, number)
    with pytest.raises(UserError, match=rf"Stopped by {signal.Signals(number).name} after step 4"):
        trainer.fit()

    resumed = make_trainer(stopped)
    assert (resumed.step, resumed.tokens) == (4, trainer.tokens)
    resumed.fit()

    tensors = saved_tensors(whole, 10)
    assert {name.split("/")[0] for name in tensors} == {"model", "ema", "optimizer", "times"}
    assert_identical(tensors, saved_tensors(stopped, 10))
    assert steps_logged(stopped) == list(range(1, 11))


def test_signals_act_as_usual_again_afterwards(make_config, make_trainer):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    trainer = make_trainer(make_config())
    stop_in_step(trainer, 1, signal.SIGTERM)
    with pytest.raises(UserError):
        trainer.fit()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_in_the_last_step_lets_the_run_end(make_config, make_trainer):
    trainer = make_trainer(make_config(run_steps=2))
    stop_in_step(trainer, 2, signal.SIGTERM)
    trainer.fit()
    assert trainer.step == 2


def test_a_run_that_was_killed_continues_as_if_it_had_not_been(make_config, make_trainer, saved_tensors):
    killed, whole = make_config("killed", run_steps=16), make_config("whole", run_steps=16)
    command = [sys.executable, "-c", CHILD, str(Path(__file__).with_name("conftest.py")), killed.run.out]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL

    resumed = make_trainer(killed)
    assert resumed.step == 11
    resumed.fit()
    make_trainer(whole).fit()
    assert_identical(saved_tensors(whole, 16), saved_tensors(killed, 16))
    assert steps_logged(killed) == list(range(1, 17))


def test_a_finished_run_has_nothing_left_to_do(make_config, make_trainer, saved_tensors):
    config = make_config(run_steps=2)
    make_trainer(config).fit()
    before = saved_tensors(config, 2)
    again = make_trainer(config)
    again.fit()
    assert again.step == 2
    assert_identical(before, saved_tensors(config, 2))


def test_a_run_that_ended_before_its_model_was_written_writes_it(make_config, make_trainer):
    config = make_config(run_steps=2)
    make_trainer(config).fit()
    weights = Path(config.run.out, "model", "model.safetensors")
    content = weights.read_bytes()
    shutil.rmtree(weights.parent)
    make_trainer(config).fit()
    assert weights.read_bytes() == content


def test_a_run_with_other_settings_is_refused(make_config, make_trainer):
    make_trainer(make_config(run_steps=2)).fit()
    for change in ({"run_steps": 1}, {"optimizer_lr": 1e-3}, {"run_seed": 1}, {"model_dropout": 0.1}):
        with pytest.raises(UserError, match=r"run holds a run with other settings .* give --run.out another folder"):
            make_trainer(make_config(**{"run_steps": 2, **change}))


def test_what_leaves_the_weights_alone_may_change(make_config, make_trainer):
    make_trainer(make_config(run_steps=2)).fit()
    settings = {"run_log_every": 7, "run_validate_every": 3, "run_sample_every": 5, "run_checkpoint_minutes": 1.0}
    assert make_trainer(make_config(run_steps=2, **settings)).step == 2


def test_a_run_falls_back_on_the_checkpoint_before_a_damaged_one(make_config, make_trainer, saved_tensors, caplog):
    config = make_config(run_steps=6, run_checkpoint_minutes=0.0)
    make_trainer(config).fit()
    expected = saved_tensors(config, 6)
    weights = Path(config.run.out, "checkpoints", "step-00000006", "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])

    resumed = make_trainer(config)
    assert resumed.step == 5
    assert "Passing over the damaged checkpoint" in caplog.text
    resumed.fit()
    assert_identical(saved_tensors(config, 6), expected)
