"""What the reproductions share: commands that are run once and for all, what they took, and the report of all there is."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

from diffusion_lm.store import write_whole

logger = logging.getLogger("reproduce")


class Stage(NamedTuple):
    """A command of diffusion-lm, or of Python where it begins with a file."""

    name: str
    command: str
    part: str
    """What it belongs to in the table of times."""


@dataclass(frozen=True)
class Plan:
    """What all stages share."""

    data: Path
    out: Path
    samples: int
    targets: int
    """Of each task; 0: all."""
    free: int
    minutes: float
    outside: bool

    def limit(self, times: int = 1) -> str:
        """The flag of so many targets, or so many times as many; none where all are wanted."""
        return f" --limit_targets {times * self.targets}" if self.targets else ""

    @property
    def measures(self) -> str:
        """The flags of what pretrained models say of free text."""
        return f" --outside true --outside_n {self.free}" if self.outside else ""


P = TypeVar("P", bound=Plan)


def shared_flags(
    about: str | None, folders: Sequence[str], out: str, samples: int, targets: int
) -> argparse.ArgumentParser:
    """A parser of the flags of `Plan`, and of what is to be done of it."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {' and '.join(folders)}")
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--into", type=Path, help="a Markdown file with the report's markers, in docs")
    parser.add_argument("--samples", type=int, default=samples, help="texts for each target (paper: 50)")
    parser.add_argument("--targets", type=int, default=targets, help="targets of each task; 0: all")
    parser.add_argument("--free", type=int, default=300, help="free texts")
    parser.add_argument(
        "--minutes", type=float, default=4, help="training of each autoregressive model; some take more"
    )
    parser.add_argument(
        "--outside",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="free text by SmolLM2 and MAUVE too; wants make metrics",
    )
    parser.add_argument("--only", nargs="*", help="names of stages; without it, all")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    return parser


def stop(message: str) -> NoReturn:
    """Say what is wrong; what is done stays done."""
    logger.error("%s", message)
    raise SystemExit(2)


def chosen(stages: Iterable[Stage], flags: argparse.Namespace, data: Path, folders: Sequence[str]) -> list[Stage]:
    """The stages that are wanted; where only a list of them is, it is printed and there is none.

    A name that is no stage, and data that is not there, stop the script.
    """
    known = {stage.name: stage for stage in stages}
    if unknown := sorted(set(flags.only or ()) - set(known)):
        stop(f"There is no stage {unknown[0]}; the stages are {', '.join(known)}.")
    wanted = [stage for stage in known.values() if flags.only is None or stage.name in flags.only]
    if flags.list:
        logger.info("%s", "\n".join(f"{stage.name}: diffusion-lm {stage.command}" for stage in wanted))
        raise SystemExit(0)
    for folder in folders:
        if not (data / folder).is_dir():
            stop(f"{data} has no folder {folder}; give --data the folder that holds it.")
    return wanted


def spent(stage: Stage, out: Path) -> float | None:
    """The seconds that a stage took, if it is done: its marker holds the command and them."""
    marker = out / "done" / stage.name
    if not marker.exists():
        return None
    command, seconds = marker.read_text().splitlines()
    return float(seconds) if command == stage.command else None


def run(stage: Stage, out: Path) -> None:
    """Run a stage unless it is done."""
    marker, log = out / "done" / stage.name, out / "logs" / f"{stage.name}.log"
    if spent(stage, out) is not None:
        logger.info("%s: done before", stage.name)
        return
    for folder in (marker.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    logger.info("%s: diffusion-lm %s", stage.name, stage.command)
    words = shlex.split(stage.command)
    command = [sys.executable, *words] if words[0].endswith(".py") else [sys.executable, "-m", "diffusion_lm", *words]
    started = time.monotonic()
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        last = log.read_text().strip().split("\n")[-1]
        stop(f"The stage {stage.name} failed with exit code {code}; {log} says: {last}")
    seconds = time.monotonic() - started
    write_whole(marker, f"{stage.command}\n{seconds:.0f}\n")
    logger.info("%s: %.0f s", stage.name, seconds)


def times(stages: Iterable[Stage], out: Path) -> None:
    """Write what the stages that are done took, by part and by kind of work, where the report finds it."""
    parts: dict[str, dict[str, float]] = {}
    for stage in stages:
        if (seconds := spent(stage, out)) is not None:
            kind = "making" if stage.command.startswith(("train", "annotate")) else "measuring"
            parts.setdefault(stage.part, {"making": 0.0, "measuring": 0.0})[kind] += seconds
    folder = out / "time"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "time.json", json.dumps(parts, indent=2) + "\n")


def report(stages: Iterable[Stage], out: Path, into: Path | None) -> None:
    """Make the pages of all runs that are there."""
    times(stages, out)
    files = ("run.json", "likelihood.json", "trace.json", "by_noise.json", "time.json")
    runs = [path.parent for name in files for path in sorted(out.glob(f"*/{name}"))]
    words = ["report", *map(str, runs), "--out", str(out / "report")]
    command = [sys.executable, "-m", "diffusion_lm", *words, *(["--into", str(into)] if into else [])]
    subprocess.run(command, check=True)


def carry_out(
    parser: argparse.ArgumentParser,
    kind: type[P],
    stages: Callable[[P], Iterable[Stage]],
    folders: Sequence[str],
    before: Callable[[P], None] | None = None,
) -> None:
    """Do what a script of these flags is for: run what is missing of the stages of its kind of plan, then report.

    `before` writes what no stage makes.
    """
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = kind(**{field.name: getattr(flags, field.name) for field in fields(kind)})
    wanted = chosen(stages(plan), flags, plan.data, folders)
    if before is not None:
        before(plan)
    for stage in wanted:
        run(stage, plan.out)
    report(stages(plan), plan.out, flags.into)
