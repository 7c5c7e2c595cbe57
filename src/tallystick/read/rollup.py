"""Stored roll-ups: cells of time and group that are kept up as records come, and that outlive them.

A roll-up is defined by an event, follows the index with a cursor of its own, and can be made anew from the log (I5).
Before records are removed for good, what they come to is sealed as events. A roll-up that begins when they are gone
takes it from there; one that has counted them itself passes over it. A later definition of the same name
replaces the earlier one, and counts what is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tallystick.core.buckets import Calendar
from tallystick.core.canonical import canonical, decode
from tallystick.core.corrected import NEVER_CORRECTED, Times, never_corrected
from tallystick.core.record import Record
from tallystick.core.rollup import ROLLUP_DEFINED, ROLLUP_SEALED, TYPES, Cells, Definition, SealedCells
from tallystick.errors import PruneTooLargeError, RejectedError, TamperError
from tallystick.limits import PRUNE_CELLS_MAX, ROLLUP_CELLS_MAX, ROLLUPS_MAX
from tallystick.read.bucketed import Bucketed
from tallystick.read.index import KeptRollup, RollupRows
from tallystick.read.query import Query, parse_terms
from tallystick.read.search import Search
from tallystick.store.contract import Store

SealOwn = Callable[[str, dict[str, Any]], object]
"""Seals one of the ledger's own events, of a type and a payload."""

_STEP_RECORDS: Final = 50_000
"""Positions that a roll-up passes in one step; the cells of a step are in memory."""

_STEP_CELLS: Final = 50_000
"""A step ends at the record with which it has so many cells: a record may have a cell for each of its labels."""

