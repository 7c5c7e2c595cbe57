"""Reading on: records as they are committed, over server-sent events, each once and in order.

A thread reads what comes, up to a bound, and the subscriber takes it at its own pace; one that is slow makes the
service wait, then let go, and is taken up again later. After a cut it begins behind the last record that it gave
(`Last-Event-ID`), so nothing is missed, and nothing comes twice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, NamedTuple, TypeAlias

import msgspec

from tallystick.client.answers import read, record_of
from tallystick.client.calls import Calls, Opened, Request
from tallystick.client.tries import FailedError, Failure, Tries
from tallystick.core.record import Record
from tallystick.errors import RejectedError, StoreError, TallystickError, TamperError
from tallystick.limits import RECORD_BYTES_MAX
from tallystick.read.query import Query

STREAM_PATH: Final = "/api/v1/events/stream"
_EVENTS_TYPE: Final = "text/event-stream"
_AHEAD_RECORDS: Final = 1_000
"""Records that are read before somebody takes them."""
_LINE_BYTES_MAX: Final = RECORD_BYTES_MAX + 1_024
IDLE_SECONDS: Final = 45.0
"""A line on which nothing comes for so long is dead: the service says every 15 s that it stands."""
_STANDS_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5


class _Bye(msgspec.Struct):
    cursor: int
    why: str = ""


class _Frame(NamedTuple):
    """One server-sent event."""

    event: str
    data: bytes
    id: str


_Item: TypeAlias = Record | TallystickError


class Following:
    """An iterator over the records that fit, those there are and those to come. For one thread, but for `close`.

    It never ends by itself: iterate until `close`, or take one by one with a timeout. A context manager. When the
    service cannot be reached for as long as the client waits, `take` raises `BusyError`; taking again goes on trying
    from where it was.
    """

    def __init__(self, calls: Calls, query: Query, *, cursor: int | None = None) -> None:
        if cursor is not None and (type(cursor) is not int or cursor < 0):
            raise RejectedError(f"{cursor!r} is not a position", place="cursor", cure="give an integer from 0")
        if query.end is not None:
            raise RejectedError("a subscription has no end", place="end", cure="leave it out, or use query")
        self.query: Final = query
        self._calls: Final = calls
        self._next = max(cursor or 0, query.first or 0)
        self._stop: Final = threading.Event()
        self._ahead: queue.Queue[_Item] = queue.Queue(_AHEAD_RECORDS)
        self._reading: _Reading | None = None

    @property
    def cursor(self) -> int:
        """The position from which the next record is looked for."""
        return self._next

    def take(self, timeout: float | None = None) -> Record | None:
        """The next record, waited for; None when the seconds are over, or the subscription is closed.

        Raises what the service refuses it with, and `TamperError` when the ledger is shorter than it was.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stop.is_set():
            if self._reading is None:
                self._ahead = queue.Queue(_AHEAD_RECORDS)
                self._reading = _Reading(self._calls, self.query, self._next, self._ahead, self._stop)
            left = _LOOK_SECONDS if deadline is None else min(deadline - time.monotonic(), _LOOK_SECONDS)
            try:
                item = self._ahead.get(timeout=max(left, 0)) if left > 0 else self._ahead.get_nowait()
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                self._calls.rest(0)
                continue
            if isinstance(item, Record):
                self._next = item.position + 1
                return item
            self._reading = None  # it has ended; taking again begins another
            raise item
        return None

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._stop.set()
        reading = self._reading
        if reading is not None:
            reading.hang_up()

    def __iter__(self) -> Iterator[Record]:
        while (record := self.take()) is not None:
            yield record

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Reading:
    """The thread that reads for one subscription, until it is closed or something is for good."""

    def __init__(
        self, calls: Calls, query: Query, cursor: int, ahead: queue.Queue[_Item], stop: threading.Event
    ) -> None:
        self._calls: Final = calls
        self._terms: Final = tuple(term for term in query.terms() if not term.startswith("first="))
        self._cursor = cursor
        self._has_read = False
        self._ahead: Final = ahead
        self._stop: Final = stop
        self._opened: Opened | None = None
        threading.Thread(target=self._run, name="tallystick-client-stream", daemon=True).start()

    def hang_up(self) -> None:
        """Wait for nothing more."""
        opened = self._opened
        if opened is not None:
            opened.hang_up()

    def _run(self) -> None:
        tries: Tries | None = None
        while not self._stop.is_set():
            tries = tries or self._calls.tries()
            request = self._request()
            before, began = self._cursor, time.monotonic()
            try:
                try:
                    self._read(request)
                    failure = Failure("the stream ended", reached=True)
                except FailedError as error:
                    failure = error.failure
                self._opened = None
                if self._cursor > before or time.monotonic() - began > _STANDS_SECONDS:
                    tries = self._calls.tries()  # it had come through: the time begins anew
                if not self._stop.is_set():
                    tries.again_after(failure, request)
            except TallystickError as error:
                self._put(self._told(error))
                return
            except Exception as error:  # noqa: BLE001 - a mistake of ours, told to who waits for the next record
                failed = StoreError(f"reading on failed with an unexpected {type(error).__name__}: {error}")
                failed.__cause__ = error
                self._put(failed)
                return

    def _request(self) -> Request:
        headers = (("Cache-Control", "no-store"),)
        if self._cursor == 0:
            return Request(path=STREAM_PATH, terms=(*self._terms, "first=0"), accept=_EVENTS_TYPE, headers=headers)
        last = ("Last-Event-ID", str(self._cursor - 1))
        return Request(path=STREAM_PATH, terms=self._terms, accept=_EVENTS_TYPE, headers=(*headers, last))

    def _read(self, request: Request) -> None:
        with self._calls.opened(request, seconds=IDLE_SECONDS) as opened:
            self._opened = opened
            if self._stop.is_set():
                return  # who closed it may have come too early to hang up
            for frame in frames(opened.chunks()):
                if frame.event == "record":
                    self._take(record_of(frame.data), frame.id)
                elif frame.event == "bye":
                    self._cursor = max(self._cursor, read(frame.data, _Bye).cursor)
                    return
                if self._stop.is_set():
                    return

    def _take(self, record: Record, event_id: str) -> None:
        if event_id != str(record.position):
            raise StoreError(f"the stream has the record of position {record.position} under the id {event_id[:20]}")
        if record.position >= self._cursor:  # else it was given before
            self._put(record)
            self._cursor, self._has_read = record.position + 1, True

    def _put(self, item: _Item) -> None:
        while not self._stop.is_set():
            try:
                self._ahead.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return

    def _told(self, error: TallystickError) -> TallystickError:
        if isinstance(error, RejectedError) and self._has_read and error.place == "cursor":
            return TamperError(f"{self._cursor} records were read, and the ledger has fewer now: {error.problem}")
        return error


def frames(chunks: Iterator[bytes]) -> Iterator[_Frame]:
    """The events in a stream, as the service writes them: `event`, `data` and `id`, a line each. Raises `StoreError`
    for a line that is longer than any of its own."""
    said: dict[str, bytes] = {}
    for line in _lines(chunks):
        if not line:
            if "data" in said:
                event, event_id = (said.get(name, b"").decode("utf-8", "replace") for name in ("event", "id"))
                yield _Frame(event, said["data"], event_id)
            said = {}
        elif not line.startswith(b":"):
            name, _, value = line.partition(b":")
            said[name.decode("utf-8", "replace")] = value.removeprefix(b" ")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
        if len(rest) > _LINE_BYTES_MAX:
            raise StoreError(f"the stream has a line of more than {_LINE_BYTES_MAX:,} bytes")
