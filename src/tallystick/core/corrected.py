"""A ledger's clock, corrected: recorded times may count anew from a smaller one, once the log says so (SPEC 5.9).

Whatever stands before a correction was sealed before it, so its time is at most the corrected one, be its recorded
time ten years ahead. By this rule times never fall as positions rise, and a range of time is a range of positions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tallystick.core import timestamp
from tallystick.core.custody import check_reason, exactly, own_payload, text_member
from tallystick.core.record import Record
from tallystick.errors import RejectedError

CLOCK_CORRECTED: Final = "tallystick.clock.corrected"


@dataclass(frozen=True, slots=True)
class ClockCorrected:
    """From its record on times count from `corrected_at`, which is the time of that record."""

    last_recorded_at: str
    """The recorded time of the record before it."""
    corrected_at: str
    reason: str

    def __post_init__(self) -> None:
        check_reason(self.reason)
        timestamp.parse(self.last_recorded_at)
        timestamp.parse(self.corrected_at)

    def payload(self) -> dict[str, Any]:
        return {
            "corrected_at": self.corrected_at,
            "last_recorded_at": self.last_recorded_at,
            "reason": self.reason,
        }

    @classmethod
    def of(cls, record: Record) -> ClockCorrected:
        """Read a record as one. Raises `RejectedError`, also where it was not recorded at the time that it says."""
        payload = own_payload(record, CLOCK_CORRECTED)
        corrected = cls(*(text_member(payload, name) for name in ("last_recorded_at", "corrected_at", "reason")))
        if corrected.corrected_at != record.recorded_at:
            problem = f"{corrected.corrected_at} is not when it was recorded, {record.recorded_at}"
            raise RejectedError(problem, place="/payload/corrected_at")
        return exactly(corrected, payload, CLOCK_CORRECTED)


class Correction(NamedTuple):
    """Where a clock was corrected, and to which time, in microseconds."""

    position: int
    moment: int

    @classmethod
    def of(cls, record: Record) -> Correction:
        """Of its record. Raises `RejectedError` if it is none."""
        return cls(record.position, timestamp.parse(ClockCorrected.of(record).corrected_at))


class Times:
    """The times that records count by, in a ledger with these corrections."""

    def __init__(self, corrections: Iterable[Correction] = ()) -> None:
        ordered = sorted(corrections)
        self.corrections: Final = tuple(ordered)
        self._positions: Final = [one.position for one in ordered]
        self._least: Final = [one.moment for one in ordered]
        """From each correction on, the smallest time that any is to."""
        for index in range(len(ordered) - 2, -1, -1):
            self._least[index] = min(self._least[index], self._least[index + 1])

    def __bool__(self) -> bool:
        """Whether there are any; without, recorded times are what counts."""
        return bool(self.corrections)

    def of(self, position: int, recorded: int) -> int:
        """The time of a record, in microseconds: the recorded one, or that of a later correction, if that is less."""
        latest = self.latest(position)
        return recorded if latest is None else min(recorded, latest)

    def latest(self, position: int) -> int | None:
        """Past which no record at a position counts, in microseconds; None where no correction stands after it."""
        after = bisect_right(self._positions, position)
        return self._least[after] if after < len(self._least) else None


NEVER_CORRECTED: Final = Times()
"""Of a ledger whose clock was always right: recorded times are what counts."""


def never_corrected(_: int) -> Times:
    """Of any number of records."""
    return NEVER_CORRECTED
