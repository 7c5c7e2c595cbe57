"""The beginning of a connection over TLS, which has its place among all from the first moment on.

The server's own way makes a connection known once both sides have agreed on keys, which one that says nothing never
does: it would have a file handle, and nobody could close it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any, Final

from uvicorn.server import ServerState

from tallystick.serve.crowd import Crowd
from tallystick.serve.protocol import HEAD_SECONDS, BoundedProtocol


class Shared(ServerState):
    """What the connections of a process share."""

    def __init__(self, crowd: Crowd) -> None:
        super().__init__()
        self.crowd: Final = crowd


class Greeting(asyncio.Protocol):
    """One connection, until it is a `BoundedProtocol` over TLS."""

    def __init__(self, context: ssl.SSLContext, *, server_state: Shared, **given: Any) -> None:
        self._context: Final = context
        self._crowd: Final = server_state.crowd
        self._next: Final = BoundedProtocol(server_state=server_state, **given)
        self._greeting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # of a stream
        """Take the connection out of a transport that reads what is for TLS, before it has read any of it."""
        found = transport.get_extra_info("socket")
        try:
            taken = socket.socket(found.family, found.type, found.proto, fileno=os.dup(found.fileno()))
        except OSError:  # there are no handles left
            return
        finally:
            transport.abort()
        peer = transport.get_extra_info("peername")
        greeting = self._greeting = asyncio.get_running_loop().create_task(self._greet(taken))

        def give_way() -> None:
            greeting.cancel()
            taken.close()  # which it would not be by a task that never began

        self._next.place = self._crowd.enter(peer[0] if peer else "", give_way)

    async def _greet(self, taken: socket.socket) -> None:
        """Agree on keys. Who does not, or has to give way before that is done, is gone."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: self._next, taken, ssl=self._context, ssl_handshake_timeout=HEAD_SECONDS
            )
        except (OSError, asyncio.CancelledError):
            taken.close()
            if self._next.place is not None:
                self._next.place.leave()
