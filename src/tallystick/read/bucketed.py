"""Records sorted into buckets and groups one by one, with what they come to: a scan, where no index will do.

Series over records that have to be read, roll-ups, and what a prune leaves of records are all counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.buckets import Calendar
from tallystick.core.corrected import NEVER_CORRECTED, Times
from tallystick.core.measure import Totals, numbers_at
from tallystick.core.member import MemberPath
from tallystick.core.record import Record
from tallystick.core.rollup import Cells
from tallystick.read.growth import Growth

_Members = dict[str, Any]

_parse_recorded: Final = lru_cache(maxsize=1024)(timestamp.parse)  # records of one commit share their time


def recorded(members: _Members) -> int:
    """When the record was sealed, in microseconds."""
    return _parse_recorded(members["recorded_at"])


def occurred(members: _Members) -> int:
    """When it happened, by what the caller claims, else by when it was sealed."""
    claimed = members["occurred_at"]
    return recorded(members) if claimed is None else timestamp.parse_rfc3339(claimed)


def moment_of(time: str, times: Times = NEVER_CORRECTED) -> Callable[[_Members], int]:
    """How to tell the `recorded` or the `occurred` time of a record."""
    plain = occurred if time == "occurred" else recorded
    if not times:
        return plain

    def corrected(members: _Members) -> int:
        sealed = recorded(members)
        return times.of(members["position"], sealed) if plain(members) == sealed else plain(members)

    return corrected


def _groups_of(group: str | None) -> Callable[[_Members], Iterable[str]]:
    """How to tell the groups that a record counts under; '' is none."""
    if group == "type":
        return lambda members: (members["event_type"],)
    if group == "entity":
        return lambda members: (members["entity_id"],)
    if group == "actor":
        return lambda members: (members["actor"]["id"] if members["actor"] else "",)
    if group == "label":
        return lambda members: members["labels"]
    return lambda _: ("",)


class Bucketed:
    """The cells of the records that were added, of a calendar's buckets and a group.

    `path` leads to the numbers to add up; `distinct` says of what the names are told apart.
    """

    def __init__(
        self,
        calendar: Calendar,
        *,
        group: str | None,
        time: str,
        path: MemberPath | None = None,
        distinct: str = "",
        growth: Growth | None = None,
        times: Times = NEVER_CORRECTED,
    ) -> None:
        """`times` are what records count by, where the clock was corrected."""
        self.cells: Final[Cells] = {}
        self.names: Final[dict[tuple[int, str], set[str]]] = {}
        """With `distinct`, the names in every cell."""
        self._calendar: Final = calendar
        self._moment_of: Final = moment_of(time, times)
        self._groups_of: Final = _groups_of(group)
        self._names_of: Final = _groups_of(distinct)
        self._path: Final = path
        self._distinct: Final = bool(distinct)
        self._growth: Final = growth
        self._start = self._end = 0

    def add(self, record: Record) -> None:
        """Add a record. Raises as `growth` does, when there is too much to tell apart."""
        members = record.members
        moment = self._moment_of(members)
        if not self._start <= moment < self._end:
            self._start, self._end = self._calendar.start_of(moment), self._calendar.next(moment)
        numbers = () if self._path is None else [*numbers_at(self._path, members)]
        for group in self._groups_of(members):
            key = (self._start, group)
            totals = self.cells.get(key)
            if totals is None:
                key, totals = self._add_cell(key)
            totals.add_record(numbers)
            if self._distinct:
                self._add_names(key, members)

    def merge(self, cells: Cells) -> None:
        """Add what other records come to."""
        for key, totals in cells.items():
            self.cells.setdefault(key, Totals()).add(totals)

    def _add_cell(self, key: tuple[int, str]) -> tuple[tuple[int, str], Totals]:
        if self._growth is not None:
            key = (key[0], self._growth.add_cell(key[1]))
        self.cells[key] = totals = Totals()
        return key, totals

    def _add_names(self, key: tuple[int, str], members: _Members) -> None:
        names = self.names.setdefault(key, set())
        before = len(names)
        names.update(name for name in self._names_of(members) if name)
        if self._growth is not None:
            self._growth.add_names(len(names) - before)
