"""What the ledger's and the index's database files have in common: opening, transactions, errors.

Through apsw, which brings a current SQLite with it: the standard library's may be one of 3.7.0 to 3.51.2,
which can corrupt a write-ahead log at a reset.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import apsw

from tallystick.errors import BusyError, DamagedError, StoreError
from tallystick.made_file import Made
from tallystick.plain_file import check_database
from tallystick.private_file import create_empty
from tallystick.sqlite_target import copy_target

BUSY_TIMEOUT_MS: Final = 30_000
VALUE_BYTES_MAX: Final = 134_217_728
"""The longest value or row that is read or written, where nothing shorter is known. SQLite reads each whole into
memory, and a file of a few megabytes can claim a gigabyte for every row."""

_RETRY_MS: Final = 10
_RETRY_EAGERLY_MS: Final = 1
_COPY_PAGES: Final = 1_024
_DAMAGE_RESULTS: Final = frozenset(
    {
        apsw.SQLITE_IOERR_SHORT_READ,  # the write-ahead log is shorter than what was committed to it
        apsw.SQLITE_IOERR_CORRUPTFS,
        apsw.SQLITE_IOERR_DATA,
        apsw.SQLITE_READONLY_DBMOVED,
    }
)
"""SQLite's extended codes of what another attempt does not cure."""


def connect(
    path: Path,
    *,
    synchronous: str,
    page_bytes: int = 4_096,
    shrinks: bool = False,
    value_bytes_max: int = VALUE_BYTES_MAX,
) -> apsw.Connection:
    """Open a database for writing, in write-ahead mode, making it, with pages of that size, if need be.

    One that `shrinks` can give back the room of what was deleted (PRAGMA incremental_vacuum). Longer values, also
    those that statements are given, are refused. Raises `NotPlainError` where the file, or one that SQLite opens
    beside it, is a link or no file.
    """
    check_database(path)
    create_empty(path)
    connection = bounded(apsw.Connection(str(path)), value_bytes_max)
    with closed_on_error(connection):
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("page_size", page_bytes)
        if shrinks:  # like the size of pages, of effect only before the file has its first one
            connection.pragma("auto_vacuum", "incremental")
        _use_write_ahead_log(connection)
        connection.pragma("synchronous", synchronous)
        # Pages that get other content keep nothing of what they had: else a prune would leave early records in them.
        connection.pragma("secure_delete", "fast")
        # Without this a REPLACE would delete rows behind the back of the triggers that forbid it.
        connection.pragma("recursive_triggers", True)
    return connection


@contextmanager
def closed_on_error(connection: apsw.Connection) -> Iterator[apsw.Connection]:
    """A connection that is being prepared: where that fails it is closed.

    Else it stays open as long as somebody has the error. All connections of a process to a file share what SQLite knows
    of its write-ahead log, so the next one would look for what the log had when its name was still there.
    """
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def bounded(connection: apsw.Connection, value_bytes_max: int = VALUE_BYTES_MAX) -> apsw.Connection:
    """The connection, which from now on refuses longer values and rows."""
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, value_bytes_max)
    return connection


