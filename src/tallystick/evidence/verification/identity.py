"""Whether an event id stands twice (SPEC 8, step 8): the promise on which a safe repeat rests.

Ids that ledgers make come in runs, and two runs of one prefix that overlap have an id in common. Ids that
callers brought are compared by a 64-bit hash, and a hit is read back before it counts. Memory is bounded:
past the bounds further ids are not followed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Final

from tallystick.evidence.findings import Finding, Kind
from tallystick.ids import spell, split_made

BROUGHT_MAX: Final = 4_000_000
RUNS_MAX: Final = 1_000_000


@dataclass(slots=True)
class Ids:
    """The event ids of neighbouring records, in small. Fed in the order of positions."""

    hashes: array[int] = field(default_factory=lambda: array("q"))
    positions: array[int] = field(default_factory=lambda: array("q"))
    """Of the brought ids, one for one."""
    runs: dict[str, list[list[int]]] = field(default_factory=dict)
    """Of the made ids: counter, position and length, by prefix."""
    _next: str = ""
    _run: list[int] = field(default_factory=list)
    _prefix: str = ""

    def add(self, event_id: str, position: int) -> None:
        """Take the id of the next record."""
        run = self._run
        if event_id == self._next and run[1] + run[2] == position:
            run[2] += 1
            self._next = spell(self._prefix, run[0] + run[2])
            return
        made = split_made(event_id)
        if made is None:
            self.hashes.append(hash_id(event_id))
            self.positions.append(position)
            return
        self._prefix, counter = made
        self._run = [counter, position, 1]
        self._next = spell(self._prefix, counter + 1)
        self.runs.setdefault(self._prefix, []).append(self._run)


class IdCheck:
    """Holds the ids of all ranges together."""

    def __init__(self) -> None:
        self._all: Final = Ids()
        self._count = 0

    def add(self, ids: Ids) -> None:
        """Take the next range."""
        room = BROUGHT_MAX - len(self._all.hashes)
        self._all.hashes.extend(ids.hashes[:room])
        self._all.positions.extend(ids.positions[:room])
        for prefix, runs in ids.runs.items():
            if self._count < RUNS_MAX:
                known = self._all.runs.setdefault(prefix, [])
                _join(known, runs)
                self._count += len(runs)

    def findings(self, id_at: Callable[[int], str | None]) -> list[Finding]:
        """The positions at which an id stands again. `id_at` reads the id of a record."""
        return [
            Finding(Kind.DUPLICATE_ID, later, f"its id stands at position {earlier} already")
            for earlier, later in [*self._repeated_runs(), *self._repeated_hashes(id_at)]
        ]

    def _repeated_runs(self) -> list[tuple[int, int]]:
        repeated = []
        for runs in self._all.runs.values():
            for (counter, position, length), (other, elsewhere, _) in pairwise(sorted(runs)):
                if other < counter + length:
                    repeated.append((position + other - counter, elsewhere))
        return [(min(pair), max(pair)) for pair in repeated]

    def _repeated_hashes(self, id_at: Callable[[int], str | None]) -> list[tuple[int, int]]:
        twice = {one for one, other in pairwise(sorted(self._all.hashes)) if one == other}
        first: dict[str, int] = {}
        repeated = []
        for hashed, position in zip(self._all.hashes, self._all.positions, strict=True) if twice else ():
            event_id = id_at(position) if hashed in twice else None
            if event_id is not None and first.setdefault(event_id, position) != position:
                repeated.append((first[event_id], position))
        return repeated


def _join(known: list[list[int]], runs: list[list[int]]) -> None:
    """Append runs, the first to the last known one if it continues it."""
    head, *rest = runs
    last = known[-1] if known else None
    if last and (last[0] + last[2], last[1] + last[2]) == (head[0], head[1]):
        last[2] += head[2]
        known.extend(rest)
    else:
        known.extend(runs)


def hash_id(event_id: str) -> int:
    """A signed 64-bit hash of an event id. Different ids may share one: hits are candidates."""
    return int.from_bytes(sha256(event_id.encode()).digest()[:8], "big", signed=True)
