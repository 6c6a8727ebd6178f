from __future__ import annotations

import json
import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusion_lm.training.trainer import MetricsLog, Progress, Records


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_a_line_and_a_point(tmp_path):
    with MetricsLog(tmp_path / "run", 0, enabled=True) as log:
        log.write(1, {"words": 2.5}, "train")
        log.write(2, {"words": 1.5, "bound": math.inf}, "dev")
        assert len(lines(tmp_path / "run" / "metrics.jsonl")) == 2  # there at once, should the process be killed
    first, second = lines(tmp_path / "run" / "metrics.jsonl")
    assert first["step"] == 1 and first["split"] == "train" and first["words"] == 2.5 and first["time"] > 0
    assert second["bound"] is None
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/words")] == [(1, 2.5)]


def test_a_resumed_run_forgets_what_it_will_write_again(tmp_path):
    for step, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (2, {3: 30.0})):
        with MetricsLog(tmp_path, step, enabled=True) as log:
            for at, value in values.items():
                log.write(at, {"words": value}, "train")
    assert [(record["step"], record["words"]) for record in lines(tmp_path / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]


def test_a_line_that_was_cut_goes(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"step": 1, "texts": ["caf\u00e9"]}\n{"step": 2, "te')
    with Records(path, 2) as records:
        records.write({"step": 3, "texts": []})
    assert lines(path) == [{"step": 1, "texts": ["café"]}, {"step": 3, "texts": []}]


def test_a_disabled_log_writes_nothing(tmp_path):
    with MetricsLog(tmp_path / "run", 0, enabled=False) as log:
        log.write(1, {"words": 2.5}, "train")
    assert not (tmp_path / "run").exists()


def test_progress_shows_loss_and_speed(capsys):
    with Progress(3, 10, enabled=True) as progress:
        for _ in range(7):
            progress.advance(1000, 1.2345)
    shown = capsys.readouterr().err
    assert "10/10" in shown and "loss=1.23" in shown and "tokens/s=" in shown


def test_disabled_progress_is_silent(capsys):
    with Progress(0, 10, enabled=False) as progress:
        progress.advance(1000, 1.0)
    assert capsys.readouterr() == ("", "")
