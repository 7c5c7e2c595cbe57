"""`GET /api/v1/events/stream`, as server-sent events or over a WebSocket: bare ASGI, so that a reader sets its pace.

Over SSE each record is an event of its own. Over a WebSocket each text message has one record or several, one a line;
the last message, and only that, is `{"bye": {"why", "cursor"}}`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol, TypeAlias

import orjson

from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError, TallystickError
from tallystick.limits import SIZE_MAX
from tallystick.read.query import Query, parse_terms, terms_of_query_string
from tallystick.serve.body import Receive
from tallystick.serve.caller import Caller
from tallystick.serve.past import Form
from tallystick.serve.problems import Send, answer, problem
from tallystick.serve.service import Service
from tallystick.serve.streams import LATE

STREAM_PATH: Final = "/api/v1/events/stream"

Scope: TypeAlias = MutableMapping[str, Any]

_GONE: Final = "the reader has gone"
MESSAGE_BYTES: Final = 65_536
"""Of one message of a WebSocket, unless a record alone is more: it stays in the buffer of one who does not read."""

_WRITTEN_BYTES: Final = 65_536
"""What is given to a connection at once: of a reader who does not read so much stays in its buffer, and no more."""

_PARTS_A_TURN: Final = 16
"""Parts that are written in one turn of the loop: a megabyte, in some two milliseconds."""

_OVER: Final = 1000
"""The code with which a WebSocket is closed (RFC 6455, 7.4.1): nothing failed."""


class Streaming:
    """The route of one service; `takes` says whether a request is for it."""

    def __init__(self, service: Service) -> None:
        self._service: Final = service
        self._turns: Final = Turns()

    def takes(self, scope: Scope) -> bool:
        if scope["type"] == "websocket":
            return True  # there is no other one; for another path it is refused
        return bool(scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == STREAM_PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line: _Line = _Socket(send) if scope["type"] == "websocket" else _Sse(send)
        try:
            await self._turns.wait()
            if scope["path"] != STREAM_PATH:
                raise RejectedError(f"there is no stream at {scope['path'][:60]}", cure=f"open {STREAM_PATH}")
            caller, query, cursor = await self._asked(scope)
            pieces = self._service.streams.read(caller.ledger, (query, line.form), cursor)
            reading = asyncio.current_task()
            assert reading is not None, "it is awaited"
            leaving = asyncio.create_task(_left(receive))
            leaving.add_done_callback(lambda it: it.cancelled() or reading.cancel(_GONE))
            try:
                async with aclosing(pieces) as given:
                    async for piece in given:
                        if not self._service.is_in_force(caller):
                            break
                        for part in line.parts(piece):
                            await self._turns.wait()
                            await line.write(part)
            except asyncio.CancelledError as error:
                if error.args not in ((_GONE,), (LATE,)):
                    raise
                reading.uncancel()
                return
            finally:
                leaving.cancel()
            await line.end()
        except TallystickError as error:
            await self._service.note(error)
            await (line.end() if line.begun else line.refuse(*problem(error)))

    async def _asked(self, scope: Scope) -> tuple[Caller, Query, int | None]:
        """Who asks, what for, and where to begin. Raises the errors of who may not, and `RejectedError`."""
        raw = scope["query_string"].decode("latin-1")
        caller = self._service.caller_of(scope)
        self._service.permit(caller, "Read")
        if self._service.settings.record_reads:
            await asyncio.to_thread(self._service.record, caller, "read", {"query": raw[:2_048]})
        query = replace(parse_terms(terms_of_query_string(raw)), within=caller.within)
        if query.end is not None:
            raise RejectedError("a stream has no end", place="end", cure="leave it out, or use /api/v1/events/query")
        last = dict(scope["headers"]).get(b"last-event-id")
        if last is None:
            return caller, query, query.first
        position = parse_decimal(last.decode("latin-1"), maximum=SIZE_MAX - 1, place="Last-Event-ID")
        return caller, query, max(position + 1, query.first or 0)


class Turns:
    """Has so many readers written to in each turn of the loop, and no more: others are answered in between.

    A connection takes megabytes before it has anybody wait. To be used from one event loop.
    """

    def __init__(self) -> None:
        self._left = _PARTS_A_TURN
        self._waiting: Final[deque[asyncio.Future[None]]] = deque()
        self._is_due = False

    async def wait(self) -> None:
        """Wait for a turn that has room."""
        loop = asyncio.get_running_loop()
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._next, loop)
        if self._left:
            self._left -= 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = _PARTS_A_TURN
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
        self._is_due = bool(self._waiting)
        if self._is_due:
            loop.call_soon(self._next, loop)


class _Line(Protocol):
    """What a stream is written to."""

    form: Form
    begun: bool
    """Whether it was accepted: what follows can be no refusal any more."""

    def parts(self, piece: bytes) -> Iterator[bytes]:
        """A piece in parts that are written one by one; at least one."""

    async def write(self, part: bytes) -> None:
        """The next part; the first one accepts."""

    async def end(self) -> None:
        """There is no more."""

    async def refuse(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """There is nothing at all."""


class _Sse:
    """Server-sent events (WHATWG HTML, 9.2)."""

    _HEADERS: Final = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),  # proxies of nginx's kind hold nothing back
    ]

    def __init__(self, send: Send) -> None:
        self._send: Final = send
        self.form: Form = EVENTS
        self.begun = False

    def parts(self, piece: bytes) -> Iterator[bytes]:
        return (piece[first : first + _WRITTEN_BYTES] for first in range(0, len(piece) or 1, _WRITTEN_BYTES))

    async def write(self, part: bytes) -> None:
        if not self.begun:
            await self._send({"type": "http.response.start", "status": 200, "headers": self._HEADERS})
            self.begun = True
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, status: int, headers: dict[str, str], body: bytes) -> None:
        await answer(self._send, status, headers, body)


class _Socket:
    """A WebSocket (RFC 6455). A refusal is answered in HTTP, before there is one."""

    def __init__(self, send: Send) -> None:
        self._send: Final = send
        self.form: Form = LINES
        self.begun = False

    def parts(self, piece: bytes) -> Iterator[bytes]:
        return _messages(piece) if piece else iter((b"",))

    async def write(self, part: bytes) -> None:
        if not self.begun:
            await self._send({"type": "websocket.accept"})
            self.begun = True
        if part:
            await self._send({"type": "websocket.send", "text": part.decode()})

    async def end(self) -> None:
        await self._send({"type": "websocket.close", "code": _OVER})

    async def refuse(self, status: int, headers: dict[str, str], body: bytes) -> None:
        async def send(message: MutableMapping[str, Any]) -> None:
            await self._send({**message, "type": f"websocket.{message['type']}"})

        await answer(send, status, headers, body)


class _Events:
    greeting: Final = b": the stream begins\n\n"
    beat: Final = b": beat\n\n"

    def frame(self, position: int, record: bytes) -> bytes:
        return b"id: %d\nevent: record\ndata: %b\n\n" % (position, record)

    def farewell(self, why: str, cursor: int) -> bytes:
        return b"event: bye\ndata: %b\n\n" % orjson.dumps({"why": why, "cursor": cursor})


class _Lines:
    greeting: Final = b""
    beat: Final = b""  # the protocol has pings of its own

    def frame(self, position: int, record: bytes) -> bytes:  # noqa: ARG002 - the record has it
        return record + b"\n"

    def farewell(self, why: str, cursor: int) -> bytes:
        return orjson.dumps({"bye": {"why": why, "cursor": cursor}})


EVENTS: Final = _Events()
LINES: Final = _Lines()


def _messages(piece: bytes) -> Iterator[bytes]:
    """The piece in messages that no client takes for too long, each of whole lines."""
    first = 0
    while len(piece) - first > MESSAGE_BYTES:
        end = piece.rfind(b"\n", first, first + MESSAGE_BYTES) + 1 or piece.find(b"\n", first) + 1 or len(piece)
        yield piece[first:end]
        first = end
    if first < len(piece):
        yield piece[first:]


async def _left(receive: Receive) -> None:
    """Returns when the reader has gone. What it says meanwhile is not listened to."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass
