"""Comparing the stored roll-ups in an index file with the log: every cell is counted again.

What a roll-up has is the records below its position that are there, counted by its definition, and those that were
pruned. Of these the log has no records any more, but what they came to was sealed with the prune: a roll-up has those
sealed cells, whether it counted the records itself or took the cells over. Which of the two says `sealed_below`, and
what it says has to come out at the same cells.

The cells that there should be are a temporary table, so that memory is bounded by those of one range of records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Final

import apsw
import orjson

from tallystick.core import timestamp
from tallystick.core.corrected import Times
from tallystick.core.custody import RECORDS_PRUNED
from tallystick.core.measure import Totals
from tallystick.core.record import Record
from tallystick.core.rollup import ROLLUP_SEALED, TYPES, Definition, SealedCells
from tallystick.errors import RejectedError, StoreError
from tallystick.limits import ROLLUPS_MAX
from tallystick.read.index import KeptRollup
from tallystick.read.rollup import Rollup
from tallystick.read.sqlite_rollups import add_cells
from tallystick.sqlite_file import named_statements, run_script
from tallystick.store.contract import Store, StoredRecord

_QUARTER: Final = 900 * timestamp.SECOND
_DIFFERENT_MAX: Final = 100
"""Cells that are named; there may be more, and the index is rebuilt anyway."""

OWN: Final = b'"event_type":"tallystick.r'
"""What is in every record of a prune, and of sealed cells."""

Add = Callable[[str, int | None], None]
"""Notes what is wrong, and the position that it is of, if there is one."""


class RollupCheck:
    """One comparison of the roll-ups of the index attached as `saved`, which answers up to `end`.

    It is given every record below `end`, in order, then those past it, and then asked to `finish`.
    """

    def __init__(self, connection: apsw.Connection, store: Store, *, end: int, add: Add, times: Times) -> None:
        self._connection: Final = connection
        self._store: Final = store
        self._end: Final = end
        self._add: Final = add
        self._times: Final = times
        self._sql: Final = _statements()
        self._rollups: Final[dict[str, tuple[Rollup, KeptRollup]]] = {}
        self._begins_right: Final[set[str]] = set()
        """The roll-ups whose `sealed_below` is behind cells that were sealed."""
        self._uncounted: Final[set[str]] = set()
        self._is_known = True
        """Whether all records could be read. What is damaged the scan of the log finds."""
        self.prune_at = 0
        """The position of the newest prune."""
        self._prune_before = 0
        self._types_sealed_at = 0
        self.knows_tally = True
        """Whether every prune has sealed what it removed by type and time."""
        run_script(connection, self._sql["tables"])
        self._read()

    def take(self, first: int, lines: Sequence[StoredRecord] | None) -> None:
        """Count the records of a range that begins at `first`; None for one that cannot be read."""
        if lines is None:
            self._is_known = self.knows_tally = False
            return
        try:
            self._count(first, lines)
            for stored in lines:
                if OWN in stored.line:
                    self._take_own(stored)
        except (RejectedError, orjson.JSONDecodeError, LookupError, TypeError, ValueError):
            self._is_known = self.knows_tally = False

    def take_newer(self) -> None:
        """Take what was pruned since `end`: roll-ups have counted it, and the index has not read that it was."""
        head = self._store.head() if self._store.pruned_below() else None
        try:
            for stored in self._store.read(self._end, head.size if head else 0):
                if OWN in stored.line:
                    self.take(stored.position, [stored])
        except StoreError:
            self.take(self._end, None)

    def finish(self) -> None:
        """Compare, when all records were taken."""
        for (name,) in self._connection.execute(self._sql["strays"]).fetchall():
            self._add(f"cells of the roll-up {str(name)[:60]!r}, which there is not", None)
        if not self._is_known:
            return
        for name, (_, kept) in sorted(self._rollups.items()):
            if name in self._uncounted:
                self._add(f"the roll-up {name!r} has not counted records that were pruned since", None)
            elif kept.sealed_below and name not in self._begins_right:
                self._add(f"the roll-up {name!r} says that it began at another prune than there was", None)
        for name, bucket, group in islice(self._different(), _DIFFERENT_MAX):
            of_group = f" of {group[:60]!r}" if group else ""
            self._add(f"the roll-up {name!r} has other figures{of_group} for the time from {_shown(bucket)} on", None)

    def leave_newest_prune(self) -> None:
        """The index still has the rows of what the newest prune removed: they are counted, and not what was sealed."""
        self._connection.execute("DELETE FROM temp.sealed_tally WHERE sealed_at > ?", (self._prune_before,))

    def _read(self) -> None:
        """Which roll-ups there are. What a definition is says the log."""
        rows: list[Any] = self._connection.execute(
            "SELECT name, definition, defined_at, position, sealed_below FROM saved.rollup ORDER BY name LIMIT ?",
            (ROLLUPS_MAX + 2,),
        ).fetchall()
        if len(rows) > ROLLUPS_MAX + 1:
            self._add(f"there are more than {ROLLUPS_MAX} roll-ups", None)
        for name, *values in rows:
            kept = KeptRollup(*values)
            rollup = self._definition(name, kept.defined_at)
            if rollup is None or rollup.definition.digest != kept.definition:
                self._add(f"the roll-up {name[:60]!r} counts by another definition than the ledger has", None)
            elif not 0 <= kept.position <= self._end:
                self._add(f"the roll-up {name!r} has counted {kept.position} records, the index {self._end}", None)
            else:
                self._rollups[name] = (rollup, kept)

    def _definition(self, name: str, defined_at: int) -> Rollup | None:
        if name == TYPES.name:
            return None if defined_at else Rollup.of(TYPES, 0)
        for stored in self._store.fetch([defined_at]) if defined_at >= 0 else ():
            try:
                definition = Definition.of(Record.parse(stored.line))
                return Rollup.of(definition, defined_at) if definition.name == name else None
            except RejectedError:
                return None
        return None

    def _count(self, first: int, lines: Sequence[StoredRecord]) -> None:
        counting = [
            (rollup, kept.position, rollup.bucketed(self._times))
            for rollup, kept in self._rollups.values()
            if rollup.name != TYPES.name and kept.position > first
        ]
        if not counting:
            return
        for stored in lines:
            record = Record(stored.line, orjson.loads(stored.line))
            for rollup, end, cells in counting:
                if stored.position < end and rollup.query.takes(record):
                    cells.add(record)
        self._connection.execute("SAVEPOINT counted")
        for rollup, _, cells in counting:
            add_cells(self._connection, "temp.counted_cell", rollup.name, cells.cells)
        self._connection.execute("RELEASE counted")

    def _take_own(self, stored: StoredRecord) -> None:
        event_type = orjson.loads(stored.line)["event_type"]
        if event_type == RECORDS_PRUNED:
            # Right before it is what it removed, in the same commit.
            self.knows_tally = self.knows_tally and self._types_sealed_at > self.prune_at
            self._prune_before, self.prune_at = self.prune_at, stored.position
        elif event_type == ROLLUP_SEALED:
            self._take_sealed(stored.position, SealedCells.of(Record.parse(stored.line)))

    def _take_sealed(self, position: int, sealed: SealedCells) -> None:
        """What records came to that were pruned, or are about to be."""
        of_types = (sealed.rollup, sealed.digest) == (TYPES.name, TYPES.digest)
        if of_types:
            self._types_sealed_at = position
        rollup, kept = self._rollups.get(sealed.rollup, (None, None))
        if self._store.fetch([sealed.first]):
            return  # sealed, and not removed yet: the records themselves are counted
        if rollup is None or kept is None or rollup.definition.digest != sealed.digest:
            return
        cells = sealed.counted(position, rollup.times(self._times), rollup.calendar)
        if position + 1 == kept.sealed_below:
            self._begins_right.add(rollup.name)
        if position < kept.sealed_below:
            if position < kept.position:
                add_cells(self._connection, "temp.counted_cell", rollup.name, cells)
        elif (self._end if of_types else kept.position) < sealed.end:
            # What a prune removes is counted before, by type as the index reads it: so this one is older.
            self._uncounted.add(rollup.name)
        elif of_types:
            rows = [(position, bucket // _QUARTER, group, one.records) for (bucket, group), one in cells.items()]
            self._connection.executemany("INSERT INTO temp.sealed_tally VALUES (?,?,?,?)", rows)
        else:
            add_cells(self._connection, "temp.counted_cell", rollup.name, cells)

    def _different(self) -> Iterator[tuple[str, int, str]]:
        """The cells that do not say what they should. The same number may be written in two ways."""
        for name, bucket, group, *row in self._connection.execute(self._sql["cells"]):
            if name in self._rollups and name not in self._uncounted and not _is_same(row[:5], row[5:]):
                yield name, bucket, group


def _is_same(found: Sequence[Any], counted: Sequence[Any]) -> bool:
    if found[0] is None or counted[0] is None:
        return False
    try:
        one, other = Totals.read(*found), Totals.read(*counted)
    except RejectedError:
        return False
    return (one.records, one.numbers, one.total, one.least, one.most) == (
        *(other.records, other.numbers, other.total),
        *(other.least, other.most),
    )


def _shown(bucket: int) -> str:
    try:
        return timestamp.render(bucket)
    except (RejectedError, OverflowError, ValueError):
        return f"{bucket} µs"


@cache
def _statements() -> dict[str, str]:
    return named_statements(files("tallystick.read").joinpath("index_check_rollups.sql").read_text("utf-8"))
