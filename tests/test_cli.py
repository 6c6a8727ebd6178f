from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

import diffusion_lm
from diffusion_lm import commands, flags
from diffusion_lm.cli import COMMANDS, choose, load, main
from diffusion_lm.control.attribute import AttributeConfig, AttributeModel
from diffusion_lm.control.control import CONTROLS, Control
from diffusion_lm.control.program import Program
from diffusion_lm.diffusion.clamp import CLAMPS
from diffusion_lm.diffusion.samplers import SAMPLERS
from diffusion_lm.evaluation.tasks import EvaluateConfig
from diffusion_lm.generation.pipeline import DiffusionLM
from diffusion_lm.generation.settings import SamplingConfig
from diffusion_lm.model.denoiser import ModelConfig
from diffusion_lm.text.tokenizer import build_word_tokenizer
from diffusion_lm.text.toy import toy_documents
from diffusion_lm.training.lm import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
GenerateConfig: Any = commands.generate_config()


def all_names() -> Iterator[str]:
    """Every command; those of two words by each kind."""
    for name, command in COMMANDS.items():
        found = load(command.config)
        found = found if isinstance(found, type | dict) else found()
        yield from (f"{name} {kind}" for kind in found) if isinstance(found, dict) else [name]


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
    tokenizer = build_word_tokenizer((document.text for document in islice(toy_documents(0), 300)), min_count=1)
    shape = ModelConfig(width=16, layers=1, heads=2, embedding_dim=4, max_length=24)
    lengths = torch.zeros(25)
    lengths[8:12] = 1
    lm = DiffusionLM.new(shape, tokenizer, lengths)
    folder = tmp_path_factory.mktemp("model")
    lm.save_pretrained(folder)
    (folder / "README.md").write_text("# A model card\n")
    fields = {"food": ["Italian", "Japanese"], "area": ["riverside"]}
    known = AttributeConfig(
        embedding_dim=4, max_length=24, schedule="sqrt", lm=lm.fingerprint, width=8, layers=1, heads=2, fields=fields
    )
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


@pytest.mark.parametrize("name", list(all_names()))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *name.split(), "--help")
    assert code == 0
    assert f"usage: diffusion-lm {name}" in out
    assert name != "generate" or "Number of sentences, of each" in out  # attribute docstrings are the help


def test_help_shows_first_what_matters_first(capsys: pytest.CaptureFixture[str]) -> None:
    for name, config in (("train", TrainConfig), ("generate", GenerateConfig), ("evaluate", EvaluateConfig)):
        few, every = run(capsys, name, "--help")[1], run(capsys, name, "--help-all")[1]
        assert [line.split()[0].split(".NAME")[0] for line in few.splitlines() if line.startswith("  --")] == [
            f"--{flag}" for flag in config.FIRST
        ]
        assert len(config.FIRST) < every.count("\n  --") and f"{name} --help_all" in few
        assert all(f"  --{flag}" in every for flag in config.FIRST)


def test_general_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(name in out for name in COMMANDS)
    assert run(capsys) == (0, out, "")
    assert run(capsys, "--version") == (0, f"diffusion-lm {diffusion_lm.__version__}\n", "")


@pytest.mark.parametrize("name", list(all_names()))
def test_every_flag_has_a_help(name: str) -> None:
    assert [key for key, value in flags.keys_of(choose(name.split()).config) if not value.help] == []


@pytest.mark.parametrize("config", [GenerateConfig, EvaluateConfig])
def test_names_are_those_of_the_tables(config: type) -> None:
    hints = get_type_hints(config)
    for field, table in (("sampler", SAMPLERS), ("clamp", CLAMPS)):
        literal, none = get_args(hints[field])
        assert set(get_args(literal)) == set(table) and none is type(None)


