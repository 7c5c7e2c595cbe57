"""Reading on as records arrive: when there are more, and those of them that fit.

A commit of this process is told of at once, one of another process is seen by looking; records are read from
the log, so whoever reads slowly holds up nobody. Far behind, the index leads to the few that fit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from tallystick.core.record import Record
from tallystick.errors import StoreError
from tallystick.read.query import Query
from tallystick.read.reader import Reader
from tallystick.store.contract import Store
from tallystick.store.reading import read_records

_LOOK_SECONDS: Final = 0.01
"""How often the head is looked at for commits of other processes."""

_BY_INDEX: Final = 5_000
"""Records at once from which the index is asked for those that fit; fewer are looked at one by one."""

_EVERYTHING: Final = Query()


class Live:
    """Follows the head of one ledger. Safe for many threads."""

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store: Final = store
        self._reader: Final = reader
        self._told: Final = reader.follower.told

    def wait(self, size: int, *, stop: threading.Event, timeout: float | None = None) -> int:
        """The ledger's size as soon as it is above `size`; or what it is when stopped, or after the seconds."""
        waited = 0.0
        while True:
            try:
                head = self._store.head()
            except StoreError:
                if stop.is_set():  # the ledger was closed
                    return size
                raise
            present = head.size if head else 0
            if present > size or stop.is_set() or (timeout is not None and waited >= timeout):
                return present
            with self._told:
                self._told.wait(_LOOK_SECONDS)
            waited += _LOOK_SECONDS

    def records(self, query: Query, first: int, end: int) -> Iterator[Record]:
        """The records at [first, end) that fit, in order."""
        if query != _EVERYTHING and end - first > _BY_INDEX:
            self._reader.catch_up(end)
            return self._reader.search.scan(query, first=first, end=end)
        return (record for record in read_records(self._store, first, end) if query.takes(record))
