"""Points in the history of an entity, as people ask for them: now, a time by either clock, a version, a position."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias, TypedDict, Unpack

from tallystick.core.moment import Moment
from tallystick.core.strict import parse_decimal
from tallystick.core.upcast import shown
from tallystick.errors import RejectedError
from tallystick.limits import SIZE_MAX

ClockName: TypeAlias = Literal["recorded", "occurred"]


class Point(TypedDict, total=False):
    """What may be asked for in place of a time, or beside it: the keywords of `AsOf`."""

    version: int | None
    position: int | None
    clock: ClockName


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """The point up to which a stream is folded: a time, an entity version, a position, or now when none is given.

    A time takes in every record before the end of the moment: a date all of that day in UTC, an instant itself too.
    By the `occurred` clock that is the time that a record claims, else the one at which it was recorded. A version
    or position takes in its own record.
    """

    time: Moment | None = None
    version: int | None = None
    position: int | None = None
    clock: ClockName = "recorded"

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.time, self.version, self.position)) > 1:
            raise RejectedError("a state is asked for by one of time, version and position", cure="give only one")
        for name, value in (("version", self.version), ("position", self.position)):
            if value is not None and (type(value) is not int or not 0 <= value <= SIZE_MAX):
                raise RejectedError(f"{shown(value)} is not an integer from 0", place=name)
        if self.clock not in ("recorded", "occurred"):
            raise RejectedError(f"{shown(self.clock)} is not a clock", place="clock", cure="say recorded or occurred")
        if self.clock == "occurred" and self.time is None:
            raise RejectedError("only a time is by a clock", place="clock", cure="give as_of, or leave the clock out")

    @classmethod
    def of(cls, as_of: When = None, **point: Unpack[Point]) -> AsOf:
        """As people ask: a time in text (RFC 3339 with a zone, or a date), or as a `datetime` with a zone; a version
        such as `v3`, or a position such as `@120`, for which no clock counts.

        An `AsOf` comes back as it is. Raises `RejectedError` with the place.
        """
        if isinstance(as_of, AsOf):
            if point:
                raise RejectedError("the point in time is given twice", place="as_of", cure="give only one")
            return as_of
        if isinstance(as_of, str) and as_of[:1] in ("v", "@") and as_of[1:].isdecimal():
            if point.get("version") is not None or point.get("position") is not None:
                raise RejectedError("the point in time is given twice", place="as_of", cure="give only one")
            number = parse_decimal(as_of[1:], maximum=SIZE_MAX, place="as_of")
            return cls(version=number) if as_of[0] == "v" else cls(position=number)
        time = as_of if as_of is None or isinstance(as_of, Moment) else Moment.of(as_of, place="as_of")
        return cls(time=time, **point)

    @property
    def described(self) -> str:
        """What is taken in, in words that name what was taken for granted."""
        if self.version is not None:
            return f"up to version {self.version}"
        if self.position is not None:
            return f"up to position {self.position}"
        if self.time is None:
            return "now"
        upto = f"to the end of {self.time.text} (UTC)" if self.time.is_date else f"up to {self.time.text}"
        return f"{upto}, by {self.clock} time"


When: TypeAlias = AsOf | Moment | datetime | str | None
"""What `AsOf.of` reads; None is now."""

BEGINNING: Final = AsOf(version=0)
