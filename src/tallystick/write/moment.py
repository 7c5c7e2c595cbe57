"""The moment at which a batch is sealed, by a clock that may step back."""

from __future__ import annotations

import logging
from typing import Final

from tallystick.clock import Clock
from tallystick.core import timestamp

_log: Final = logging.getLogger("tallystick.write")


class Moments:
    """Reads the clock for one sealer, and tells once when it is behind the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._held = False

    def now(self, recorded_at: int) -> int:
        """The moment, in microseconds. `recorded_at` is that of the newest record; the planner does not go below it."""
        now = self._clock()
        held = now < recorded_at
        if held and not self._held:
            behind = (recorded_at - now) / timestamp.SECOND
            _log.warning("the clock stepped back %.6f s; recorded times are held until it has caught up", behind)
        self._held = held
        return now
