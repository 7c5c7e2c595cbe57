"""Rows of records on their way into the index: saved by a transaction, or kept in one that is not committed.

While the file cannot be written, as on a full disk, the changed pages of an open transaction stay in SQLite's memory,
and its connection reads all others from the file: so the same statements answer for all records. The transaction holds
the index's write lock. It is rolled back before each attempt to write, and then begun again for what is not written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import apsw

from tallystick.core.corrected import CLOCK_CORRECTED, Correction
from tallystick.core.record import Record
from tallystick.errors import RejectedError, StoreError, TallystickError, TamperError
from tallystick.read.index import too_much
from tallystick.read.sqlite_reached import AlteredError
from tallystick.read.sqlite_schema import save_statements
from tallystick.store.contract import Store
from tallystick.store.reading import hash_at

UNSAVED_MEMORY_BYTES_MAX: Final = 67_108_864
"""Pages that the connection may have in memory while rows are kept there. Of a large index each record changes ten."""

TURN_SECONDS: Final = 0.12
"""For how long other processes may take the write lock before it is taken again. SQLite looks for it ten times a
second."""

_CORRECTED: Final = b'"event_type":"%b"' % CLOCK_CORRECTED.encode()

_LOOK_STEPS: Final = 10_000
"""How often the memory is looked at, in steps of SQLite's virtual machine."""

_log: Final = logging.getLogger("tallystick.index")


class RowWriter:
    """Writes the rows of records of one ledger, in a transaction that somebody else begins."""

    def __init__(self, store: Store, ledger_id: bytes) -> None:
        self._store: Final = store
        self._ledger_id: Final = ledger_id

    def write(self, writer: apsw.Connection, first: int, end: int, lines: Sequence[bytes]) -> None:
        """Write the rows of the records in [first, end) that are not there yet, and the cursor."""
        # One statement a table, its rows as one JSON text: SQLite then runs without the interpreter's lock,
        # where a statement a row would wait for it thousands of times beside a busy sealing thread.
        sql, execute = save_statements(), writer.execute
        saved = saved_to(writer)
        if saved >= end:
            return  # another process saved these records already
        if saved < first:
            raise AlteredError(f"it has rows up to {saved} only, and had them up to {first}")
        execute(sql["clear"])
        _stage(writer, lines, saved, end)
        for step in ("entities", "terms", "events", "labels", "postings"):
            execute(sql[step])
        counted = saved
        for position, moment in (
            corrections_in(lines) if execute(sql["has_type"], (CLOCK_CORRECTED,)).fetchall() else ()
        ):
            if position >= saved:  # what stands before it counts before it is moved, and what stands after is not
                execute(sql["tallies"], (counted, position))
                correct(writer, position, moment)
                counted = position
        execute(sql["tallies"], (counted, end))
        execute(sql["cursor"], (end, hash_at(self._store, end - 1), self._ledger_id))
        execute(sql["clear"])


def corrections_in(lines: Iterable[bytes]) -> list[Correction]:
    """What records say of the clock, those that are in order to."""
    found = []
    for line in lines:
        if _CORRECTED in line:
            with suppress(RejectedError):
                found.append(Correction.of(Record.parse(line)))
    return found


def correct(writer: apsw.Connection, position: int, moment: int) -> None:
    """Have what there is of records before a correction of the clock count as no later than it."""
    sql = save_statements()
    [[first]] = cast("list[tuple[int]]", writer.execute(sql["moved_from"], (0, position, moment)).fetchall())
    moved = (first, position, moment)
    writer.execute(sql["move_tally"], moved)
    writer.execute(sql["clear_tally"], moved)
    if first < position or writer.changes():
        writer.execute(sql["correct"], moved)
        writer.execute(sql["recount_cells"])
        writer.execute(sql["recount"])


