"""HTTP/1.1 with bounds that uvicorn leaves open: how long a request's head may be, and how long it may take."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tallystick.serve.problems import MEDIA_TYPE, problem_of

HEAD_BYTES_MAX: Final = 65_536
"""Request line and headers: a query of `limits.QUERY_BYTES_MAX`, and as much again for what proxies add."""

HEAD_SECONDS: Final = 15.0
"""How long a head may take: a connection on which nothing comes is not kept for it."""


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
        super().on_headers_complete()

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