def _use_write_ahead_log(connection: apsw.Connection) -> None:
    """Turn the mode on. Of several processes that do so at once SQLite turns the others away without waiting."""
    for attempt in range(BUSY_TIMEOUT_MS // _RETRY_MS):
        try:
            connection.pragma("journal_mode", "wal")
            return
        except apsw.BusyError:
            if attempt == BUSY_TIMEOUT_MS // _RETRY_MS - 1:
                raise
            time.sleep(_RETRY_MS / 1_000)


class BoundedReader(apsw.Connection):
    """A connection for reading whose statements end: somebody may put a view without an end in the place of a table."""

    _left = 0

    def allow(self, millions: int = 20) -> None:
        """Let the next statements take so many million steps of SQLite's machine together, some of them for each row.
        Past that they raise `apsw.InterruptError`."""
        self._left = millions

    def bound(self) -> None:
        """Count steps from now on."""
        self.set_progress_handler(self._is_spent, 1_000_000)

    def _is_spent(self) -> bool:
        self._left -= 1
        return self._left < 0


def connect_readonly(path: Path, *, immutable: bool, value_bytes_max: int = VALUE_BYTES_MAX) -> BoundedReader:
    """Open a database that exists for reading. `immutable` promises SQLite that nobody writes to it.

    Raises `NotPlainError` as `connect` does.
    """
    check_database(path)
    uri = path.resolve().as_uri() + ("?immutable=1" if immutable else "")
    connection = BoundedReader(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    bounded(connection, value_bytes_max)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def identity(path: str) -> tuple[int, int] | None:
    """Which file has that name now; None if there is none. While one is open, no other can have its identity.

    A text, as a `Path` costs more than the question: it is asked before every read. A link has an identity of its own.
    """
    found = identity_and_size(path)
    return None if found is None else found[0]


def identity_and_size(path: str) -> tuple[tuple[int, int], int] | None:
    """The same, with the length of the file in bytes."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino), found.st_size


def copy_database(source: Path, target: Path) -> None:
    """Copy a database as it is at this moment."""
    reader = connect_readonly(source, immutable=False)
    try:
        copy_open(reader, target)
    finally:
        reader.close()


def copy_open(reader: apsw.Connection, target: Path, *, progress: Callable[[int], None] | None = None) -> Made:
    """Copy the database behind a connection, as it is at one commit, into a new file with no log of its own beside it.

    Durable on return, but for the file's name. Writers are not held up; what they commit meanwhile is not in it.
    `progress` is told the bytes as they are copied. Raises `TamperError` when somebody writes into the file meanwhile.
    """
    page_bytes = int(reader.pragma("page_size"))
    with copy_target(target, page_bytes=page_bytes) as (writer, file):
        # One snapshot over all steps: without it each commit of another connection would begin the copy anew.
        reader.execute("BEGIN")
        query(reader, "SELECT 1 FROM sqlite_schema LIMIT 1")
        try:
            _copy_pages(reader, writer, page_bytes=page_bytes, progress=progress)
        finally:
            reader.execute("ROLLBACK")
        return file.finish()


def _copy_pages(
    reader: apsw.Connection, writer: apsw.Connection, *, page_bytes: int, progress: Callable[[int], None] | None
) -> None:
    with writer.backup("main", reader, "main") as backup:
        left = None
        while not backup.done:
            backup.step(_COPY_PAGES)
            done = (backup.page_count if left is None else left) - backup.remaining
            left = backup.remaining
            if progress:
                progress(done * page_bytes)


def query(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    return connection.execute(statement, values).fetchall()


def named_statements(script: str) -> dict[str, str]:
    """The statements of a script by the names that stand before them, as `-- name: …`."""
    parts = script.split("-- name: ")[1:]
    return {name: statement for name, _, statement in (part.partition("\n") for part in parts)}


def schema_of(connection: apsw.Connection, *, database: str = "main", of: str = "*") -> dict[str, str]:
    """What a database is made of: the definition of each table, index, trigger and view by its name.

    `of` is a pattern for the names of tables: then these, and what belongs to them.
    """
    statement = f"SELECT name, sql FROM {database}.sqlite_schema WHERE sql IS NOT NULL AND tbl_name GLOB ?"
    return dict(query(connection, statement, (of,)))


@cache
def schema_made_by(script: str) -> dict[str, str]:
    """What `schema_of` finds in an empty database in which a script was run."""
    scratch = apsw.Connection(":memory:")
    try:
        run_script(scratch, script)
        return schema_of(scratch)
    finally:
        scratch.close()


def check_schema(
    connection: apsw.Connection, script: str, *, path: Path | None, of: str = "*", tables_only: bool = False
) -> None:
    """Whether a database has nothing in its schema but what a script makes. Raises `DamagedError`.

    A view in the place of a table may have rows without end, and a trigger may change what is written. With
    `tables_only` only what has the name of a table is looked at. What is missing is for others to find.
    """
    wanted, found = schema_made_by(script), schema_of(connection, of=of)
    if tables_only:
        wanted = {name: sql for name, sql in wanted.items() if sql.startswith("CREATE TABLE")}
        found = {name: found[name] for name in wanted.keys() & found.keys()}
    altered = sorted(name for name, sql in found.items() if wanted.get(name) != sql)
    if altered:
        seen = f"{path} is not used, as its schema was altered ({altered[0]})"
        raise DamagedError(f"{seen}: find out who can write there, and put back a copy that is whole")


def run_script(connection: apsw.Connection, script: str) -> None:
    """Run statements one after another, to their ends."""
    for _ in connection.execute(script):
        pass


@contextmanager
def held(lock: threading.Lock | threading.RLock, *, patient: bool, doing: str) -> Iterator[None]:
    """Hold a lock. Who is not patient gets a `BusyError` when another thread has it."""
    if not lock.acquire(blocking=patient):
        raise BusyError(f"another thread is at work; could not {doing} at once")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def waiting(connection: apsw.Connection, *, patient: bool) -> Iterator[None]:
    """Wait for other processes that hold the database's lock; who is not patient gets SQLite's error instead."""
    if patient:
        yield
        return
    connection.set_busy_timeout(0)
    try:
        yield
    finally:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)


@contextmanager
def waiting_eagerly(connection: apsw.Connection, *, patient: bool) -> Iterator[None]:
    """Wait as `waiting` does, and look every millisecond. SQLite looks ten times a second: between two commits of one
    that appends in a loop this seldom finds the lock free."""
    with waiting(connection, patient=patient):
        if patient:
            end = time.monotonic() + BUSY_TIMEOUT_MS / 1_000

            def look_again(_: int) -> bool:
                time.sleep(_RETRY_EAGERLY_MS / 1_000)
                return time.monotonic() < end

            connection.set_busy_handler(look_again)
        try:
            yield
        finally:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)


@contextmanager
def transaction(connection: apsw.Connection, *, begun: bool = False) -> Iterator[None]:
    """A transaction that takes the write lock at once: all of what happens inside, or nothing.

    `begun` says that the caller has begun it.
    """
    try:
        if not begun:
            begin(connection)
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Also when Ctrl-C came right after BEGIN: an open transaction would lock everybody out for good.
        # A failed COMMIT may leave the transaction open.
        roll_back(connection)
        raise


def begin(connection: apsw.Connection) -> None:
    """Take the write lock, and wait for it as long as the connection does. The caller ends the transaction."""
    roll_back(connection)  # of a transaction whose own ROLLBACK was cut short by an interrupt
    connection.execute("BEGIN IMMEDIATE")


def roll_back(connection: apsw.Connection) -> None:
    """End a transaction that is open. After some errors SQLite has rolled back by itself."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """SQLite's and the system's errors as ours, saying what could not be done."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise BusyError(f"another process holds the database's lock; could not {doing}: {error}") from error
    except (apsw.Error, OSError, UnicodeDecodeError) as error:
        if is_damage(error):
            too_long = isinstance(error, apsw.TooBigError)
            seen = "it has a value that is longer than any that is written" if too_long else error
            raise DamagedError(f"the file is damaged; could not {doing}: {seen}") from error
        raise StoreError(f"could not {doing}: {error}") from error


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says by an error that a file is not what it wrote, whatever was to be done with it."""
    if isinstance(error, UnicodeDecodeError):  # apsw's, for TEXT that is not UTF-8
        return True
    if isinstance(error, (apsw.IOError, apsw.ReadOnlyError)):
        return getattr(error, "extendedresult", None) in _DAMAGE_RESULTS
    return isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.TooBigError)
