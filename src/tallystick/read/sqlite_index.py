"""The index in one SQLite file beside the ledger, `index.db`; in memory for a ledger that is itself there.

Nothing here is precious: a file that is damaged, of another layout, of another ledger, or ahead of the log
is deleted and made anew, and the diagnostics say so. Commits need not reach the disk at once, only stay
whole: a cursor that fell back is caught up from the log.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import apsw

from tallystick.errors import BusyError, DamagedError, DamagedIndexError, StoreError, TamperError
from tallystick.read.declared import Declared
from tallystick.read.index import FindId
from tallystick.read.index_files import FILE_NAME, SUPERSEDED, delete_files
from tallystick.read.sqlite_figures import Test, hand_on, number
from tallystick.read.sqlite_forget import forget
from tallystick.read.sqlite_questions import SqliteQuestions
from tallystick.read.sqlite_reached import AlteredError, Reached, check_end, reached
from tallystick.read.sqlite_rollups import SqliteRollups
from tallystick.read.sqlite_saving import RowWriter, Unsaved
from tallystick.read.sqlite_schema import save_statements, schema
from tallystick.read.sqlite_snapshots import SqliteSnapshots
from tallystick.read.words import searchable
from tallystick.sqlite_file import (
    bounded,
    connect,
    connect_readonly,
    identity,
    is_damage,
    run_script,
    schema_made_by,
    schema_of,
    transaction,
    translated,
)
from tallystick.sqlite_intact import Intact
from tallystick.store.contract import Store
from tallystick.store.reading import hash_at

LAYOUT: Final = 4
_UNUSABLE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError)
"""What SQLite says of a file whose content, or whose schema, is not what we wrote."""
_NOT_OURS: Final = (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError)
"""What it says of a statement of ours where there are rows that none of ours left."""

_CACHE_KB: Final = 8_192
"""What the writing connection keeps of the file in memory: the pages that every batch touches."""

_number: Final = count()
_log: Final = logging.getLogger("tallystick.index")


class SqliteIndexFile:
    """Keeps `IndexFile` for the ledger in `store`. Without a folder it is in memory.

    One thread at a time writes; any number read, each through a connection of its own. `scratch` is removed
    when the index is closed.
    """

    def __init__(
        self,
        folder: Path | None,
        store: Store,
        *,
        find: FindId | None = None,
        scratch: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self._scratch: Final = scratch
        memory = Path(f"/tallystick-index-{next(_number)}")
        self._in_memory: Final = folder is None
        self.path: Final = folder / FILE_NAME if folder else memory
        self._store: Final = store
        self._ledger_id: Final = hash_at(store, 0)
        self._writer: apsw.Connection | None = None
        self._idle: list[apsw.Connection] = []
        self._writing: Final = threading.Lock()
        self._closed = False
        self._identity: tuple[int, int] | None = None
        """Of the file that the writing connection has, in which all must read."""
        self._intact: Intact | None = None
        """What is known of that file; None for one that nobody else can reach."""
        self._moved: str | None = None
        """That the file has lost its name, if it has."""
        self._is_stale = False
        """Whether it was one of us who took it away, to rebuild it."""
        self._losing: Final = threading.Lock()
        self._lost: str | None = None
        """Why the file was deleted by this one, if it was."""
        self._rows: Final = RowWriter(store, self._ledger_id)
        self._unsaved: Final = Unsaved(self._rows, is_shared=folder is not None and scratch is None)
        self.questions: Final = SqliteQuestions(self.query, self.each, self.tokens, find)
        self.rollups: Final = SqliteRollups(self)
        problem = self._open()
        if problem:
            _log.warning("the index %s is made anew: %s", self.path, problem)
            self._delete()
            problem = self._open()
        if problem:
            raise StoreError(f"could not make the index {self.path}: {problem}")

    def snapshots(self, declared: Declared, *, prune_at: Callable[[], int]) -> SqliteSnapshots:
        return SqliteSnapshots(self, declared, prune_at=prune_at)

    def cursor(self) -> int:
        if self._unsaved.end:
            return self._unsaved.saved
        rows = self.query("SELECT position FROM cursor", kinds=(number,))
        return int(rows[0][0]) if rows else 0

    def save(self, first: int, end: int, lines: Sequence[bytes]) -> None:
        with self._writing, self._noticing_damage("write the index"):
            writer = self._open_writer()
            with self._unsaved.aside(writer), transaction(writer):
                self._rows.write(writer, first, end, lines)

    @property
    def kept_to(self) -> int:
        return self._unsaved.end

    def keep(self, first: int, end: int, lines: Sequence[bytes]) -> None:
        with self._writing, self._noticing_damage("keep rows of the index in memory"):
            self._unsaved.keep(self._open_writer(), first, end, lines)

    def forgotten(self) -> int:
        rows = self.query("SELECT prune_at FROM forgotten", kinds=(number,))
        return int(rows[0][0]) if rows else 0

    def forget(self, absent: Iterable[tuple[int, int]], *, prune_at: int) -> int:
        with self._writing, self._noticing_damage("write the index"):
            writer = self._open_writer()
            writer.pragma("secure_delete", True)
            try:
                with self._unsaved.aside(writer), transaction(writer):
                    count = forget(writer, absent, prune_at=prune_at)
                # A crash here leaves room in the file that later rows take up.
                writer.execute("PRAGMA incremental_vacuum").fetchall()
            finally:
                writer.pragma("secure_delete", "fast")
        return count

    def close(self) -> None:
        self._closed = True
        with self._writing:
            idle, self._idle = self._idle, []
            for connection in (*idle, *([self._writer] if self._writer else [])):
                connection.close()
            self._writer = None
        if self._scratch is not None:
            self._scratch.cleanup()

    @contextmanager
    def changing(self) -> Iterator[apsw.Connection]:
        """The writing connection, in a transaction."""
        with self._writing, self._noticing_damage("write the index"):
            writer = self._open_writer()
            with self._unsaved.within(writer) if self._unsaved.end else transaction(writer):
                yield writer

    def _open_writer(self) -> apsw.Connection:
        self._check_open()
        assert self._writer is not None, "it is open"
        self._look(self._writer)
        return self._writer

    def _check_open(self) -> None:
        if self._lost is not None:
            raise DamagedIndexError(self._lost)
        if self._closed or self._writer is None:
            raise StoreError(f"the index {self.path} is closed: open the ledger again")

    def look(self, *, now: bool = False) -> bool:
        self._check_open()
        if self._intact is not None and (now or self._intact.is_due):
            with self._noticing_damage("look at the index"), self._reader() as reader:
                self._look(reader, now=now)
        if self._moved is not None and not self._is_stale:
            raise self._give_up(self._moved)
        return not self._is_stale

    def _look(self, connection: apsw.Connection, *, now: bool = False) -> None:
        """Look at the file before it is used. Of one that lost its name, what is open answers as before."""
        if self._intact is None or self._moved is not None:
            return
        try:
            is_due = self._intact.check_name(now=now)
        except DamagedError as error:
            self._is_stale = connection.pragma("user_version") == SUPERSEDED
            self._moved = str(error)
            return
        try:
            if is_due:
                self._intact.check_rest(connection, now=now)
        except DamagedError as error:
            raise self._give_up(str(error)) from error

    def query(self, statement: str, values: Sequence[str | int] = (), kinds: Sequence[Test] = ()) -> list[Any]:
        """The rows of one statement that reads. Their values have to pass the tests of their columns."""
        rows: list[Any] = []
        self.each(statement, values, kinds, rows.extend)
        return rows

    def each(
        self, statement: str, values: Sequence[str | int], kinds: Sequence[Test], take: Callable[[list[Any]], None]
    ) -> None:
        """The same, handed to `take` some at a time, so that not all of them are in memory."""
        with self._noticing_damage("read the index"), self._reader() as reader:
            self._look(reader)
            hand_on(reader.execute(statement, values), kinds, take)

    def tokens(self, text: str) -> list[str]:
        """The words of a text as the posting lists have them."""
        with self._noticing_damage("read the index"), self._reader() as reader:
            tokenizer = reader.fts5_tokenizer("unicode61", ["remove_diacritics", "0", "tokenchars", "\x01"])
            found: Any = tokenizer(
                text.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False
            )
        return [*found]

    @contextmanager
    def _reader(self) -> Iterator[apsw.Connection]:
        """A connection for one short read, taken from the idle ones or opened; or else the writing one, in its turn."""
        self._check_open()
        reader: apsw.Connection | None
        if self._unsaved.end:  # only the connection that changed rows in memory sees them
            with self._writing:
                writer = self._open_writer()
                self._unsaved.check()
                yield writer
            return
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = self._connect_reader()
        if reader is None:
            with self._writing:
                yield self._open_writer()
            return
        try:
            yield reader
        finally:
            if self._closed:
                reader.close()
            else:
                self._idle.append(reader)

    @contextmanager
    def _noticing_damage(self, doing: str) -> Iterator[None]:
        """Delete a file that turns out to be damaged. Only the next opening rebuilds it: what was already read from it
        cannot be trusted either. Errors of the log, which have been translated, go through."""
        try:
            yield
        except AlteredError as error:
            raise self._give_up(str(error)) from error
        except (apsw.Error, OSError, UnicodeDecodeError) as error:
            reason = None if self._closed else self._damage(error)
            if reason is not None:
                raise self._give_up(reason) from error
            if self._lost is not None:
                raise DamagedIndexError(self._lost) from error
            with translated(doing):
                raise

    def _damage(self, error: apsw.Error | OSError | UnicodeDecodeError) -> str | None:
        """Why an error comes of damage; None when it does not, such as of a full disk, or of another who writes."""
        if is_damage(error) or isinstance(error, _NOT_OURS):
            return str(error)
        if self._intact is None or self._moved is not None or isinstance(error, apsw.BusyError | apsw.LockedError):
            return None
        found = self._intact.find_damage("SELECT position FROM cursor")
        return None if found is None else f"{error}; {found}"

    def _give_up(self, reason: str) -> DamagedIndexError:
        """Delete the file, once: the next one of its name may be there already. The error that says so."""
        with self._losing:
            if self._lost is None:
                _log.warning("the index %s is damaged, and deleted: %s", self.path, reason)
                self._lost = (
                    f"the index {self.path} was damaged or replaced, and is deleted ({reason}): open the ledger again "
                    "to have it rebuilt"
                )
                self._closed = True
                self._delete()
        return DamagedIndexError(self._lost)

    def _open(self) -> str | None:
        """Open or make the file; why its content cannot be used, or None when it can."""
        found = identity(str(self.path))
        try:
            self._writer = self._connect_writer()
            self._identity = identity(str(self.path))
            with transaction(self._writer):
                if not self._writer.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
                    run_script(self._writer, schema())
                    self._writer.execute("INSERT INTO posting (posting, rank) VALUES ('hashsize', 4194304)")
            run_script(self._writer, save_statements()["staging"])
            problem = self._problem()
            if not self._in_memory and self._scratch is None:
                self._intact = Intact(self.path, advice="")
                self._intact.look(self._writer, now=True)
            return problem
        except apsw.BusyError as error:
            raise BusyError(f"another process holds the index {self.path}: wait a moment, then repeat") from error
        except (DamagedError, *_UNUSABLE) as error:
            return str(error)
        except apsw.Error as error:
            # Another thread may have deleted it just now, which SQLite tells of as of a disk that fails.
            if is_damage(error) or found not in (None, identity(str(self.path))):
                return str(error)
            raise StoreError(f"could not open the index {self.path}: {error}") from error  # such as of a full disk

    def _connect_writer(self) -> apsw.Connection:
        if self._in_memory:
            writer = bounded(apsw.Connection(self._memory_uri, flags=_MEMORY_FLAGS))
            writer.set_busy_timeout(_BUSY_MS)
        else:
            writer = connect(self.path, synchronous="normal", shrinks=True)
        writer.pragma("cache_size", -_CACHE_KB)
        writer.pragma("temp_store", "memory")
        writer.create_scalar_function("searchable", lambda *values: searchable(values[0]), 1, deterministic=True)
        return writer

    def _connect_reader(self) -> apsw.Connection | None:
        """None if the file was deleted beneath us: by its name there is none now, or that of another process."""
        if self._in_memory:
            reader = bounded(apsw.Connection(self._memory_uri, flags=_MEMORY_FLAGS))
            reader.set_busy_timeout(_BUSY_MS)
            return reader
        if identity(str(self.path)) == self._identity:
            opened = connect_readonly(self.path, immutable=False)
            if identity(str(self.path)) == self._identity:
                return opened
            opened.close()
        return None

    @property
    def _memory_uri(self) -> str:
        return f"file:{self.path}?vfs=memdb"

    def _problem(self) -> str | None:
        """Why the index cannot be followed on from where it is; None when it can."""
        found: Reached | None = None
        # In one transaction: another process may save between any two of these, and then rows have no cursor yet.
        with self._reader() as reader, reader:
            [[layout]] = reader.execute("PRAGMA user_version").fetchall()
            if layout != LAYOUT or schema_of(reader) != schema_made_by(schema()):
                return f"it has layout {layout} and is not what layout {LAYOUT} makes"
            found = reached(reader)
            if found is not None:
                check_end(reader, found)
        if found is None:
            return None
        if found.ledger_id != self._ledger_id:
            return "it is another ledger's"
        self._check_same_log(found.position, found.last_hash)
        return None

    def _check_same_log(self, position: int, last_hash: bytes) -> None:
        """What the index followed is never ahead of the log, and never another: it is told of commits only.

        So if it is, the log was put back or rewritten; making the index anew would destroy the trace of it.
        """
        head = self._store.head()
        ahead = head is None or position > head.size
        found = hash_at(self._store, position - 1)
        if not found and position <= self._store.pruned_below():
            return  # its last record was pruned since
        if ahead or found != last_hash:
            seen = f"has seen {position} records, and the ledger now has {head.size if head else 0}"
            raise TamperError(
                f"{self.path} {seen}: an older copy was put back, or records were cut off; verify. "
                "If you did that on purpose, delete index.db"
                if ahead
                else f"{self.path} has seen another record at position {position - 1}: the record or the index was "
                "altered; verify, and if that holds, delete index.db"
            )

    def _delete(self) -> None:
        closed, self._closed = self._closed, True
        idle, self._idle = self._idle, []
        for connection in (*idle, *([self._writer] if self._writer else [])):
            with suppress(apsw.Error):  # another thread uses it just now, and its call fails by itself
                connection.close()
        self._writer = self._intact = None
        if not self._in_memory:
            delete_files(self.path.parent)
        self._closed = closed


_BUSY_MS: Final = 30_000
_MEMORY_FLAGS: Final = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
