"""Denials: how many of one caller are put into the access trail one by one, so that nobody fills the disk with them.

A thousand at once, and then one a second; how many there were in between stands in the next that is recorded.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

BURST: Final = 1_000.0
A_SECOND: Final = 1.0
_CALLERS_MAX: Final = 10_000


class Denials:
    """Counts those of each caller. To be used from the event loop only."""

    def __init__(self, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady: Final = steady
        self._known: Final[OrderedDict[str, _Of]] = OrderedDict()

    def take(self, caller: str) -> int | None:
        """How many of a caller were not recorded since the last that was, if this one is to be; None if it is not."""
        now = self._steady()
        found = self._known.setdefault(caller, _Of(now))
        self._known.move_to_end(caller)
        if len(self._known) > _CALLERS_MAX:
            self._known.popitem(last=False)
        found.left = min(BURST, found.left + (now - found.at) * A_SECOND)
        found.at = now
        if found.left < 1:
            found.skipped += 1
            return None
        found.left -= 1
        skipped, found.skipped = found.skipped, 0
        return skipped


class _Of:
    __slots__ = ("at", "left", "skipped")

    def __init__(self, at: float) -> None:
        self.left = BURST
        self.at = at
        self.skipped = 0