def test_generate_and_evaluate_draw_in_the_same_ways() -> None:
    assert issubclass(GenerateConfig, SamplingConfig) and issubclass(EvaluateConfig, SamplingConfig)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("trian", "did you mean train?"),
        ("xyzzy", "'xyzzy'; give one of: train, "),
        ("--n 3", "'--n'"),
        ("train-control", "attribute, pos, pairs, head, tree, syntax"),
        ("train-control span", "'span'; give one of: attribute, pos, pairs, head, tree, syntax."),
        ("train --model.sise base", "--model.sise; did you mean --model.size?"),
        ("train --model.si base", "--model.si; did you mean --model.size?"),
        ("train --steps 3", "--steps; did you mean --run.steps?"),
        ("train --qqqq 3", "--qqqq; see --help"),
        ("train extra", "'extra'"),
        ("train --run.steps", "--run.steps needs a value, a whole number."),
        ("train --run.steps --run.seed 1", "--run.steps needs a value, a whole number; "),
        ("train --config", "--config needs a value"),
        ("train --run.steps many", "run.steps must be a whole number, not many."),
        ("train --model.width wide", "model.width must be a whole number or null, not wide."),
        ("train --model.size huge", "model.size must be tiny, small or base, not huge."),
        ("train --model.width 100 --model.heads 3", "100"),
        ("train --config absent.yaml", "absent.yaml"),
        ("generate --n 0", "n must be at least 1, not 0."),
        ("generate --trace 0", "trace must be at least 1, not 0."),
        ("generate --temperature 0", "temperature must be above 0, not 0.0."),
        ("generate --temperature 2 --clamp hard", "hard"),
        ("generate --guidance_fluency .1", "guidance_fluency belongs to a guidance; say which"),
        ("generate --guidance pull --guidance_fluency .1", "--guidance pull has no guidance_fluency"),
        ("generate --guidance paper --keyword pub", "nothing that is asked for has one: take --attribute"),
        ("generate --model e2e-paper --guidance paper --pos X --syntax_by words", "train-control pos"),
        ("generate --sampler euler", "not euler."),
        ("generate --attribute food", "food"),
        ("generate --model ./nowhere", "'./nowhere'"),
        ("generate --json=maybe", "json must be true or false, not maybe."),
        ("info", "model"),
        ("info ./nowhere", "'./nowhere'"),
        ("info here there", "'there'"),
        ("report --out here", "runs"),
        ("evaluate --tasks [a:b,{]", "[a:b,{]"),
        ("evaluate --targets FILE", "targets must be"),
        ("evaluate --targets.pos", "--targets.pos needs"),
        ("evaluate --lengths [1,2]", "lengths"),
        ("evaluate --tasks [{a:1}]", "tasks must be text"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in error_of(capsys, *words.split())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("generate", "--keyword", "caf\udce9"), "keyword has the character '\\udce9'"),
        (("generate", "--infill=a\0b"), "infill has the character '\\x00'"),
        (("info", "e2e\0"), "model has the character '\\x00'"),
        (("train", "--config", "a\0b"), "'a\\x00b'"),
        (("train", "--run.out", ""), "run.out is empty"),
        (("train", "--run.out= "), "run.out is empty"),
        (("evaluate", "--out", ""), "out is empty"),
        (("report", "runs/evaluation", ""), "runs is empty"),
    ],
)
def test_odd_characters_and_empty_values_are_named(
    words: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in error_of(capsys, *words)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"modle: {size: base}", "modle.size; did you mean model.size?"),
        (b"modle: 3", "modle; did you mean model?"),
        (b"modle: {}", "modle; did you mean model?"),
        (b"model: {sise: base}", "model.sise; did you mean model.size?"),
        (b"model: {size: huge}", "model.size must be tiny, small or base, not huge."),
        (b"model:\nrun: {steps: 3}", "model must be a set of keys"),
        (b"model: 3", "model must be a set of keys"),
        (b"run: {steps: null}", "run.steps must be a whole number, not null."),
        (b"run: {out: }", "run.out must be text, not null."),
        (b"run: {out: ''}", "run.out is empty"),
        (b'run: {out: "a\\0b"}', "run.out has the character"),
        (b"run: {out: [a]}", "run.out must be text"),
        (b"run: {steps: !!timestamp 2020-13-45}", "bad.yaml is no YAML file of options"),
        (b"verbose: true", "verbose"),
        (b"model: [", "bad.yaml is no YAML file of options"),
        (b"- 1\n- 2\n", "bad.yaml is no YAML file of options"),
        (b"", "bad.yaml is no YAML file of options"),
        (b"[" * 5000, "bad.yaml is no YAML file of options"),
        (b"\x94\x00\xff\xfe", "is not text"),
    ],
)
def test_a_bad_file_is_one_sentence(
    text: bytes, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text)
    assert named in error_of(capsys, "train", "--config", str(file))


