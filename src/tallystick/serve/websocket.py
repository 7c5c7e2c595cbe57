"""WebSockets with bounds that uvicorn leaves open: how much a reader may say, to which nobody listens.

Each ping is answered by a pong, whether or not its sender reads, and one read of the socket may bring forty thousand of
them. So what a reader says is counted, and whoever says much is told to go before any of it is looked at.
"""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

SAID_BYTES_MAX: Final = 16_384
SAID_SECONDS: Final = 10.0
"""What a reader of a stream may say in how long: pings, pongs, and a few words that are not listened to."""

_TOO_MUCH: Final = "a reader of a stream says little"


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket, from its head on, which comes first and at once."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._said = 0
        self._since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.stop()  # type: ignore[attr-defined]  # it is an `Outlet`, as it was for the head
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:  # the head, which was bounded before
            super().data_received(data)
            if not self.handshake_initiated:  # it is none to the library, which then answers nothing
                self.transport.close()
            return
        now = self.loop.time()
        if now - self._since > SAID_SECONDS:
            self._said, self._since = 0, now
        self._said += len(data)
        if self._said <= SAID_BYTES_MAX:
            super().data_received(data)
        elif not self.transport.is_closing():
            self._end()

    def _end(self) -> None:
        """Say why, if there is still somebody to say it to, and leave: of who does not read nothing is waited for."""
        self.stop_keepalive()
        if self.handshake_complete and not self.close_sent:
            self.conn.send_close(CloseCode.POLICY_VIOLATION, _TOO_MUCH)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        is_read = self.writable.is_set()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.POLICY_VIOLATION})
        (self.transport.close if is_read else self.transport.abort)()
