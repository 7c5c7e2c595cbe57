"""How often, and how long: the time that a call has, and how it is shared out among its tries.

Between two tries is a while that grows and is drawn by lot, so that those who were refused together do not come back
together (full jitter). `Retry-After` is kept, and what it leaves no time for is given up at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from tallystick.clock import Clock
from tallystick.core.timestamp import SECOND
from tallystick.errors import BusyError, StoreError, TallystickError
from tallystick.ids import random_bytes

_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 5.0
_LEAST_FOR_ONE: Final = 5.0
_log: Final = logging.getLogger("tallystick.client")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one try did not do."""

    why: str
    reached: bool
    """Whether the request may have arrived."""
    unknown: bool = False
    """Whether it may have been carried out."""
    after: float | None = None
    """The seconds that the service asks to wait."""
    error: TallystickError | None = None
    """What the service said."""


class FailedError(Exception):
    """One try failed, and another one may do better."""

    def __init__(self, failure: Failure) -> None:
        self.failure: Final = failure
        super().__init__(failure.why)


class Repeated(Protocol):
    """What is tried."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def repeatable(self) -> bool: ...


class Backoff:
    """How long to wait, each time: up to twice as long as before, drawn by lot."""

    def __init__(self, lot: Callable[[], float] | None = None) -> None:
        self._lot: Final = lot or _draw
        self._most = _FIRST_SECONDS

    def next(self, after: float | None = None) -> float:
        """The seconds to wait; with `after`, that long at least."""
        drawn = self._most * self._lot()
        self._most = min(2 * self._most, _LONGEST_SECONDS)
        return drawn + (after or 0.0)


class Tries:
    """The tries of one call."""

    def __init__(self, seconds: float, *, closed: threading.Event, host: str) -> None:
        self._seconds: Final = seconds
        self._deadline: Final = time.monotonic() + seconds
        self._closed: Final = closed
        self._host: Final = host
        self._backoff: Final = Backoff()
        self._unknown = False

    def seconds_for_one(self) -> float:
        """How long the next try may take: half of what is left, so that one that hangs leaves time for others."""
        left = max(self._deadline - time.monotonic(), 0.05)
        return min(left, max(left / 2, _LEAST_FOR_ONE))

    def again_after(self, failure: Failure, request: Repeated) -> None:
        """Wait, and come back for another try. Raises the error for good if there is none."""
        self._unknown = self._unknown or failure.unknown
        if failure.reached and not request.repeatable:
            raise self._over(
                failure, "it is not sent twice", "look what there is before you order it again"
            ) from failure.error
        wait = self._backoff.next(failure.after)
        if time.monotonic() + wait >= self._deadline:
            raise self._over(failure, f"tried for {self._seconds:g} s") from failure.error
        _log.info("%s %s: %s; again in %.2f s", request.method, request.path[:200], failure.why, wait)
        if self._closed.wait(wait):
            raise StoreError("the client was closed")

    def _over(self, failure: Failure, why: str, then: str = "repeat it with the same ids") -> TallystickError:
        if self._unknown:
            told = f"{self._host} gave no answer that counts ({failure.why}; {why})"
            return StoreError(f"{told}: the outcome is unknown, {then}")
        return BusyError(f"{self._host} did not do it ({failure.why}; {why}): wait a moment, then try again")


def retry_after(text: str | None, clock: Clock) -> float | None:
    """The seconds that a `Retry-After` asks for, as a number or as a date (RFC 9110 10.2.3); None for none."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text[:64]).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(moment - clock() / SECOND, 0.0)


def _draw() -> float:
    """A number from 0 to 1."""
    return int.from_bytes(random_bytes(4)) / 2**32
