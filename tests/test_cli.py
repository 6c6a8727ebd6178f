from __future__ import annotations

import contextlib
import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

import diffusion_lm
from diffusion_lm import commands as generate
from diffusion_lm.cli import COMMANDS, load, main
from diffusion_lm.commands import GenerateConfig, TrainJudgeConfig, parse
from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.diffusion.clamp import CLAMPS
from diffusion_lm.diffusion.samplers import SAMPLERS
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.settings import SamplingConfig
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer
from diffusion_lm.text.toy import sample_toy
from diffusion_lm.training.classifiers import AttributeTrainConfig
from diffusion_lm.training.judge import JudgeTrainConfig
from diffusion_lm.training.lm import RUN_FILE, RunConfig, TrainConfig, save_settings

ROOT = Path(__file__).resolve().parents[1]
CONFIGS: dict[str, Any] = {name: load(command.config) for name, command in COMMANDS.items()}


def read(config: type, *words: str) -> Any:
    return parse("command", "do it", config, list(words))[0]


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    logger = logging.getLogger("diffusion_lm")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained model and classifier of the toy corpus: it writes nonsense, but it writes."""
    torch.manual_seed(0)
    tokenizer = build_word_tokenizer((document.text for document in sample_toy(300, 0)), min_count=1)
    shape = ModelConfig(width=16, layers=1, heads=2, embedding_dim=4, max_length=24)
    lengths = torch.zeros(25)
    lengths[8:12] = 1
    lm = DiffusionLM(shape, tokenizer, lengths)
    folder = tmp_path_factory.mktemp("model")
    lm.save_pretrained(folder)
    (folder / "README.md").write_text("# A model card\n")
    fields = {"food": ["Italian", "Japanese"], "area": ["riverside"]}
    known = AttributeConfig(fields, 4, 24, "sqrt", lm.fingerprint, width=8, layers=1, heads=2)
    AttributeModel(known).save_pretrained(folder / "controls" / "attribute")
    return str(folder)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence of a command line that is refused."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("diffusion-lm: error: ") and err.count("\n") == 1
    return err.removeprefix("diffusion-lm: error: ").strip()


# -- help ----------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    script = """
import sys
from diffusion_lm.cli import main
main(["--help"])
print(sorted({"torch", "datasets", "tokenizers", "numpy", "rich"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    out = capsys.readouterr().out
    assert f"usage: diffusion-lm {name} " in out
    assert name != "generate" or "Number of sentences." in out  # attribute docstrings are the help


def test_general_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(name in out for name in COMMANDS)
    assert run(capsys) == (0, out, "")
    assert run(capsys, "--version") == (0, f"diffusion-lm {diffusion_lm.__version__}\n", "")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_flag_has_a_help(name: str) -> None:
    def undocumented(config: type) -> Iterator[str]:
        parents = [c for c in config.__mro__ if c is not object]
        lines = [line for parent in parents for line in inspect.getsource(parent).splitlines()]
        for field, hint in get_type_hints(config).items():
            at = next(i for i, line in enumerate(lines) if line.startswith(f"    {field}: "))
            if '"""' not in lines[at + 1]:
                yield f"{config.__name__}.{field}"
            if hasattr(hint, "__dataclass_fields__"):
                yield from undocumented(hint)

    assert list(undocumented(CONFIGS[name])) == []


@pytest.mark.parametrize("config", [GenerateConfig, EvaluateConfig])
def test_names_are_those_of_the_tables(config: type) -> None:
    hints = get_type_hints(config)
    for field, table in (("sampler", SAMPLERS), ("clamp", CLAMPS)):
        literal, none = get_args(hints[field])
        assert set(get_args(literal)) == set(table) and none is type(None)


def test_generate_and_evaluate_draw_in_the_same_ways() -> None:
    assert issubclass(GenerateConfig, SamplingConfig) and issubclass(EvaluateConfig, SamplingConfig)


# -- flags and files -----------------------------------------------------------------------------------------


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
    words = [
        "--attribute",
        "food=Fast food",
        "--attribute=name=[x: 1",
        "--batch-size",
        "3",
        "--json",
        "--trace",
    ]
    config = read(GenerateConfig, *words)
    assert config.attribute == ["food=Fast food", "name=[x: 1"]
    assert (config.batch_size, config.json, config.trace) == (3, True, 10)
    config = read(GenerateConfig, "--trace", "4", "--json", "false", "--attribute", "[a=b, c=d]")
    assert (config.trace, config.json, config.attribute) == (4, False, ["a=b", "c=d"])
    assert read(GenerateConfig, "--json", "-v").json
    assert read(TrainConfig, "--model.output-prior").model.output_prior
    # A list that is given replaces the default, as any other flag does.
    assert read(EvaluateConfig, "--tasks", "length", "--tasks", "attribute").tasks == ["length", "attribute"]
    assert read(EvaluateConfig, "--lengths", "[5, 9]").lengths in ((5, 9), [5, 9])


def test_a_template_is_taken_as_it_is() -> None:
    template = 'The ___{3}: "a" - ___, {b} # c.'
    assert read(GenerateConfig, "--infill", template).infill == template


def test_verbose_is_no_part_of_the_config() -> None:
    assert parse("x", "do", GenerateConfig, ["-v"]) == (GenerateConfig(), True)
    assert parse("x", "do", GenerateConfig, []) == (GenerateConfig(), False)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(model=ModelConfig(width=96, heads=3), run=RunConfig(out="a: b", batch_sentences=64)),
        TrainJudgeConfig(judge=JudgeTrainConfig(minutes=1.5, out=None)),
        GenerateConfig(attribute=["food=£20-25", "name=null"], infill="___ 'x'", trace=3, json=True),
        EvaluateConfig(tasks=["length"], lengths=(3, 5), judge="j"),
        AttributeTrainConfig(out="o", lr=1e-3),
    ],
    ids=lambda config: type(config).__name__,
)
def test_the_saved_config_reads_back_as_it_was(config: Any, tmp_path: Path) -> None:
    save_settings(tmp_path, config)
    again = read(type(config), "--config", str(tmp_path / RUN_FILE))
    assert replace(again, lengths=tuple(again.lengths)) == config if hasattr(config, "lengths") else again == config


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_the_recipes_are_configs_of_train(file: Path) -> None:
    assert read(TrainConfig, "--config", str(file)) != TrainConfig()


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trian", "There is no command 'trian'; did you mean train?"),
        ("xyzzy", "There is no command 'xyzzy'; give one of: train, "),
        ("--n 3", "There is no command '--n'"),
        ("train-control", "train-control needs a second word: attribute, pos, tree, syntax."),
        (
            "train-control span",
            "train-control knows no 'span'; give one of: attribute, pos, tree, syntax.",
        ),
        ("train --model.sise base", "There is no option --model.sise; did you mean --model.size?"),
        ("train --model.si base", "There is no option --model.si; did you mean --model.size?"),
        ("train --steps 3", "There is no option --steps; did you mean --run.steps?"),
        ("train --qqqq 3", "There is no option --qqqq; see --help for those that there are."),
        ("train extra", "'extra' belongs to no option; see --help."),
        ("train --run.steps", "--run.steps needs a value, a whole number."),
        ("train --run.steps --run.seed 1", "--run.steps needs a value, a whole number."),
        ("train --config", "--config needs a value."),
        ("train --run.steps many", "run.steps must be a whole number, not many."),
        ("train --model.width wide", "model.width must be a whole number or null, not wide."),
        ("train --model.size huge", "model.size must be tiny, small or base, not huge."),
        (
            "train --model.width 100 --model.heads 3",
            "The width 100 is not a multiple of the number of heads, 3.",
        ),
        ("train --config absent.yaml", "--config: File does not exist: "),
        ("generate --n 0", "n must be at least 1, not 0."),
        ("generate --trace 0", "trace must be at least 1, not 0."),
        ("generate --temperature 0", "temperature must be above 0, not 0.0."),
        ("generate --temperature 2 --clamp hard", "The hard clamp has no temperature;"),
        ("generate --guidance paper --guidance_rate 2", "guidance_rate and guidance_steps belong to"),
        ("generate --sampler euler", "sampler must be ddpm, renoise, ddim, dpm-solver++ or null, not euler."),
        ("generate --attribute food", "An attribute is FIELD=VALUE, such as food=Japanese, not 'food'."),
        ("generate --model ./nowhere", "There is no model './nowhere';"),
        ("info", "The following arguments are required: model."),
        ("info ./nowhere", "There is no model './nowhere';"),
        ("train-judge --judge.out null", "The judge has to be kept; give --judge.out a folder."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(capsys, *words.split()).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"modle: {size: base}", "There is no key modle.size; did you mean model.size?"),
        (b"modle: 3", "There is no key modle; did you mean model?"),
        (b"model: {sise: base}", "There is no key model.sise; did you mean model.size?"),
        (b"model: {size: huge}", "model.size must be tiny, small or base, not huge."),
        (b"model:\nrun: {steps: 3}", "model must be a set of keys, not null."),
        (b"model: 3", "model must be a set of keys, not 3."),
        (b"run: {steps: null}", "run.steps must be a whole number, not null."),
        (b"model: [", "The file given to --config is no YAML file of options"),
        (b"- 1\n- 2\n", "The file given to --config is no YAML file of options"),
        (b"", "The file given to --config is no YAML file of options"),
        (b"\x94\x00\xff\xfe", "The file given to --config is not text; give a YAML file."),
    ],
)
def test_a_bad_file_is_one_sentence(
    text: bytes, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text)
    assert error_of(capsys, "train", "--config", str(file)).startswith(sentence)


