"""SIGTERM and SIGINT as a request to stop after the step under way."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StopRequest:
    """Inside the `with` block, the first signal sets `signal`; a second one of the same kind acts as usual."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._previous[number])  # type: ignore[arg-type]

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]
