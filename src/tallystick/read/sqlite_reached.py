"""The few rows of an index file by which all others are used: how far it has read, what it forgot, what it counts.

That they are of the types which the schema wants is not taken for granted: a schema can be altered, and put back.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import apsw

from tallystick.errors import DamagedError
from tallystick.sqlite_file import query

_HAS_ROWS: Final = " OR ".join(
    f"EXISTS (SELECT 1 FROM {{0}}.{table})"
    for table in ("event", "entity", "term", "label", "tally", "posting_docsize")
)
_ALTERED_ROLLUP: Final = (
    "SELECT 1 FROM {0}.rollup WHERE (typeof(name), typeof(definition), typeof(defined_at), typeof(position),"
    " typeof(sealed_below)) <> ('text', 'text', 'integer', 'integer', 'integer') LIMIT 1"
)


class AlteredError(Exception):
    """An index has other rows, or other words, than were saved."""


class Reached(NamedTuple):
    """Up to where an index has read, and of which ledger."""

    position: int
    last_hash: bytes
    ledger_id: bytes


def reached(connection: apsw.Connection, *, database: str = "main") -> Reached | None:
    """Up to where an index has read; None of one that is empty. Raises `DamagedError` where no saving left it so."""
    rows = query(connection, f"SELECT id, position, last_hash, ledger_id FROM {database}.cursor LIMIT 2")
    if not rows:
        if query(connection, f"SELECT {_HAS_ROWS.format(database)}") != [(0,)]:
            raise DamagedError("it has rows, and does not say how far it has read")
        return None
    if len(rows) > 1 or tuple(map(type, rows[0])) != (int, int, bytes, bytes) or rows[0][0] != 1:
        raise DamagedError("what it says of how far it has read is nothing that was saved")
    found = Reached(*rows[0][1:])
    _check_rest(connection, database)
    return found


def check_end(connection: apsw.Connection, found: Reached) -> None:
    """Check that an index has no row past that: it could not be saved again. Raises `DamagedError`."""
    [[last]] = query(connection, "SELECT max(position) FROM event")
    if last is not None and last >= found.position:
        raise DamagedError(f"it has a row past the {found.position} records that it says it has read, at {last}")


def _check_rest(connection: apsw.Connection, database: str) -> None:
    rows = query(connection, f"SELECT id, prune_at FROM {database}.forgotten LIMIT 2")
    if len(rows) > 1 or any(type(prune_at) is not int or number != 1 for number, prune_at in rows):
        raise DamagedError("what it says of the prunes that it forgot is nothing that was saved")
    if query(connection, _ALTERED_ROLLUP.format(database)):
        raise DamagedError("it has a roll-up that is nothing that was saved")
