"""What someone does to a ledger's files who can write the disk, knows SQLite, and has no keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw


@contextmanager
def without_triggers(path: Path) -> Iterator[apsw.Connection]:
    """The SQLite file at `path`, open for writing, with its triggers taken down and not put back."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    try:
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        yield connection
    finally:
        connection.close()


def edit(path: Path, statement: str, *values: Any) -> None:
    """Run one statement on the SQLite file at `path`. Fails when it changes no row: then nothing was attacked."""
    with without_triggers(path) as connection:
        before = connection.total_changes()
        connection.execute(statement, values).fetchall()
        assert connection.total_changes() > before, f"this changed nothing: {statement}"


def line_at(path: Path, position: int) -> bytes:
    """The bytes of a record in the log at `path`."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found: Any = connection.execute("SELECT bytes FROM record WHERE position = ?", (position,)).fetchall()
    finally:
        connection.close()
    return bytes(found[0][0])


def replace_record(path: Path, position: int, line: bytes) -> None:
    """Put other bytes in the place of a record, and fit its checksum."""
    edit(path, "UPDATE record SET bytes = ?, crc32 = ? WHERE position = ?", line, crc32(line), position)
