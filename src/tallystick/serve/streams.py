"""Streams: records as they are committed, to many readers of one ledger.

One thread follows each ledger that anybody reads on, and makes each record's frame once; readers who ask the same share
a channel, so that what one more of them costs is one write. Who reads slower than the ledger grows is let go with the
place to go on from, and holds up neither the writers nor the others. How records are framed is the form's.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from tallystick.core.record import Record
from tallystick.errors import BusyError, TallystickError
from tallystick.govern.access import Scope
from tallystick.ledger import Ledger
from tallystick.limits import STREAM_READERS_MAX, STREAM_WAITING_BYTES_MAX
from tallystick.read.query import Query
from tallystick.read.shapes import record_json

BATCH_RECORDS: Final = 500
BEAT_SECONDS: Final = 15.0
"""How often a reader on whom nothing falls hears that the line stands."""

LINGER_SECONDS: Final = 10.0
LATE: Final = "the reader does not read"
"""With what the task of one who was let go is cancelled, if it is still there after so long."""

_SECONDS_PER_READER: Final = 0.0001
"""A thousand readers are written to ten times a second: more often would leave no time for anything else."""

_TAKE_SECONDS: Final = 0.5

Lease: TypeAlias = Callable[[str], AbstractContextManager[Ledger]]


class Form(Protocol):
    """How what is told stands on the line. What is joined is what was framed, one behind another."""

    @property
    def greeting(self) -> bytes:
        """What comes first."""

    @property
    def beat(self) -> bytes:
        """What says that the line stands; empty where something else does."""

    def frame(self, position: int, record: bytes) -> bytes:
        """A record."""

    def farewell(self, why: str, cursor: int) -> bytes:
        """What comes last, to one who is let go: why, and the position to go on from."""


Asked: TypeAlias = tuple[Query, Scope, Form]


class _Frame(NamedTuple):
    position: int
    data: bytes


class Reader:
    """One who reads on. `frames` gives what is to be written; it is of the event loop."""

    def __init__(self, cursor: int, task: asyncio.Task[Any], form: Form) -> None:
        self._form: Final = form
        self.cursor = cursor
        """The position from which it has not been given anything yet."""
        self.waiting: Final[deque[bytes]] = deque()
        self.bytes = 0
        self.ended = ""
        """Why it is let go."""
        self.woken: Final = asyncio.Event()
        self._task: Final = task
        self._late: asyncio.TimerHandle | None = None

    def give(self, frames: Sequence[_Frame], joined: bytes, end: int) -> None:
        """Have more to read. More than a reader may leave unread lets it go."""
        if self.ended:
            return
        if frames and frames[0].position < self.cursor:  # it had some of them before it came into the channel
            joined = b"".join(frame.data for frame in frames if frame.position >= self.cursor)
        if self.bytes + len(joined) > STREAM_WAITING_BYTES_MAX:
            self.end("slow")
            return
        self.cursor = max(self.cursor, end)
        if joined:
            self.waiting.append(joined)
            self.bytes += len(joined)
            self.woken.set()

    def end(self, why: str) -> None:
        """Let it go, after what it was given; one that does not read even that is cut off."""
        if not self.ended:
            self.ended = why
            self.woken.set()
            self._late = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._task.cancel, LATE)

    def gone(self) -> None:
        """It reads no more."""
        if self._late is not None:
            self._late.cancel()

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """What to write, piece by piece; with nothing to say for a while, a beat."""
        while True:
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    await self.woken.wait()
            except TimeoutError:
                yield self._form.beat
                continue
            self.woken.clear()
            while self.waiting:
                piece = self.waiting.popleft()
                self.bytes -= len(piece)
                yield piece
            if self.ended:
                yield self._form.farewell(self.ended, self.cursor)
                return


class Streams:
    """All readers of a service. To be used from its event loop only."""

    def __init__(self, lease: Lease) -> None:
        self._lease: Final = lease
        self._tails: Final[dict[str, _Tail]] = {}
        self._threads: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()
        self._stopped = False

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(tail.readers for tail in self._tails.values())

    async def read(self, ledger: str, asked: Asked, cursor: int | None) -> AsyncGenerator[bytes, None]:
        """The frames of the records from a position on, by default from the next one, for as long as they are read.

        The first piece is the form's greeting; an empty one says only that the line stands.

        Raises `RejectedError` for a position that is not there yet, and `BusyError` when there are too many readers.
        """
        if self._stopped or self.readers >= STREAM_READERS_MAX:
            raise BusyError("there are as many readers as the service takes: wait a moment, then try again")
        tail = self._tails.get(ledger)
        if tail is None:
            tail = self._tails[ledger] = _Tail(ledger, self._lease, asyncio.get_running_loop())
            self._threads.add(tail.thread)
        tail.expected += 1
        reader = None
        try:
            await tail.started
            past = _Past(ledger, self._lease, asked, tail.position if cursor is None else cursor)
            frames = await asyncio.to_thread(past.more)  # which may refuse the position
            yield asked[2].greeting
            while frames:
                yield b"".join(frame.data for frame in frames)
                frames = await asyncio.to_thread(past.more)
            task = asyncio.current_task()
            assert task is not None, "it is awaited"
            reader = tail.join(asked, Reader(past.cursor, task, asked[2]))
            while reader.cursor < tail.position:  # what came between the last look and the joining
                frames = await asyncio.to_thread(past.more)
                reader.cursor = max(reader.cursor, past.cursor)
                if frames:
                    yield b"".join(frame.data for frame in frames)
            async for piece in reader.frames():
                yield piece
        finally:
            tail.expected -= 1
            if reader is not None:
                reader.gone()
                tail.leave(asked, reader)
            if not tail.expected and self._tails.get(ledger) is tail:
                del self._tails[ledger]
                tail.stop()

    def close(self) -> None:
        """Let all readers go; no more come."""
        self._stopped = True
        for tail in self._tails.values():
            tail.end("closing")
            tail.stop()

    def wait(self) -> None:
        """Wait until no ledger is followed any more. From any thread but the loop's, after `close`."""
        for thread in self._threads:
            thread.join()


