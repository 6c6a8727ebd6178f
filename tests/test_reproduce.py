"""Every stage of scripts/reproduce.py is a command line that diffusion-lm takes."""

from __future__ import annotations

import itertools
import json
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from diffusion_lm.cli import choose
from diffusion_lm.flags import read

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))


@pytest.fixture
def plan(script: dict[str, Any], tmp_path: Path) -> Any:
    return script["Plan"](tmp_path / "data", tmp_path / "out", 2, 3, 4, 0.1, 0.2, "--judge.width 8", 5, 6, True)


@pytest.fixture(params=["e2e", "stories"])
def either(request: pytest.FixtureRequest, plan: Any) -> Any:
    return plan._replace(stories=request.param == "stories")


def test_every_stage_is_a_valid_command_with_a_name_of_its_own(script: dict[str, Any], either: Any) -> None:
    stages = list(script["stages"](either))
    assert len({stage.name for stage in stages}) == len(stages)
    for stage in stages:
        words = shlex.split(stage.command)
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file()
            continue
        call = choose(words)
        read(call.config, call.words)


def test_a_model_or_a_folder_that_is_read_was_made_by_a_stage_before(script: dict[str, Any], either: Any) -> None:
    made: set[str] = set()
    for stage in script["stages"](either):
        words = shlex.split(stage.command)
        named = {word.strip("[]") for word in words for word in word.strip("[]").split(",") if "/models/" in word}
        outs = {word for flag, word in itertools.pairwise(words) if flag in ("--out", "--run.out")}
        assert named <= made | outs, stage.name
        made |= outs


def test_what_is_done_is_not_run_again_unless_its_command_changes(
    script: dict[str, Any], plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(script["subprocess"], "run", lambda command, **_: ran.append(command) or Done())
    for folder in ("done", "logs"):
        (plan.out / folder).mkdir(parents=True)
    stage = script["Stage"]("info", "info e2e-small", "a part")
    for each in (stage, stage, stage._replace(command="info other")):
        script["run"](each, plan)
    assert [command[-2:] for command in ran] == [["info", "e2e-small"], ["info", "other"]]


def test_times_are_those_of_the_stages_that_are_done_with_this_command(script: dict[str, Any], plan: Any) -> None:
    (plan.out / "done").mkdir(parents=True)
    known = {stage.name: stage.command for stage in script["stages"](plan)}
    for name, command, seconds in (
        ("train-fudge", known["train-fudge"], 60),
        ("fudge", known["fudge"], 7),
        ("free", "another command", 5),
    ):
        (plan.out / "done" / name).write_text(f"{command}\n{seconds}\n")
    script["times"](plan)
    found = json.loads((plan.out / "time" / "time.json").read_text())
    assert found == {"FUDGE": {"making": 60, "measuring": 7}}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere"], "nowhere has no folder e2e; give --data"),
        (["--data", "nowhere", "--stories"], "nowhere has no folder roc; give --data"),
        (
            ["--data", "nowhere", "--only", "judge", "jduge"],
            "There is no stage jduge; the stages are annotate, judge",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    script: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["reproduce.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        script["main"]()
    assert stopped.value.code == 2 and message in caplog.text


def test_a_stage_that_fails_stops_the_run_and_leaves_no_marker(
    script: dict[str, Any], plan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("done", "logs"):
        (plan.out / folder).mkdir(parents=True)
    with pytest.raises(SystemExit) as stopped:
        script["run"](script["Stage"]("bad", "info no-such-model", "a part"), plan)
    assert stopped.value.code == 2 and "The stage bad failed with exit code 2" in caplog.text
    assert not any((plan.out / "done").iterdir())
