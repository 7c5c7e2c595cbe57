"""The wall clock, and the only place that reads it. Everything else is handed a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A function giving the present moment in microseconds since 1970-01-01T00:00:00Z."""

    def __call__(self) -> int: ...


def wall_clock() -> int:
    """The machine's own time. It may step back; the sealer holds it (SPEC 3.2)."""
    return time.time_ns() // 1000
