"""The way out of a connection: whoever takes nothing of what was written to them is not waited for.

What a peer leaves unread stays in memory, as does all that is still to be written. A transport waits for its peer
without an end, also one that was closed already.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

LOOK_SECONDS: Final = 15.0
"""How often a peer is looked at for whom something waits: the first time is to know where it is."""

TAKEN_BYTES: Final = 16_384
"""What it takes at least from one look to the next, if so much waits: less is as good as nothing."""

HIGH_BYTES: Final = 16_384
"""With more unread than this a connection is written to no more. What is written at once is four times as much, which
of a thousand who read nothing is eighty megabytes."""

_SENT_BYTES: Final = 0x5411 if sys.platform == "linux" else None
"""By which request the system says how many bytes it still has (tcp(7), SIOCOUTQ)."""


class Outlet:
    """A transport that is closed when its peer is still; all else of it is as it was."""

    __slots__ = ("_goal", "_loop", "_stopped", "_timer", "_transport", "_written")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        """`stopped` is called once the connection is gone."""
        self._transport: Final = transport
        self._loop: Final = loop
        self._stopped: Final = stopped
        self._timer: asyncio.TimerHandle | None = None
        self._written = 0
        self._goal = 0
        """What has to be taken by the next look, of all that was ever written."""
        transport.set_write_buffer_limits(high=HIGH_BYTES)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._written += len(data)
        self._transport.write(data)
        if self._timer is None:
            self._goal = 0
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """The connection is gone."""
        self._stopped()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Whether the peer has taken enough since the last look; with nothing left to take it is not looked at."""
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            return
        taken = self._written - waiting - self._with_system()
        if taken < self._goal:
            self._transport.abort()
            return
        self._goal = min(taken + TAKEN_BYTES, self._written)
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _with_system(self) -> int:
        """What the system has of it, on its way and not taken: megabytes, of which the transport says nothing."""
        found = self._transport.get_extra_info("socket")
        if _SENT_BYTES is not None and found is not None:
            with suppress(OSError, ValueError):
                size: int = struct.unpack("i", fcntl.ioctl(found.fileno(), _SENT_BYTES, bytes(4)))[0]
                return size
        return 0
