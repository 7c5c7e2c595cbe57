"""The default store: one SQLite database file in the ledger's folder, through apsw.

Write-ahead log with `synchronous=FULL`: a commit returns after its frames reached the disk, and readers
see it only then. One transaction is one commit of the contract; what a crash leaves of an unfinished one
is ignored when the file is next opened.

Readers take short snapshots, a page of records at a time, and so never hold back the log's reset.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import apsw

from tallystick.core.merkle import TILE_LEVELS_MAX, Tile
from tallystick.errors import ConflictError, DamagedError, NotFoundError, StoreError, TamperError
from tallystick.limits import READ_RECORDS_MAX, SIZE_MAX
from tallystick.made_file import Made
from tallystick.private_file import make_folder
from tallystick.sqlite_file import (
    BoundedReader,
    begin,
    check_schema,
    closed_on_error,
    connect,
    connect_readonly,
    copy_open,
    held,
    query,
    roll_back,
    run_script,
    schema_made_by,
    schema_of,
    transaction,
    translated,
    waiting,
    waiting_eagerly,
)
from tallystick.sqlite_intact import Intact
from tallystick.store.contract import Batch, Head, StoredRecord
from tallystick.store.sqlite_prune import prune_records, pruned_below
from tallystick.store.sqlite_rows import INDEX_BITS, checked, insert

FILE_NAME: Final = "ledger.db"
_APPLICATION_ID: Final = int.from_bytes(b"TLST", "big")
_LAYOUT: Final = 2
_WAL_PAGES: Final = 2_000
"""Pages of write-ahead log after which they are copied into the file: 16 MB."""

_FETCH: Final = (
    "SELECT position, bytes, crc32 FROM record WHERE position IN (SELECT value FROM json_each(?)) ORDER BY position"
)
_SELECT_HEAD: Final = "SELECT size, checkpoint, epoch_at, checkpoint_key_at, evidence_key_at FROM head"
_MOVE_HEAD: Final = (
    "UPDATE head SET size=?, checkpoint=?, epoch_at=?, checkpoint_key_at=?, evidence_key_at=?"
    " WHERE size=? AND checkpoint=coalesce(?, checkpoint)"
)
_SELECT_STRAY: Final = (
    "SELECT 'record', position FROM record WHERE position < 0"
    " UNION ALL SELECT 'tile', number FROM tile WHERE number < 0 OR number >= ?"
    " UNION ALL SELECT 'leaf hash', position FROM leaf WHERE position < 0 OR position IN (SELECT position FROM record)"
    " OR position >= coalesce((SELECT max(below) FROM pruned), 0)"
    " UNION ALL SELECT 'row of pruned', id FROM pruned"
    " WHERE id <> 1 OR typeof(below) <> 'integer' OR below < 1 LIMIT 10"
)
_VALUE_BYTES_MAX: Final = 262_144
"""The longest are records and checkpoints, of 64 KiB, and the positions that are asked for at once, as a JSON text."""
_WRITTEN_BYTES_MAX: Final = 4_194_304
"""For who writes: a prune is handed 100,000 positions at once."""
_FETCHED_AT_ONCE: Final = 10_000
_PAGE_BYTES: Final = 8_192
_UNBOUNDED: Final = 1_000_000_000  # million steps, for what looks at all of the file


class SqliteStore:
    """One ledger in `folder / "ledger.db"`. See `tallystick.store.contract.Store` for what it promises.

    Opening touches nothing unless `create` is called. With `readonly` every write raises `StoreError`; `still` promises
    that nobody else writes either, and then nothing is made beside the file to read it.
    """

    def __init__(self, folder: Path, *, readonly: bool = False, still: bool = False) -> None:
        self.path: Final = folder / FILE_NAME
        self._readonly: Final = readonly
        self._still: Final = still
        self._writing = threading.RLock()
        self._in_turn = False
        self._schema_seen: object = None
        """The schema that was looked at last, as SQLite counts its changes."""
        self._idle: list[BoundedReader] = []
        self._writer: apsw.Connection | None = None
        self._intact: Final = Intact(self.path)
        self._process = os.getpid()
        self._closed = False

    def create(self, batch: Batch, head: Head) -> None:
        with self._writing, translated("create the ledger"):
            make_folder(self.path.parent)
            writer = self._open_writer()
            with transaction(writer):
                if query(writer, "SELECT 1 FROM sqlite_schema WHERE name = 'head'"):
                    raise ConflictError(f"there is already a ledger in {self.path}")
                # Tables, genesis and head appear together or, after a crash here, not at all.
                run_script(writer, _schema())
                insert(writer, batch)
                writer.execute("INSERT INTO head VALUES (1,?,?,?,?,?)", _head_row(head))

    def head(self) -> Head | None:
        if self._writer is None and not self._intact.is_begun and not os.path.lexists(self.path):
            return None
        with self._reader("read the head") as reader:
            if not query(reader, "SELECT 1 FROM sqlite_schema WHERE name = 'head'"):
                return None
            rows = query(reader, _SELECT_HEAD)
        if len(rows) != 1 or tuple(map(type, rows[0])) != (int, bytes, int, int, int) or not _is_head(*rows[0]):
            raise TamperError(f"{self.path} has lost its head, or has one that no commit makes")
        return Head(*rows[0])

    def commit(
        self, expected_size: int, batch: Batch, head: Head, *, after: bytes | None = None, patient: bool = True
    ) -> None:
        with held(self._writing, patient=patient, doing="commit"), self._noticing_damage("commit"):
            writer = self._open_writer()
            self._intact.look(writer)  # SQLite commits on a file that was emptied, too
            with waiting(writer, patient=patient), self._transaction(writer):
                self._check_schema(writer)
                writer.execute(_MOVE_HEAD, (*_head_row(head), expected_size, after))
                if not writer.changes():
                    present = query(writer, "SELECT size FROM head")
                    if not present:
                        raise StoreError(f"{self.path} holds no ledger yet; create it first")
                    raise ConflictError(f"the head is at {present[0][0]}, and not the one at {expected_size}")
                insert(writer, batch)
                # A crash up to here leaves frames that no commit frame covers: they are never read.

    @contextmanager
    def turn(self, *, patient: bool = True) -> Iterator[None]:
        with held(self._writing, patient=patient, doing="commit"):
            with self._noticing_damage("commit"):
                writer = self._open_writer()
                with waiting_eagerly(writer, patient=patient):
                    begin(writer)
            self._in_turn = True
            try:
                yield
            finally:
                self._in_turn = False
                with self._noticing_damage("commit"):
                    roll_back(writer)  # nothing, after a commit

    def _transaction(self, writer: apsw.Connection) -> AbstractContextManager[None]:
        """A transaction, or the one that this thread's turn has begun."""
        begun, self._in_turn = self._in_turn, False
        return transaction(writer, begun=begun)

    def read(self, first: int, end: int) -> Iterator[StoredRecord]:
        while first < end:
            with self._reader("read records") as reader:
                rows = query(
                    reader,
                    "SELECT position, bytes, crc32 FROM record WHERE position >= ? AND position < ?"
                    " ORDER BY position LIMIT ?",
                    (first, end, READ_RECORDS_MAX),
                )
            if not rows:
                return
            yield from checked(rows)
            if len(rows) < READ_RECORDS_MAX:
                return
            first = rows[-1][0] + 1

    def fetch(self, positions: Sequence[int]) -> list[StoredRecord]:
        wanted, rows = sorted({*positions}), []
        with self._reader("read records") as reader:
            for start in range(0, len(wanted), _FETCHED_AT_ONCE):
                rows += query(reader, _FETCH, (json.dumps(wanted[start : start + _FETCHED_AT_ONCE]),))
        return checked(rows) if rows else []

    def tiles(self, level: int, first: int, end: int) -> list[Tile]:
        base = level << INDEX_BITS
        with self._reader("read tiles") as reader:
            rows = query(
                reader,
                "SELECT number, hashes, root FROM tile WHERE number >= ? AND number < ? ORDER BY number",
                (base + first, base + end),
            )
        if not all(type(hashes) is type(root) is bytes for _, hashes, root in rows):
            raise DamagedError(f"the tiles of level {level} from {first} to {end - 1} are not tiles")
        return [Tile(level, number - base, hashes, root) for number, hashes, root in rows]

    def prune(self, end: int, kept: Sequence[int]) -> int:
        with self._writing, self._noticing_damage("prune"):
            return prune_records(self._open_writer(), end, kept, check=self._check_schema)

    def pruned_below(self) -> int:
        with self._reader("read up to where prunes went") as reader:
            return pruned_below(reader)

    def leaves(self, first: int, end: int) -> list[tuple[int, bytes]]:
        with self._reader("read leaf hashes") as reader:
            rows = query(
                reader, "SELECT position, hash FROM leaf WHERE position >= ? AND position < ? ORDER BY 1", (first, end)
            )
        if not all(type(leaf) is bytes for _, leaf in rows):
            raise DamagedError(f"the leaf hashes from {first} to {end - 1} are not hashes")
        return [(position, leaf) for position, leaf in rows]

    def last_position(self) -> int | None:
        with self._reader("find the last record") as reader:
            ((last,),) = query(reader, "SELECT max(position) FROM record")
        return int(last) if last is not None else None

    def inspect(self) -> list[str]:
        wanted = schema_made_by(_schema())
        with self._reader("inspect the file") as reader:
            reader.allow(_UNBOUNDED)
            found = schema_of(reader)
            # A record may be found by walking the file and not by looking for its position, or the reverse.
            problems = [text for (text,) in query(reader, "PRAGMA quick_check(10)") if text != "ok"]
            if {"record", "tile", "leaf", "pruned"} <= found.keys():
                stray = query(reader, _SELECT_STRAY, (TILE_LEVELS_MAX << INDEX_BITS,))
                problems += [f"a {table} numbered {number}, which no commit makes" for table, number in stray]
        problems += [f"{name} is missing from the schema" for name in sorted(wanted.keys() - found.keys())]
        problems += [f"{name} does not belong in the schema" for name in sorted(found.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & found.keys()):
            if wanted[name] != found[name]:
                problems.append(f"{name} was altered in the schema")
        return [f"{self.path}: {problem}" for problem in problems]

    def copy(self, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
        # A connection of its own: while it reads, the log is not reset, and grows by what is committed meanwhile.
        with translated(f"copy {self.path}"):
            self._check_usable()
            with closing(self._open_reader()) as reader:
                return copy_open(reader, folder / FILE_NAME, progress=progress)

    def probe(self) -> None:
        # A connection of its own: the others answer from their caches what the file has lost.
        with translated("read the log from the disk"):
            self._check_usable()
            self._intact.check_name(now=True)
            with closing(self._open_reader()) as reader:
                found = query(reader, "SELECT count(*) FROM head, record WHERE position IN (0, size - 1)")
                self._intact.check_rest(reader, now=True)
        if found != [(2,)]:
            raise self._intact.damaged(f"{self.path} has lost its first or its last record")

    def look(self) -> None:
        with self._reader("look at the file") as reader:
            self._intact.look(reader, now=True)

    def bytes_used(self) -> int:
        paths = (self.path, Path(f"{self.path}-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    def close(self) -> None:
        with self._writing:
            self._closed = True
            connections = [*self._idle, *([self._writer] if self._writer else [])]
            self._idle, self._writer = [], None
            if self._process == os.getpid():
                for connection in connections:
                    self._intact.close(connection)

    def _open_writer(self) -> apsw.Connection:
        self._check_usable()
        if self._writer is None:
            if self._readonly:
                raise StoreError(f"{self.path} was opened for reading only")
            if self.path.exists():
                self._open_reader().close()  # refuses what is not a ledger before anything touches it
            self._writer = connect(
                self.path,
                synchronous="full",
                page_bytes=_PAGE_BYTES,
                shrinks=True,
                value_bytes_max=_WRITTEN_BYTES_MAX,
            )
            self._check_schema(self._writer)
            self._writer.wal_autocheckpoint(_WAL_PAGES)
            self._intact.look(self._writer)
            self._writer.pragma("secure_delete", True)  # a page that is left behind may hold what is pruned later
        return self._writer

    def _check_schema(self, writer: apsw.Connection) -> None:
        """Whether nobody put anything into the schema since it was last looked at. Within a transaction nobody can.

        A trigger would run in our own transactions, and change what they write.
        """
        # The version of the schema alone does not tell: whoever wrote a trigger may have put the old number back.
        seen = query(writer, "PRAGMA data_version"), query(writer, "PRAGMA schema_version")
        if seen != self._schema_seen:
            check_schema(writer, _schema(), path=self.path)
            self._schema_seen = seen

    @contextmanager
    def _reader(self, doing: str) -> Iterator[BoundedReader]:
        """A connection for one short read, taken from the idle ones or opened."""
        with self._noticing_damage(doing):
            self._check_usable()
            is_due = self._intact.check_name()
            try:
                reader = self._idle.pop()
            except IndexError:
                reader = self._open_reader()
            reader.allow()
            try:
                if is_due:
                    self._intact.check_rest(reader)
                yield reader
            finally:
                if self._closed:
                    self._intact.close(reader)
                else:
                    self._idle.append(reader)

    @contextmanager
    def _noticing_damage(self, doing: str) -> Iterator[None]:
        """SQLite's errors as ours. Where one may come of damage, it is looked at once whether the log is there still:
        if it is not, to repeat the call is of no use."""
        try:
            with translated(doing):
                yield
        except DamagedError:
            self._intact.is_damaged = True
            raise
        except StoreError as error:
            if isinstance(error.__cause__, apsw.Error | OSError) and self._intact.is_begun and not self._closed:
                try:
                    self.probe()
                except DamagedError as found:
                    raise self._intact.damaged(f"could not {doing}: {found}") from error
                except (StoreError, NotFoundError):
                    pass  # the disk is full, or does not answer: this may be over soon
            raise

    def _open_reader(self) -> BoundedReader:
        if not os.path.lexists(self.path):
            raise NotFoundError(f"there is no ledger in {self.path.parent}")
        # Without a log to read and without leave to make one, the file is all there is, and stands still.
        alone = not Path(f"{self.path}-wal").exists() and not os.access(self.path.parent, os.W_OK)
        try:
            return self._connect_reader(immutable=alone or self._still)
        except apsw.ReadOnlyError:
            # A crash left a half-done step for the next writer to undo, and a reader may not: so we do, once.
            self._undo_what_a_crash_left()
            return self._connect_reader(immutable=False)

    def _connect_reader(self, *, immutable: bool) -> BoundedReader:
        connected = connect_readonly(self.path, immutable=immutable, value_bytes_max=_VALUE_BYTES_MAX)
        with closed_on_error(connected):
            _check_layout(connected, self.path)
        connected.bound()
        return connected

    def _undo_what_a_crash_left(self) -> None:
        """Open the file for writing and read: SQLite then rolls back, or recovers, by itself."""
        with closing(apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            query(connection, "SELECT 1 FROM sqlite_schema LIMIT 1")

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
        if self._process != os.getpid():
            raise StoreError("the ledger was opened before a fork; open it again in this process")


def _is_head(size: int, _: bytes, *positions: int) -> bool:
    """Whether a commit may have made this; whether what it names is there, the readers tell."""
    return 0 < size <= SIZE_MAX and all(0 <= position <= SIZE_MAX for position in positions)


def _head_row(head: Head) -> tuple[Any, ...]:
    return (head.size, head.checkpoint, head.epoch_at, head.checkpoint_key_at, head.evidence_key_at)


def _check_layout(connection: apsw.Connection, path: Path) -> None:
    # Emptiness first: another process may create the ledger between any two of these, and does it at one stroke.
    if not query(connection, "SELECT 1 FROM sqlite_schema LIMIT 1"):
        return
    if connection.pragma("application_id") != _APPLICATION_ID:
        raise DamagedError(f"{path} is a SQLite database, but not a Tallystick ledger")
    layout = connection.pragma("user_version")
    if layout != _LAYOUT:
        raise DamagedError(f"{path} has layout {layout}; this version reads {_LAYOUT}: use the matching version")
    check_schema(connection, _schema(), path=path, tables_only=True)  # the rest is for `inspect` to find


@cache
def _schema() -> str:
    return files("tallystick.store").joinpath("sqlite.sql").read_text("utf-8")
