"""The lawful prune of the SQLite store: the one deletion there is, and how nothing of it stays in the file.

All of it is one transaction, with the triggers that refuse it taken down and put back inside. SQLite overwrites what
it deletes (`secure_delete`), but moves neighbours between pages as these empty, and leaves copies of them in
what then is unused room, to be found there when they themselves were pruned. So while rows are deleted, whatever
could be moved holds zeros: what goes for good, and its neighbours until they get their bytes back, in place.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import apsw

from tallystick.core.merkle import TILE_WIDTH, leaf_hash
from tallystick.errors import DamagedError, StoreError
from tallystick.limits import SIZE_MAX
from tallystick.sqlite_file import query, transaction

_AT_ONCE: Final = 100_000
"""Positions handed over in one statement: a megabyte of JSON."""

_REACH_BYTES: Final = 65_536
"""How far from a deleted row others may be moved: SQLite evens out three neighbouring pages of 8 KB at a time."""

_ROW_BYTES_MAX: Final = 1_000
"""What a row takes of its page at least when it is long, and most of it lies on pages of its own."""

_VACUUM_PAGES: Final = 2_000
"""Free pages given back in one transaction: 16 MB that other writers wait for."""

_SELECT_TRIGGERS: Final = (
    "SELECT name, sql FROM sqlite_schema WHERE name IN ('record_no_update', 'record_no_delete', 'leaf_no_delete')"
)
_SELECT_UNCOVERED: Final = (
    "SELECT position, bytes FROM record WHERE position >= ? AND position < ? AND position NOT IN temp.kept"
)
_SELECT_LENGTHS: Final = (
    "SELECT position, length(bytes), position >= ? OR position IN temp.kept FROM record ORDER BY position"
)
_ZERO_DOOMED: Final = (
    "UPDATE record SET bytes = zeroblob(length(bytes)) WHERE position < ? AND position NOT IN temp.kept"
)
_ZERO_PARKED: Final = (
    "UPDATE record SET bytes = zeroblob(length(bytes)) WHERE position IN (SELECT position FROM temp.parked)"
)
_RESTORE: Final = "UPDATE record SET bytes = p.bytes FROM temp.parked AS p WHERE record.position = p.position"

_log: Final = logging.getLogger("tallystick.store")


def pruned_below(connection: apsw.Connection) -> int:
    """Up to where prunes went; 0 before the first. Raises `DamagedError` where no prune left what is there."""
    rows = query(connection, "SELECT id, below FROM pruned")
    if not rows:
        return 0
    number, below = rows[0]
    if len(rows) > 1 or number != 1 or type(below) is not int or not 0 < below <= SIZE_MAX:
        raise DamagedError(
            "what the ledger says of how far it was pruned no prune has written: put back a copy that is whole"
        )
    return below


def prune_records(
    writer: apsw.Connection, end: int, kept: Sequence[int], *, check: Callable[[apsw.Connection], None]
) -> int:
    """Keep `Store.prune`, through a connection whose `secure_delete` is on. `check` looks at the schema, within."""
    _make_room(writer)
    try:
        _hand_over(writer, "INSERT INTO temp.kept SELECT value FROM json_each(?)", kept)
        with transaction(writer):
            check(writer)
            removed = _remove(writer, end)
            # A crash up to here leaves frames that no commit frame covers: they are never read.
    finally:
        _make_room(writer)
    # A crash from here on leaves a longer file than need be, and old frames in its log. Whoever next opens the
    # file, or prunes, clears them.
    _give_back(writer)
    return removed


def _make_room(writer: apsw.Connection) -> None:
    writer.execute("CREATE TEMP TABLE IF NOT EXISTS kept (position INTEGER PRIMARY KEY)")
    writer.execute("CREATE TEMP TABLE IF NOT EXISTS parked (position INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")
    writer.execute("DELETE FROM temp.kept")
    writer.execute("DELETE FROM temp.parked")


def _hand_over(writer: apsw.Connection, statement: str, positions: Sequence[int]) -> None:
    for start in range(0, len(positions), _AT_ONCE):
        writer.execute(statement, (json.dumps([*positions[start : start + _AT_ONCE]]),))


def _remove(writer: apsw.Connection, end: int) -> int:
    rows = query(writer, "SELECT size FROM head")
    if not rows or end > rows[0][0]:
        raise StoreError(f"cannot prune up to {end}: the head is at {rows[0][0] if rows else 0}")
    pruned_below(writer)
    triggers = query(writer, _SELECT_TRIGGERS)
    for name, _ in triggers:
        writer.execute(f"DROP TRIGGER {name}")
    covered = rows[0][0] - rows[0][0] % TILE_WIDTH
    # One of a record that is there, which no prune leaves, would be in the way of the right one for good.
    writer.execute("DELETE FROM leaf WHERE position < ? OR position IN (SELECT position FROM record)", (covered,))
    for position, line in query(writer, _SELECT_UNCOVERED, (covered, end)):
        writer.execute("INSERT INTO leaf VALUES (?,?)", (position, leaf_hash(line)))
    removed = _delete(writer, end)
    writer.execute(
        "INSERT INTO pruned VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET below = max(below, excluded.below)", (end,)
    )
    for _, sql in triggers:
        writer.execute(sql)
    return removed


def _delete(writer: apsw.Connection, end: int) -> int:
    """Delete what is below `end` and not kept. Bytes of one length are overwritten where they are."""
    neighbours = array("q", _neighbours(writer, end))
    park = (
        "INSERT INTO temp.parked SELECT position, bytes FROM record WHERE position IN (SELECT value FROM json_each(?))"
    )
    _hand_over(writer, park, neighbours)
    writer.execute(_ZERO_PARKED)
    writer.execute(_ZERO_DOOMED, (end,))
    writer.execute("DELETE FROM record WHERE position < ? AND position NOT IN temp.kept", (end,))
    removed = writer.changes()
    writer.execute(_RESTORE)
    return removed


def _neighbours(writer: apsw.Connection, end: int) -> Iterator[int]:
    """The positions of rows that stay and lie so close to one that goes that they may be moved."""
    before: deque[tuple[int, int]] = deque()  # rows that stay, as far back as one that goes would reach
    reach_back = reach = 0
    for position, length, stays in writer.execute(_SELECT_LENGTHS, (end,)):
        taken = min(length, _ROW_BYTES_MAX)
        if not stays:
            yield from (one for one, _ in before)
            before.clear()
            reach_back, reach = 0, _REACH_BYTES
        elif reach > 0:
            reach -= taken
            yield position
        elif position >= end:
            return
        else:
            before.append((position, taken))
            reach_back += taken
            while reach_back > _REACH_BYTES:
                reach_back -= before.popleft()[1]


def _give_back(writer: apsw.Connection) -> None:
    while free := query(writer, "PRAGMA freelist_count")[0][0]:
        query(writer, f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        if query(writer, "PRAGMA freelist_count")[0][0] >= free:
            break  # a file of another making, which cannot shrink
    try:
        writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        _log.warning("a reader holds on to the log of the ledger: pruned records leave it with a later checkpoint")
