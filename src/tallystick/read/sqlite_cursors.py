"""Cursors of readers, and the states of projections, in `cursors.db` beside the ledger.

A state and its cursor are saved in one transaction, which is what makes a projection count every record once.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, Final

import apsw
import orjson

from tallystick.errors import ConflictError, NotFoundError, RejectedError, StoreError
from tallystick.sqlite_file import connect, connect_readonly, copy_open, run_script, transaction, translated

FILE_NAME: Final = "cursors.db"
_LAYOUT: Final = 1
_number: Final = count()


@dataclass(frozen=True, slots=True)
class Saved:
    """What is kept of a projection."""

    name: str
    version: int
    cursor: int
    state: Any
    paused: bool
    problem: str | None

    def behind(self, size: int) -> int:
        """How many records of a ledger of this size it has not seen."""
        return max(size - self.cursor, 0)

    def status(self, size: int) -> str:
        """One of paused, failed, behind and current."""
        if self.paused:
            return "paused"
        if self.problem is not None:
            return "failed"
        return "behind" if self.behind(size) else "current"

    def to_json(self, size: int) -> dict[str, Any]:
        """As it is told of, without its state."""
        return {
            "name": self.name,
            "version": self.version,
            "cursor": self.cursor,
            "behind": self.behind(size),
            "status": self.status(size),
            "problem": self.problem,
        }


class Tables:
    """The tables of a projection: SQL within the transaction that moves its cursor."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection: Final = connection

    def execute(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, and give its rows."""
        return self._connection.execute(statement, values).fetchall()


def copy_cursors(source: Path, target: Path) -> None:
    """Copy the file of one folder, as it is at one commit, into another."""
    path = source / FILE_NAME
    with translated(f"copy {path}"):
        alone = not Path(f"{path}-wal").exists() and not os.access(source, os.W_OK)
        reader = connect_readonly(path, immutable=alone)
        try:
            copy_open(reader, target / FILE_NAME)
        finally:
            reader.close()


class SqliteCursors:
    """The cursors of one ledger. Safe for many threads and processes. Without a folder they are in memory."""

    def __init__(self, folder: Path | None, ledger_id: bytes) -> None:
        self.path: Final = folder / FILE_NAME if folder else None
        self._lock: Final = threading.RLock()
        with translated("open the cursors"):
            if self.path is not None:
                self._connection = connect(self.path, synchronous="full")
            else:
                self._connection = apsw.Connection(f"file:/tallystick-cursors-{next(_number)}?vfs=memdb", flags=_FLAGS)
            with transaction(self._connection):
                if not self._rows("SELECT 1 FROM sqlite_schema LIMIT 1"):
                    run_script(self._connection, files("tallystick.read").joinpath("cursors.sql").read_text("utf-8"))
                    self._rows("INSERT INTO tallystick_ledger VALUES (?)", (ledger_id,))
            if self._rows("PRAGMA user_version") != [(_LAYOUT,)]:
                raise StoreError(f"{self.path} has another layout than {_LAYOUT}: use the matching version")
            if self._rows("SELECT id FROM tallystick_ledger") != [(ledger_id,)]:
                raise StoreError(f"{self.path} is of another ledger: put its own back, or delete it to begin anew")

    def projections(self) -> list[Saved]:
        """All projections, by name."""
        with self._reading():
            rows = self._rows(f"{_SELECT} ORDER BY name")
        return [_saved(row) for row in rows]

    def projection(self, name: str) -> Saved | None:
        """One projection, if it was ever begun."""
        with self._reading():
            rows = self._rows(f"{_SELECT} WHERE name = ?", (name,))
        return _saved(rows[0]) if rows else None

    def begin(self, name: str, *, version: int, cursor: int, state: Any) -> None:
        """Begin a projection, or begin it anew, at a cursor."""
        with self._writing():
            self._rows(
                "INSERT INTO tallystick_projection (name, version, cursor, state) VALUES (?,?,?,?)"
                " ON CONFLICT DO UPDATE SET version = excluded.version, cursor = excluded.cursor,"
                " state = excluded.state, problem = NULL",
                (name, version, cursor, _json(state)),
            )

    @contextmanager
    def advance(self, before: Saved) -> Iterator[Advance]:
        """Move a projection on from where it was; all that happens inside is saved with its cursor, or nothing is.

        Raises `ConflictError` when another process has moved it meanwhile.
        """
        with self._writing():
            where = "name = ? AND version = ? AND cursor = ? AND paused = 0"
            values = (before.name, before.version, before.cursor)
            if not self._rows(f"SELECT 1 FROM tallystick_projection WHERE {where}", values):
                raise ConflictError(f"the projection {before.name} was moved, paused or begun anew meanwhile")
            step = Advance(Tables(self._connection))
            yield step
            self._rows(
                "UPDATE tallystick_projection SET cursor = ?, state = ?, problem = ? WHERE name = ?",
                (step.cursor, _json(step.state), step.problem, before.name),
            )

    def set_paused(self, name: str, paused: bool) -> None:
        """Pause a projection, or let it go on; a problem that it had is forgotten. Raises `NotFoundError`."""
        with self._writing():
            self._rows(
                "UPDATE tallystick_projection SET paused = ?, problem = NULL WHERE name = ?", (int(paused), name)
            )
            if not self._connection.changes():
                raise NotFoundError(f"there is no projection {name!r}")

    def forget(self, name: str) -> None:
        """Remove a projection and its state; tables that it made itself stay. Raises `NotFoundError`."""
        with self._writing():
            self._rows("DELETE FROM tallystick_projection WHERE name = ?", (name,))
            if not self._connection.changes():
                raise NotFoundError(f"there is no projection {name!r}")

    def subscription(self, name: str) -> int | None:
        """The cursor of a subscription, if it acknowledged anything yet."""
        with self._reading():
            rows = self._rows("SELECT cursor FROM tallystick_subscription WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def acknowledge(self, name: str, cursor: int) -> None:
        """Move a subscription's cursor on; never back."""
        with self._writing():
            self._rows(
                "INSERT INTO tallystick_subscription VALUES (?,?)"
                " ON CONFLICT DO UPDATE SET cursor = max(cursor, excluded.cursor)",
                (name, cursor),
            )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, translated("read the cursors"):
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, translated("write the cursors"), transaction(self._connection):
            yield

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()


class Advance:
    """One step of a projection: its tables, and where it ends."""

    def __init__(self, tables: Tables) -> None:
        self.tables: Final = tables
        self.cursor = 0
        self.state: Any = None
        self.problem: str | None = None


_FLAGS: Final = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
_SELECT: Final = "SELECT name, version, cursor, state, paused, problem FROM tallystick_projection"


def _saved(row: Any) -> Saved:
    name, version, cursor, state, paused, problem = row
    return Saved(name, version, cursor, orjson.loads(state) if state else None, bool(paused), problem)


def _json(state: Any) -> str:
    try:
        text = orjson.dumps(state, option=orjson.OPT_SORT_KEYS).decode()
        if "null" in text:
            json.dumps(state, allow_nan=False)  # for orjson, what is no number is a null
        return text
    except (TypeError, ValueError) as error:
        raise RejectedError(
            f"the state is no JSON document: {error}", cure="keep objects, arrays, strings, numbers, true, false, null"
        ) from error
