"""Turns at the threads of the routes: one tenant has half of them at once, and the rest of its requests wait for those.

A turn begins before anything is looked up, and ends when the answer is there: how long it takes to be read is no
thread's time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from tallystick.errors import BusyError

THREADS: Final = 10
"""In which routes do their work: each that wants the interpreter may have the loop wait for five milliseconds."""

WAITING_MAX: Final = 256
"""Requests of one tenant that wait for a turn."""


class Shares:
    """The turns of all tenants of one process. To be used from its event loop only."""

    def __init__(self, most: int = THREADS // 2, *, waiting_max: int = WAITING_MAX) -> None:
        self._most: Final = most
        self._waiting_max: Final = waiting_max
        self._tenants: Final[dict[str, _Tenant]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nobody has a turn."""
        return not self._tenants

    async def turn(self, tenant: str) -> Turn:
        """Wait for a turn. Raises `BusyError` when too many wait already."""
        mine = self._tenants.setdefault(tenant, _Tenant())
        if mine.running < self._most:
            mine.running += 1
            return Turn(self, tenant)
        if len(mine.waiting) >= self._waiting_max:
            raise BusyError(f"{self._waiting_max} requests wait already: wait a moment, then ask again")
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.waiting.append(due)
        try:
            await due
        except asyncio.CancelledError:
            if due.done() and not due.cancelled():
                self.give_back(tenant)
            raise
        return Turn(self, tenant)

    def give_back(self, tenant: str) -> None:
        """A turn is over: the next one's begins."""
        mine = self._tenants[tenant]
        while mine.waiting:
            due = mine.waiting.popleft()
            if not due.done():
                due.set_result(None)
                return
        mine.running -= 1
        if not mine.running:
            del self._tenants[tenant]


class _Tenant:
    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: Final[deque[asyncio.Future[None]]] = deque()


class Turn:
    """One turn, until it is over."""

    __slots__ = ("_shares", "_tenant")

    def __init__(self, shares: Shares, tenant: str) -> None:
        self._shares: Shares | None = shares
        self._tenant: Final = tenant

    def end(self) -> None:
        """It is over. Ending twice is harmless."""
        if self._shares is not None:
            shares, self._shares = self._shares, None
            shares.give_back(self._tenant)