_LAG_RECORDS: Final = 10_000
"""How far behind the built-in roll-up may stay, as it waits for one kind of event only."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """A definition in force, read."""

    definition: Definition
    defined_at: int
    query: Query
    calendar: Calendar

    @classmethod
    def of(cls, definition: Definition, defined_at: int) -> Rollup:
        calendar = Calendar(definition.width, definition.zone)
        return cls(definition, defined_at, parse_terms(definition.terms), calendar)

    @property
    def name(self) -> str:
        return self.definition.name

    def times(self, times: Times) -> Times:
        """What its records count by, of the times that they were recorded at. What events claim is never corrected."""
        return times if self.definition.time == "recorded" else NEVER_CORRECTED

    def bucketed(self, times: Times = NEVER_CORRECTED) -> Bucketed:
        """Cells to begin with: none."""
        made_of = self.definition
        return Bucketed(self.calendar, group=made_of.group, time=made_of.time, path=made_of.path, times=times)


class Rollups:
    """The roll-ups of one ledger. Safe for many threads, and beside other processes."""

    def __init__(
        self, store: Store, search: Search, rows: RollupRows, *, times: Callable[[int], Times] = never_corrected
    ) -> None:
        """`times` gives what the first so many records count by."""
        self._store: Final = store
        self._times: Final = times
        self._search: Final = search
        self._rows: Final = rows
        self._reading: Final = threading.Lock()
        """Guards what is known of definitions."""
        self._moving: Final = threading.Lock()
        self._moving_types: Final = threading.Lock()
        """Held while roll-ups move on: two threads would do the same twice."""
        self._known: Final[dict[str, Rollup]] = {}
        self._known_end = 0
        self._types: Final = Rollup.of(TYPES, 0)

    def defined(self, size: int) -> dict[str, Rollup]:
        """The roll-ups in force at that size, or a little later, by name."""
        with self._reading:
            self._read_definitions(size)
            return dict(self._known)

    def define(self, definition: Definition, *, size: int, seal_own: SealOwn) -> None:
        """Have the ledger define a roll-up, or another one of that name. Raises `RejectedError`."""
        definition.check_not_ours()
        query = parse_terms(definition.terms)
        assert query.terms() == [*definition.terms], "the terms are those of a query"
        known = self.defined(size)
        present = known.get(definition.name)
        if present is None and len(known) >= ROLLUPS_MAX:
            cure = "define one that is there already anew"
            raise RejectedError(f"the ledger has {ROLLUPS_MAX} roll-ups, and may not have more", cure=cure)
        if present is None or present.definition != definition:
            seal_own(ROLLUP_DEFINED, definition.payload())

    def advance(self, size: int) -> None:
        """Have every roll-up count the first `size` records, which the index has."""
        with self._moving_types:
            self._advance_types(size, lag=0)
        for rollup in self.defined(size).values():
            with self._moving:
                self._advance(rollup, size)

    def advance_types(self, size: int) -> None:
        """Have the index's tally bring back what was sealed of it in the first `size` records."""
        with self._moving_types:
            self._advance_types(size, lag=_LAG_RECORDS)

    def cells(self, rollup: Rollup, *, first: int, end: int, size: int, take: Callable[[Cells], None]) -> int | None:
        """Hand to `take` the cells of buckets that begin in [first, end), in their order, and say which size they
        speak for: this one or a later.

        None when it was replaced meanwhile. Raises `RejectedError` when they are too many, and what `take` raises.
        """
        with self._moving:
            self._advance(rollup, size)
        digest = rollup.definition.digest
        found = self._rows.cells(rollup.name, digest, first=first, end=end, most=ROLLUP_CELLS_MAX, take=take)
        return found if found is not None and found >= size else None

    def seal_removed(
        self, end: int, records: Iterable[Record], *, size: int, own: Iterable[Record] | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        """The events, by type and payload, by which roll-ups outlive all records that a prune will remove below `end`.

        To be sealed with the record of the prune, before anything is removed. A prune that was cut short there is
        finished without asking again, and before the next. The ledger's own records are never among those removed.
        `size` is the ledger's, and followed. `own` are the ledger's own records, proven to be all: what the index
        leaves out would be lost for good. Without them its definitions count.

        `PruneTooLargeError` where they come to more cells than one prune may seal.
        """
        self.advance(size)
        defined = self.defined(size) if own is None else _defined_by(one for one in own if one.position < size)
        times = self._times(size)
        counted = [(rollup, rollup.bucketed(times)) for rollup in (*defined.values(), self._types)]
        first: int | None = None
        for record in records:
            first = record.position if first is None else first
            for rollup, cells in counted:
                if rollup.query.takes(record):
                    cells.add(record)
            # All of them are in memory until they are sealed with the prune, in one transaction.
            if sum(len(cells.cells) for _, cells in counted) > PRUNE_CELLS_MAX and record.position > first:
                raise PruneTooLargeError(record.position)
        if first is None:
            return []
        return [
            (ROLLUP_SEALED, decode(canonical(part.payload())))
            for rollup, cells in counted
            for part in SealedCells.split(rollup.definition, cells.cells, first=first, end=end)
        ]

    def _read_definitions(self, size: int) -> None:
        asked = Query(event_types=(ROLLUP_DEFINED,))
        self._known.update(_defined_by(self._search.scan(asked, first=self._known_end, end=size)))
        self._known_end = max(size, self._known_end)

    def _advance(self, rollup: Rollup, size: int) -> None:
        """Count from where the roll-up has come to, step by step. A crash between steps leaves the last one."""
        while True:
            kept = self._begun(rollup, size)
            if kept is None or kept.position >= size:
                return
            end = min(kept.position + _STEP_RECORDS, size)
            cells = rollup.bucketed(self._times(size))
            for record in self._search.glances(rollup.query, first=kept.position, end=end):
                cells.add(record)
                if len(cells.cells) >= _STEP_CELLS:
                    end = record.position + 1
                    break
            for gone in self._gone_before(rollup, kept, end=end, size=size):
                cells.merge(gone)
            # If it could not be added, another process has moved it on: from there, then.
            self._rows.add(rollup.name, kept, cells.cells, end=end)

    def _advance_types(self, size: int, *, lag: int) -> None:
        """The records themselves are counted by the index, as it saves them."""
        rollup = self._types
        while True:
            kept = self._begun(rollup, size)
            if kept is None or kept.position >= size:
                return
            cells = rollup.bucketed()
            for gone in self._gone_before(rollup, kept, end=size, size=size):
                cells.merge(gone)
            if not cells.cells and size - kept.position < lag:
                return
            self._rows.add(rollup.name, kept, cells.cells, end=size)

    def _begun(self, rollup: Rollup, size: int) -> KeptRollup | None:
        """How far the roll-up has come, be it only begun; None when another process knows a later definition."""
        digest = rollup.definition.digest
        kept = self._rows.kept(rollup.name)
        if kept is None or (kept.definition != digest and kept.defined_at <= rollup.defined_at):
            # Prunes are finished in the order in which they were sealed: of neighbours all are gone, up to one.
            sealed = self._sealed(rollup, first=0, end=size)
            gone = (position + 1 for position, cells in sealed if not self._store.fetch([cells.first]))
            self._rows.begin(rollup.name, KeptRollup(digest, rollup.defined_at, 0, max(gone, default=0)))
            kept = self._rows.kept(rollup.name)
        return kept if kept is not None and kept.definition == digest else None

    def _gone_before(self, rollup: Rollup, kept: KeptRollup, *, end: int, size: int) -> Iterator[Cells]:
        """The cells of records that the roll-up never saw, as it passes what was sealed below `end`."""
        first, end, times = kept.position, min(end, kept.sealed_below), rollup.times(self._times(size))
        for position, sealed in self._sealed(rollup, first=first, end=end):
            yield sealed.counted(position, times, rollup.calendar)

    def _sealed(self, rollup: Rollup, *, first: int, end: int) -> Iterator[tuple[int, SealedCells]]:
        for record in self._search.scan(Query(event_types=(ROLLUP_SEALED,)), first=first, end=end):
            sealed = _read_sealed(record)
            if (sealed.rollup, sealed.digest) == (rollup.name, rollup.definition.digest):
                yield record.position, sealed


def _defined_by(records: Iterable[Record]) -> dict[str, Rollup]:
    """The roll-ups in force by what records in their order say; those of other types say nothing."""
    found: dict[str, Rollup] = {}
    for record in records:
        if record.event_type == ROLLUP_DEFINED:
            definition = _read_definition(record)
            found[definition.name] = Rollup.of(definition, record.position)
    return found


def _read_definition(record: Record) -> Definition:
    try:
        return Definition.of(record)
    except RejectedError as error:
        if error.place == "zone":  # which this machine does not know
            raise
        raise TamperError(f"the roll-up at position {record.position} cannot be read: {error}") from error


def _read_sealed(record: Record) -> SealedCells:
    try:
        return SealedCells.of(record)
    except RejectedError as error:
        raise TamperError(f"the sealed cells at position {record.position} cannot be read: {error}") from error
