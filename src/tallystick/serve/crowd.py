"""The connections of a process: how many there may be, and which one is closed when one more comes.

Whoever asks is let in, and whoever only holds a connection gives way: of the silent, on which no whole head has come,
the oldest, and of the others the one that has rested for longest. The silent have places of their own: so nobody who
was answered before is closed for one who never spoke. One address has half of each, but not a proxy that is trusted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal, NamedTuple, TypeAlias

CONNECTIONS_MAX: Final = 4_096
"""Connections of one process on which somebody asked something, those of streams among them."""

SILENT_MAX: Final = 1_024
"""Connections on which no whole head has come yet, those that are still about their keys of TLS among them."""

BACKLOG_MAX: Final = 2_048
"""Connections that the system has and nobody took yet. All of them may be taken in one turn of the loop."""

_HANDLES_APART: Final = 32
_NETWORK_BITS: Final = 64
"""Of an IPv6 address what is a network's: whoever has one has all of them."""

_State: TypeAlias = Literal["silent", "busy", "idle", "apart", "gone"]
_Places: TypeAlias = "OrderedDict[Place, None]"


class Bounds(NamedTuple):
    """How many connections there may be."""

    speaking: int = CONNECTIONS_MAX
    silent: int = SILENT_MAX
    backlog: int = BACKLOG_MAX

    @classmethod
    def within(cls, handles: int) -> Bounds:
        """What half of the file handles of a process is enough for, with all that is taken before others are closed."""
        half = max(handles // 2 - _HANDLES_APART, 40)
        backlog = min(BACKLOG_MAX, half // 4)
        silent = min(SILENT_MAX, (half - backlog) // 5)
        return cls(min(CONNECTIONS_MAX, half - backlog - silent), silent, backlog)


class Crowd:
    """The connections of one process. To be used from its event loop only."""

    def __init__(self, bounds: Bounds = Bounds(), *, is_proxy: Callable[[str], bool] = lambda _: False) -> None:  # noqa: B008 - it is a value
        self.bounds: Final = bounds
        self._is_proxy: Final = is_proxy
        self._all: Final = _Party()
        self._parties: Final[dict[int | str, _Party]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept of anybody."""
        return not (self._parties or self._all.speaking or self._all.silent or self._all.idle)

    def enter(self, host: str | None, abort: Callable[[], object]) -> Place:
        """A connection from an address, which `abort` closes at once. Another process of ours has none."""
        if host is None:
            return Place(self, (), "apart", abort)
        key = None if self._is_proxy(host) else _network(host)
        parties = (self._all,) if key is None else (self._all, self._parties.setdefault(key, _Party(key)))
        place = Place(self, parties, "silent", abort)
        for party in parties:
            party.silent[place] = None
        for party in reversed(parties):  # its own first
            if len(party.silent) > self._most(party, self.bounds.silent):
                self._close(party.silent)
                break
        return place

    def speak(self, place: Place) -> bool:
        """A whole head has come. False when there is no room for one more who asks: all others are being answered."""
        if place.state == "silent":
            for party in reversed(place.parties):
                if party.speaking >= self._most(party, self.bounds.speaking):
                    if not party.idle:
                        return False
                    self._close(party.idle)
            for party in place.parties:
                del party.silent[place]
                party.speaking += 1
            place.state = "busy"
        elif place.state == "idle":
            for party in place.parties:
                del party.idle[place]
            place.state = "busy"
        return True

    def rest(self, place: Place) -> None:
        """All that was asked is answered."""
        if place.state == "busy":
            place.state = "idle"
            for party in place.parties:
                party.idle[place] = None

    def leave(self, place: Place) -> None:
        """The connection is gone. Leaving twice is harmless."""
        for party in place.parties:
            if place.state in ("busy", "idle"):
                party.speaking -= 1
            party.silent.pop(place, None)
            party.idle.pop(place, None)
            if party.key is not None and not party.speaking and not party.silent:
                self._parties.pop(party.key, None)
        place.parties, place.state = (), "gone"

    def close_silent(self) -> None:
        """Close all on which nobody asked anything, as nobody waits for an answer."""
        while self._all.silent:
            self._close(self._all.silent)

    def _most(self, party: _Party, most: int) -> int:
        return most if party.key is None else max(most // 2, 1)

    def _close(self, places: _Places) -> None:
        """Close the one that came first of these."""
        oldest = next(iter(places))
        self.leave(oldest)
        oldest.abort()


class _Party:
    """The connections of one address, or of all of them."""

    __slots__ = ("idle", "key", "silent", "speaking")

    def __init__(self, key: int | str | None = None) -> None:
        self.key: Final = key
        self.silent: Final[_Places] = OrderedDict()
        self.idle: Final[_Places] = OrderedDict()
        self.speaking = 0
        """On how many somebody asked, those at rest among them."""


class Place:
    """One connection among all."""

    __slots__ = ("_crowd", "abort", "parties", "state")

    def __init__(self, crowd: Crowd, parties: tuple[_Party, ...], state: _State, abort: Callable[[], object]) -> None:
        self._crowd: Final = crowd
        self.parties = parties
        self.state: _State = state
        self.abort = abort

    def speak(self) -> bool:
        """See `Crowd.speak`."""
        return self._crowd.speak(self)

    def rest(self) -> None:
        """See `Crowd.rest`."""
        self._crowd.rest(self)

    def leave(self) -> None:
        """See `Crowd.leave`."""
        self._crowd.leave(self)


def _network(host: str) -> int | str:
    """Who an address is of: an address of IPv4, a network of IPv6."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped) if address.ipv4_mapped else int(address) >> _NETWORK_BITS
