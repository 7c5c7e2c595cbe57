"""The moment at which a batch is sealed: by a clock that may step back, and that may be set far ahead.

What is sealed under a clock that is ten years ahead is ten years away for every verifier, and later records are held at
that time. So a jump that nothing bears out is refused, until it is recorded as right (SPEC 5.9).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tallystick.clock import Clock, running_clock, wall_clock
from tallystick.core import timestamp
from tallystick.errors import ConflictError, RejectedError, for_operators
from tallystick.limits import (
    CLOCK_AHEAD_MAX_MICROSECONDS,
    CLOCK_IDLE_MAX_MICROSECONDS,
    CLOCK_TOLERANCE_MICROSECONDS,
)

_CURE: Final = "set the machine's clock right; or, if it is, record so with `tallystick correct-clock`"

_log: Final = logging.getLogger("tallystick.write")


class Moments:
    """Reads the clock for one sealer. One thread at a time uses it: the holder of the sealing turn."""

    def __init__(
        self, clock: Clock, *, running: Clock | None = None, source: Callable[[], int | None] | None = None
    ) -> None:
        """`running` tells how much time goes by, whoever sets the clock; without it no jump is looked for. `source`
        gives the time as another machine has it, or None; it is asked before the first batch."""
        self._clock: Final = clock
        self._running: Final = running
        self._source: Final = source
        self._base: tuple[int, int] | None = None
        """A moment that was accepted, by both clocks."""
        self._held = False
        self._insisting = False

    @classmethod
    def of(cls, clock: Clock, *, source: Callable[[], int | None] | None) -> Moments:
        """By the machine's clock, or by one that was handed in, which is always right."""
        if clock is wall_clock:
            return cls(clock, running=running_clock, source=source)
        return cls(clock)

    def now(self, recorded_at: int) -> int:
        """The moment, in microseconds. `recorded_at` is that of the newest record; the planner does not go below it.

        Raises `RejectedError`, for the operators, when the clock is further ahead than can be.
        """
        now = self._clock()
        problem = self._problem(now, recorded_at)
        if self._insisting:
            if problem is None and now >= recorded_at - CLOCK_TOLERANCE_MICROSECONDS:
                raise ConflictError(
                    f"the newest record is of {timestamp.render(recorded_at)}, and the clock does not contradict it: "
                    "there is nothing to correct"
                )
            self._accept(now)
            return now
        if problem is not None:
            with for_operators():
                raise RejectedError(problem, place="clock", cure=_CURE)
        held = now < recorded_at
        if held and not self._held:
            behind = (recorded_at - now) / timestamp.SECOND
            _log.warning("the clock stepped back %.6f s; recorded times are held until it has caught up", behind)
        self._held = held
        return now

    @contextmanager
    def insisting(self) -> Iterator[None]:
        """Within, the clock is right, whatever contradicts it. Raises `ConflictError` if nothing does."""
        self._insisting = True
        try:
            yield
        finally:
            self._insisting = False

    def _problem(self, now: int, recorded_at: int) -> str | None:
        """Why the moment cannot be right. One that can is what later ones are held against."""
        if self._running is None:
            return None
        expected, why = self._expected(self._running(), recorded_at)
        if now > max(expected, recorded_at) + CLOCK_AHEAD_MAX_MICROSECONDS:
            return f"the clock says {timestamp.render(now)}, and {why}"
        # Later than expected where the log has that it is right; earlier, and then to jump back again is a jump, too.
        if self._base is None or not expected <= now <= expected + CLOCK_AHEAD_MAX_MICROSECONDS:
            self._accept(now)
        return None

    def _expected(self, running: int, recorded_at: int) -> tuple[int, str]:
        """The latest that it can be but for a tolerance, and how that is known."""
        if self._base is not None:
            base, began = self._base
            passed = running - began
            return base + passed, f"{passed / timestamp.SECOND:,.0f} s before it said {timestamp.render(base)}"
        told = None if self._source is None else self._source()
        if told is not None:
            return told, f"the time source says {timestamp.render(told)}"
        last = f"the newest record is of {timestamp.render(recorded_at)}, more than a year before"
        return recorded_at + CLOCK_IDLE_MAX_MICROSECONDS, last

    def _accept(self, now: int) -> None:
        if self._running is not None:
            self._base = (now, self._running())
