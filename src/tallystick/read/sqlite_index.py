"""The index in one SQLite file beside the ledger, `index.db`.

Nothing here is precious: a file that is damaged, of an older layout, of another ledger, or ahead of the log
is deleted and made anew, and the diagnostics say so. Commits need not reach the disk at once, only stay
whole: a cursor that fell back is caught up from the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw
import orjson

from tallystick.core.record import record_hash
from tallystick.errors import BusyError, StoreError, TamperError
from tallystick.ids import split_made
from tallystick.read.index import Rows, hash_id
from tallystick.sqlite_file import connect, connect_readonly, run_script, transaction, translated
from tallystick.store.contract import Store

FILE_NAME: Final = "index.db"
_LAYOUT: Final = 1
_TABLES: Final = {"cursor", "entity", "brought", "made"}
_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError)
"""What SQLite says of a file whose content, or whose schema, is not what we wrote."""

_log: Final = logging.getLogger("tallystick.index")


class SqliteIndexFile:
    """Keeps `IndexFile` for the ledger in `store`."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.path: Final = folder / FILE_NAME
        self._store: Final = store
        self._ledger_id: Final = _hash_at(store, 0)
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        problem = self._open()
        if problem:
            _log.warning("the index %s is made anew: %s", self.path, problem)
            self._delete()
            problem = self._open()
        if problem:
            raise StoreError(f"could not make the index {self.path}: {problem}")

    def cursor(self) -> int:
        with self._noticing_damage("read the index"):
            rows = self._query("SELECT position FROM cursor")
        return int(rows[0][0]) if rows else 0

    def version(self, entity_id: str) -> int:
        with self._noticing_damage("read the index"):
            rows = self._query("SELECT version FROM entity WHERE id = ?", entity_id)
        found: int = rows[0][0] if rows else 0  # the follower checks that it is one
        return found

    def find(self, event_id: str) -> list[int]:
        made = split_made(event_id)
        with self._noticing_damage("read the index"):
            if made is None:
                rows = self._query("SELECT position FROM brought WHERE hash = ?", hash_id(event_id))
                return [position for (position,) in rows]
            # An id is sealed once, so runs of one prefix do not overlap: the last to begin is the only one.
            runs = self._query(
                "SELECT counter, position, count FROM made WHERE prefix = ? AND counter <= ?"
                " ORDER BY counter DESC LIMIT 1",
                *made,
            )
        return [position + made[1] - first for first, position, count in runs if made[1] < first + count]

    def hashes_among(self, hashes: Sequence[int]) -> set[int]:
        with self._noticing_damage("read the index"):
            rows = self._query(
                "SELECT DISTINCT hash FROM brought WHERE hash IN (SELECT value FROM json_each(?))", _json([*hashes])
            )
        return {found for (found,) in rows}

    def save(self, rows: Rows, last_hash: bytes) -> None:
        # One statement a table, its rows as one JSON text: SQLite then runs without the interpreter's lock,
        # where a statement a row would wait for it thousands of times beside a busy sealing thread.
        brought = sorted((key, position) for key, positions in rows.brought.items() for position in positions)
        with (
            self._noticing_damage("write the index"),
            transaction(writer := self._open_connection(self._writer)),
        ):
            execute = writer.execute
            found: list[Any] = execute("SELECT position FROM cursor").fetchall()
            saved = found[0][0] if found else 0
            if saved >= rows.end:
                return  # another process saved these records already
            if saved < rows.first:
                raise StoreError(f"the index {self.path} has lost rows: open the ledger again to have them back")
            made = [row for prefix, runs in rows.made.items() for run in runs for row in _past(saved, prefix, run)]
            execute(
                "INSERT INTO entity SELECT value->>0, value->>1 FROM json_each(?) WHERE true"
                " ON CONFLICT (id) DO UPDATE SET version = max(version, excluded.version)",
                (_json(sorted(rows.versions.items())),),
            )
            execute(
                "INSERT OR IGNORE INTO brought SELECT value->>0, value->>1 FROM json_each(?)",
                (_json(brought),),
            )
            execute(
                "INSERT OR IGNORE INTO made SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?)",
                (_json(made),),
            )
            execute("INSERT OR REPLACE INTO cursor VALUES (1,?,?,?)", (rows.end, last_hash, self._ledger_id))

    def close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _query(self, statement: str, *values: str | int) -> list[Any]:
        return self._open_connection(self._reader).execute(statement, values).fetchall()

    def _open_connection(self, connection: apsw.Connection | None) -> apsw.Connection:
        if connection is None:
            raise StoreError(f"the index {self.path} is closed: open the ledger again")
        return connection

    @contextmanager
    def _noticing_damage(self, doing: str) -> Iterator[None]:
        """Delete a file that turns out to be damaged. Only the next opening makes it anew: what was already
        read from it cannot be trusted either."""
        try:
            with translated(doing):
                yield
        except StoreError as error:
            if not isinstance(error.__cause__, _DAMAGE):
                raise
            _log.warning("the index %s is damaged, and deleted: %s", self.path, error.__cause__)
            self._delete()
            raise StoreError(
                f"the index {self.path} was damaged, and is deleted: open the ledger again to have it made anew"
            ) from error

    def _open(self) -> str | None:
        """Open or make the file; why its content cannot be used, or None when it can."""
        try:
            self._writer = connect(self.path, synchronous="normal")
            with transaction(self._writer):
                if not self._writer.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
                    run_script(self._writer, files("tallystick.read").joinpath("index.sql").read_text("utf-8"))
            self._reader = connect_readonly(self.path, immutable=False)
            return self._problem()
        except apsw.BusyError as error:
            raise BusyError(f"another process holds the index {self.path}: wait a moment, then repeat") from error
        except apsw.Error as error:
            return str(error)

    def _problem(self) -> str | None:
        """Why the index cannot be followed on from where it is; None when it can."""
        [[layout]] = self._query("PRAGMA user_version")
        tables = {name for (name,) in self._query("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if layout != _LAYOUT or tables != _TABLES:
            return f"it has layout {layout} and {len(tables)} tables, and {_LAYOUT} and {len(_TABLES)} are wanted"
        rows = self._query("SELECT position, last_hash, ledger_id FROM cursor")
        if not rows:
            return None
        position, last_hash, ledger_id = rows[0]
        if ledger_id != self._ledger_id:
            return "it is another ledger's"
        self._check_same_log(position, last_hash)
        return None

    def _check_same_log(self, position: int, last_hash: bytes) -> None:
        """What the index followed is never ahead of the log, and never another: it is told of commits only.

        So if it is, the log was put back or rewritten; making the index anew would destroy the trace of it.
        """
        head = self._store.head()
        ahead = head is None or position > head.size
        if ahead or _hash_at(self._store, position - 1) != last_hash:
            seen = f"has seen {position} records, and the ledger now has {head.size if head else 0}"
            raise TamperError(
                f"{self.path} {seen}: an older copy was put back, or records were cut off; verify. "
                "If you did that on purpose, delete index.db"
                if ahead
                else f"{self.path} has seen another record at position {position - 1}: the record or the index was "
                "altered; verify, and if that holds, delete index.db"
            )

    def _delete(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _past(saved: int, prefix: str, run: list[int]) -> list[tuple[str, int, int, int]]:
    """What of a run of made ids stands at `saved` or after. The part before is in the file, cut by whoever
    saved it as it pleased: rows that overlap would hide one another."""
    counter, position, count = run
    skipped = max(0, saved - position)
    return [(prefix, counter + skipped, position + skipped, count - skipped)] if skipped < count else []


def _json(rows: list[Any]) -> str:
    return orjson.dumps(rows).decode()


def _hash_at(store: Store, position: int) -> bytes:
    for stored in store.read(position, position + 1):
        return record_hash(stored.line)
    return b""
