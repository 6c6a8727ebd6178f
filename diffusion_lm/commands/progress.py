"""A progress bar that appears with the first report, so that bad input is refused without one."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tqdm.auto import tqdm


class Bar:
    """Shows how much of a job is done; call it with (done, total)."""

    def __init__(self, name: str, unit: str) -> None:
        self.name, self.unit = name, unit
        self.bar: tqdm | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int, **values: str) -> None:
        """Show that `done` of `total` are done, and values beside it."""
        if self.bar is None:
            self.bar = tqdm(total=total, desc=self.name, unit=f" {self.unit}", dynamic_ncols=True)
        self.bar.set_postfix(values, refresh=False)
        self.bar.update(done - self.bar.n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
