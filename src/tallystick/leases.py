"""Leases: ledgers that are open because somebody uses them, or did a while ago; never more than a bound at once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from tallystick.errors import BusyError
from tallystick.ledger import Ledger, Pulse


class Ledgers:
    """Open ledgers by name, the least lately used first. Safe for many threads."""

    def __init__(self, open_one: Callable[[str], Ledger], *, open_max: int, idle_seconds: float) -> None:
        self._open_one: Final = open_one
        self._open_max: Final = open_max
        self._idle_seconds: Final = idle_seconds
        self._known: Final[OrderedDict[str, _Open]] = OrderedDict()
        self._turn: Final = threading.RLock()

    def __len__(self) -> int:
        return len(self._known)

    def take(self, name: str) -> Ledger:
        """A ledger, opened if it is not, that stays open until it is given back. Raises `BusyError`."""
        with self._turn:
            found = self._known.get(name)
            if found is None:
                self._make_room()
                found = self._known[name] = _Open(self._open_one(name))
            found.users += 1
            self._known.move_to_end(name)
            return found.ledger

    def give_back(self, name: str) -> None:
        """It is not used any more by whoever took it."""
        with self._turn:
            found = self._known.get(name)
            if found is not None:  # else all were closed meanwhile
                found.users -= 1
                found.used_at = time.monotonic()

    def pulses(self) -> list[Pulse]:
        """How those stand that are open."""
        with self._turn:
            return [one.ledger.pulse() for one in self._known.values()]

    def tidy(self) -> None:
        """Close what nobody has used for a while."""
        with self._turn:
            before = time.monotonic() - self._idle_seconds
            for name in [name for name, one in self._known.items() if not one.users and one.used_at < before]:
                self._known.pop(name).ledger.close()

    def close(self) -> None:
        """Close all, also those that are in use."""
        with self._turn:
            while self._known:
                self._known.popitem()[1].ledger.close()

    def _make_room(self) -> None:
        if len(self._known) < self._open_max:
            return
        for name, one in self._known.items():
            if not one.users:
                self._known.pop(name).ledger.close()
                return
        raise BusyError(f"{self._open_max} ledgers are in use, and no more are opened: wait a moment, then repeat")


class _Open:
    __slots__ = ("ledger", "used_at", "users")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.users = 0
        self.used_at = time.monotonic()
