"""The room that is left on the disks: what is not begun any more when it gets little, and what goes on.

Events are what fills a disk, so they stop first, at the reserve. What is below it is for those who make room: large
jobs such as exports go on until less is left, and administration, access trails, reads and verification always.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from tallystick.errors import BusyError

MEGABYTE: Final = 2**20
FRESH_SECONDS: Final = 1.0
NEAR_SECONDS: Final = 0.05
"""How old what is known may be, as every request with events asks for it; and how old when less than so many times the
reserve is left: what comes within that time is taken beyond it."""
_NEAR_TIMES: Final = 4

MARKS_BYTES: Final = MEGABYTE
"""What has to be free where the marks are, if that is elsewhere: a mark takes 4 KiB, and as much to replace it."""


class DiskMetrics:
    """What is counted of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.free: Final = Gauge(
            "tallystick_disk_free_bytes", "What is left of the disk with the ledgers.", registry=registry
        )
        self.refused: Final = Counter(
            "tallystick_reserve_refused", "Requests with events that found only the reserve left.", registry=registry
        )


class Disk:
    """The file systems on which a deployment rests. Safe for many threads."""

    def __init__(
        self,
        data: Path,
        marks: Path,
        *,
        reserve_bytes: int,
        large_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """With less than `reserve_bytes` left no events are taken; below `large_bytes` nothing large begins."""
        self._data: Final = data
        self._marks: Final = marks
        self.reserve_bytes: Final = reserve_bytes
        self._large_bytes: Final = large_bytes
        self._monotonic: Final = monotonic
        self._looking: Final = threading.Lock()
        self._looked_at = float("-inf")
        self._fresh_seconds = FRESH_SECONDS
        self._problem: str | None = None

    @property
    def free_bytes(self) -> int:
        """What is left where the ledgers are. Raises `OSError`."""
        found = os.statvfs(self._data)
        return found.f_bavail * found.f_frsize

    def problem(self) -> str | None:
        """Why no events are taken, as it was a moment ago; None when they are."""
        # One thread looks; for the others what was known before is as good.
        if self._monotonic() - self._looked_at > self._fresh_seconds and self._looking.acquire(blocking=False):
            try:
                self._problem, self._looked_at = self._look(), self._monotonic()
            finally:
                self._looking.release()
        return self._problem

    def check_reserve(self) -> None:
        """Raises `BusyError` when there is only the reserve left: no events are taken then."""
        problem = self.problem()
        if problem is not None:
            raise ReserveError(f"{problem}, so no events are taken: tell the operators, and send the same again later")

    def check_large(self) -> None:
        """Raises `BusyError` when the disk has less left than it should: what may be large is not begun then."""
        if self.free_bytes < self._large_bytes:
            raise BusyError(
                "the disk is nearly full, and nothing large is begun: tell the operators, and try again later"
            )

    def _look(self) -> str | None:
        try:
            free = self.free_bytes
            self._fresh_seconds = NEAR_SECONDS if free < _NEAR_TIMES * self.reserve_bytes else FRESH_SECONDS
            if free < self.reserve_bytes:
                return "the disk has only its reserve left"
            if self.reserve_bytes and self._marks_are_full():
                return "the disk of the marks is full"
        except OSError as error:
            return f"the disk does not answer ({error.strerror or error})"
        return None

    def _marks_are_full(self) -> bool:
        """Whether the marks are elsewhere, and have no room there. Where nobody may write, there never was any."""
        folder = next(one for one in (self._marks, *self._marks.absolute().parents) if one.exists())
        if folder.stat().st_dev == self._data.stat().st_dev:
            return False
        found = os.statvfs(folder)
        return not found.f_flag & os.ST_RDONLY and found.f_bavail * found.f_frsize < MARKS_BYTES


class ReserveError(BusyError):
    """There is only the reserve of the disk left: no events are taken until there is more."""
