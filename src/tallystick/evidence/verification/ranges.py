"""Ranges of positions in small: for what is absent, of which there may be millions, and for what is proven."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Half-open ranges of positions, in order, none touching the next; 24 bytes each."""

    __slots__ = ("_before", "_ends", "_firsts")

    def __init__(self) -> None:
        self._firsts = array("q")
        self._ends = array("q")
        self._before = array("q")  # how many positions all earlier ranges have

    def add(self, first: int, end: int) -> None:
        """Take the next range, which may touch the last one, and then is joined to it."""
        if self._ends and self._ends[-1] == first:
            self._ends[-1] = end
        elif first < end:
            self._before.append(self.count)
            self._firsts.append(first)
            self._ends.append(end)

    def extend(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take the next ranges."""
        for first, end in ranges:
            self.add(first, end)

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._ends, strict=True)

    @property
    def count(self) -> int:
        """How many positions there are in all ranges."""
        return self._before[-1] + self._ends[-1] - self._firsts[-1] if self._ends else 0

    def below(self, position: int) -> int:
        """How many positions of the ranges are smaller."""
        index = bisect_right(self._firsts, position) - 1
        if index < 0:
            return 0
        return self._before[index] + min(position, self._ends[index]) - self._firsts[index]

    def __contains__(self, position: int) -> bool:
        index = bisect_right(self._firsts, position) - 1
        return index >= 0 and position < self._ends[index]

    def start_of(self, position: int) -> int:
        """Where the range begins that has this position."""
        return self._firsts[bisect_right(self._firsts, position) - 1]

    def end_of(self, position: int) -> int:
        """Where the range ends that has this position."""
        return self._ends[bisect_right(self._firsts, position) - 1]

    def within(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of the ranges that lie in [first, end)."""
        for index in range(max(bisect_right(self._firsts, first) - 1, 0), len(self)):
            start, stop = max(self._firsts[index], first), min(self._ends[index], end)
            if start >= end:
                return
            if start < stop:
                yield start, stop


def without(first: int, end: int, gaps: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What is left of [first, end) when the gaps are taken out, which may come in any order and overlap."""
    left = []
    for start, stop in sorted(gaps):
        if start > first:
            left.append((first, min(start, end)))
        first = max(first, stop)
        if first >= end:
            return tuple(left)
    return (*left, (first, end))
