"""What a series takes while it is made: cells by bucket and group, counted before they are there."""

from __future__ import annotations

from typing import Final

from tallystick.errors import RejectedError
from tallystick.limits import BUCKETS_MAX, SERIES_DISTINCT_MAX, SERIES_GROUPS_MAX
from tallystick.read.state import Held, held_anyhow

CELL_BYTES: Final = 640
"""Of a cell, with the point that it becomes, and what is told of it."""

_NAME_BYTES: Final = 100
_CHARACTER_BYTES: Final = 2
_BUCKET_BYTES: Final = 160
_CELLS: Final = 256
"""How many are made between two looks at what is held."""

_AT_ONCE_BYTES: Final = 1_048_576
"""What is handed on at once, before it is counted."""


class Growth:
    """How much one series has become. Raises as soon as it is more than is answered."""

    def __init__(self, *, points_max: int = BUCKETS_MAX, held: Held = held_anyhow) -> None:
        """`held` is told how many bytes are in memory, and may raise."""
        self._points_max: Final = min(points_max, BUCKETS_MAX)
        self._held: Final = held
        self._groups: Final[dict[str, str]] = {}
        self._cells = self._names = self._bytes = 0

    def add_cell(self, group: str) -> str:
        """One more cell of a group; the group's name, as it is kept once. Raises `RejectedError`."""
        self._cells += 1
        if self._cells > self._points_max:
            cure = "ask for wider buckets, for less time, or for fewer groups"
            problem = f"more than {self._points_max} buckets and groups"
            raise RejectedError(problem, place="width", cure=cure)
        if self._cells % _CELLS == 0:
            self.hold()
        kept = self._groups.setdefault(group, group)
        if kept is group:
            self._bytes += _CHARACTER_BYTES * len(group)
            if len(self._groups) > SERIES_GROUPS_MAX:
                cure = "ask for fewer by a query, or without groups"
                raise RejectedError(f"more than {SERIES_GROUPS_MAX} groups", place="group", cure=cure)
        return kept

    def add_names(self, count: int) -> None:
        """So many more names are told apart. Raises `RejectedError`."""
        self._names += count
        if self._names > SERIES_DISTINCT_MAX:
            cure = "ask for less time, or without what has to be looked up in each record"
            raise RejectedError(f"more than {SERIES_DISTINCT_MAX} names to tell apart", place="measure", cure=cure)

    def hold(self, *, points: int = 0, buckets: int = 0) -> None:
        """Tell what is in memory now: at least so many points, and so many buckets beside them."""
        cells = max(self._cells, points) * CELL_BYTES + self._names * _NAME_BYTES
        self._held(cells + buckets * _BUCKET_BYTES + self._bytes + _AT_ONCE_BYTES)
