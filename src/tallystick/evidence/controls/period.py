"""The time that evidence is asked for: from when, to when, by which clock; and what that makes of a query.

A period may be open at either end: it then ends now, and begins as many days earlier as whoever looks usually goes
back. Times are microseconds, half-open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from tallystick.clock import wall_clock
from tallystick.core import timestamp
from tallystick.core.moment import DAY, Moment
from tallystick.errors import RejectedError
from tallystick.read.query import Query

When = datetime | str | None
"""A time with a zone, or a date, which is its midnight in UTC; None is open."""

_EARLIEST: Final = timestamp.parse("0001-01-01T00:00:00.000000Z")
_LATEST: Final = timestamp.parse("9999-12-31T23:59:59.999999Z")
_BACK_DAYS_MAX: Final = 36_600
"""How far one may have to go back from an end that is given without a begin."""

_MIDNIGHT: Final = "T00:00:00.000000Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time [after, before), by recorded time or by the time that events claim."""

    after: int
    before: int
    occurred: bool = False

    @property
    def time(self) -> str:
        """The clock's name: `recorded` or `occurred`."""
        return "occurred" if self.occurred else "recorded"

    @property
    def days(self) -> float:
        return (self.before - self.after) / DAY

    @property
    def described(self) -> str:
        """The time in words, whole days as dates: `2026-01-01 through 2026-03-31 (UTC)`."""
        first, end = timestamp.render(self.after), timestamp.render(self.before)
        if first.endswith(_MIDNIGHT) and end.endswith(_MIDNIGHT):
            last = timestamp.render(self.before - 1)[:10]
            return f"{first[:10]} (UTC)" if first[:10] == last else f"{first[:10]} through {last} (UTC)"
        return f"{shown(self.after)} to {shown(self.before)}"

    def terms(self) -> list[str]:
        """The time as signed terms."""
        names = ("occurred_after", "occurred_before") if self.occurred else ("after", "before")
        return [
            f"{name}={timestamp.render(moment)}" for name, moment in zip(names, (self.after, self.before), strict=True)
        ]

    def of(self, query: Query, *, size: int) -> Query:
        """The query, held to this time and to the first `size` records, beside what it asks already."""
        names = ("occurred_after", "occurred_before") if self.occurred else ("after", "before")
        after, before = getattr(query, names[0]), getattr(query, names[1])
        within: dict[str, Any] = {
            names[0]: self.after if after is None else max(after, self.after),
            names[1]: self.before if before is None else min(before, self.before),
            "end": size if query.end is None else min(query.end, size),
        }
        return replace(query, **within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What was asked for: a time that may be open at either end."""

    after: int | None
    before: int | None
    occurred: bool
    now: int

    @classmethod
    def of(cls, *, after: When = None, before: When = None, occurred: bool = False, now: int | None = None) -> Period:
        """A period whose ends are as everywhere: a date is its midnight. Raises `RejectedError` with the name."""
        first = None if after is None else Moment.of(after, place="after").start
        end = None if before is None else Moment.of(before, place="before").start
        return cls._checked(first, end, ("after", "before"), occurred=occurred, now=now)

    @classmethod
    def between(cls, first: str | None, last: str | None, *, occurred: bool = False, now: int | None = None) -> Period:
        """As people say it, from the first day through the last: a date at the end takes in all of that day."""
        start = None if first is None else Moment.of(first, place="--from").start
        moment = None if last is None else Moment.of(last, place="--to")
        end = None if moment is None else moment.end if moment.is_date else moment.start
        return cls._checked(start, end, ("--from", "--to"), occurred=occurred, now=now)

    @classmethod
    def _checked(
        cls, after: int | None, before: int | None, names: tuple[str, str], *, occurred: bool, now: int | None
    ) -> Period:
        now = wall_clock() if now is None else now
        for moment, name in zip((after, before), names, strict=True):
            if moment is not None and not _EARLIEST <= moment <= _LATEST:
                raise RejectedError("it is not within the years 1 to 9999", place=name, cure="give a time that is")
        if after is None and before is not None and before < _EARLIEST + _BACK_DAYS_MAX * DAY:
            raise RejectedError("there is no time before it", place=names[1], cure=f"give {names[0]}, or a later end")
        if after is not None and (now if before is None else before) <= after:
            problem = "no time is left between the two" if before is not None else "it has not come yet"
            raise RejectedError(problem, place=names[before is not None], cure="give an earlier begin or a later end")
        return cls(after=after, before=before, occurred=occurred, now=now)

    def window(self, days: int) -> Window:
        """The time itself, where `days` is how far one goes back if no begin was given."""
        before = self.now if self.before is None else self.before
        after = max(before - days * DAY, _EARLIEST) if self.after is None else self.after
        return Window(after=after, before=before, occurred=self.occurred)


def shown(moment: int) -> str:
    """A time for people, in UTC, to the second: `2026-03-15 10:00:00 UTC`."""
    text = timestamp.render(moment)
    return f"{text[:10]} {text[11:19]} UTC"


def day(moment: int) -> str:
    """The date of a time, in UTC."""
    return timestamp.render(moment)[:10]
