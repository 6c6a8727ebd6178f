from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors.torch import load_file

from diffusion_lm.common import UserError
from diffusion_lm.training import checkpoint as module
from diffusion_lm.training.checkpoint import Checkpoint, export_model, latest_checkpoint, save_checkpoint


def make(step):
    parts = {
        "model": {"w": torch.full((64,), float(step))},
        "optimizer": {"w/step": torch.tensor(float(step))},
    }
    return Checkpoint(step, 10 * step, "run", parts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    generator = torch.Generator().manual_seed(0)
    odd = torch.randn(4, 6, generator=generator).T  # not contiguous
    path = save_checkpoint(tmp_path, Checkpoint(7, 99, "abc", {"model": {"a": odd, "n": torch.tensor(3)}}))
    assert path.name == "step-00000007"
    read = latest_checkpoint(tmp_path)
    assert (read.step, read.tokens, read.run) == (7, 99, "abc")
    assert torch.equal(read.parts["model"]["a"], odd)
    assert torch.equal(read.parts["model"]["n"], torch.tensor(3))


def test_nothing_to_find(tmp_path):
    assert latest_checkpoint(tmp_path / "absent") is None


def test_the_newest_two_stay(tmp_path):
    for step in (5, 9, 10, 100):
        save_checkpoint(tmp_path, make(step))
    assert names(tmp_path) == ["step-00000010", "step-00000100"]
    assert latest_checkpoint(tmp_path).step == 100


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".partial-00000003").mkdir()
    (tmp_path / ".partial-00000003" / "model.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, make(4))
    assert names(tmp_path) == ["step-00000004"]


def truncate(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(path):
    file = path / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def lose_a_file(path):
    (path / "model.safetensors").unlink()


def empty_the_state(path):
    (path / "state.json").write_text("")


def garble_the_state(path):
    (path / "state.json").write_text("[]")


def swap_the_state(path):
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "step": 2}))


DAMAGE = [truncate, flip_a_bit, lose_a_file, empty_the_state, garble_the_state, swap_the_state]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_reported_and_passed_over(tmp_path, caplog, damage):
    save_checkpoint(tmp_path, make(3))
    damage(save_checkpoint(tmp_path, make(4)))
    assert latest_checkpoint(tmp_path).step == 3
    assert "Passing over the damaged checkpoint" in caplog.text
    assert "step-00000004" in caplog.text


def test_with_every_checkpoint_damaged_training_starts_afresh_and_says_so(tmp_path, caplog):
    for step in (3, 4):
        truncate(save_checkpoint(tmp_path, make(step)))
    assert latest_checkpoint(tmp_path) is None
    assert "training starts afresh" in caplog.text


def test_a_checkpoint_outlives_damaged_ones_of_later_steps(tmp_path):
    for step in (10, 20):
        truncate(save_checkpoint(tmp_path, make(step)))
    save_checkpoint(tmp_path, make(5))
    assert names(tmp_path) == ["step-00000005"]
    assert latest_checkpoint(tmp_path).step == 5


FULL = [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: (os error 28)")]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_one(tmp_path, monkeypatch, error):
    save_checkpoint(tmp_path, make(3))
    writes = []

    def fails(tensors, path):
        path.write_bytes(b"half")
        writes.append(path)
        if len(writes) == 2:
            raise error

    monkeypatch.setattr(module, "save_file", fails)
    with pytest.raises(UserError, match=r"The disk is full"):
        save_checkpoint(tmp_path, make(4))
    assert names(tmp_path) == ["step-00000003"]
    assert latest_checkpoint(tmp_path).step == 3


def test_other_errors_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def fails(tensors, path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "save_file", fails)
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(tmp_path, make(4))
    assert names(tmp_path) == []


class FakeModel:
    """Writes a config and weights, or stops in between."""

    def __init__(self, value, *, full=False):
        self.value, self.full = value, full

    def save_pretrained(self, folder):
        folder.mkdir()
        (folder / "config.json").write_text(self.value)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / "model.safetensors").write_text(self.value)


def test_an_exported_model_replaces_the_last_one_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    export_model(FakeModel("1"), folder)
    (folder / "README.md").write_text("kept")
    export_model(FakeModel("2"), folder)
    with pytest.raises(UserError, match="disk is full"):
        export_model(FakeModel("3", full=True), folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "config.json": "2",
        "model.safetensors": "2",
        "README.md": "kept",
    }
    assert names(tmp_path) == ["model"]


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