# -- generate and info ---------------------------------------------------------------------------------------

GENERATE = ("generate", "--steps", "4", "--n", "3", "--model")


def test_json_is_one_object_a_line_and_nothing_else(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--json", "--length", "7", "--attribute", "FOOD=japanese", "--seed", "5", "--trace", "2")
    code, out, err = run(capsys, *GENERATE, model, *words)
    assert code == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 3
    for record in records:
        assert list(record) == ["text", "words", "controls", "seed", "seconds"]
        assert len(record["words"]) == 7
        assert [list(control) for control in record["controls"]] == [["control", "success"]] * 2
        assert {control["control"]: control["success"] for control in record["controls"]} == {
            "food=Japanese": float("japanese" in record["text"].lower().split()),
            "length=7": 1.0,
        }
        assert record["seed"] == 5 and record["seconds"] > 0
    assert "step 1  t = 1.000" in err and "step 4  t = 0.250" in err  # the trace is not among the objects


def test_without_a_control_there_are_no_verdicts(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *GENERATE, model, "--json", "--batch-size", "2")
    assert code == 0
    assert [json.loads(line)["controls"] for line in out.splitlines()] == [[], [], []]


@pytest.mark.parametrize("clamp", CLAMPS)
def test_the_seed_gives_the_same_text_again(clamp: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    def texts(seed: str) -> list[str]:
        code, out, _ = run(capsys, *GENERATE, model, "--json", "--seed", seed, "--clamp", clamp)
        assert code == 0
        return [json.loads(line)["text"] for line in out.splitlines()]

    assert texts("1") == texts("1") != texts("2")


def test_text_stands_with_its_verdicts(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *GENERATE, model, "--infill", "The ___{3} food.", "--attribute", "food=Japanese")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 6
    for text, verdicts in zip(lines[::2], lines[1::2], strict=True):
        # What stands beside the blank may be a mark, which takes no space.
        assert text.startswith("The") and text.endswith("food.")
        said = "Japanese" in text.split()
        assert verdicts == f"  {'✓' if said else '✗'} food=Japanese  ✓ infill=The ___{{3}} food."
    assert "3 sentences in" in err and "infill=The ___{3} food.: 3 of 3" in err


def test_trace_shows_evenly_spread_steps(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "generate", "--model", model, "--n", "2", "--steps", "30", "--trace")
    shown = [line for line in out.splitlines() if line.startswith("step ")]
    assert code == 0 and len(shown) == 10
    assert [int(line.split()[1]) for line in shown][::9] == [1, 30]
    final = out.splitlines()[len(shown)]
    assert shown[-1].endswith(final)


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (1, 200), (2, 200), (10, 200), (10, 4), (5, 5)])
def test_spread(count: int, steps: int) -> None:
    chosen = generate.spread(count, steps)
    assert len(chosen) == min(count, steps) and chosen <= set(range(steps)) and steps - 1 in chosen


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--attribute", "colour=red"), "There is no field 'colour'; the known fields are food, area."),
        (("--attribute", "food=Thai"), "food has no value 'Thai'; the known values are Italian, Japanese."),
        (("--length", "23"), "The length 23 is out of range; this model writes 1 to 22 words."),
        (("--infill", "The ___ xylophone."), "'xylophone' in the infill: not in the model's vocabulary"),
        (("--infill", "The food."), "The infill 'The food.' has no blank;"),
        (("--length", "2", "--infill", "The food ___ food."), "The length 2 contradicts the infill"),
    ],
)
def test_impossible_requests(
    words: tuple[str, ...], sentence: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(capsys, "generate", "--model", model, *words).startswith(sentence)


def test_interrupt_is_quiet(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate._Watch, "__call__", interrupt)
    code, out, err = run(capsys, *GENERATE, model)
    assert (code, out) == (130, "") and "Traceback" not in err


def test_closed_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "diffusion_lm", "--help"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait() == 141


def test_info_says_what_a_model_is(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "info", model)
    assert code == 0
    said = " ".join(out.split())
    lm = DiffusionLM.from_pretrained(model)
    assert f"{sum(p.numel() for p in lm.parameters()):,}" in said
    assert f"{lm.vocab_size:,} tokens" in said
    for words in (
        "README.md",
        "exact, 1 to 22 words",
        "cross_entropy",
        "food Italian, Japanese",
        "area riverside",
    ):
        assert words in said

    lm.save_pretrained(tmp_path)
    code, out, _ = run(capsys, "info", str(tmp_path))
    assert code == 0 and "model card none" in " ".join(out.split())
    assert "train-control attribute" in " ".join(out.split())


def test_warnings_are_shown_always_and_the_rest_with_verbose(model: str) -> None:
    for words, level in (([], logging.WARNING), (["-v"], logging.INFO)):
        assert main(["info", model, *words]) == 0
        assert logging.getLogger("diffusion_lm").getEffectiveLevel() == level
