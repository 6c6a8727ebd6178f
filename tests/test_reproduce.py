"""Every stage of scripts/reproduce.py and scripts/stories.py is a command line that diffusion-lm takes."""

from __future__ import annotations

import itertools
import json
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from diffusion_lm.cli import choose
from diffusion_lm.flags import read

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts can be imported."""
    monkeypatch.syspath_prepend(ROOT / "scripts")


@pytest.fixture(params=["e2e", "stories"])
def stages(request: pytest.FixtureRequest, tmp_path: Path) -> list[Any]:
    """All stages of one of the scripts."""
    shared = (tmp_path / "data", tmp_path / "out", 2, 3, 4, 0.1, True)
    if request.param == "stories":
        stories = import_module("stories")
        return list(stories.stages(stories.StoryPlan(*shared)))
    e2e = import_module("reproduce")
    return list(e2e.stages(e2e.E2EPlan(*shared, 0.2, "--judge.width 8", 5, 6)))


def test_every_stage_is_a_valid_command_with_a_name_of_its_own(stages: list[Any]) -> None:
    assert len({stage.name for stage in stages}) == len(stages)
    for stage in stages:
        words = shlex.split(stage.command)
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file()
            continue
        call = choose(words)
        read(call.config, call.words)


def test_a_model_or_a_folder_that_is_read_was_made_by_a_stage_before(stages: list[Any]) -> None:
    made: set[str] = set()
    for stage in stages:
        words = shlex.split(stage.command)
        named = {word.strip("[]") for word in words for word in word.strip("[]").split(",") if "/models/" in word}
        outs = {word for flag, word in itertools.pairwise(words) if flag in ("--out", "--run.out")}
        assert named <= made | outs, stage.name
        made |= outs


def test_what_is_done_is_not_run_again_unless_its_command_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, ran = import_module("stages"), list[list[str]]()

    class Done:
        returncode = 0

    monkeypatch.setattr(runner.subprocess, "run", lambda command, **_: ran.append(command) or Done())
    stage = runner.Stage("info", "info e2e-small", "a part")
    for each in (stage, stage, stage._replace(command="info other")):
        runner.run(each, tmp_path)
    assert [command[-2:] for command in ran] == [["info", "e2e-small"], ["info", "other"]]


def test_times_are_those_of_the_stages_that_are_done_with_this_command(tmp_path: Path) -> None:
    runner = import_module("stages")
    known = [
        runner.Stage("train-fudge", "train-baseline fudge", "FUDGE"),
        runner.Stage("fudge", "evaluate --n 2", "FUDGE"),
        runner.Stage("free", "evaluate --n 3", "ours"),
    ]
    (tmp_path / "done").mkdir()
    for (name, command, _), seconds in zip(known, (60, 7, 5), strict=True):
        told = "another command" if name == "free" else command
        (tmp_path / "done" / name).write_text(f"{told}\n{seconds}\n")
    runner.times(known, tmp_path)
    found = json.loads((tmp_path / "time" / "time.json").read_text())
    assert found == {"FUDGE": {"making": 60, "measuring": 7}}


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("reproduce", [], "nowhere has no folder e2e; give --data"),
        ("stories", [], "nowhere has no folder roc; give --data"),
        ("reproduce", ["--only", "judge", "jduge"], "There is no stage jduge; the stages are annotate, judge"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("sys.argv", [f"{script}.py", "--data", "nowhere", *flags])
    with pytest.raises(SystemExit) as stopped:
        import_module(script).main()
    assert stopped.value.code == 2 and message in caplog.text


def test_a_stage_that_fails_stops_the_run_and_leaves_no_marker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = import_module("stages")
    with pytest.raises(SystemExit) as stopped:
        runner.run(runner.Stage("bad", "info no-such-model", "a part"), tmp_path)
    assert stopped.value.code == 2 and "The stage bad failed with exit code 2" in caplog.text
    assert not any((tmp_path / "done").iterdir())
