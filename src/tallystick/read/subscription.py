"""Subscriptions: records as they come, from a cursor on, in order, at least once.

A subscriber asks for the next record when it is ready for it, so a slow one holds up nobody. One with a name
keeps its place: what it did not acknowledge is delivered again when it comes back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from tallystick.core.record import Record
from tallystick.core.upcast import Upcasters
from tallystick.errors import RejectedError, TamperError
from tallystick.limits import NAME_CHARACTERS_MAX
from tallystick.read.live import Live
from tallystick.read.query import Query
from tallystick.read.sqlite_cursors import Place, SqliteCursors

_log: Final = logging.getLogger("tallystick.read")


class Subscription:
    """An iterator over the records that fit, those there are and those to come. For one thread, but for `close`.

    It never ends by itself: iterate until `close`, or take one by one with a timeout. A context manager.
    """

    def __init__(
        self,
        query: Query,
        *,
        live: Live,
        upcasters: Upcasters,
        cursor: int | None = None,
        name: str | None = None,
        cursors: SqliteCursors | None = None,
    ) -> None:
        if name is not None and (not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable()):
            raise RejectedError(f"{name[:60]!r} is not the name of a subscription", place="name")
        if cursor is not None and (type(cursor) is not int or cursor < 0):
            raise RejectedError(f"{cursor!r} is not a position", place="cursor", cure="give an integer from 0")
        self.query: Final = query
        self.name: Final = name
        self._live: Final = live
        self._upcasters: Final = upcasters
        self._cursors: Final = cursors if name is not None else None
        self._stop: Final = threading.Event()
        kept = self._kept()
        self.acknowledged = kept.cursor if kept is not None else cursor or 0
        """Every record below was acknowledged; of a named subscription this is kept."""
        self._next = self.acknowledged
        self._ahead: Iterator[Record] = iter(())
        self._ahead_end = self._next
        size = live.wait(-1, stop=self._stop)
        if kept is None and self._next > size:
            raise RejectedError(f"there is no position {self._next} yet; the ledger has {size} records", place="cursor")
        if self._next > size:
            raise TamperError(
                f"the subscription has seen {self._next} records, and the ledger now has {size}: an older copy was put "
                "back, or the cursor is of another ledger"
            )

    def _kept(self) -> Place | None:
        """Where it was; nowhere, if what it has seen there is not in the log: then it begins again."""
        kept = self._cursors.subscription(self.name) if self._cursors and self.name is not None else None
        if kept is None or self._live.stands(kept):
            return kept
        _log.warning(
            "the subscription %s has seen another record than the log has at position %d: an older copy was put back, "
            "and went on. It begins again",
            self.name,
            kept.cursor - 1,
        )
        return None

    @property
    def cursor(self) -> int:
        """The position from which the next record is looked for."""
        return self._next

    def take(self, timeout: float | None = None, *, end: int | None = None) -> Record | None:
        """The next record, waited for; None when the seconds are over, or the subscription is closed.

        None, too, when there is none below `end`: no record from there on is looked at.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stop.is_set():
            record = next(self._ahead, None)
            if record is not None:
                self._next = record.position + 1
                return self._upcasters.upcast(record)
            self._next = self._ahead_end
            if end is not None and self._next >= end:
                return None
            left = None if deadline is None else deadline - time.monotonic()
            size = self._live.wait(self._next, stop=self._stop, timeout=left)
            if size > self._next and not self._stop.is_set():
                self._ahead_end = size if end is None else min(size, end)
                self._ahead = self._live.records(self.query, self._next, self._ahead_end)
            elif left is not None and left <= 0:
                return None
        return None

    def acknowledge(self, position: int | None = None) -> None:
        """Say that the record at this position, by default the last one delivered, and all before it are done."""
        end = self._next if position is None else position + 1
        if not 0 <= end <= self._next:
            raise RejectedError(f"position {position} was not delivered yet", place="position")
        self.acknowledged = max(self.acknowledged, end)
        if self._cursors is not None and self.name is not None:
            self._cursors.acknowledge(self.name, self._live.place(self.acknowledged))

    def rewind(self) -> None:
        """Deliver again what was not acknowledged."""
        self._next = self._ahead_end = self.acknowledged
        self._ahead = iter(())

    def close(self) -> None:
        """End the iteration, from any thread. What was read ahead is let go."""
        self._stop.set()
        self._ahead = iter(())

    def __iter__(self) -> Iterator[Record]:
        while (record := self.take()) is not None:
            yield record

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
