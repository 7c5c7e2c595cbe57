"""Calendar buckets: the minutes, hours, days, weeks, months of a time zone as [start, end) in microseconds of UTC.

The buckets of a calendar cover all of time without gap or overlap, so that adding them up counts all once. Widths
up to an hour are equal stretches of absolute time on the zone's grid: an hour that the clocks repeat is two, and
one is cut short only where the zone moves its grid, as by half an hour. From a day on, a bucket begins at the
first instant at which the zone's calendar shows its first day: a day may have 23 or 25 hours, or not exist.

All arithmetic is on integers, so that it holds for any moment; a zone's offsets come from `zoneinfo`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tallystick.core import timestamp
from tallystick.core.moment import DAY
from tallystick.errors import RejectedError
from tallystick.limits import BUCKETS_MAX, ZONE_CHARACTERS_MAX

MINUTE: Final = 60 * timestamp.SECOND
QUARTER_HOUR: Final = 15 * MINUTE
HOUR: Final = 60 * MINUTE

# ---------------------------------------------------------------------------------------------- the widths


class _Period(NamedTuple):
    """A width of whole days. Days count from 1970-01-01, periods from whatever suits them."""

    of: Callable[[int], int]
    """The period that a day is in."""
    first_day: Callable[[int], int]
    days: int
    """The fewest that it has."""


def _day_of(year: int, month: int) -> int:
    """The first day of a month, by the Gregorian calendar for ever; years begin in March, so leap days end them."""
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 - 719_468


def _month_of(day: int) -> int:
    """The month that a day is in, counted from January of the year 0."""
    year = (400 * (day + 719_468) + 2) // 146_097 + 1  # the March year, or the one after it
    while _day_of(year, 3) > day:
        year -= 1
    month = (5 * (day - _day_of(year, 3)) + 2) // 153
    return 12 * year + month + 2


_EVEN: Final = {"minute": MINUTE, "5 minutes": 5 * MINUTE, "15 minutes": QUARTER_HOUR, "hour": HOUR}
_PERIODS: Final = {
    "day": _Period(lambda day: day, lambda day: day, 1),
    "week": _Period(lambda day: (day + 3) // 7, lambda week: 7 * week - 3, 7),  # 1970-01-01 was a Thursday
    "month": _Period(_month_of, lambda month: _day_of(month // 12, month % 12 + 1), 28),
    "quarter": _Period(lambda day: _month_of(day) // 3, lambda quarter: _day_of(quarter // 4, quarter % 4 * 3 + 1), 90),
    "year": _Period(lambda day: _month_of(day) // 12, lambda year: _day_of(year, 1), 365),
}
WIDTHS: Final = (*_EVEN, *_PERIODS)
"""The widths that buckets have, narrowest first. Weeks begin on Monday (ISO 8601)."""

# ----------------------------------------------------------------------------------------------- the zones

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_NOT_IANA: Final = ("posix/", "right/", "localtime", "posixrules")
"""Names beside the IANA ones, with leap seconds counted, or with a meaning that differs between machines."""

_STEP: Final = 2 * DAY
"""How closely a zone is looked at for changes. No zone ever changed twice within three days."""
_BLOCK: Final = 4 * 365 * DAY
_OLDEST: Final = -34 * _BLOCK
"""Before 1836, zones had their mean solar time: the first change in the database is of 1844."""
_CYCLE: Final = 146_097 * DAY
_SETTLED: Final = 133 * _BLOCK
"""From 400 years before this on, 2101, all changes go by yearly rules, and recur when the calendar does."""
_REACH: Final = 2 * DAY
"""More than two clocks can differ; an offset is less than a day."""


class _Piece(NamedTuple):
    """Time [start, end) with one offset in a zone. The piece after it may have the same offset."""

    start: int
    end: int
    offset: int


@lru_cache(maxsize=1024)
def _tzinfo(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    if len(name) > ZONE_CHARACTERS_MAX or not _ZONE_NAME.fullmatch(name) or name.startswith(_NOT_IANA):
        raise RejectedError(f"{name[:60]!r} is not the name of a time zone", place="zone", cure=_ZONE_CURE)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        try:
            ZoneInfo("Etc/UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            cure = "install the operating system's tzdata or the Python package tzdata, or use UTC"
            raise RejectedError("this machine has no time zone database", place="zone", cure=cure) from error
        raise RejectedError(f"there is no time zone {name!r}", place="zone", cure=_ZONE_CURE) from error


_ZONE_CURE: Final = "use a name of the IANA database, such as Europe/Berlin or UTC"


def _piece(zone: str, moment: int) -> _Piece:
    """The piece of the zone's time that contains the moment."""
    if moment < _OLDEST:
        return _Piece(moment - _CYCLE, _OLDEST, _offset(_tzinfo(zone), _OLDEST))
    cycles = 0
    if moment >= _SETTLED:
        cycles = ((moment - _SETTLED) // _CYCLE + 1) * _CYCLE
        moment -= cycles
    starts, offsets = _block(zone, moment // _BLOCK)
    index = bisect_right(starts, moment) - 1
    start, end = starts[index], starts[index + 1]
    if cycles:
        start, end = max(start, _SETTLED - _CYCLE) + cycles, min(end, _SETTLED) + cycles
    return _Piece(start, end, offsets[index])


@lru_cache(maxsize=1024)
def _block(zone: str, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the pieces of one block of time start, and in the end where it ends; and the offsets they have."""
    tz = _tzinfo(zone)
    first, end = block * _BLOCK, (block + 1) * _BLOCK
    starts, offsets = [first], [_offset(tz, first)]
    for at in range(first, end, _STEP):
        offset = _offset(tz, at + _STEP - timestamp.SECOND)
        if offset != offsets[-1]:
            starts.append(_first_with(offset, tz, at - timestamp.SECOND))
            offsets.append(offset)
    return (*starts, end), tuple(offsets)


def _first_with(offset: int, tz: tzinfo, before: int) -> int:
    """The first second, at most a step after the one `before`, from which the zone has the offset."""
    low, high = 0, _STEP // timestamp.SECOND
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(tz, before + middle * timestamp.SECOND) == offset:
            high = middle
        else:
            low = middle
    return before + high * timestamp.SECOND


def _offset(tz: tzinfo, moment: int) -> int:
    offset = (_EPOCH + timedelta(microseconds=moment)).astimezone(tz).utcoffset()
    assert offset is not None, "aware datetimes have an offset"
    return offset // _MICROSECOND


# --------------------------------------------------------------------------------------------- the buckets


@dataclass(frozen=True, slots=True)
class Calendar:
    """Buckets of one of WIDTHS in a time zone of the IANA database.

    Raises `RejectedError` for a width or a zone that there is not.
    """

    width: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            cure = f"use {', '.join(WIDTHS[:-1])} or {WIDTHS[-1]}"
            raise RejectedError(f"{self.width[:60]!r} is not the width of a bucket", place="width", cure=cure)
        _tzinfo(self.zone)

    def start_of(self, moment: int) -> int:
        """The start of the bucket that contains the moment."""
        piece = _piece(self.zone, moment)
        width = _EVEN.get(self.width)
        if width is not None:
            return self._even_start(moment, width, piece)
        period = _PERIODS[self.width]
        day = period.first_day(period.of((moment + piece.offset) // DAY))
        start = day * DAY - piece.offset
        if start - piece.start >= _REACH:  # no other offset can have shown this day before
            return start
        return self._begin(self._period(moment, period), period)

    def next(self, moment: int) -> int:
        """The start of the bucket after the one that contains the moment: where that one ends."""
        width = _EVEN.get(self.width)
        if width is not None:
            return self._even_next(moment, width)
        period = _PERIODS[self.width]
        return self._begin(self._period(moment, period) + 1, period)

    def range(self, first: int, end: int, *, most: int = BUCKETS_MAX) -> Iterator[tuple[int, int]]:
        """The buckets [start, end) that touch [first, end), in order.

        Raises `RejectedError` at once if they may be more than `most`.
        """
        if first >= end:
            return iter(())
        least = _EVEN.get(self.width) or _PERIODS[self.width].days * DAY
        if (end - first) // least > most:
            raise RejectedError(
                f"about {(end - first) // least} buckets; at most {most} are answered at once",
                place="width",
                cure="ask for wider buckets or for less time",
            )
        return self._buckets(first, end)

    def label(self, start: int) -> str:
        """The start of a bucket as RFC 3339 in the zone, to the second: `2026-03-29T00:00:00+01:00`.

        In UTC where the zone's offset had odd seconds, which RFC 3339 cannot write.
        """
        offset = _piece(self.zone, start).offset
        if self.zone == "UTC" or offset % MINUTE:
            return f"{_local_text(start)}Z"
        sign, minutes = "-" if offset < 0 else "+", abs(offset) // MINUTE
        return f"{_local_text(start + offset)}{sign}{minutes // 60:02d}:{minutes % 60:02d}"

    def aligned_to_quarter_hours(self, first: int, end: int) -> bool:
        """Whether all buckets that start in [first, end) start at a multiple of 15 minutes of UTC.

        False for widths under 15 minutes; else only zones that were minutes or seconds off do not.
        """
        if _EVEN.get(self.width, DAY) < QUARTER_HOUR:
            return False
        while first < end:
            piece = _piece(self.zone, first)
            start = first if self.start_of(first) == first else self.next(first)
            if start < end and start % QUARTER_HOUR:
                return False
            if piece.offset % QUARTER_HOUR and self.next(first) < min(piece.end, end):
                return False
            first = piece.end
        return True

    def _buckets(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        start = self.start_of(first)
        width = _EVEN.get(self.width)
        while start < end:
            following = self.next(start)
            yield start, following
            start = following
            if width is None:
                continue
            piece = _piece(self.zone, start)
            if (start + piece.offset) % width == 0:  # then the whole ones in this piece need no look at the zone
                stop = min(end, piece.end - width + 1)
                for even in range(start, stop, width):
                    yield even, even + width
                    start = even + width

    def _even_start(self, moment: int, width: int, piece: _Piece) -> int:
        start = moment - (moment + piece.offset) % width
        while start < piece.start:
            before = _piece(self.zone, piece.start - 1)
            if (piece.offset - before.offset) % width:
                return piece.start  # the zone moved its grid in the midst of this bucket
            piece = before
        return start

    def _even_next(self, moment: int, width: int) -> int:
        piece = _piece(self.zone, moment)
        end = moment - (moment + piece.offset) % width + width
        while end > piece.end:
            after = _piece(self.zone, piece.end)
            if (piece.offset - after.offset) % width:
                return piece.end
            piece = after
        return end

    def _period(self, moment: int, period: _Period) -> int:
        """The last period that began by the moment: clocks that go back over midnight begin none again."""
        index = period.of((moment + _piece(self.zone, moment).offset) // DAY)
        while self._begin(index + 1, period) <= moment:
            index += 1
        return index

    def _begin(self, index: int, period: _Period) -> int:
        """The first instant at which the zone's calendar shows the first day of the period, or a later one."""
        midnight = period.first_day(index) * DAY
        piece = _piece(self.zone, midnight - _REACH)
        while max(midnight - piece.offset, piece.start) >= piece.end:
            piece = _piece(self.zone, piece.end)
        return max(midnight - piece.offset, piece.start)


def _local_text(moment: int) -> str:
    days, rest = divmod(moment, DAY)
    month = _month_of(days)
    seconds = rest // timestamp.SECOND
    date = f"{month // 12:04d}-{month % 12 + 1:02d}-{days - _day_of(month // 12, month % 12 + 1) + 1:02d}"
    return f"{date}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
