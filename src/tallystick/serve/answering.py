"""Answers: counted for as long as they are in memory, and given to a connection in parts.

Who does not read its answer holds it in memory: so all of them together are bounded, as requests are. A connection is
given what its peer takes, and the next part once that is gone.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Final

from tallystick.errors import BusyError
from tallystick.serve.budget import Hold
from tallystick.serve.problems import Send, answer, problem

PART_BYTES: Final = 65_536
"""Of an answer what is given to a connection at once. Answers up to this are not counted: each is one part."""

ANSWERING: Final = "answering"
"""Where it is in the state of a request."""


class Answering:
    """What is sent in answer to one request. A context manager, in which it is counted."""

    def __init__(self, send: Send, *, is_reading: bool, hold: Callable[[], Hold]) -> None:
        """`hold` gives what is counted into. What came of a change is sent whatever room there is: it has been made."""
        self._send: Final = send
        self._is_reading: Final = is_reading
        self._new: Final = hold
        self._hold: Hold | None = None
        self._start: MutableMapping[str, Any] | None = None
        self._is_refused = False

    @property
    def hold(self) -> Hold:
        """What of it is counted already, by whoever makes it."""
        if self._hold is None:
            self._hold = self._new()
        return self._hold

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """As ASGI has it. The head waits for what follows it: an answer for which there is no room is another one."""
        if message["type"] != "http.response.body":
            self._start = message
            return
        if self._is_refused:
            return
        body = message.get("body", b"")
        if len(body) > PART_BYTES and not self._has_room(len(body)):
            self._is_refused = True
            await answer(self._send, *problem(BusyError("too many answers are on their way: wait a moment, then ask")))
            return
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)
        for first in range(0, len(body) - PART_BYTES, PART_BYTES):
            part = body[first : first + PART_BYTES]
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        rest = body[(len(body) - 1) // PART_BYTES * PART_BYTES :] if len(body) > PART_BYTES else body
        await self._send({**message, "body": rest})

    def _has_room(self, count: int) -> bool:
        """Count so many bytes, of which some may be counted already."""
        more = max(0, count - self.hold.bytes)
        if self._start is None or not self._is_reading:
            self.hold.owe(more)
            return True
        try:
            self.hold.take(more)
        except BusyError:
            return False
        return True

    def __enter__(self) -> Answering:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hold is not None:
            self._hold.give_back(self._hold.bytes)
