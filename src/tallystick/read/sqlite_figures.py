"""What a figure that the index answers may be. The types of a schema bind nobody who edits the file beneath it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from tallystick.core.buckets import QUARTER_HOUR
from tallystick.read.sqlite_reached import AlteredError

_FIRST: Final = -62_135_596_800_000_000
_END: Final = 253_402_300_800_000_000
"""The moments that have a name, in the years 1 to 9999."""

_ROWS: Final = 1_000
"""Rows that are handed on at once."""

Test = Callable[[Any], bool]


class QueryRows(Protocol):
    """Runs one statement that reads. Rows whose values do not pass the tests of their columns are damage."""

    def __call__(self, statement: str, values: Sequence[str | int], kinds: Sequence[Test] = (), /) -> list[Any]: ...


class HandRows(Protocol):
    """Runs one statement that reads, and hands on its rows, some at a time. What takes them may raise."""

    def __call__(
        self,
        statement: str,
        values: Sequence[str | int],
        kinds: Sequence[Test],
        take: Callable[[list[Any]], None],
        /,
    ) -> None: ...


def number(value: Any) -> bool:
    return type(value) is int


def moment(value: Any) -> bool:
    return value is None or (type(value) is int and _FIRST <= value < _END)


def quarter(value: Any) -> bool:
    return value is None or (type(value) is int and _FIRST <= value * QUARTER_HOUR < _END)


def name(value: Any) -> bool:
    return value is None or type(value) is str


def hand_on(cursor: Any, kinds: Sequence[Test], take: Callable[[list[Any]], None]) -> None:
    """Hand on what a cursor has, and close it. Raises `AlteredError` for values that do not pass the tests."""
    try:
        while rows := [*islice(cursor, _ROWS)]:
            if kinds and not are_figures(rows, kinds):
                raise AlteredError("it has figures that are none")
            take(rows)
    finally:
        cursor.close(True)


def are_figures(rows: Sequence[Sequence[Any]], kinds: Sequence[Test]) -> bool:
    """Whether all values pass the tests of their columns."""
    return all(test(value) for row in rows for test, value in zip(kinds, row, strict=True))
