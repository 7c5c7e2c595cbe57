"""Streams: records as they are committed, to many readers of one ledger.

One thread follows each ledger that anybody reads on, and makes each record's frame once; readers who ask the same share
a channel, so that what one more of them costs is one write. Who reads slower than the ledger grows is let go with the
place to go on from, and holds up neither the writers nor the others. How records are framed is the form's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from tallystick.core.record import Record
from tallystick.errors import BusyError, TallystickError
from tallystick.limits import (
    STREAM_PIECE_BYTES,
    STREAM_READERS_MAX,
    STREAM_READERS_TENANT_MAX,
    STREAM_WAITING_BYTES_MAX,
    STREAMS_WAITING_BYTES_MAX,
)
from tallystick.read.shapes import record_json
from tallystick.serve.past import BATCH_RECORDS, Asked, Form, Lease, Past
from tallystick.serve.shares import Shares

JOIN_RECORDS: Final = 5_000
"""A reader who is no further behind is given what comes from now on, and reads the rest beside it."""

BEAT_SECONDS: Final = 15.0
"""How often a reader on whom nothing falls hears that the line stands."""

LINGER_SECONDS: Final = 10.0
LATE: Final = "the reader does not read"
"""With what the task of one who was let go is cancelled, if it is still there after so long."""

_SECONDS_PER_READER: Final = 0.0001
"""A thousand readers are written to ten times a second: more often would leave no time for anything else."""

_THREADS: Final = 4
"""In which what was committed before readers came is looked through."""

_TAKE_SECONDS: Final = 0.5
_GIVEN_AT_ONCE: Final = 64
"""Readers who are woken in one turn of the loop."""

_LITTLE_BYTES: Final = 16_384
"""Records that are framed in the loop."""

_ROOM_SECONDS: Final = 0.01
_ROOM_LOOKS: Final = 50
_LOOK_SECONDS: Final = 0.005
_T = TypeVar("_T")
_log: Final = logging.getLogger("tallystick.serve")


class Waiting:
    """How many bytes wait for readers. What several wait for is in memory once, and is counted once."""

    def __init__(self) -> None:
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        return self.bytes > STREAMS_WAITING_BYTES_MAX

    async def has_room(self) -> None:
        """Wait for room, but not for long: whoever is given more without it is let go."""
        for _ in range(_ROOM_LOOKS):
            if not self.is_full:
                return
            await asyncio.sleep(_ROOM_SECONDS)


class Piece:
    """Frames, joined, for one reader or several."""

    __slots__ = ("_readers", "_waiting", "data")

    def __init__(self, data: bytes, waiting: Waiting) -> None:
        self.data: Final = data
        self._waiting: Final = waiting
        self._readers = 0

    def wait(self) -> None:
        """One reader more waits for it."""
        if not self._readers:
            self._waiting.bytes += len(self.data)
        self._readers += 1

    def taken(self) -> None:
        """One reader less."""
        self._readers -= 1
        if not self._readers:
            self._waiting.bytes -= len(self.data)


class Reader:
    """One who reads on. `frames` gives what is to be written; it is of the event loop."""

    def __init__(self, cursor: int, task: asyncio.Task[Any], form: Form, waiting: Waiting) -> None:
        self._form: Final = form
        self._all: Final = waiting
        self.cursor = cursor
        """The position from which it has not been given anything yet."""
        self.waiting: Final[deque[tuple[Piece, int]]] = deque()
        """What it is to be given, and from which position on that is."""
        self.bytes = 0
        self.ended = ""
        """Why it is let go."""
        self.woken: Final = asyncio.Event()
        self._task: Final = task
        self._late: asyncio.TimerHandle | None = None

    def give(self, piece: Piece, end: int) -> None:
        """Have more to read, up to a position. More than a reader may leave unread lets it go."""
        if self.ended:
            return
        size = len(piece.data)
        if size and self._all.is_full:
            self.forget()
            self.end("slow")
            return
        if self.bytes and self.bytes + size > STREAM_WAITING_BYTES_MAX:
            self.end("slow")
            return
        if size:
            piece.wait()
            self.waiting.append((piece, self.cursor))
            self.bytes += size
            self.woken.set()
        self.cursor = max(self.cursor, end)

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
        self.ended = self.ended or "gone"
        self.forget()

    def forget(self) -> None:
        """It is not given what waits for it, and has to go on from there."""
        if self.waiting:
            self.cursor = self.waiting[0][1]
        while self.waiting:
            piece, _ = self.waiting.popleft()
            self.bytes -= len(piece.data)
            piece.taken()

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
                piece, _ = self.waiting.popleft()
                try:
                    yield piece.data
                finally:
                    self.bytes -= len(piece.data)
                    piece.taken()
            if self.ended:
                yield self._form.farewell(self.ended, self.cursor)
                return


class Streams:
    """All readers of a service. To be used from its event loop only."""

    def __init__(self, lease: Lease, *, ledgers_max: int) -> None:
        self._lease: Final = lease
        self._ledgers_max: Final = ledgers_max
        self._tails: Final[dict[str, _Tail]] = {}
        self._threads: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()
        self._stopped = False
        self._looking: Final = ThreadPoolExecutor(_THREADS, "past")
        self._shares: Final = Shares(_THREADS // 2, waiting_max=STREAM_READERS_TENANT_MAX)
        self.waiting: Final = Waiting()

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(tail.expected for tail in self._tails.values())

    async def read(self, ledger: str, asked: Asked, cursor: int | None) -> AsyncGenerator[bytes, None]:
        """The frames of the records from a position on, by default from the next one, for as long as they are read.

        The first piece is the form's greeting; an empty one says only that the line stands.

        Raises `RejectedError` for a position that is not there yet, and `BusyError` when there are too many readers.
        """
        tail = self._tails.get(ledger)
        self._check_room(tail)
        if tail is None or tail.ended:
            tail = self._tails[ledger] = _Tail(ledger, self._lease, self.waiting)
            self._threads.add(tail.thread)
        tail.expected += 1
        reader = None
        try:
            await tail.started
            past = Past(ledger, self._lease, asked, tail.position if cursor is None else cursor)
            if past.cursor > tail.position:
                await self._look(ledger, past.check)
            yield asked[1].greeting
            while tail.position - past.cursor > JOIN_RECORDS and not tail.ended:
                yield await self._look(ledger, partial(past.more, tail.position))
            while tail.position < past.cursor and not tail.ended:  # it has seen more, in another process
                await asyncio.sleep(_LOOK_SECONDS)
            if tail.ended:
                yield asked[1].farewell(tail.ended, past.cursor)
                return
            # From here on it is given what comes; what came between the two places, and nothing else, it reads first.
            task = asyncio.current_task()
            assert task is not None, "it is awaited"
            joined_at = tail.position
            reader = tail.join(asked, Reader(joined_at, task, asked[1], self.waiting))
            while past.cursor < joined_at:
                yield await self._look(ledger, partial(past.more, joined_at))
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

    async def _look(self, ledger: str, look: Callable[[], _T]) -> _T:
        """Look into the past of a ledger by a thread, in turn: the readers of one do not have all of those."""
        turn = await self._shares.turn(ledger)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._looking, look)
        finally:
            turn.end()

    def _check_room(self, tail: _Tail | None) -> None:
        """Raises `BusyError` when there are too many readers."""
        if self._stopped or self.readers >= STREAM_READERS_MAX:
            raise BusyError("there are as many readers as the service takes: wait a moment, then try again")
        if tail is None and len(self._tails) >= self._ledgers_max:
            raise BusyError(f"the streams of {self._ledgers_max} tenants are read, and no more are: try again later")
        if tail is not None and tail.expected >= STREAM_READERS_TENANT_MAX:
            raise BusyError("there are as many readers as one tenant may have: wait a moment, then try again")

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
        self._looking.shutdown()


class _Tail:
    """Follows one ledger, in a thread of its own, for those who read on."""

    def __init__(self, name: str, lease: Lease, waiting: Waiting) -> None:
        self.started: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self.position = 0
        """Up to where it has given everything."""
        self.expected = 0
        """Those who read on, and those who read what was before."""
        self.ended = ""
        """Why it follows no more."""
        self._name: Final = name
        self._lease: Final = lease
        self._waiting: Final = waiting
        self._loop: Final = asyncio.get_running_loop()
        self._channels: Final[dict[Asked, set[Reader]]] = {}
        self._stop: Final = threading.Event()
        self.thread: Final = threading.Thread(target=self._follow, name=f"tallystick-stream-{name}", daemon=True)
        self.thread.start()

    def join(self, asked: Asked, reader: Reader) -> Reader:
        """From now on the reader is given what comes; of one that has ended nothing does, and the reader is let go."""
        self._channels.setdefault(asked, set()).add(reader)
        if self.ended:
            reader.end(self.ended)
        return reader

    def leave(self, asked: Asked, reader: Reader) -> None:
        """It is given nothing more."""
        readers = self._channels[asked]
        readers.discard(reader)
        if not readers:
            del self._channels[asked]

    def end(self, why: str) -> None:
        """Let all go, also those who are about to join."""
        self.ended = why
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
                        self._have_given([(record, record_json(record)) for record in records])
                        time.sleep(min(self.expected * _SECONDS_PER_READER, 0.25))
        except Exception as error:  # noqa: BLE001 - whatever it was, they are let go, and come again
            if not isinstance(error, TallystickError):
                _log.exception("the stream of %s failed", self._name)
            with suppress(RuntimeError):  # the loop may be gone
                self._loop.call_soon_threadsafe(self._fail, error)

    def _begin(self, position: int) -> None:
        self.position = position
        if not self.started.done():
            self.started.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.started.done():
            self.started.set_exception(error)
        self.end("failed")

    def _have_given(self, told: Sequence[tuple[Record, bytes]]) -> None:
        """Give records to all who are there, and wait until that is done. Of the following thread."""
        given = asyncio.run_coroutine_threadsafe(self._give(told), self._loop)
        while not self._stop.is_set():
            with suppress(TimeoutError):
                given.result(_TAKE_SECONDS)
                return

    async def _give(self, told: Sequence[tuple[Record, bytes]]) -> None:
        """Give each channel its own, one after another. Who joins meanwhile begins behind all of it."""
        there = [(asked, [*readers]) for asked, readers in self._channels.items()]
        end = self.position = told[-1][0].position + 1
        is_little = sum(len(data) for _, data in told) <= _LITTLE_BYTES
        await self._waiting.has_room()
        turns = 0
        for asked, readers in there:
            data = _framed(asked, told) if is_little else await asyncio.to_thread(_framed, asked, told)
            piece = Piece(data, self._waiting)
            for reader in readers:
                reader.give(piece, end)
                turns += 1
                if turns % _GIVEN_AT_ONCE == 0:
                    await asyncio.sleep(0)


def _framed(asked: Asked, told: Sequence[tuple[Record, bytes]]) -> bytes:
    query, form = asked
    return b"".join(form.frame(record.position, data) for record, data in told if query.takes(record))


def _some(take: Callable[[float], Record | None], *, wait: float = 0.0) -> list[Record]:
    """What there is, up to a bound; the first is waited for."""
    first = take(wait)
    return [] if first is None else [first, *_ready(take)]


def _ready(take: Callable[[float], Record | None]) -> Iterator[Record]:
    room = STREAM_PIECE_BYTES
    for _ in range(BATCH_RECORDS - 1):
        record = take(0) if room > 0 else None
        if record is None:
            return
        room -= len(record.line)
        yield record
