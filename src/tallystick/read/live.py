"""Reading on as records arrive: when there are more, and those of them that fit.

A commit of this process is told of at once, one of another process is seen by looking; records are read from
the log, so whoever reads slowly holds up nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from tallystick.core.canonical import encode
from tallystick.core.record import Record
from tallystick.errors import NotFoundError, StoreError, TamperError
from tallystick.read.query import Query
from tallystick.read.sqlite_cursors import Place
from tallystick.store.contract import Store
from tallystick.store.reading import read_lines

_LOOK_SECONDS: Final = 0.01
"""How often the head is looked at for commits of other processes."""


class Live:
    """Follows the head of one ledger. Safe for many threads."""

    def __init__(
        self,
        store: Store,
        told: threading.Condition,
        *,
        prove: Callable[[], Store],
        root_at: Callable[[int], bytes],
    ) -> None:
        """`told` is notified of commits of this process. `prove` gives the store as it is, of which each record that is
        read is proven; `root_at` the proven root of the first so many records, or `NotFoundError`."""
        self._store: Final = store
        self._told: Final = told
        self._prove: Final = prove
        self._root_at: Final = root_at

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
        """The records at [first, end) that fit, in order.

        They are proven, and no index says which they are: whoever goes on behind them for good would never see again
        what was hidden for a moment. Raises `TamperError`.
        """
        literals, proven = _literals(query), self._prove()
        head = proven.head()
        if head is None or end > head.size:
            # What is past the proven end is no gap: whoever took it for one would never see it.
            raise TamperError(f"the ledger had {end} records a moment ago, and has fewer now: run a verification")
        for stored in read_lines(proven, first, end):
            if literals and not any(literal in stored.line for literal in literals):
                continue
            record = Record.parse(stored.line)
            if query.takes(record):
                yield record

    def place(self, cursor: int) -> Place:
        """The place behind all records below a cursor."""
        return Place(cursor, self._root_at(cursor).hex() if cursor else "")

    def stands(self, place: Place) -> bool:
        """Whether a place is of this log, as far as that goes: the tree up to it is the same, also where records were
        pruned. Raises `TamperError`."""
        try:
            return self.place(place.cursor) == place
        except NotFoundError:
            return True  # it is past the end, which whoever goes on from there finds


def _literals(query: Query) -> list[bytes]:
    """Of which a record that fits has at least one, so that most of the others need not be read; or nothing."""
    if query.entities:
        return [b'"entity_id":' + encode(entity) for entity in query.entities]
    if query.event_types and not any(name.endswith(".*") for name in query.event_types):
        return [b'"event_type":' + encode(name) for name in query.event_types]
    return []
