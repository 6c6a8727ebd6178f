"""Every command of the README and of the pages is one that there is, and what runs on a bundled model alone runs."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from diffusion_lm.cli import choose, main
from diffusion_lm.flags import read
from diffusion_lm.generation.pipeline import DiffusionLM, bundled_models

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "log.md")]
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>.+) -->\n+)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
LOOP = re.compile(r"for (?P<name>\w+) in (?P<first>\S+)[^;]*; do (?P<body>.*); done")
ELSEWHERE = {"pip", "python3", ".", "mkdir", "cp"}
"""Programs that are no part of this package."""
PLACES = {"TASK": "pos", "TASKS": "pos"}
"""What stands for a word of the user's, and such a word."""
STEPS = 8


class Block(NamedTuple):
    """A block of code; `needs` says what it wants that a test does not have."""

    page: str
    kind: str
    text: str
    needs: str | None


def blocks(*kinds: str) -> Iterator[Block]:
    """The blocks of some kinds, page by page; a span of a sentence that is a command counts as one."""
    for page in PAGES:
        text, name = page.read_text(encoding="utf8"), str(page.relative_to(ROOT))
        for match in BLOCK.finditer(text):
            if match["kind"] in kinds:
                yield Block(name, match["kind"], match["text"], match["needs"])
        if "bash" in kinds:
            for span in re.findall(r"`(diffusion-lm [^`]+)`", BLOCK.sub("", text)):
                yield Block(name, "bash", f"{span}\n", None)


def commands(block: Block, known: dict[str, str]) -> Iterator[str]:
    """The lines of a block that a shell would run, each with its variables put in; those of the page so far are `known`."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.kind == "console":
            if not line.startswith("$ "):
                continue  # what was printed
            line = line.removeprefix("$ ")
        if loop := LOOP.match(line):
            known[loop["name"]], line = loop["first"], loop["body"]
        for name, value in known.items():
            line = re.sub(rf"\${name}\b", lambda _, value=value: value, line)
        words = shlex.split(line, comments=True)
        if words and (given := re.fullmatch(r"(\w+)=(.*)", words[0], re.DOTALL)):
            known[given[1]] = given[2]
        elif words:
            yield shlex.join(PLACES.get(word, word) for word in words)


def all_commands() -> list[Any]:
    """Every command once, with the page where it stands first."""
    found, known = dict[str, str](), defaultdict[str, dict[str, str]](dict)
    for block in blocks("bash", "console"):
        for command in commands(block, known[block.page]):
            found.setdefault(command, block.page)
    return [pytest.param(command, id=f"{page}: {command}") for command, page in found.items()]


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Every bundled model is opened once, and writes in few steps."""
    opened: dict[str, DiffusionLM] = {}
    open_, generate = DiffusionLM.from_pretrained, DiffusionLM.generate

    def once(cls: type[DiffusionLM], name: str, *args: Any, **options: Any) -> DiffusionLM:
        if str(name) not in bundled_models():
            return open_(name, *args, **options)
        if str(name) not in opened:
            opened[str(name)] = open_(name, "cpu")
        return opened[str(name)]

    def in_few_steps(self: DiffusionLM, *args: Any, **options: Any) -> Any:
        few = None if options.get("beams") else min(options.get("steps") or STEPS, STEPS)
        return generate(self, *args, **{**options, "steps": few})

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(DiffusionLM, "from_pretrained", classmethod(once))
        patch.setattr(DiffusionLM, "generate", in_few_steps)
        yield


@pytest.mark.parametrize("command", all_commands())
def test_a_command_is_one_that_there_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(command)
    if "diffusion_lm" in words:  # python -m diffusion_lm, torchrun ... -m diffusion_lm
        program, words = "diffusion-lm", words[words.index("diffusion_lm") + 1 :]
    if program == "make":
        targets = [word for word in words if "=" not in word]
        assert targets and all(re.search(rf"^{word}:", makefile(), re.MULTILINE) for word in targets)
    elif program == "python" and words[0].endswith(".py"):
        script = ROOT / words[0]
        source = script.read_text(encoding="utf8")
        beside = (script.with_name(f"{name}.py") for name in re.findall(r"^from (\w+) import", source, re.MULTILINE))
        source += "".join(path.read_text(encoding="utf8") for path in beside if path.exists())
        flags = [word.partition("=")[0] for word in words[1:] if re.fullmatch(r"--[\w-]+(=.*)?", word)]
        assert [flag for flag in flags if f'"{flag}"' not in source] == []
    elif program == "diffusion-lm":
        in_our_program(words, capsys)
    else:
        assert program in ELSEWHERE


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf8")


def in_our_program(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Read a command line as the program does, and run it if it writes with a bundled model and reads no file."""
    if {"--help", "list"} & set(words):
        assert main(words) == 0
        return
    call = choose(words)
    assert isinstance(call.config, type)
    config, _ = read(call.config, call.words)
    reads = [getattr(config, name, None) for name in ("source_file", "targets", "out")]
    if call.name in ("generate", "info") and config.model in bundled_models() and not any(reads):
        fewer = ["-n", "1", "--candidates", str(min(2, config.candidates or 1))] if call.name == "generate" else []
        assert main([*words, *fewer]) == 0
        assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", list(dict.fromkeys(block.page for block in blocks("python"))))
def test_the_python_of_a_page_runs(page: str) -> None:
    names: dict[str, Any] = {"__name__": "page"}  # the blocks of a page are one script
    for block in blocks("python"):
        if block.page == page:
            code = compile(block.text, page, "exec", dont_inherit=True)
            if block.needs is None:
                exec(code, names)
    if page == "docs/own_control.md":
        assert len(next(block for block in blocks("python") if block.page == page).text.splitlines()) <= 40
        assert names["ShortWords"](7).success(names["texts"]).tolist() == [1.0] * 4
        assert names["Opening"]("Near the").success(names["openings"]).tolist() == [1.0] * 2
        assert names["Touches"](("river", "riverside")).success(names["near_water"]).tolist() == [1.0] * 2
