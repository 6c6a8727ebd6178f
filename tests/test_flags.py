"""Flags and configuration files: which value wins, how words are read, what is saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from diffusion_lm import commands, flags
from diffusion_lm.commands import TrainJudgeConfig
from diffusion_lm.common import UserError
from diffusion_lm.control.latent import LatentTrainConfig
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.settings import SamplingConfig
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.training.judge import JudgeTrainConfig
from diffusion_lm.training.lm import RUN_FILE, RunConfig, TrainConfig, save_settings

ROOT = Path(__file__).resolve().parents[1]
GenerateConfig: Any = commands.generate_config()


def read(config: type, *words: str) -> Any:
    return flags.read(config, words)[0]


def test_a_flag_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {size: base, dropout: 0.1}\nrun: {steps: 5}\n")
    for words in (
        ("--config", str(file), "--run.steps", "7"),
        ("--run.steps", "7", "--config", str(file)),
        ("--run.steps=7", f"--config={file}"),
    ):
        config = read(TrainConfig, *words)
        assert (config.model.size, config.model.dropout) == ("base", 0.1)
        assert config.run == RunConfig(steps=7)


def test_a_later_file_beats_an_earlier_one(tmp_path: Path) -> None:
    for name, steps in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"steps: {steps}\n")
    words = [word for name in "ab" for word in ("--config", str(tmp_path / f"{name}.yaml"))]
    assert read(GenerateConfig, *words).steps == 2


def test_flags_of_lists_and_bools_and_with_dashes() -> None:
    words = ["--attribute", "food=Fast food", "--attribute=name=[x: 1", "--batch-size", "3", "--json", "--trace"]
    config = read(GenerateConfig, *words)
    assert config.attribute == ["food=Fast food", "name=[x: 1"]
    assert (config.batch_size, config.json, config.trace) == (3, True, 10)
    config = read(GenerateConfig, "--trace", "4", "--json", "false", "--attribute", "[a=b, c=d]")
    assert (config.trace, config.json, config.attribute) == (4, False, ["a=b", "c=d"])
    assert read(GenerateConfig, "--json", "-v").json
    assert not read(TrainConfig, "--model.self-conditioning", "no").model.self_conditioning
    # A list that is given replaces the default, as any other flag does.
    assert read(EvaluateConfig, "--tasks", "length", "--tasks", "attribute").tasks == ["length", "attribute"]


def test_a_template_is_taken_as_it_is() -> None:
    template = 'The ___{3}: "a" - ___, {b} # c.'
    assert read(GenerateConfig, "--infill", template).infill == template


def test_verbose_is_no_part_of_the_config() -> None:
    assert flags.read(GenerateConfig, ["-v"]) == (GenerateConfig(), True)
    assert flags.read(GenerateConfig, []) == (GenerateConfig(), False)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(model=ModelConfig(width=96, heads=3), run=RunConfig(out="a: b", batch_sentences=64)),
        TrainJudgeConfig(judge=JudgeTrainConfig(minutes=1.5, out=None)),
        GenerateConfig(attribute=["food=£20-25", "name=null"], infill="___ 'x'", trace=3, json=True),
        EvaluateConfig(tasks=["length"], targets={"length": "t"}, judge="j"),
        LatentTrainConfig(out="o", lr=1e-3),
    ],
    ids=lambda config: type(config).__name__,
)
def test_the_saved_config_reads_back_as_it_was(config: Any, tmp_path: Path) -> None:
    save_settings(tmp_path, config)
    assert read(type(config), "--config", str(tmp_path / RUN_FILE)) == config


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_the_recipes_are_configs_of_train(file: Path) -> None:
    assert read(TrainConfig, "--config", str(file)) != TrainConfig()


# -- what a word means ----------------------------------------------------------------------------------------


def test_words_of_yaml_are_taken_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "run: {precision: no, time-sampling: importance, steps: 1e3, log_every: 20.0}\noptimizer: {lr: 1e-3}\n"
    )
    config = read(TrainConfig, "--config", str(file))
    assert (config.run.precision, config.run.time_sampling) == ("no", "importance")
    assert (config.run.steps, config.run.log_every, config.optimizer.lr) == (1000, 20, 0.001)
    file.write_text(
        "{clamp: off, json: yes, keyword: [no, yes, null, 1.0, on], regex: null, infill: 'null', length: 12}\n"
    )
    config = read(GenerateConfig, "--config", str(file))
    assert (config.clamp, config.json, config.length) == ("off", True, "12")
    assert config.keyword == ["no", "yes", "null", "1.0", "on"]
    assert (config.regex, config.infill) == (None, "null")


def test_null_on_the_command_line_is_text_where_text_is_wanted() -> None:
    words = ["--regex", "null", "--infill=null", "--keyword", "null", "--avoid", "[no, null]", "--length", "null"]
    config = read(GenerateConfig, *words, "--clamp", "off", "--sampler", "null")
    assert (config.regex, config.infill, config.keyword, config.avoid) == ("null", "null", ["null"], ["no", "null"])
    assert (config.length, config.sampler, config.clamp) == ("null", None, "off")


def test_a_whole_number_may_be_written_as_a_float() -> None:
    config = read(GenerateConfig, "-n", "1e1", "--steps=4.0", "--seed", "4294967295")
    assert (config.n, config.steps, config.seed) == (10, 4, 2**32 - 1)
    for text in ("1.5", "inf", "nan", "1e-1", "one"):
        with pytest.raises(UserError, match=text):
            read(GenerateConfig, "--n", text)


def test_short_flags() -> None:
    assert (
        read(GenerateConfig, "-n", "4").n == read(GenerateConfig, "-n=4").n == read(GenerateConfig, "--n", "4").n == 4
    )


def test_a_value_may_begin_with_a_dash() -> None:
    config = read(GenerateConfig, "--infill", "-vegan ___", "--avoid", "-", "--keyword=-v", "--keyword", "--odd")
    assert (config.infill, config.avoid, config.keyword) == ("-vegan ___", ["-"], ["-v", "--odd"])
    with pytest.raises(UserError, match="not -1"):
        read(GenerateConfig, "--seed", "-1")
    with pytest.raises(UserError, match="--avoid=-v"):
        read(GenerateConfig, "--avoid", "-v")


def test_flags_of_a_class_that_is_made_at_run_time() -> None:
    fields = [
        (
            "shade",
            list[str],
            dataclasses.field(default_factory=list, metadata={flags.HELP: "A shade; may be repeated."}),
        )
    ]
    config = dataclasses.make_dataclass("Made", fields, bases=(SamplingConfig,), frozen=True)
    assert read(config, "--shade", "red", "--steps", "3", "--shade", "blue").shade == ["red", "blue"]
    page = " ".join(flags.help_of("made", "make", config).split())
    assert "A shade; may be repeated." in page and "Denoising steps" in page