class Unsaved:
    """Rows that are kept in memory. Used by whoever holds the lock of the writing connection."""

    def __init__(self, rows: RowWriter, *, is_shared: bool) -> None:
        """`is_shared` tells whether other processes use the file, too."""
        self._rows: Final = rows
        self._is_shared: Final = is_shared
        self._first = self.saved = self.end = 0
        """Up to where the file itself answers, and up to where with what is kept; 0 when nothing is."""
        self._lines: Sequence[bytes] = ()
        self._failure: TallystickError | None = None

    def keep(self, writer: apsw.Connection, first: int, end: int, lines: Sequence[bytes]) -> None:
        """Keep the rows of the records in [first, end) in place of what is kept. Raises `StoreError`, and then keeps
        what was kept before."""
        before = self._first, self.end, self._lines
        if self.end:
            self._roll_back(writer)
        self._first, self.end, self._lines = first, end, lines
        self._begin(writer)
        failure = self._failure
        if failure is not None:
            self._failure = None
            self._first, self.end, self._lines = before
            if self.end:
                self._begin(writer)
            raise failure

    def check(self) -> None:
        """Raises `StoreError` when rows were kept, questions were answered from them, and they could not be kept
        again: an answer without them would leave records out."""
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def aside(self, writer: apsw.Connection) -> Iterator[None]:
        """Let go of what is kept while the file is written; then keep again what the file has not."""
        if not self.end:
            yield
            return
        self._roll_back(writer)
        if self._is_shared:  # they answer from their memory, and have the same turn
            time.sleep(TURN_SECONDS)
        try:
            yield
        finally:
            self._begin(writer)

    @contextmanager
    def within(self, writer: apsw.Connection) -> Iterator[None]:
        """Change other rows in memory, too; they are lost with the next attempt to write. Raises `StoreError`."""
        self.check()
        with writer, self._bounded(writer):  # a savepoint
            yield

    def _begin(self, writer: apsw.Connection) -> None:
        """Begin the transaction. What goes wrong is for `check` to raise: the caller may have an error of its own."""
        self._failure = None
        try:
            writer.pragma("cache_spill", False)  # else changed pages go to the log of the file
            writer.execute("BEGIN IMMEDIATE")
            self.saved = saved_to(writer)
            if self.saved >= self.end:
                self._roll_back(writer)
                self.end, self._lines = 0, ()
                return
            # Merges rewrite parts of the posting lists, however large: they wait until that can be written.
            writer.execute("INSERT INTO posting (posting, rank) VALUES ('automerge', 0), ('crisismerge', 1000)")
            with self._bounded(writer):
                self._rows.write(writer, self._first, self.end, self._lines)
        except BaseException as error:  # also Ctrl-C: nobody may read the half of it
            self._roll_back(writer)
            said = f"the index cannot be written, and not be kept in memory: {error}"
            self._failure = error if isinstance(error, TallystickError) else StoreError(said)
            _log.warning("%s", said)
            if not isinstance(error, apsw.Error | TallystickError):
                raise

    @contextmanager
    def _bounded(self, writer: apsw.Connection) -> Iterator[None]:
        """Stop statements at which the memory would get too large. Raises `StoreError`."""
        writer.set_progress_handler(lambda: _memory_of(writer) > UNSAVED_MEMORY_BYTES_MAX, _LOOK_STEPS)
        try:
            yield
        except apsw.InterruptError as error:
            raise too_much(self.end - self.saved) from error
        finally:
            writer.set_progress_handler(None)

    @staticmethod
    def _roll_back(writer: apsw.Connection) -> None:
        with suppress(apsw.Error):  # of a connection that is closed there is nothing to roll back
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            writer.pragma("cache_spill", True)


def saved_to(connection: apsw.Connection) -> int:
    """Up to which position there are rows."""
    found: list[Any] = connection.execute("SELECT position FROM cursor").fetchall()
    return int(found[0][0]) if found else 0


def _memory_of(connection: apsw.Connection) -> int:
    return int(connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0])


def _stage(writer: apsw.Connection, lines: Sequence[bytes], saved: int, end: int) -> None:
    """Take the records apart into the rows of a table in memory."""
    try:
        text = b"[%b]" % b",".join(lines)
        writer.execute(save_statements()["stage"], (text, saved), can_cache=False)  # a cached one would keep the text
        [[staged, first, last]] = writer.execute("SELECT count(*), min(position), max(position) FROM incoming")
    except (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError) as error:
        raise TamperError(f"records at positions {saved} to {end - 1} are damaged ({error}): verify") from error
    if staged and not saved <= first <= last < end:
        raise TamperError(f"records at positions {saved} to {end - 1} say that they stand elsewhere: verify")
