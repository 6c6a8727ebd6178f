from __future__ import annotations

import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusion_lm.training.trainer import forget_after


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_a_line_and_a_point(make_config, make_trainer):
    trainer = make_trainer(make_config(run_steps=2))
    trainer.fit()
    first, _, dev = lines(trainer.folder / "metrics.jsonl")
    assert (first["step"], first["split"], dev["step"], dev["split"]) == (1, "train", 2, "dev") and first["time"] > 0
    events = EventAccumulator(str(trainer.folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/words")] == [1, 2]
    assert events.Scalars("train/words")[0].value == pytest.approx(first["words"])


def test_without_tensorboard_there_are_the_lines(make_config, make_trainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    trainer = make_trainer(make_config(run_steps=1))
    trainer.fit()
    assert len(lines(trainer.folder / "metrics.jsonl")) == 2
    assert not (trainer.folder / "tensorboard").exists()


def test_a_value_that_is_not_finite_is_null(make_config, make_trainer):
    trainer = make_trainer(make_config())
    trainer.folder.mkdir(exist_ok=True)
    trainer._log({"bound": float("inf")}, "dev")
    assert lines(trainer.folder / "metrics.jsonl")[0]["bound"] is None


def test_a_resumed_run_forgets_later_lines_and_one_that_was_cut(tmp_path):
    path = tmp_path / "samples.jsonl"
    forget_after(path, 2)
    assert not path.exists()
    path.write_text('{"step": 1, "texts": ["caf\u00e9"]}\n{"step": 3, "texts": []}\n[]\n{"step": 2, "te')
    forget_after(path, 2)
    assert lines(path) == [{"step": 1, "texts": ["caf\u00e9"]}]


def test_progress_shows_loss_and_speed(make_config, make_trainer, capsys):
    make_trainer(make_config(run_steps=3)).fit()
    shown = capsys.readouterr().err
    assert "3/3" in shown and "loss=" in shown and "tokens/s=" in shown
