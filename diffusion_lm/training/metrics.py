"""What a run reports: metrics.jsonl, TensorBoard, and the progress bar."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from diffusion_lm.files import write_whole


class Records:
    """A file with one JSON object a line, each with its `step`.

    Opened at a step, it forgets later ones: a killed run has written lines that will be written again.
    """

    def __init__(self, path: Path, step: int) -> None:
        if path.exists():
            kept = [line for line in path.read_text(encoding="utf8").splitlines() if _is_up_to(line, step)]
            write_whole(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf8")

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, record: Mapping[str, object]) -> None:
        """Append a record; it is in the file when this returns."""
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()


def _is_up_to(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):  # a line that was cut when the process was killed
        return False


class MetricsLog:
    """Each record is a line of `metrics.jsonl` and a point in TensorBoard; silent where not `enabled`."""

    def __init__(self, folder: Path, step: int, *, enabled: bool) -> None:
        self.folder, self.step, self.enabled = folder, step, enabled

    def __enter__(self) -> MetricsLog:
        if self.enabled:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._records = Records(self.folder / "metrics.jsonl", self.step)
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.enabled:
            self._records.__exit__(kind, value, trace)
            self._board.close()

    def write(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Record the values of a step; in the file a value that is not finite is null."""
        if not self.enabled:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._records.write({"step": step, "split": split, "time": time.time(), **finite})
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)


class Progress:
    """A bar over steps with tokens a second, the newest loss and the time left."""

    def __init__(self, step: int, steps: int, *, enabled: bool) -> None:
        self._bar = tqdm(
            total=steps,
            initial=step,
            disable=not enabled,
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0,
        )
        self._tokens, self._started = 0, time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, tokens: int, loss: float) -> None:
        """One step done."""
        self._tokens += tokens
        rate = self._tokens / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix({"loss": f"{loss:.3f}", "tokens/s": f"{rate:,.0f}"}, refresh=False)
        self._bar.update()
