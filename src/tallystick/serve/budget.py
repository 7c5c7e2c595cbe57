"""How many bytes of requests, and of answers, are in memory, of all callers of a process together, so that no crowd of
them fills it.

Bytes are counted where they exist: those of requests as they arrive, once more as they are unpacked, and as long as
their events wait to be sealed; those of answers from when they are made until they are taken. Whoever wants more than
there is gets a 503, with the request unread, or the answer not made, and comes again.
"""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Final

from tallystick.errors import BusyError
from tallystick.limits import BODIES_BYTES_MAX, TENANT_BODIES_BYTES_MAX

SMALL_BYTES: Final = 65_536
"""Requests up to this find room where large ones do not any more: the last eighth is theirs."""


class Budget:
    """The bytes of one process, and of each tenant. Safe for many threads."""

    def __init__(self, most: int = BODIES_BYTES_MAX, *, tenant_most: int = TENANT_BODIES_BYTES_MAX) -> None:
        self._most: Final = most
        self._tenant_most: Final = tenant_most
        self._lock: Final = threading.Lock()
        self._used: Final[Counter[str]] = Counter()
        self.used = 0
        """By all together."""

    def hold(self, tenant: str) -> Hold:
        """What one request of a tenant takes: nothing yet, and nothing any more at the end of a `with`."""
        return Hold(self, tenant)

    def take(self, tenant: str, count: int, *, is_small: bool, is_due: bool = False) -> None:
        """Raises `BusyError` when there are not so many bytes left, for a small request or for any.

        What `is_due` is counted whether or not there are.
        """
        part = 8 if is_small else 7
        with self._lock:
            total, its_own = self.used + count, self._used[tenant] + count
            if not is_due and (total > self._most * part // 8 or its_own > self._tenant_most * part // 8):
                raise BusyError("too much is on its way at once: wait a moment, then send the same again")
            self.used += count
            self._used[tenant] += count

    def give_back(self, tenant: str, count: int) -> None:
        """They are not in memory any more."""
        with self._lock:
            self.used -= count
            self._used[tenant] -= count
            if not self._used[tenant]:
                del self._used[tenant]


class Hold:
    """What one request takes of a budget. A context manager; for one thread at a time."""

    __slots__ = ("_budget", "_tenant", "bytes")

    def __init__(self, budget: Budget, tenant: str) -> None:
        self._budget: Final = budget
        self._tenant: Final = tenant
        self.bytes = 0

    def take(self, count: int) -> None:
        """So many bytes more. Raises `BusyError`, and takes none then."""
        self._budget.take(self._tenant, count, is_small=self.bytes + count <= SMALL_BYTES)
        self.bytes += count

    def owe(self, count: int) -> None:
        """So many bytes more, which are there already, whatever room there is."""
        self._budget.take(self._tenant, count, is_small=True, is_due=True)
        self.bytes += count

    def give_back(self, count: int) -> None:
        """So many bytes less."""
        self._budget.give_back(self._tenant, count)
        self.bytes -= count

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back(self.bytes)
