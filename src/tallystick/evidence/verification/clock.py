"""Times that have not come yet: the writer's clock was ahead, or the verifier's is behind (SPEC 8 (6), 11 (8)).

Neither is tampering. Up to a day it is told and holds all the same; past that it is a finding of its own kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from tallystick.core import timestamp
from tallystick.evidence.findings import Finding, Kind

CLOCK_TOLERANCE: Final = 300 * timestamp.SECOND
"""How far the clocks of the writer and of the verifier may be apart without a word."""

CLOCK_AHEAD_MAX: Final = 86_400 * timestamp.SECOND
"""How far ahead of the verifier's clock a time may be before it is a finding."""


@dataclass(slots=True)
class Ahead:
    """Records that are later than some moment: from where to where, how many, and the latest time of them."""

    first: int = -1
    last: int = -1
    count: int = 0
    latest: str = ""

    def take(self, position: int, time: str) -> None:
        """Count a record."""
        self.merge(Ahead(position, position, 1, time))

    def merge(self, other: Ahead) -> None:
        """Count what another scan counted, of positions above these."""
        if other.count:
            self.first = other.first if self.first < 0 else self.first
            self.last, self.count = other.last, self.count + other.count
            self.latest = max(self.latest, other.latest)


@dataclass(frozen=True, slots=True)
class Edges:
    """The times from which on one is told of, and is found, in the form of recorded times."""

    told: str
    found: str

    @classmethod
    def at(cls, now: int) -> Edges:
        """By the clock of whoever verifies."""
        return cls(*(timestamp.render(now + more) for more in (CLOCK_TOLERANCE, CLOCK_AHEAD_MAX)))


def warning_of(ahead: Ahead) -> tuple[str, ...]:
    """What is said of records that are ahead, and not too far."""
    if not ahead.count:
        return ()
    return (f"recorded times are ahead of this machine's clock, up to {ahead.latest}: see whether it is right",)


class Seen(Protocol):
    """What was seen in one range: records that are ahead, and those that are too far."""

    @property
    def ahead(self) -> Ahead: ...

    @property
    def far_ahead(self) -> Ahead: ...


class ClockCheck:
    """The times of all ranges, in order."""

    def __init__(self) -> None:
        self._ahead: Final = Ahead()
        self._far_ahead: Final = Ahead()

    def add(self, seen: Seen) -> None:
        """Take in the next range."""
        self._ahead.merge(seen.ahead)
        self._far_ahead.merge(seen.far_ahead)

    @property
    def findings(self) -> list[Finding]:
        """One for all records that are too far ahead, as whatever follows the first is held at its time at least."""
        found = self._far_ahead
        if not found.count:
            return []
        many = "record is" if found.count == 1 else "records are"
        seen = f"{found.count:,} {many} ahead of this machine's clock by more than a day, up to {found.latest}"
        return [Finding(Kind.CLOCK, found.first, seen, found.last + 1 if found.last > found.first else None)]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of those that are ahead, and not too far."""
        return warning_of(self._ahead)
