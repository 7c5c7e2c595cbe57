"""Moments: integers of microseconds since 1970-01-01T00:00:00Z inside, RFC 3339 text at the border.

A record's `recorded_at` has exactly one form, so that texts sort as moments do (SPEC 3.2). What people and
programs send may carry any zone, but must carry one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from tallystick.errors import RejectedError

SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = _EPOCH.replace(tzinfo=None)
_MICROSECOND: Final = timedelta(microseconds=1)
_EXACT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)
_CURE: Final = "send RFC 3339 with a zone, such as 2026-03-15T09:30:00Z or 2026-03-15T10:30:00+01:00"


def render(moment: int) -> str:
    """The one form of SPEC 3.2, such as `2026-03-15T09:30:00.000000Z`."""
    return (_NAIVE_EPOCH + timedelta(microseconds=moment)).isoformat(timespec="microseconds") + "Z"


def parse(text: str) -> int:
    """Read exactly what `render` writes. Raises `RejectedError` for anything else."""
    if not _EXACT.fullmatch(text):
        raise RejectedError(f"{text[:40]!r} is not a recorded time", cure="it has the form 2026-03-15T09:30:00.000000Z")
    return _microseconds(text)


def parse_rfc3339(text: str, *, place: str = "") -> int:
    """Read any RFC 3339 time that has a zone; digits past the microsecond are dropped.

    Raises `RejectedError` with the place, and with an example as the cure.
    """
    if not _RFC3339.fullmatch(text):
        raise RejectedError(f"{text[:40]!r} is not a time with a zone", place=place, cure=_CURE)
    return _microseconds(re.sub(r"(\.\d{6})\d+", r"\1", text.upper()), place)


def is_rfc3339(text: str) -> bool:
    """Whether `parse_rfc3339` takes the text."""
    try:
        parse_rfc3339(text)
    except RejectedError:
        return False
    return True


def _microseconds(text: str, place: str = "") -> int:
    try:
        # In UTC first, which refuses what a zone carries out of the years that `render` can write.
        return (datetime.fromisoformat(text).astimezone(UTC) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError) as error:
        raise RejectedError(f"{text!r} is not a real time: {error}", place=place, cure=_CURE) from error
