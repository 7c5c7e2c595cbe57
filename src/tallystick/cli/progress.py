"""A progress bar on stderr: for people, and only for work that takes a while."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final

from tallystick.cli import screen

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE_SECONDS: Final = 0.5


class Bar:
    """Says how far some work is, once it has taken half a second and where stderr is a terminal."""

    def __init__(self, doing: str, unit: str) -> None:
        self._doing: Final = doing
        self._unit: Final = unit
        self._wanted: Final = screen.on_terminal(err=True)
        self._begun: Final = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` units are done; a total of None is not known."""
        if not self._wanted:
            return
        if self._progress is None:
            if time.monotonic() - self._begun < _PATIENCE_SECONDS:
                return
            self._start(total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
            if total is not None and done >= total:
                self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        known = "{task.percentage:>3.0f}%" if total is not None else "{task.completed:,} " + self._unit
        self._progress = Progress(
            TextColumn(self._doing, markup=False),
            BarColumn(),
            TextColumn(known, markup=False),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(self._doing, total=total)
        self._progress.start()
