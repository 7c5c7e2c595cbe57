"""The clocks, and the only place that reads them. Everything else is handed a `Clock`."""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """A function giving the present moment in microseconds since 1970-01-01T00:00:00Z."""

    def __call__(self) -> int: ...


def wall_clock() -> int:
    """The machine's own time. It may step back, or far ahead; the sealer holds it, or refuses it (SPEC 3.2)."""
    return time.time_ns() // 1000


# Goes on while the machine sleeps, where the system has such a clock: else waking up were a jump.
_RUNNING: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def running_clock() -> int:
    """Microseconds since some moment at which the machine was started. Nobody sets it."""
    return time.clock_gettime_ns(_RUNNING) // 1000
