"""Two processes share the targets and write what one would have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from diffusion_lm.evaluation.run import evaluate
from diffusion_lm.evaluation.scores import read_run, read_texts
from diffusion_lm.evaluation.tasks import EvaluateConfig


def texts(out: str) -> list[tuple[str, str, int, str]]:
    frame = read_texts(out)[["task", "target", "index", "text"]]
    return sorted(frame.itertuples(index=False, name=None))


def test_two_processes_write_what_one_writes(config: EvaluateConfig, tmp_path: Path) -> None:
    alone = replace(config, tasks=["length"], out=str(tmp_path / "one"))
    evaluate(alone)
    settings = tmp_path / "two.json"
    settings.write_text(json.dumps({**asdict(alone), "out": str(tmp_path / "two")}))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "diffusion_lm", "evaluate", "--config", str(settings)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert texts(str(tmp_path / "two")) == texts(alone.out)
    one, two = (read_run(str(tmp_path / who)) for who in ("one", "two"))
    assert one["human_nats"] == two["human_nats"] and one["decoding"] == two["decoding"]
