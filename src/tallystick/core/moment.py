"""Moments as people write them in questions: an instant, or a whole day in UTC.

`2026-03-15T10:00:00Z` is one microsecond, `2026-03-15` the day from its midnight to the next, and either is
half-open. What is asked says which end counts; `described` says what was taken for granted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tallystick.core import timestamp
from tallystick.errors import RejectedError

DAY: Final = 86_400 * timestamp.SECOND
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CURE: Final = "send a time with a zone, such as 2026-03-15T09:30:00Z, or a date (UTC), such as 2026-03-15"


@dataclass(frozen=True, slots=True)
class Moment:
    """The microseconds [start, end) that a text names, counted as `tallystick.core.timestamp` does."""

    start: int
    end: int
    is_date: bool
    text: str
    """What was read, as it was written."""

    @classmethod
    def parse(cls, text: str, *, place: str = "") -> Moment:
        """Read an RFC 3339 time that has a zone, or a date. Raises `RejectedError` with the place and an example."""
        is_date = _DATE.fullmatch(text) is not None
        try:
            start = timestamp.parse_rfc3339(f"{text}T00:00:00Z" if is_date else text)
        except RejectedError as error:
            problem = f"{text!r} is not a real date" if is_date else error.problem
            raise RejectedError(problem, place=place, cure=_CURE) from error
        return cls(start, start + (DAY if is_date else 1), is_date, text)

    @classmethod
    def of(cls, value: object, *, place: str = "") -> Moment:
        """As `parse` for a string, or from a `datetime` that has a zone. Raises `RejectedError`."""
        if isinstance(value, str):
            return cls.parse(value, place=place)
        if not isinstance(value, datetime):
            raise RejectedError(f"a {type(value).__name__} is not a moment", place=place, cure=_CURE)
        try:
            if value.utcoffset() is None:
                cure = "make it with a zone, such as datetime.now(UTC)"
                raise RejectedError(f"{value} has no zone", place=place, cure=cure)
            return cls.parse(value.astimezone(UTC).isoformat(), place=place)
        except OverflowError as error:
            raise RejectedError(f"{value} is not within the years 1 to 9999 of UTC", place=place, cure=_CURE) from error

    @property
    def described(self) -> str:
        """The text, with the zone where that was assumed: `2026-03-15 (UTC)`."""
        return f"{self.text} (UTC)" if self.is_date else self.text
