"""What a run reports: metrics.jsonl, TensorBoard, and the progress bar."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm


class MetricsLog:
    """Each record is a line of `metrics.jsonl` and a point in TensorBoard; silent where not `enabled`."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self.folder, self.enabled = folder, enabled

    def __enter__(self) -> MetricsLog:
        if self.enabled:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / "metrics.jsonl").open("a", encoding="utf8")
            self._board = SummaryWriter(str(self.folder / "tensorboard"))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.enabled:
            self._file.close()
            self._board.close()

    def write(self, step: int, values: dict[str, float], split: str) -> None:
        """Record the values of a step."""
        if not self.enabled:
            return
        self._file.write(json.dumps({"step": step, "split": split, "time": time.time(), **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)


class Progress:
    """A bar over steps with tokens a second, the newest loss and the time left."""

    def __init__(self, step: int, steps: int, *, enabled: bool) -> None:
        self._bar = tqdm(total=steps, initial=step, disable=not enabled, unit="step", dynamic_ncols=True, mininterval=1.0)
        self._tokens, self._started = 0, time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def advance(self, tokens: int, loss: float) -> None:
        """One step done."""
        self._tokens += tokens
        rate = self._tokens / (time.monotonic() - self._started)
        self._bar.set_postfix({"loss": f"{loss:.3f}", "tokens/s": f"{rate:,.0f}"}, refresh=False)
        self._bar.update()
