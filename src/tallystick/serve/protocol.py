"""HTTP/1.1 with bounds that uvicorn leaves open: how long a request's head may be, and how long it may take."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import MutableMapping, Sequence
from functools import partial
from typing import Any, Final

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

from tallystick.errors import BusyError
from tallystick.ids import random_bytes
from tallystick.serve.crowd import Crowd, Place
from tallystick.serve.outlet import Outlet
from tallystick.serve.problems import MEDIA_TYPE, answer, problem, problem_of

HEAD_BYTES_MAX: Final = 65_536
"""Request line and headers: a query of `limits.QUERY_BYTES_MAX`, and as much again for what proxies add."""

LINGER_SECONDS: Final = 2.0
"""How long a connection stays on which an answer was given before the request had ended."""

_FRAMING: Final = (b"content-length", b"transfer-encoding")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")

REQUEST_ID: Final = "request_id"
"""Where it is in the state of a request."""

_IS_LEFT: Final = "is_left"
"""There, too: whether its caller has gone."""

REQUEST_ID_HEADER: Final = b"x-request-id"
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")

HELD_BYTES_MAX: Final = 32 * 2**20
"""What has come in behind requests that are not answered yet, on all connections of the process."""

_HEAD_ENDS: Final = b"\r\n\r\n"  # the parser takes no other line ends
_BODY_PART_BYTES: Final = 256
_LINE_BYTES: Final = 16  # in a line of a head beside what is said there: method, version, and its end
_HEAD_BYTES_MIN: Final = 16  # the shortest head that is one has 23 and the four of its end

HEAD_SECONDS: Final = 15.0
"""How long a head may take: a connection on which nothing comes is not kept for it."""


async def _full(_: Any, __: Any, send: Any) -> None:
    """The application of a connection for which there is no room."""
    busy = BusyError("all connections that there may be are being answered: wait a moment, then repeat")
    status, headers, body = problem(busy)
    await answer(send, status, {**headers, "Connection": "close"}, body)


def _has_gone(cycle: RequestResponseCycle) -> bool:
    return cycle.disconnected


def is_left(scope: MutableMapping[str, Any]) -> bool:
    """Whether the caller of a request has gone, and waits for no answer."""
    asked = scope["state"].get(_IS_LEFT)
    return asked is not None and asked()


def request_id(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """By what the caller and we name a request: the caller's word, if it gave one that can be used."""
    for name, value in headers:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return value
    return random_bytes(12).hex().encode()


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
    """One connection. No byte that comes is changed: what a request is, the parser alone decides (RFC 9112).

    Requests are read one at a time. One read of a socket may bring ten thousand of them, and each would be held as a
    dozen objects while it waits for its turn: so what comes behind a request is held as bytes until that is answered.
    """

    held_bytes = 0
    """Of all connections."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = True
        self._head_bytes = 0
        self._ended = 0
        self._late: asyncio.TimerHandle | None = None
        self.place: Place | None = None
        """Its place among all connections; given before it is made, where there was one already."""
        self._open: deque[RequestResponseCycle] = deque()
        """Requests that are not answered yet, in the order in which they came."""
        self._is_websocket = False
        self._ignores_upgrade = False
        """Whether the head that ended last offers an upgrade that is not taken (RFC 9110, 7.8)."""
        self._continues = False
        """Whether the parser is told once more of a head that was taken in already."""
        self._held: deque[tuple[bytes, int]] = deque()
        """What came and was not read yet: bytes, and where to go on in them."""
        self._wrong: str | None = None
        """Why what came is refused; what comes after it is not read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if self.place is None:
            crowd: Crowd = self.server_state.crowd  # type: ignore[attr-defined]  # see `greeting.Shared`
            self.place = crowd.enter(self.client[0] if self.client else None, transport.abort)
        self.place.abort = transport.abort
        outlet = Outlet(transport, self.loop, stopped=self.place.leave)
        self.transport = outlet  # type: ignore[assignment]  # it passes on what it does not do
        self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._let_go()
        self.transport.stop()  # type: ignore[attr-defined]  # as above
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._wrong is not None:
            return
        if self._held:  # it was under way when reading was paused
            self._hold(data, 0)
            return
        self._unset_keepalive_if_required()
        self._take(data, 0)

    def _take(self, data: bytes, at: int) -> None:
        """Read what came from `at` on, up to the end of a request: what is behind it is held until that is answered."""
        while at < len(data) and self._wrong is None and not self.transport.is_closing():
            if self._in_head and self._open:
                self._hold(data, at)
                return
            # At most one head ends in each part of a head, and a dozen in a part of a body.
            end = data.find(_HEAD_ENDS, at + (_HEAD_BYTES_MIN if self._in_head else _BODY_PART_BYTES))
            end = len(data) if end < 0 else end + len(_HEAD_ENDS)
            ended = self._ended
            self._parse(memoryview(data)[at:end])
            if self._in_head and self._ended == ended and self._wrong is None:  # all of it is of a head
                self._head_bytes += end - at
                if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                    self._refuse(f"a request's head has at most {HEAD_BYTES_MAX} bytes")
            at = end
        if self._in_head and self._head_bytes and self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _hold(self, data: bytes, at: int) -> None:
        """Keep what came until it can be read. A sender who does not wait for answers then has to wait here."""
        self._stop_waiting()
        self.flow.pause_reading()
        self._held.append((data, at))
        BoundedProtocol.held_bytes += len(data)
        if BoundedProtocol.held_bytes > HELD_BYTES_MAX:
            self._let_go()
            self._wrong = "more came behind a request than can be kept until that is answered"

    def _let_go(self) -> None:
        BoundedProtocol.held_bytes -= sum(len(data) for data, _ in self._held)
        self._held.clear()

    def _go_on(self) -> None:
        """Read on where it was left off, now that nothing is due."""
        waiting = [*self._held]
        self._let_go()
        self._unset_keepalive_if_required()
        for data, at in waiting:
            if self._held:
                self._hold(data, at)
            else:
                self._take(data, at)

    def on_headers_complete(self) -> None:
        if self._continues:
            self._continues = False
            return
        self._check_head()
        self._in_head = False
        self._stop_waiting()
        self._ignores_upgrade = self.parser.should_upgrade() and not self._is_websocket
        before = self.cycle
        assert self.place is not None, "the connection was made"
        if not self.place.speak():
            self.app = _full
        super().on_headers_complete()
        if self.cycle is not before:  # else it is a WebSocket
            joined = Joined(self.transport)
            self.cycle.transport = joined  # type: ignore[assignment]  # it is all that is used of one
            self.cycle.on_response = partial(self._answered, self.cycle, joined)
            self._open.append(self.cycle)
            told = request_id(self.headers)
            self.scope["state"] |= {REQUEST_ID: told.decode(), _IS_LEFT: partial(_has_gone, self.cycle)}
            self.cycle.default_headers = [*self.server_state.default_headers, (REQUEST_ID_HEADER, told)]

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

    def on_message_complete(self) -> None:
        if self._ignores_upgrade:  # its body is still to come, whatever this parser thinks
            return
        self._in_head, self._head_bytes = True, 0
        self._ended += 1
        super().on_message_complete()

    def _parse(self, rest: memoryview) -> None:
        """Part of what came. Of a view a part costs nothing, however many offers of an upgrade are in it."""
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    return
                except HttpParserUpgrade as upgrade:
                    if self._is_websocket:
                        self.handle_websocket_upgrade()
                        return
                    self._go_on_without_upgrade()
                    rest = rest[upgrade.args[0] :]
        except HttpParserError:
            self._refuse(self._wrong or "it is no HTTP/1.1")

    def _go_on_without_upgrade(self) -> None:
        """Take what follows for the body of this request, and for requests after it.

        The parser takes it for another protocol, and cannot be told otherwise: so there is another parser, which is
        told only how the body is framed. What came is given to it as it came.
        """
        self._ignores_upgrade, self._continues = False, True
        framing = b"".join(b"%b: %b\r\n" % pair for pair in self.headers if pair[0] in _FRAMING)
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)

    def _check_head(self) -> None:
        """Whether a head that has ended may be answered at all. Raises `HttpParserError`, with `_wrong` saying why."""
        named = [value for name, value in self.headers if name == b"host"]
        self._is_websocket = self.parser.should_upgrade() and self._should_upgrade()
        if len(named) > 1 or (not named and self.parser.get_http_version() != "1.0"):
            self._wrong = f"it has {len(named) or 'no'} Host headers, and must have one"
        elif named and not _HOST.fullmatch(named[0]):
            self._wrong = "its Host header names no host"
        elif self.parser.get_method() == b"CONNECT" or not self.url.startswith((b"/", b"http://", b"https://")):
            self._wrong = "it asks for a tunnel, or for no path"
        elif self._is_websocket and (self._open or any(name in _FRAMING for name, _ in self.headers)):
            self._wrong = "a WebSocket begins without a body, and after all answers that are due"
        elif self._is_websocket and not self._is_short():
            self._wrong = (
                f"a WebSocket begins with at most {MAX_NUM_HEADERS} headers, and lines of {MAX_LINE_LENGTH} bytes"
            )
        if self._wrong is not None:
            raise HttpParserError(self._wrong)

    def _is_short(self) -> bool:
        """Whether a head is one that who speaks WebSocket here would read: of others it says nothing, and waits."""
        longest = max(len(name) + len(value) for name, value in self.headers)
        is_read = max(longest, len(self.url)) + _LINE_BYTES <= MAX_LINE_LENGTH
        return is_read and len(self.headers) <= MAX_NUM_HEADERS

    def _refuse(self, why: str) -> None:
        """Answer what is no HTTP as every other mistake is, behind the answers that are due, and close."""
        self._wrong = why
        self._stop_waiting()
        self._let_go()
        if not self._in_head and self._open:  # it is the last request's body that is wrong
            broken = self._open.pop()
            broken.disconnected = True
            broken.message_event.set()
            if broken.response_started:
                self.transport.close()
                return
            broken.response_complete = True  # whoever answers it speaks to nobody
            self.pipeline = deque((cycle, app) for cycle, app in self.pipeline if cycle is not broken)
        if not self._open:
            self._say_refused()

    def _say_refused(self) -> None:
        said = problem_of(400, "Send HTTP/1.1", self._wrong or "") | {
            "place": "the request's head",
            "cure": "see RFC 9112",
        }
        body = orjson.dumps(said)
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _answered(self, cycle: RequestResponseCycle, joined: Joined) -> None:
        joined.flush()  # an answer without a body
        self._open.remove(cycle)
        if not self._open and self.place is not None:
            self.place.rest()
        self.on_response_complete()
        if self._wrong is not None and not self._open and not self.transport.is_closing():
            self._say_refused()
        elif cycle.more_body:  # nobody wants the rest of it: there is a while for who sends it to see the answer
            self.loop.call_later(LINGER_SECONDS, self._end, self._ended)
        elif self._held and not self.transport.is_closing():
            self._go_on()

    def _end(self, ended: int) -> None:
        if self._ended == ended:  # the rest did not come
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()
