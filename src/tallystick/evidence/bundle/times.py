"""The times of a bundle's lines: they never run backwards, but where the clock was corrected (SPEC 5.9, 11 (8))."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, Final

from tallystick.core.corrected import CLOCK_CORRECTED, ClockCorrected
from tallystick.core.record import Record
from tallystick.errors import RejectedError
from tallystick.evidence.verification.clock import correction_told


class LineTimes:
    """Takes the lines that are records, in order. `beside` are the records of the manifest, in theirs."""

    def __init__(self, beside: Iterable[Record], *, created: str) -> None:
        self._created: Final = created
        self._beside: Final = [record for record in beside if _correction(record) is not None]
        self._positions: Final = [record.position for record in self._beside]
        self._told: Final = {record.position: _told(record) for record in self._beside}
        self._last: tuple[int, int, str] | None = None  # number, position and time

    @property
    def is_corrected(self) -> bool:
        """Whether the clock was corrected, so that times do not ascend over all of the ledger."""
        return bool(self._told)

    @property
    def told(self) -> tuple[str, ...]:
        """What is said of each correction."""
        return tuple(told for _, told in sorted(self._told.items()))

    def take(
        self, line: bytes, members: dict[str, Any], number: int, *, before: tuple[int, str] | None, counts: bool
    ) -> str | None:
        """What is wrong with a line's time. `before` is the position and the time of the line before, if known;
        `counts` says whether the line is in its place, so that it may be a correction."""
        position, time = members["position"], members["recorded_at"]
        self._last = (number, position, time)
        corrected = _correction(Record(line, members)) if counts and members["event_type"] == CLOCK_CORRECTED else None
        if corrected is not None:
            self._told[position] = correction_told(position, corrected.last_recorded_at, time)
            if before is not None and before[0] + 1 == position and corrected.last_recorded_at != before[1]:
                return f"the record before is of {before[1]}, and not of {corrected.last_recorded_at} as it says"
            return None
        if before is None:
            return None
        since = before[1]
        if self._positions:
            at = bisect_right(self._positions, position) - 1
            since = self._beside[at].recorded_at if at >= 0 and self._positions[at] > before[0] else since
        return f"{time} is before the line before, {since}" if time < since else None

    def finish(self) -> tuple[str, int, int] | None:
        """What is wrong with the time of the last line, its number and its position."""
        if self._last is None:
            return None
        number, position, time = self._last
        if time <= self._created or (self._positions and self._positions[-1] > position):
            return None
        return f"{time} is after the bundle was made", number, position


def _correction(record: Record) -> ClockCorrected | None:
    if record.event_type != CLOCK_CORRECTED:
        return None
    try:
        return ClockCorrected.of(record)
    except RejectedError:
        return None


def _told(record: Record) -> str:
    return correction_told(record.position, record.payload["last_recorded_at"], record.recorded_at)
