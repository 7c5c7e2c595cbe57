"""Where the sealer's runs rest: the database file `sealing.db` in the ledger's folder (`write.run_set.RunFile`).

It keeps bytes and knows nothing of them. What is damaged or gone is for the caller to notice, who authenticates all
of it, and rebuilds it from the log. So commits need not reach the disk at once, only stay whole.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw

from tallystick.errors import StoreError, TamperError
from tallystick.plain_file import NotPlainError, open_lock
from tallystick.sqlite_file import (
    closed_on_error,
    connect,
    connect_readonly,
    identity,
    query,
    run_script,
    schema_made_by,
    schema_of,
    transaction,
    translated,
)

FILE_NAME: Final = "sealing.db"
_LAYOUT: Final = 1
_PAGE_BITS: Final = 32
_CACHE_KB: Final = 4_096
_OPENED_MAX: Final = 5
_VALUE_BYTES_MAX: Final = 2_097_152
"""The longest are the parts of filters, of a megabyte each."""
_DAMAGE: Final = (
    *(apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.MismatchError, apsw.TooBigError),
    apsw.IOError,
)
"""What SQLite says of a file whose content, or whose schema, is not what we wrote, or that was cut or replaced. A disk
that fails says the same again when the file is made anew."""


class SqliteRunFile:
    """`sealing.db` in `folder`. Safe for many threads, and beside other processes.

    With `readonly` nothing is made or changed; then the file has to be there.
    """

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self._path: Final = folder / FILE_NAME
        self._name: Final = str(self._path)
        self._readonly: Final = readonly
        self._reading: Final = threading.Lock()
        """Guards the connection that reads. It is never held while something is written, so no lookup waits for a
        merge."""
        self._writing: Final = threading.RLock()
        """Guards the connection that writes. Who writes a merge also reads, and may be the first to do so: of the two
        locks this one is always taken first."""
        self._reader: apsw.Connection | None = None
        self._reader_of: tuple[int, int] | None = None
        self._writer: apsw.Connection | None = None
        self._writer_of: tuple[int, int] | None = None
        """Which file each connection has, as its name may be another file's by now."""

    def manifest(self) -> bytes | None:
        rows = self._read("SELECT content FROM manifest", ())
        return rows[0][0] if rows and type(rows[0][0]) is bytes else None

    def pages(self, run: int, first: int, end: int) -> list[bytes | None]:
        base = run << _PAGE_BITS
        rows = self._read("SELECT id, content FROM page WHERE id >= ? AND id < ?", (base + first, base + end))
        found = {number - base: content for number, content in rows if type(content) is bytes}
        return [found.get(number) for number in range(first, end)]

    def replace(
        self,
        expected: bytes | None,
        manifest: Callable[[], bytes],
        *,
        pages: Iterable[tuple[int, int, bytes]],
        kept: Sequence[int],
    ) -> bool:
        with self._writing, _noticing_damage("write sealing.db"):
            writer = self._open_writer()
            with transaction(writer):  # a crash within leaves what was there before
                found = query(writer, "SELECT content FROM manifest")
                if (found[0][0] if found else None) != expected:
                    return False
                rows = ((run << _PAGE_BITS | number, content) for run, number, content in pages)
                writer.executemany("INSERT OR REPLACE INTO page VALUES (?, ?)", rows)
                writer.execute("INSERT OR REPLACE INTO manifest VALUES (1, ?)", (manifest(),))
                _drop_others(writer, kept)
        return True

    def discard(self) -> None:
        self.close()
        with self._writing, self._reading, translated("remove sealing.db"), self._alone():
            self._remove("", "-wal", "-shm")

    def close(self) -> None:
        with self._writing, self._reading:
            self._close_reader()
            self._close_writer()

    def _read(self, statement: str, values: Sequence[int]) -> list[tuple[Any, ...]]:
        with _noticing_damage("read sealing.db"):
            for _ in range(0 if self._readonly else _OPENED_MAX):
                try:
                    if self._is_elsewhere():
                        with self._writing:
                            self._open_writer()  # which makes the file, if it is not there
                    return self._query(statement, values)
                except apsw.CantOpenError:
                    continue  # it was removed between the two
            return self._query(statement, values)

    def _is_elsewhere(self) -> bool:
        """Whether nothing was read yet, or the file was replaced or removed: others use what has its name now."""
        return self._reader is None or identity(self._name) != self._reader_of

    def _query(self, statement: str, values: Sequence[int]) -> list[tuple[Any, ...]]:
        with self._reading:
            if self._is_elsewhere():
                self._close_reader()
                self._reader = connect_readonly(self._path, immutable=False, value_bytes_max=_VALUE_BYTES_MAX)
                self._reader_of = identity(self._name)
                if self._readonly:
                    if not query(self._reader, "SELECT 1 FROM sqlite_schema LIMIT 1"):
                        self._close_reader()  # another process makes it just now, and there is nothing in it yet
                        return []
                    _check_layout(self._reader)
            assert self._reader is not None, "it was opened"
            return query(self._reader, statement, values)

    def _open_writer(self) -> apsw.Connection:
        if self._writer is not None:
            if self._writer.in_transaction or identity(self._name) == self._writer_of:
                return self._writer
            self._close_writer()
        writer = self._make() if identity(self._name) is None else self._connect()
        with closed_on_error(writer):
            writer.pragma("cache_size", -_CACHE_KB)
            with transaction(writer):
                if not query(writer, "SELECT 1 FROM sqlite_schema LIMIT 1"):
                    run_script(writer, _script())
            _check_layout(writer)
        self._writer, self._writer_of = writer, identity(self._name)
        return writer

    def _connect(self) -> apsw.Connection:
        return connect(self._path, synchronous="normal", value_bytes_max=_VALUE_BYTES_MAX)

    def _make(self) -> apsw.Connection:
        """Begin a new file. What SQLite left beside one that was removed is not its own: other processes may have that
        mapped still, and end if it is cut (SIGBUS)."""
        with self._alone():
            if identity(self._name) is None:
                self._remove("-wal", "-shm")
            return self._connect()

    def _remove(self, *suffixes: str) -> None:
        for suffix in suffixes:  # of a link the link itself is removed
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process removes the file, or begins a new one: it would remove what this one just made."""
        with open_lock(self._path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed, or the process ends
            yield

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        _close(reader)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        _close(writer)


def _check_layout(connection: apsw.Connection) -> None:
    if connection.pragma("user_version") != _LAYOUT or schema_of(connection) != schema_made_by(_script()):
        raise TamperError("sealing.db has another layout, or its schema was altered")


def _close(connection: apsw.Connection | None) -> None:
    if connection is not None:
        with suppress(apsw.Error):  # of a file that is damaged: there is nothing in it that anybody needs
            connection.close()


def _drop_others(writer: apsw.Connection, kept: Sequence[int]) -> None:
    """Remove the pages of all runs but these."""
    first = 0
    for run in sorted(kept):
        writer.execute("DELETE FROM page WHERE id >= ? AND id < ?", (first, run << _PAGE_BITS))
        first = (run + 1) << _PAGE_BITS
    writer.execute("DELETE FROM page WHERE id >= ?", (first,))


@contextmanager
def _noticing_damage(doing: str) -> Iterator[None]:
    """Damage as `TamperError`, which the caller heals; all else as a failing store."""
    try:
        with translated(doing):
            yield
    except NotPlainError as error:
        raise TamperError(str(error)) from error
    except StoreError as error:
        if isinstance(error.__cause__, _DAMAGE):
            raise TamperError(f"sealing.db is damaged: {error.__cause__}") from error
        raise


def _script() -> str:
    return files("tallystick.store").joinpath("sealing.sql").read_text("utf-8")
