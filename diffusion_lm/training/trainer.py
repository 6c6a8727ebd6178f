"""What the trainings share."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from diffusion_lm.common import UserError
from diffusion_lm.store import write_whole


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `parameter/key` tensors."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put a saved state back."""
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        # The fused optimiser keeps the count of steps on the parameter's device too.
        # A copy, because the tensors of a checkpoint are maps of its files.
        optimizer.state[parameters[name]][key] = value.to(parameters[name].device, copy=True)


class Clock:
    """How far the training is, by steps or by time, whichever is further; the learning rate follows it.

    Args:
        epochs: passes over the batches.
        minutes: time limit; None: none.
        steps_per_epoch: batches of a pass.
        lr: highest learning rate.
        warmup: steps over which it rises from zero; it then falls along half a cosine to zero.

    Raises:
        UserError: if the training would have no step.
    """

    def __init__(self, epochs: float, minutes: float | None, steps_per_epoch: int, lr: float, warmup: int) -> None:
        self.total = math.ceil(epochs * steps_per_epoch)
        self.limit = math.inf if minutes is None else 60 * minutes
        if self.total < 1 or self.limit <= 0:
            raise UserError("The epochs and minutes of a training must be above 0.")
        self.highest, self.warmup = lr, max(1, warmup)
        self.steps = 0
        self.started = time.monotonic()

    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    def fraction(self) -> float:
        """Share of the training done, in [0, 1]."""
        return min(1.0, max(self.steps / self.total, self.seconds() / self.limit))

    def lr(self) -> float:
        """The learning rate of the next step."""
        warm = min(1.0, (self.steps + 1) / self.warmup)
        return self.highest * warm * 0.5 * (1 + math.cos(math.pi * self.fraction()))

    def step(self, loss: Tensor, model: nn.Module, optimizer: Optimizer) -> None:
        """Follow the gradient of a loss [], its norm over the model at most 1, and count the step."""
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = self.lr()
        optimizer.step()
        optimizer.zero_grad()
        self.steps += 1


class StopRequest:
    """Inside the `with` block the first signal sets `signal`; a second one of the same kind acts as usual.

    Python hears signals in its main thread alone, so elsewhere the block does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._previous[number])

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # None stands for a handler that was not set from Python.
                self._previous[number] = signal.signal(number, self._handle) or signal.SIG_DFL
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)


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
