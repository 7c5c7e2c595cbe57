"""Times that have not come yet: the writer's clock was ahead, or the verifier's is behind (SPEC 8 (6), 11 (8)).

Neither is tampering. Up to a day it is told and holds all the same; past that it is a finding of its own kind. Where
the ledger says that its clock was corrected, times before that count as no later.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallystick.core import timestamp
from tallystick.core.corrected import ClockCorrected
from tallystick.core.record import Record
from tallystick.errors import RejectedError
from tallystick.evidence.findings import Finding, Kind
from tallystick.limits import CLOCK_AHEAD_MAX_MICROSECONDS, CLOCK_TOLERANCE_MICROSECONDS


@dataclass(slots=True)
class Ahead:
    """Records that are later than some moment: from where to where, how many, and the latest time of them."""

    first: int = -1
    last: int = -1
    count: int = 0
    latest: str = ""

    def merge(self, other: Ahead) -> None:
        """Count what was counted of positions above these."""
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
        more = (CLOCK_TOLERANCE_MICROSECONDS, CLOCK_AHEAD_MAX_MICROSECONDS)
        return cls(*(timestamp.render(now + one) for one in more))


@dataclass(slots=True)
class TimesAhead:
    """The records of a range that are ahead of a verifier's clock."""

    near: Ahead = field(default_factory=Ahead)
    far: Ahead = field(default_factory=Ahead)
    """Those that are too far ahead."""
    corrected: list[str] = field(default_factory=list)
    """The times to which the clock was corrected."""

    def take(self, position: int, time: str, edges: Edges) -> None:
        """Count a record whose time is past the first edge."""
        (self.far if time > edges.found else self.near).merge(Ahead(position, position, 1, time))

    def correct(self, time: str) -> None:
        """What was counted so far is no later than this."""
        self.corrected.append(time)
        for counted in (self.near, self.far):
            counted.latest = min(counted.latest, time)

    def merge(self, other: TimesAhead) -> None:
        """Take in the next range."""
        for time in other.corrected:
            self.correct(time)
        self.near.merge(other.near)
        self.far.merge(other.far)


def warning_of(latest: str) -> str:
    """What is said of records that are ahead, and not too far."""
    return f"recorded times are ahead of this machine's clock, up to {latest}: see whether it is right"


def correction_told(position: int, before: str, after: str) -> str:
    """What is said of a clock that was corrected."""
    return f"the clock was corrected at position {position:,}, from {before} to {after}"


class Seen(Protocol):
    """What was seen in one range: its times, and the ledger's own records."""

    @property
    def times(self) -> TimesAhead: ...

    @property
    def own_records(self) -> list[tuple[int, bytes]]: ...


class ClockCheck:
    """The times of all ranges, in order."""

    def __init__(self, edges: Edges) -> None:
        self.edges: Final = edges
        self._times: Final = TimesAhead()
        self._told: Final[list[str]] = []

    def add(self, seen: Seen) -> None:
        """Take in the next range."""
        self._times.merge(seen.times)
        for position, line in seen.own_records:
            with suppress(RejectedError):
                said = ClockCorrected.of(Record.parse(line))
                self._told.append(correction_told(position, said.last_recorded_at, said.corrected_at))

    @property
    def findings(self) -> list[Finding]:
        """One for all records that are too far ahead, as whatever follows the first is held at its time at least."""
        found = self._times.far
        if not found.count or found.latest <= self.edges.found:
            return []
        many = "record is" if found.count == 1 else "records are"
        seen = f"{found.count:,} {many} ahead of this machine's clock by more than a day, up to {found.latest}"
        return [Finding(Kind.CLOCK, found.first, seen, found.last + 1 if found.last > found.first else None)]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of records that are ahead, and not too far; and of every correction of the clock."""
        counted = (self._times.near, self._times.far)
        latest = max((one.latest for one in counted if one.latest <= self.edges.found), default="")
        ahead = (warning_of(latest),) if latest > self.edges.told else ()
        return (*ahead, *self._told)
