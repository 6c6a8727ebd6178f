"""results.jsonl: a line for every text of an evaluation, so that one that was cut short goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffusion_lm.errors import UserError
from diffusion_lm.evaluation.report import append_jsonl

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text and its scores; a line of results.jsonl."""

    task: str
    """The task, or the baseline: human, judge."""
    target: str
    """What was asked for; empty where nothing was."""
    index: int
    """Number of the text among those of its target, from 0."""
    text: str
    """The text as a reader sees it."""
    success: float | None
    """How far it obeys the control, in [0, 1]; None without a control."""
    parts: dict[str, float] = field(default_factory=dict)
    """The same for each of several controls, by the name of its task."""
    paper: dict[str, float] = field(default_factory=dict)
    """The paper-compatible success of each control, by the name of its task."""
    nats: float
    """-log p(text, END) under the judge."""
    tokens: int
    """Tokens that the judge predicted, END counted: nats / tokens is the text's fluency."""
    seed: int
    """Seed of the target's generation; with it and `index` the text is written again."""
    seconds: float | None
    """This text's share of the time that the target's generation took."""
    network_evaluations: int | None
    """Denoiser and classifier passes for the batch that the text was in."""
    config: str
    """Hash of all that the text and its scores depend on."""


class Results:
    """The samples in a file, by task and target.

    Args:
        path: the file; it need not exist.
        config: hash of this evaluation's settings; a task with settings of its own appends theirs after a
            hyphen.

    Raises:
        UserError: the file holds samples of other settings, or a line that is no sample.
    """

    def __init__(self, path: str | Path, config: str) -> None:
        self.path = Path(path)
        self.config = config
        self._samples: dict[tuple[str, str], dict[int, Sample]] = {}
        for number, line in enumerate(_whole_lines(self.path), start=1):
            sample = _read(line, f"Line {number} of {self.path}")
            if sample.config.partition("-")[0] != config:
                raise self._mixed()
            self._keep(sample)

    def _mixed(self) -> UserError:
        return UserError(
            f"{self.path} holds results with other settings, another model, judge or corpus; "
            "give --out another folder."
        )

    def _keep(self, sample: Sample) -> bool:
        """Whether the sample is new."""
        group = self._samples.setdefault((sample.task, sample.target), {})
        return group.setdefault(sample.index, sample) is sample

    def get(self, task: str, target: str, n: int, config: str) -> list[Sample] | None:
        """The samples 0 .. n - 1 of a target if all of them are there, else None.

        Raises:
            UserError: there are some, but with other settings of the task.
        """
        group = self._samples.get((task, target), {})
        if any(sample.config != config for sample in group.values()):
            raise self._mixed()
        return [group[i] for i in range(n)] if all(i in group for i in range(n)) else None

    def add(self, samples: Sequence[Sample]) -> None:
        """Append the samples that are not there yet; on return they are on the disk."""
        for sample in samples:
            if self._keep(sample):
                append_jsonl(self.path, asdict(sample))


def _whole_lines(path: Path) -> list[str]:
    """The lines of the file; what a killed process left of its last one is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        logger.warning("The last line of %s was cut short and is dropped.", path)
        with path.open("r+b") as file:
            file.truncate(end)
    # Not splitlines, which would also split at separators that JSON leaves inside a text.
    return data[:end].decode("utf-8", errors="replace").split("\n")[:-1]


def _read(line: str, where: str) -> Sample:
    try:
        values: Any = json.loads(line)
        return Sample(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where} is no result of an evaluation ({error}).") from error