class _Past:
    """What was committed before a reader came, read in pieces by whatever thread is free."""

    def __init__(self, ledger: str, lease: Lease, asked: Asked, cursor: int) -> None:
        self._ledger: Final = ledger
        self._lease: Final = lease
        self._query, self._scope, self._form = asked
        self.cursor = cursor

    def more(self) -> list[_Frame]:
        """The next frames; none when it has come up to the present."""
        with self._lease(self._ledger) as ledger, ledger.subscribe(self._query, cursor=self.cursor) as subscription:
            while records := _some(subscription.take):
                seen = [
                    _Frame(record.position, self._form.frame(record.position, record_json(record)))
                    for record in records
                    if self._scope.takes(record.event_type, record.entity_id)
                ]
                self.cursor = subscription.cursor
                if seen:
                    return seen
            self.cursor = subscription.cursor
        return []


class _Tail:
    """Follows one ledger, in a thread of its own, for those who read on."""

    def __init__(self, name: str, lease: Lease, loop: asyncio.AbstractEventLoop) -> None:
        self.started: Final[asyncio.Future[None]] = loop.create_future()
        self.position = 0
        """Up to where it has given everything."""
        self.expected = 0
        self._name: Final = name
        self._lease: Final = lease
        self._loop: Final = loop
        self._channels: Final[dict[Asked, set[Reader]]] = {}
        self._stop: Final = threading.Event()
        self.thread: Final = threading.Thread(target=self._follow, name=f"tallystick-stream-{name}", daemon=True)
        self.thread.start()

    @property
    def readers(self) -> int:
        """How many read on."""
        return self.expected

    def join(self, asked: Asked, reader: Reader) -> Reader:
        """From now on the reader is given what comes."""
        self._channels.setdefault(asked, set()).add(reader)
        return reader

    def leave(self, asked: Asked, reader: Reader) -> None:
        """It is given nothing more."""
        readers = self._channels[asked]
        readers.discard(reader)
        if not readers:
            del self._channels[asked]

    def end(self, why: str) -> None:
        """Let all go."""
        for readers in self._channels.values():
            for reader in readers:
                reader.end(why)

    def stop(self) -> None:
        """Nobody reads any more."""
        self._stop.set()

    def _follow(self) -> None:
        try:
            with self._lease(self._name) as ledger, ledger.subscribe(cursor=ledger.size) as subscription:
                self._loop.call_soon_threadsafe(self._begin, subscription.cursor)
                while not self._stop.is_set():
                    records = _some(subscription.take, wait=_TAKE_SECONDS)
                    if records:
                        told = [(record, record_json(record)) for record in records]
                        self._loop.call_soon_threadsafe(self._give, told, records[-1].position + 1)
                        time.sleep(min(self.expected * _SECONDS_PER_READER, 0.25))
        except (TallystickError, RuntimeError) as error:  # the loop may be gone
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._fail, error)

    def _begin(self, position: int) -> None:
        self.position = position
        if not self.started.done():
            self.started.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.started.done():
            self.started.set_exception(error)
        self.end("failed")

    def _give(self, told: Sequence[tuple[Record, bytes]], end: int) -> None:
        self.position = end
        for (query, scope, form), readers in self._channels.items():
            fitting = [
                _Frame(record.position, form.frame(record.position, data))
                for record, data in told
                if query.takes(record) and scope.takes(record.event_type, record.entity_id)
            ]
            joined = b"".join(frame.data for frame in fitting)
            for reader in readers:
                reader.give(fitting, joined, end)


def _some(take: Callable[[float], Record | None], *, wait: float = 0.0) -> list[Record]:
    """What there is, up to a bound; the first is waited for."""
    first = take(wait)
    return [] if first is None else [first, *_ready(take)]


def _ready(take: Callable[[float], Record | None]) -> Iterator[Record]:
    for _ in range(BATCH_RECORDS - 1):
        record = take(0)
        if record is None:
            return
        yield record
