"""HTTP/1.1 with bounds that uvicorn leaves open: how long a request's head may be, and how long it may take."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tallystick.errors import BusyError
from tallystick.serve.problems import MEDIA_TYPE, answer, problem, problem_of

HEAD_BYTES_MAX: Final = 65_536
"""Request line and headers: a query of `limits.QUERY_BYTES_MAX`, and as much again for what proxies add."""

LINGER_SECONDS: Final = 2.0
"""How long a connection stays on which an answer was given before the request had ended."""

_H2C: Final = re.compile(rb"\r\nupgrade:[ \t]*h2c", re.IGNORECASE)
"""An offer of HTTP/2, which is to be ignored (RFC 9110, 7.8); the parser would take what follows for something else."""

CONNECTIONS_MAX: Final = 4_096
"""Connections of one process at once, those of streams among them."""

HEAD_SECONDS: Final = 15.0
"""How long a head may take: a connection on which nothing comes is not kept for it."""


async def _full(_: Any, __: Any, send: Any) -> None:
    """The application of a connection for which there is no room."""
    busy = BusyError(f"there are {CONNECTIONS_MAX:,} connections, and no more are answered: wait a moment, then repeat")
    status, headers, body = problem(busy)
    await answer(send, status, {**headers, "Connection": "close"}, body)


class Joined:
    """A transport for one answer, of which the head waits for the first piece of the body: one call of the system less.

    All else passes through.
    """

    __slots__ = ("_head", "_is_open", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport: Final = transport
        self._head = b""
        self._is_open = True

    def write(self, data: bytes) -> None:
        if not self._is_open or data.startswith(b"HTTP/1.1 100 "):
            self._transport.write(data)
        elif not self._head:
            self._head = data
        else:
            self._is_open = False
            self._transport.write(self._head + data)

    def flush(self) -> None:
        """The head waits for nothing more."""
        if self._is_open:
            self._is_open = False
            self._transport.write(self._head)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = True
        self._head_bytes = 0
        self._ended = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head and self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)
        ended = self._ended
        if self._in_head and b"h2c" in data:
            data = _H2C.sub(b"\r\nx-not-upgraded: h2c", data)
        super().data_received(data)
        if self._in_head and self._ended == ended:  # all of it is of a head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response(f"a request's head has at most {HEAD_BYTES_MAX} bytes")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered as every other mistake is, and the connection closed."""
        said = problem_of(400, "Send HTTP/1.1", msg) | {"place": "the request's head", "cure": "see RFC 9112"}
        body = orjson.dumps(said)
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        before = self.cycle
        if len(self.connections) > CONNECTIONS_MAX:
            self.app = _full
        super().on_headers_complete()
        if self.cycle is not before:  # else it is a WebSocket
            joined = Joined(self.transport)
            self.cycle.transport = joined  # type: ignore[assignment]  # it is all that is used of one
            self.cycle.on_response = partial(self._answered, self.cycle, joined)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # as uvicorn has it: to call it would cost a tenth of a request's parsing
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            return
        self._head_bytes += len(name) + len(value)  # a trailer: nobody reads it
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.close()

    def _answered(self, cycle: RequestResponseCycle, joined: Joined) -> None:
        joined.flush()  # an answer without a body
        self.on_response_complete()
        if cycle.more_body:  # nobody wants the rest of it: there is a while for who sends it to see the answer
            self.loop.call_later(LINGER_SECONDS, self._end, self._ended)

    def _end(self, ended: int) -> None:
        if self._ended == ended:  # the rest did not come
            self.transport.close()

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._ended += 1
        super().on_message_complete()

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()
