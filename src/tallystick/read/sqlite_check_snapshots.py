"""Comparing the snapshots in an index file with the log: each is folded again.

The records of an entity are folded once for all of its snapshots, whole stream after whole stream, so that one state is
in memory at a time. Where they stand say the posting lists, which the same verification has compared before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import apsw

from tallystick.core.record import Record
from tallystick.errors import RejectedError, StoreError, TamperError
from tallystick.limits import READ_RECORDS_MAX
from tallystick.read.declared import Declared, parse
from tallystick.read.state import snapshots_again
from tallystick.store.contract import Store
from tallystick.store.reading import fetch_lines

Add = Callable[[str, int | None], None]
"""Notes what is wrong, and the position that it is of, if there is one."""


def check_snapshots(connection: apsw.Connection, store: Store, *, end: int, add: Add) -> Iterator[int]:
    """Compare the snapshots of the index attached as `saved`, which answers up to `end`, entity by entity.

    Gives `end` after each. A stream whose records cannot be read is left out: that they cannot, the scan finds.
    """
    for entity, fingerprint in connection.execute("SELECT DISTINCT entity, fingerprint FROM saved.snapshot"):
        declared = _declared(connection, str(fingerprint))
        if declared is None:
            add(f"snapshots of {_shown(entity)} under declarations that are not kept beside them", None)
        else:
            _check_stream(connection, store, str(entity), declared, end=end, add=add)
        yield end


def _declared(connection: apsw.Connection, fingerprint: str) -> Declared | None:
    statement = "SELECT folds, upcasters FROM saved.declared WHERE fingerprint = ?"
    rows: list[Any] = connection.execute(statement, (fingerprint,)).fetchall()
    return parse(fingerprint, *rows[0]) if rows else None


def _check_stream(
    connection: apsw.Connection, store: Store, entity: str, declared: Declared, *, end: int, add: Add
) -> None:
    of_stream = (entity, declared.fingerprint)
    statement = "SELECT version FROM saved.snapshot WHERE entity = ? AND fingerprint = ?"
    versions = {version for (version,) in connection.execute(statement, of_stream)}
    again = snapshots_again(entity, _records(connection, store, entity, end=end), declared, versions)
    statement = "SELECT position, content FROM saved.snapshot WHERE entity = ? AND fingerprint = ? AND version = ?"
    try:
        for snapshot in again:
            versions.remove(snapshot.version)
            rows: list[Any] = connection.execute(statement, (*of_stream, snapshot.version)).fetchall()
            if rows != [(snapshot.position, snapshot.to_bytes())]:
                add(_text(entity, snapshot.version, "is not what its records come to"), snapshot.position)
    except RejectedError as error:
        add(f"snapshots of {_shown(entity)}, whose records cannot be folded: {error}", None)
        return
    except (TamperError, StoreError):
        return
    for version in sorted(versions):
        add(_text(entity, version, "is of a version that the entity has not"), None)


def _records(connection: apsw.Connection, store: Store, entity: str, *, end: int) -> Iterator[Record]:
    """The records of an entity, as a state is folded from them."""
    rows: list[Any] = connection.execute("SELECT id FROM saved.entity WHERE name = ?", (entity,)).fetchall()
    if not rows:
        return
    match = "SELECT rowid FROM saved.posting WHERE posting MATCH ? AND rowid >= ? AND rowid < ? ORDER BY rowid LIMIT ?"
    first = 0
    while True:
        values = (f'"\x01e{rows[0][0]}"', first, end, READ_RECORDS_MAX)
        found: list[Any] = connection.execute(match, values).fetchall()
        for stored in fetch_lines(store, [position for (position,) in found]):
            try:
                yield Record.parse(stored.line)
            except RejectedError as error:
                raise TamperError(f"the record at position {stored.position} was altered: {error}") from error
        if len(found) < READ_RECORDS_MAX:
            return
        first = found[-1][0] + 1


def _text(entity: str, version: int, what: str) -> str:
    return f"the snapshot of {_shown(entity)} at version {version} {what}"


def _shown(entity: object) -> str:
    return repr(str(entity)[:60])
