"""Cursors of readers, and the states of projections, in `cursors.db` beside the ledger.

A state and its cursor are saved in one transaction, which is what makes a projection count every record once. Each row
has a MAC, so that nobody without the keys makes a reader skip records or gives a projection another state: a row that
was altered counts as none, and its reader begins again. An older row put back makes its reader see records again. Each
row names the root of the tree up to its cursor: of a log that has another one there, it counts as none, too.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
import orjson

from tallystick.errors import ConflictError, NotFoundError, RejectedError, StoreError
from tallystick.made_file import Made
from tallystick.sqlite_file import (
    check_schema,
    connect,
    connect_readonly,
    copy_open,
    run_script,
    transaction,
    translated,
)

FILE_NAME: Final = "cursors.db"
_LAYOUT: Final = 3
_OURS: Final = "tallystick_*"
"""Names of our tables; others a projection made for itself."""
_CONTEXT: Final = b"tallystick/v1/cursors\0"
_ALTERED: Final = "its row in cursors.db is not what was written: it begins again when it is run"
_LOST: Final = "what it has seen is not in the log any more: it begins again when it is run"
_number: Final = count()
_log: Final = logging.getLogger("tallystick.read")


class Place(NamedTuple):
    """How far a reader has come, and in which history."""

    cursor: int
    """Every record below it was seen."""
    after: str
    """The root, in hex, of the tree of all of them; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What is kept of a projection."""

    name: str
    version: int
    cursor: int
    state: Any
    paused: bool
    problem: str | None
    after: str = ""
    """The root, in hex, of the tree of the records below the cursor; empty where there are none."""

    def lost(self) -> Saved:
        """The same where its state is of records that the log has not: nothing is told of that."""
        return Saved(self.name, self.version, 0, None, paused=False, problem=_LOST)

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


def copy_cursors(source: Path, target: Path) -> Made:
    """Copy the file of one folder, as it is at one commit, into another."""
    path = source / FILE_NAME
    with translated(f"copy {path}"):
        alone = not Path(f"{path}-wal").exists() and not os.access(source, os.W_OK)
        reader = connect_readonly(path, immutable=alone)
        try:
            return copy_open(reader, target / FILE_NAME)
        finally:
            reader.close()


class SqliteCursors:
    """The cursors of one ledger. Safe for many threads and processes. Without a folder they are in memory.

    `key` is that of the MACs. Who has none believes what the file says, and whoever has it believes no row of theirs.
    """

    def __init__(self, folder: Path | None, ledger_id: bytes, *, key: bytes | None = None) -> None:
        self.path: Final = folder / FILE_NAME if folder else None
        self._id: Final = ledger_id
        self._key: Final = key
        self._lock: Final = threading.RLock()
        with translated("open the cursors"):
            if self.path is not None:
                self._connection = connect(self.path, synchronous="full")
            else:
                self._connection = apsw.Connection(f"file:/tallystick-cursors-{next(_number)}?vfs=memdb", flags=_FLAGS)
            with transaction(self._connection):
                if not self._rows("SELECT 1 FROM sqlite_schema LIMIT 1"):
                    run_script(self._connection, _script())
                    self._rows("INSERT INTO tallystick_ledger VALUES (?)", (ledger_id,))
            if self._rows("PRAGMA user_version") != [(_LAYOUT,)]:
                raise StoreError(f"{self.path} has another layout than {_LAYOUT}: use the matching version")
            check_schema(self._connection, _script(), path=self.path, of=_OURS)
            if self._rows("SELECT id FROM tallystick_ledger LIMIT 2") != [(ledger_id,)]:
                raise StoreError(f"{self.path} is of another ledger: put its own back, or delete it to begin again")

    def projections(self) -> list[Saved]:
        """All projections, by name. One that was altered is told of as failed, without its state."""
        with self._reading():
            rows = self._rows(f"{_SELECT} ORDER BY name")
        return [
            _saved(row) if self._holds(row) else Saved(row[0], row[1], 0, None, paused=False, problem=_ALTERED)
            for row in rows
        ]

    def projection(self, name: str) -> Saved | None:
        """One projection, if it was ever begun, and is what was written."""
        with self._reading():
            return self._projection(name)

    def begin(self, name: str, *, version: int, cursor: int, after: str, state: Any) -> None:
        """Begin a projection, or begin it again, at a cursor."""
        with self._writing():
            before = self._projection(name)
            paused = before is not None and before.paused
            self._save(Saved(name, version, cursor, state, paused=paused, problem=None, after=after))

    @contextmanager
    def advance(self, before: Saved) -> Iterator[Advance]:
        """Move a projection on from where it was; all that happens inside is saved with its cursor, or nothing is.

        Raises `ConflictError` when another process has moved it meanwhile.
        """
        with self._writing():
            now = self._projection(before.name)
            if now is None or (now.version, now.cursor, now.paused) != (before.version, before.cursor, False):
                raise ConflictError(f"the projection {before.name} was moved, paused or begun again meanwhile")
            step = Advance(Tables(self._connection))
            yield step
            self._save(replace(now, cursor=step.cursor, state=step.state, problem=step.problem, after=step.after))

    def set_paused(self, name: str, paused: bool) -> None:
        """Pause a projection, or let it go on; a problem that it had is forgotten. Raises `NotFoundError`."""
        with self._writing():
            saved = self._projection(name)
            if saved is None:
                raise NotFoundError(f"there is no projection {name!r}")
            self._save(replace(saved, paused=paused, problem=None))

    def forget(self, name: str) -> None:
        """Remove a projection and its state; tables that it made itself stay. Raises `NotFoundError`."""
        with self._writing():
            self._rows("DELETE FROM tallystick_projection WHERE name = ?", (name,))
            if not self._connection.changes():
                raise NotFoundError(f"there is no projection {name!r}")

    def subscription(self, name: str) -> Place | None:
        """Where a subscription is, if it acknowledged anything yet."""
        with self._reading():
            return self._subscription(name)

    def acknowledge(self, name: str, place: Place) -> None:
        """Move a subscription on; never back."""
        with self._writing():
            before = self._subscription(name)
            if before is None or before.cursor < place.cursor:
                self._keep(name, place)

    def step_back(self, to: Place, *, stands: Callable[[Place], bool]) -> None:
        """Records were lost, and the log goes on from `to`: whoever is at a place that is not of it any more.

        Subscriptions go on from `to`; projections, whose states cannot be taken back, begin again.
        """
        with self._writing():
            for row in self._rows(f"{_SELECT} ORDER BY name"):
                if not stands(Place(row[2], row[6])):
                    self._rows("DELETE FROM tallystick_projection WHERE name = ?", (row[0],))
            for name, *place, _ in self._rows("SELECT name, cursor, after, mac FROM tallystick_subscription"):
                if not stands(Place(*place)):
                    self._keep(name, to)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _projection(self, name: str) -> Saved | None:
        rows = self._rows(f"{_SELECT} WHERE name = ?", (name,))
        return _saved(rows[0]) if rows and self._holds(rows[0]) else None

    def _save(self, saved: Saved) -> None:
        paused = int(saved.paused)
        row = (saved.name, saved.version, saved.cursor, _json(saved.state), paused, saved.problem, saved.after)
        self._rows("INSERT OR REPLACE INTO tallystick_projection VALUES (?,?,?,?,?,?,?,?)", (*row, self._mac(row)))

    def _subscription(self, name: str) -> Place | None:
        rows = self._rows("SELECT name, cursor, after, mac FROM tallystick_subscription WHERE name = ?", (name,))
        return Place(rows[0][1], rows[0][2]) if rows and self._holds(rows[0]) else None

    def _keep(self, name: str, place: Place) -> None:
        row = (name, *place)
        self._rows("INSERT OR REPLACE INTO tallystick_subscription VALUES (?,?,?,?)", (*row, self._mac(row)))

    def _mac(self, row: Sequence[Any]) -> bytes | None:
        """Over the name and the rest of a row. What a projection and what a subscription has differs in length."""
        if self._key is None:
            return None
        return hmac.digest(self._key, _CONTEXT + self._id + orjson.dumps(row), "sha256")

    def _holds(self, row: Sequence[Any]) -> bool:
        """Whether somebody with the keys wrote this row, whose last column is the MAC."""
        *told, mac = row
        expected = self._mac(told)
        if expected is None or (isinstance(mac, bytes) and hmac.compare_digest(mac, expected)):
            return True
        _log.warning("the row of %s in cursors.db is not what was written, and counts as none", row[0])
        return False

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
        self.after = ""
        self.state: Any = None
        self.problem: str | None = None


_FLAGS: Final = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
_SELECT: Final = "SELECT name, version, cursor, state, paused, problem, after, mac FROM tallystick_projection"


def _script() -> str:
    return files("tallystick.read").joinpath("cursors.sql").read_text("utf-8")


def _saved(row: Any) -> Saved:
    name, version, cursor, state, paused, problem, after, _ = row
    return Saved(name, version, cursor, orjson.loads(state) if state else None, bool(paused), problem, after)


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
