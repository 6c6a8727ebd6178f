from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from diffusion_lm import store
from diffusion_lm.common import UserError
from diffusion_lm.fit import OptimizerConfig, build_optimizers, follow
from diffusion_lm.training.checkpoint import Checkpoint, load_optimizer_tensors, optimizer_tensors


def make(step):
    parts = {"model": {"w": torch.full((64,), float(step))}, "optimizer": {"w/step": torch.tensor(float(step))}}
    return Checkpoint(step, 10 * step, {"run": 1}, parts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    generator = torch.Generator().manual_seed(0)
    odd = torch.randn(4, 6, generator=generator).T  # not contiguous
    path = Checkpoint(7, 99, {"lr": 0.1}, {"model": {"a": odd, "n": torch.tensor(3)}}).save(tmp_path)
    assert path.name == "step-00000007"
    read = Checkpoint.latest(tmp_path)
    assert (read.step, read.tokens, read.settings) == (7, 99, {"lr": 0.1})
    assert torch.equal(read.parts["model"]["a"], odd)
    assert torch.equal(read.parts["model"]["n"], torch.tensor(3))


def test_nothing_to_find(tmp_path):
    assert Checkpoint.latest(tmp_path / "absent") is None


def test_the_newest_two_stay(tmp_path):
    for step in (5, 9, 10, 100):
        make(step).save(tmp_path)
    assert names(tmp_path) == ["step-00000010", "step-00000100"]
    assert Checkpoint.latest(tmp_path).step == 100


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".step-00000003.partial").mkdir()
    (tmp_path / ".step-00000003.partial" / "model.safetensors").write_bytes(b"half")
    assert Checkpoint.latest(tmp_path) is None
    make(4).save(tmp_path)
    assert names(tmp_path) == ["step-00000004"]


def truncate(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(path):
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def lose_a_file(path):
    (path / "model.safetensors").unlink()


def empty_the_state(path):
    (path / "config.json").write_text("")


def garble_the_state(path):
    (path / "config.json").write_text("[]")


def swap_the_state(path):
    state = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**state, "step": 2}))


DAMAGE = [truncate, flip_a_bit, lose_a_file, empty_the_state, garble_the_state, swap_the_state]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_reported_and_passed_over(tmp_path, caplog, damage):
    make(3).save(tmp_path)
    damage(make(4).save(tmp_path))
    assert Checkpoint.latest(tmp_path).step == 3
    assert "Passing over the damaged checkpoint" in caplog.text
    assert "step-00000004" in caplog.text


def test_with_every_checkpoint_damaged_training_starts_afresh_and_says_so(tmp_path, caplog):
    for step in (3, 4):
        truncate(make(step).save(tmp_path))
    assert Checkpoint.latest(tmp_path) is None
    assert "training starts afresh" in caplog.text


def test_a_checkpoint_outlives_damaged_ones_of_later_steps(tmp_path):
    for step in (10, 20):
        truncate(make(step).save(tmp_path))
    make(5).save(tmp_path)
    assert names(tmp_path) == ["step-00000005"]
    assert Checkpoint.latest(tmp_path).step == 5


FULL = [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: (os error 28)")]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_one(tmp_path, monkeypatch, error):
    make(3).save(tmp_path)

    def fails(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(store, "save_file", fails)
    with pytest.raises(UserError, match=r"The disk is full"):
        make(4).save(tmp_path)
    assert names(tmp_path) == ["step-00000003"]
    assert Checkpoint.latest(tmp_path).step == 3


def test_other_errors_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def fails(tensors, path, metadata):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "save_file", fails)
    with pytest.raises(OSError, match="Input/output"):
        make(4).save(tmp_path)
    assert names(tmp_path) == []


def test_a_resumed_run_no_longer_needs_the_files(make_config, make_trainer, saved_tensors):
    config = make_config(run_steps=2)
    make_trainer(config).fit()
    before = saved_tensors(config, 2)
    trainer = make_trainer(config)
    for file in (trainer.folder / "checkpoints").glob("*/*.safetensors"):
        file.write_bytes(bytes(file.stat().st_size))  # in place: what is still mapped changes with it
    trainer.save()
    after = saved_tensors(config, 2)
    assert all(torch.equal(after[name], before[name]) for name in before)
    exported = load_file(trainer.folder / "model" / "model.safetensors")
    assert torch.equal(exported["embedding.weight"], before["ema/embedding.weight"])


@pytest.mark.parametrize("blocks", ["adamw", "muon"])
def test_loaded_optimizers_go_on_as_the_saved_ones(blocks):
    ids, config = torch.tensor([0, 1, 2]), OptimizerConfig(blocks=blocks, lr=0.1, weight_decay=0.1)
    a, b = (
        nn.ModuleDict({"embedding": nn.Embedding(5, 4), "blocks": nn.ModuleList([nn.Linear(4, 3)])}) for _ in range(2)
    )
    first, second = build_optimizers(a, config), build_optimizers(b, config)
    assert optimizer_tensors(a, first) == {}

    def step(model, optimizers):
        model["blocks"][0](model["embedding"](ids)).square().mean().backward()
        follow(optimizers, 0.1)

    for _ in range(3):
        step(a, first)
    saved = optimizer_tensors(a, first)
    keys = {"exp_avg", "exp_avg_sq", "step"} if blocks == "adamw" else {"momentum_buffer"}
    assert {f"blocks.0.weight/{key}" for key in keys} <= saved.keys()
    b.load_state_dict(a.state_dict())
    load_optimizer_tensors(b, second, saved)
    assert all(saved[name] is not value for name, value in optimizer_tensors(b, second).items())
    step(a, first)
    step(b, second)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
