from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml

from diffusion_lm.common import UserError
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.model.causal import JudgeConfig
from diffusion_lm.text.tokenizer import Tokenizer
from diffusion_lm.training.judge import JudgeTrainConfig
from diffusion_lm.training.lm import RunConfig, TrainConfig
from diffusion_lm.training.trainer import train


def test_a_run_from_settings_to_model(make_config, make_trainer, saved_tensors, caplog):
    caplog.set_level("INFO", logger="diffusion_lm")
    config, plain = make_config(run_steps=4, run_sample_every=3), make_config("plain", run_steps=4)
    train(config)
    out = Path(config.run.out)

    assert yaml.safe_load((out / "run.yaml").read_text()) == asdict(replace(config, model=config.model.filled()))
    lm = DiffusionLM.from_pretrained(out)
    assert Tokenizer.load(out).fingerprint == lm.tokenizer.fingerprint

    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["seed"], len(sample["texts"])) for sample in samples] == [(3, 0, 4), (4, 0, 4)]
    assert samples[-1]["texts"][0] in caplog.text

    # Seeded before anything is drawn, and samples draw from noise of their own.
    make_trainer(plain).fit()
    expected = saved_tensors(plain, 4)
    assert all(torch.equal(value, expected[name]) for name, value in saved_tensors(config, 4).items())


def test_a_refused_run_leaves_the_other_one_as_it_was(make_config):
    train(make_config(run_steps=1))
    out = Path(make_config().run.out)
    before = {path: path.read_bytes() for path in out.glob("*.*")}
    with pytest.raises(UserError, match=r"other settings .*optimizer.lr \(0.003 there, 0.5 here\); give --run.out"):
        train(make_config(run_steps=1, optimizer_lr=0.5))
    with pytest.raises(UserError, match=r"tokenizer.min_count \(1 there, 400 here\)"):
        train(make_config(run_steps=1, tokenizer_min_count=400))
    assert {path: path.read_bytes() for path in out.glob("*.*")} == before


def test_a_file_in_the_place_of_the_folder_is_refused(make_config, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"run cannot be written to"):
        train(make_config())


def walk(config):
    """Every number among the settings: its dataclass and field."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from walk(value)
        elif field.name != "seed" and {"int", "float"} & set(str(field.type).split(" | ")):
            yield type(config), field


NUMBERS = [*walk(TrainConfig()), *walk(JudgeTrainConfig()), *walk(JudgeConfig(4))]


@pytest.mark.parametrize(("of", "field"), NUMBERS, ids=lambda each: getattr(each, "__name__", None) or each.name)
def test_every_number_has_a_range(of, field):
    needed = {"vocab_size": 4} if of is JudgeConfig else {}
    for value in (math.nan, -1):
        with pytest.raises(UserError, match=rf"{field.name} must be .*, not {value}"):
            of(**{**needed, field.name: value})


def test_a_run_needs_a_folder_and_takes_yamls_no():
    with pytest.raises(UserError, match="must name a folder"):
        RunConfig(out="")
    assert RunConfig(precision=False).precision == "no"
