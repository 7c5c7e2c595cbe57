"""What is asked of the records of a bucket, and the exact totals from which it is answered.

A measure is written `count`, `distinct:actor`, `distinct:entity`, or `sum`, `min`, `max`, `avg` of a member, such as
`sum:payload.amount`. It takes every number to which the member's path leads; true, false and strings are none.

Totals are exact: integers as they are, doubles as whole multiples of the smallest one. So they can be added up in
any order and in parts, and only the answer is rounded, once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from tallystick.core.canonical import SURROGATE
from tallystick.core.member import MemberPath
from tallystick.errors import RejectedError
from tallystick.limits import QUERY_TERM_CHARACTERS_MAX

_FINE_BITS: Final = 1_074
"""Every double is a whole multiple of 2^-1074."""

_DISTINCT: Final = ("actor", "entity")
_OF_NUMBERS: Final = ("sum", "min", "max", "avg")
_CURE: Final = (
    "use count, distinct:actor, distinct:entity, or sum, min, max or avg of a member, such as sum:payload.amount"
)
_TOTAL: Final = re.compile(r"(-?[0-9]{1,1500})(?:/([1-9][0-9]{0,329}))?", re.ASCII)
"""A sum of doubles has up to 309 digits before the point, and what is fine in it 324 zeros and its digits."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure. Raises `RejectedError` when it is built as something that is none."""

    function: str
    what: str = ""
    """What `distinct` tells apart."""
    path: MemberPath | None = None
    """Where the numbers are."""

    def __post_init__(self) -> None:
        if self.path is not None:
            right = self.function in _OF_NUMBERS and not self.what
            if len(self.path.parts) < 2 or self.path.parts[0] not in ("payload", "context"):
                problem = f"{self.path.render()[:60]} is no member of payload or context"
                raise RejectedError(problem, place="measure", cure=_CURE)
        else:
            right = (self.function, self.what) in (("count", ""), *(("distinct", what) for what in _DISTINCT))
        if not right:
            raise RejectedError(f"{self.function[:40]!r} is no measure", place="measure", cure=_CURE)

    @classmethod
    def parse(cls, text: str) -> Measure:
        """Read what `render` writes. Raises `RejectedError`."""
        if len(text) > QUERY_TERM_CHARACTERS_MAX or SURROGATE.search(text):
            raise RejectedError(f"{text[:40]!a} is no measure", place="measure", cure=_CURE)
        function, colon, rest = text.partition(":")
        if function in _OF_NUMBERS and colon:
            return cls(function, path=MemberPath.parse(rest, place="measure"))
        if colon and not rest:
            raise RejectedError(f"{text[:40]!r} is no measure", place="measure", cure=_CURE)
        return cls(function, what=rest)

    def render(self) -> str:
        """Write the measure as people do."""
        of = self.path.render() if self.path else self.what
        return f"{self.function}:{of}" if of else self.function

    @property
    def of_nothing(self) -> int | None:
        """What it is where there is nothing: no records, or no numbers."""
        return None if self.function in ("min", "max", "avg") else 0

    def value(self, totals: Totals) -> int | float | None:
        """The answer for the records of these totals. None where there is none, or no double can hold it."""
        if self.function == "count":
            return totals.records
        if not totals.numbers:
            return self.of_nothing
        if self.function in ("min", "max"):
            return totals.least if self.function == "min" else totals.most
        total = totals.total
        if self.function == "avg":
            return float(Fraction(total) / totals.numbers)
        try:
            return total if isinstance(total, int) else float(total)
        except OverflowError:
            return None


@dataclass(slots=True)
class Totals:
    """What the records of one bucket and group come to."""

    records: int = 0
    numbers: int = 0
    """How many numbers they have at the path."""
    whole: int = 0
    """The sum of those that are integers."""
    fine: int | None = None
    """The sum of those that are not, times 2^1074; None when there are none."""
    least: int | float | None = None
    most: int | float | None = None

    @property
    def total(self) -> int | Fraction:
        """The sum of all numbers, an integer if all of them are."""
        if self.fine is None:
            return self.whole
        return self.whole + Fraction(self.fine, 1 << _FINE_BITS)

    def add_record(self, numbers: Iterable[int | float]) -> None:
        """Add one record with these numbers."""
        self.records += 1
        for number in numbers:
            self.numbers += 1
            if type(number) is int:
                self.whole += number
            else:
                numerator, denominator = number.as_integer_ratio()
                self.fine = (self.fine or 0) + (numerator << (_FINE_BITS + 1 - denominator.bit_length()))
            if self.least is None or number < self.least:
                self.least = number
            if self.most is None or number > self.most:
                self.most = number

    def add(self, other: Totals) -> None:
        """Add what other records come to."""
        self.records += other.records
        self.numbers += other.numbers
        self.whole += other.whole
        if other.fine is not None:
            self.fine = (self.fine or 0) + other.fine
        if other.least is not None:
            self.least = other.least if self.least is None else min(self.least, other.least)
        if other.most is not None:
            self.most = other.most if self.most is None else max(self.most, other.most)

    @property
    def total_text(self) -> str:
        """The sum as text: `7` if all numbers are integers, else a fraction, `7/2` or `7/1`."""
        total = self.total
        return str(total) if isinstance(total, int) else f"{total.numerator}/{total.denominator}"

    @classmethod
    def read(cls, records: Any, numbers: Any = 0, total: Any = "0", least: Any = None, most: Any = None) -> Totals:
        """Totals that were written down. Raises `RejectedError` for what cannot be such."""
        match = _TOTAL.fullmatch(total) if type(total) is str else None
        denominator = int(match[2]) if match and match[2] else 1
        bits = denominator.bit_length() - 1
        right = match is not None and denominator == 1 << bits and bits <= _FINE_BITS
        right = right and type(records) is int and type(numbers) is int and records > 0 and numbers >= 0
        extremes = [extreme for extreme in (least, most) if is_number(extreme)]
        if match is None or not right or len(extremes) != (2 if numbers else 0):
            raise RejectedError("not the totals of a cell")
        if match[2] is None:
            return cls(records, numbers, int(match[1]), None, least, most)
        return cls(records, numbers, 0, int(match[1]) << (_FINE_BITS - bits), least, most)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON document is a number."""
    return type(value) is int or isinstance(value, float)


def numbers_at(path: MemberPath, members: dict[str, Any]) -> Iterator[int | float]:
    """The numbers to which a path leads in a record."""
    return (value for value in path.values(members) if is_number(value))