@pytest.mark.parametrize("name", ["marked_module.x", "marked_module", "antigravity.x"])
def test_no_name_is_ever_imported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "marked_module.py").write_text("x = dict(source='toy')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    for text in (f"corpus: {name}\n", f"corpus: {{class_path: {name}}}\n", f"corpus: !!python/name:{name}\n"):
        file.write_text(text)
        error_of(capsys, "train", "--config", str(file))
    for group in ("corpus", "model", "run"):
        assert name in error_of(capsys, "train", f"--{group}", name)
    assert not {"marked_module", "antigravity"} & set(sys.modules)


def test_a_judge_has_to_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "judge.yaml"
    file.write_text("judge: {out: null}\n")
    assert "--judge.out" in error_of(capsys, "train-judge", "--config", str(file))


def test_a_student_has_one_teacher_of_which_it_can_learn(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("distill", "--run.out", str(tmp_path / "student"))
    assert "name that by --model" in error_of(capsys, *run, "--run.init", model)
    assert "There is no model" in error_of(capsys, *run, "--model", "nothing") and not (tmp_path / "student").exists()
    assert "has nothing to teach" in error_of(capsys, *run, "--model", "e2e-paper")


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
            "FOOD=japanese": float("japanese" in record["text"].lower().split()),
            "length=7": 1.0,
        }
        assert record["seed"] == 5 and record["seconds"] > 0
    assert "step 1  t = 1.000" in err and "step 4  t = 0.250" in err  # the trace is not among the objects


def test_without_a_control_there_are_no_verdicts(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *GENERATE, model, "--json", "--batch-size", "2")
    assert code == 0
    assert [json.loads(line)["controls"] for line in out.splitlines()] == [[], [], []]


def test_the_ending_of_a_file_says_its_form(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "new" / name for name in ("a.jsonl", "a.csv", "a.txt")]
    for file in files:
        code, out, _ = run(capsys, *GENERATE, model, "--length", "7", "-o", str(file))
        assert code == 0 and str(file) in out and "3 of 3" in out
    lines, table, text = (file.read_text(encoding="utf-8").splitlines() for file in files)
    texts = [json.loads(line)["text"] for line in lines]
    assert text == texts and table[0] == "text,length=7" and all(row.endswith(",1.0") for row in table[1:])
    assert "folder" in error_of(capsys, *GENERATE, model, "-o", str(tmp_path))
    assert "--json" in error_of(capsys, *GENERATE, model, "--json", "-o", str(files[0]))


def test_targets_are_asked_for_each_by_itself(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO('{"length": 5}\n{"length": 9}\n'))
    code, out, _ = run(capsys, *GENERATE, model, "--json", "--targets.length", "-")
    assert code == 0 and [len(json.loads(line)["words"]) for line in out.splitlines()] == [5] * 3 + [9] * 3
    two = ("--targets.length", "a", "--targets.pos", "b")
    assert "One file" in error_of(capsys, *GENERATE, model, *two)
    assert "give one" in error_of(capsys, *GENERATE, model, *two[:2], "--source_file", "a")


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
    chosen = commands.spread(count, steps)
    assert len(chosen) == min(count, steps) and chosen <= set(range(steps)) and steps - 1 in chosen


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--attribute", "colour=red"), "'colour'"),
        (("--attribute", "food=Thai"), "'Thai'"),
        (("--length", "23"), "23"),
        (("--length", "many"), "'many'"),
        (("--infill", "The ___ xylophone."), "'xylophone'"),
        (("--infill", "The food."), "'The food.'"),
        (("--length", "2", "--infill", "The food ___ food."), "The length 2"),
    ],
)
def test_impossible_requests(
    words: tuple[str, ...], named: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in error_of(capsys, "generate", "--model", model, *words)


def test_a_control_that_is_registered_is_a_flag_and_a_line_of_info(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Shouted(Control):
        """Every text is shouted."""

        help = "How loud each sentence is; may be repeated."
        repeats = True

        def __init__(self, how: str) -> None:
            self.how = how

        def compile(self, host: Any, canvases: Any, generator: Any) -> list[Program]:
            return [Program(canvas) for canvas in canvases]

        def success(self, texts: Any) -> torch.Tensor:
            return torch.tensor([float(text.isupper()) for text in texts])

        def __str__(self) -> str:
            return f"shouted={self.how}"

    monkeypatch.setitem(CONTROLS, "shouted", Shouted)
    code, out, err = run(capsys, *GENERATE, model, "--shouted", "loud", "--length", "7", "--shouted", "louder")
    assert code == 0 and "✗ shouted=loud  ✗ shouted=louder" in out and "length=7: 3 of 3" in err
    assert "How loud each sentence is" in run(capsys, "generate", "--help_all")[1]
    assert "shouted yes" in " ".join(run(capsys, "info", model)[1].split())


def test_interrupt_is_quiet(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionLM, "generate", interrupt)
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
    assert f"{sum(p.numel() for p in lm.denoiser.parameters()):,}" in said
    assert f"{lm.tokenizer.vocab_size:,} tokens" in said
    for words in ("README.md", "exact, 1 to 22 words", "cross_entropy", "food: Italian, Japanese", "area: riverside"):
        assert words in said

    lm.folder = None  # what it knows beside its weights stays behind
    lm.save_pretrained(tmp_path)
    (tmp_path / "README.md").unlink()
    code, out, _ = run(capsys, "info", str(tmp_path))
    assert code == 0 and "model card none" in " ".join(out.split())
    assert "train-control attribute" in " ".join(out.split())


def test_warnings_are_shown_always_and_the_rest_with_verbose(model: str) -> None:
    for words, level in (([], logging.WARNING), (["-v"], logging.INFO)):
        assert main(["info", model, *words]) == 0
        assert logging.getLogger("diffusion_lm").getEffectiveLevel() == level


@pytest.mark.parametrize(
    "words",
    [
        "generate --steps 1e12",
        "generate --batch_size 1e30",
        "generate -n 1e12",
        "generate --temperature 1e-40",
        "generate --guidance pull --guidance_rate 1e39",
        "train --run.accumulate 1e30",
        "train --model.max_length 1e9",
        "train --tokenizer.vocab_size 1e30",
        "train-judge --judge.device foo",
    ],
)
def test_what_no_machine_could_do_is_refused_at_once(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert words.split()[-2].rpartition(".")[2].lstrip("-") in capsys.readouterr().err


# -- prompts -------------------------------------------------------------------------------------------------


def test_prompts_that_cannot_be_used_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, prompt = tmp_path / "empty.txt", "name = The Punter, food = Italian"
    empty.write_text("\n \n")
    few = ("--n", "1", "--steps", "1", "--model", "e2e-paper")
    assert "writes from no prompt" in error_of(capsys, "generate", *few, "--prompt", prompt)
    assert "give one" in error_of(capsys, "generate", *few, "--prompt", prompt, "--source_file", str(empty))
    assert "has no prompt" in error_of(capsys, "generate", *few, "--source_file", str(empty))
    assert "cannot be read" in error_of(capsys, "generate", *few, "--source_file", str(tmp_path / "none.txt"))
    assert "guide_scale must be at least 0" in error_of(capsys, "generate", *few, "--guide_scale", "-1")
