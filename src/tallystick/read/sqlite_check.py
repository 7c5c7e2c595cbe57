"""Comparing an index file with the log that it is derived from: whatever the index would answer wrongly is found.

The log is read range by range; each range is made into an index in memory, by the same statements that fill the
file, and the two are compared row by row. Snapshots and roll-ups are made again, by modules of their own. Posting lists
cannot be read by range: there both sides are reduced to one number a word, by random numbers that are drawn for the
check, and those are compared. Where they differ, a second pass says where. Nothing is written, memory is bounded by
the range, and writers are not held up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
import orjson

from tallystick.core.corrected import CLOCK_CORRECTED, Correction, Times
from tallystick.core.pruned import RecordsPruned
from tallystick.errors import DamagedError, StoreError, TallystickError
from tallystick.ids import random_bytes
from tallystick.limits import SIZE_MAX
from tallystick.plain_file import NotPlainError, check_database
from tallystick.read.sqlite_check_postings import check_postings
from tallystick.read.sqlite_check_rollups import RollupCheck
from tallystick.read.sqlite_check_snapshots import check_snapshots
from tallystick.read.sqlite_reached import reached
from tallystick.read.sqlite_saving import correct, corrections_in
from tallystick.read.sqlite_schema import save_statements, schema
from tallystick.read.words import searchable
from tallystick.sqlite_file import (
    BUSY_TIMEOUT_MS,
    bounded,
    named_statements,
    run_script,
    schema_made_by,
    schema_of,
    translated,
)
from tallystick.store.contract import Store, StoredRecord
from tallystick.store.reading import absent_ranges, fetch_lines, hash_at, range_with, read_record, some_of

RANGE_RECORDS: Final = 20_000
_RANGE_BYTES: Final = 4_194_304
"""Records, and their bytes, that are compared at once: they are in memory several times over."""

FAULTS_MAX: Final = 100
"""Places that are listed; there may be more, and the index is rebuilt anyway."""

_PRIME: Final = 2_147_483_647
_CHANCES: Final = 65_536
_HIGHEST: Final = 16
"""Positions are told apart by their lower 16 bits, and by the rest."""

_DAMAGE: Final = (
    *(apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.MismatchError, apsw.IOError),
    apsw.TooBigError,
    UnicodeDecodeError,  # of TEXT that is not UTF-8
)
_NO_RECORD: Final = (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError, UnicodeDecodeError)
"""What taking records apart raises where one of them is none."""


class IndexFault(NamedTuple):
    """Something that the index says and the log does not, or the reverse."""

    seen: str
    position: int | None = None
    end: int | None = None


class IndexCheck:
    """One comparison of the index file at `path` with the records in `store`. For one thread."""

    def __init__(self, path: Path, store: Store, *, layout: int) -> None:
        self._path: Final = path
        self._store: Final = store
        self._layout: Final = layout
        self._secret: Final = random_bytes(32)
        self._corrections: list[Correction] = []
        """Of the clock, as far as the index knows of them: of others it has a row that is of another type."""
        self._sql: Final = _statements()
        self._print = 0
        """What the numbers of the words of the log come to."""
        self._below = min(store.pruned_below(), SIZE_MAX)
        """Up to where records may have been pruned, and the index may not have forgotten them yet."""
        self._gone: list[tuple[int, int]] = []
        """The ranges below that without a record."""
        self._of_the_gone: list[int] = []
        """Some positions of such records of which the index has something."""
        self._compares_words = True
        self._has_forgotten = True
        self.faults: Final[list[IndexFault]] = []
        self.end = 0
        """Up to which position the index answers, and was compared."""

    def run(self) -> Iterator[int]:
        """Compare range by range; gives the position reached after each. What was found is in `faults` then."""
        connection = bounded(apsw.Connection(":memory:", flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI))
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        try:
            with translated("read the index"):
                yield from self._run(connection)
        except NotPlainError as error:
            self._add(str(error))
        except StoreError as error:
            if not isinstance(error.__cause__, _DAMAGE):
                raise
            self._add(f"the file is damaged: {error.__cause__}")
        finally:
            connection.close()

    def _run(self, connection: apsw.Connection) -> Iterator[int]:
        check_database(self._path)
        connection.execute("ATTACH ? AS saved", (self._path.resolve().as_uri() + "?mode=ro",))
        # One snapshot over all of it: what others write meanwhile is not in it.
        connection.execute("BEGIN")
        if not self._check_arrangement(connection):
            return
        self._prepare(connection)
        rollups = RollupCheck(connection, self._store, end=self.end, add=self._add, times=Times(self._corrections))
        yield from self._compare_ranges(connection, rollups)
        rollups.finish()
        self._check_rest(connection, rollups)
        if len(self.faults) < FAULTS_MAX:
            yield from self._compare_words(connection)
        del self.faults[FAULTS_MAX:]

    def _check_arrangement(self, connection: apsw.Connection) -> bool:
        """Whether it is an index of this log that can be compared. Another layout, which is rebuilt, is no fault."""
        found = schema_of(connection, database="saved")
        if not found:
            return False
        if connection.execute("PRAGMA saved.user_version").fetchall() != [(self._layout,)]:
            return False
        if found != schema_made_by(schema()):
            self._add("its schema was altered")
            return False
        for (problem,) in connection.execute("PRAGMA saved.integrity_check(10)").fetchall():
            if problem != "ok":
                self._add(f"the file is damaged: {problem}")
        try:
            told = reached(connection, database="saved")
        except DamagedError as error:
            self._add(str(error))
            return False
        if told is not None:
            self._check_cursor(*told)
        return told is not None and not self.faults

    def _check_cursor(self, position: int, last_hash: bytes, ledger_id: bytes) -> None:
        head = self._store.head()
        size = head.size if head else 0
        if ledger_id != hash_at(self._store, 0):
            self._add("it is another ledger's")
        elif not 0 < position <= min(size, (self._store.last_position() or 0) + 1):
            self._add(f"it has read {position} records, and the ledger has {size}")
        elif last_hash != hash_at(self._store, position - 1) and position > self._store.pruned_below():
            self._add("it has read another record than is there", position - 1)
        else:
            self.end = position

    def _prepare(self, connection: apsw.Connection) -> None:
        """An empty index in memory, and what comparing needs beside it."""
        with suppress(StoreError):  # what is damaged the scan of the log finds
            self._gone = [*absent_ranges(self._store, 0, self._below)]
        found: list[Any] = connection.execute(self._sql["corrections"], (CLOCK_CORRECTED,)).fetchall()
        with suppress(StoreError):
            lines = (one.line for one in fetch_lines(self._store, [at for (at,) in found if 0 <= at < self.end]))
            self._corrections = corrections_in(lines)
        connection.create_scalar_function("searchable", lambda *values: searchable(values[0]), 1, deterministic=True)
        run_script(connection, schema())
        run_script(connection, save_statements()["staging"])
        run_script(connection, "CREATE TEMP TABLE chance (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)")
        run_script(connection, "CREATE TEMP TABLE absent (first INTEGER PRIMARY KEY, end INTEGER NOT NULL)")
        run_script(connection, "CREATE VIRTUAL TABLE temp.words_of_log USING fts5vocab(main, posting, instance)")
        run_script(connection, "CREATE VIRTUAL TABLE temp.words_of_index USING fts5vocab(saved, posting, instance)")
        for name in ("every_word", "looked_up"):
            run_script(connection, f"CREATE VIRTUAL TABLE temp.{name} USING fts5vocab(saved, posting, row)")
        count = _CHANCES + (self.end >> _HIGHEST) + 1
        drawn = random_bytes(4 * count)
        values = [int.from_bytes(drawn[at : at + 4], "big") % _PRIME for at in range(0, len(drawn), 4)]
        connection.execute(self._sql["chances"], (orjson.dumps(values).decode(),))

    def _compare_ranges(self, connection: apsw.Connection, rollups: RollupCheck) -> Iterator[int]:
        """Compare rows and labels range by range, count the words of the log, and what roll-ups count."""
        for first, end, lines in self._ranges():
            rollups.take(first, lines)
            if lines is None:
                self._compares_words = False  # those of the log are not known; what is damaged the scan finds
                yield end
                continue
            self._fill(connection, first, lines)
            for step, what in (("rows", "type, entity, actor or time"), ("labels", "labels")):
                found: list[Any] = connection.execute(self._sql[step], (first, end)).fetchall()
                there = [at for (at,) in found if first >= self._below or not self._is_gone(at)]
                self._add_positions(there, f"the index has other {what} than the record")
                if len(there) < len(found) and len(self._of_the_gone) < FAULTS_MAX:
                    self._of_the_gone += sorted({at for (at,) in found} - {*there})
            self._print += self._print_of(connection, "words_of_log")
            self._clear(connection)
            yield end
        rollups.take_newer()
        # Of what was pruned, and not forgotten yet, the index still has rows: nothing that is answered.
        if rollups.prune_at and self._has_rows_of_the_gone(connection, rollups.prune_at):
            self._has_forgotten = False
            rollups.leave_newest_prune()
        else:
            self._add_positions(self._of_the_gone, "the index has a record that was pruned")

    def _has_rows_of_the_gone(self, connection: apsw.Connection, prune_at: int) -> bool:
        """Whether the index has rows of all records that were pruned since it forgot any, as before it forgets them.

        It forgets them at one stroke. An index that has some of them was edited, and is not excused by this.
        """
        rows: list[Any] = connection.execute("SELECT prune_at FROM saved.forgotten").fetchall()
        forgotten_at = rows[0][0] if rows else 0
        if forgotten_at == prune_at:
            return False
        count = "SELECT count(*) FROM saved.event WHERE position >= ? AND position < ?"
        found: list[Any] = [connection.execute(count, one).fetchall()[0][0] for one in self._gone]
        if not any(found):
            return False
        try:
            before = RecordsPruned.of(read_record(self._store, forgotten_at)).absent.count if forgotten_at else 0
        except TallystickError:
            return False  # what it says that it forgot was no prune
        return bool(sum(found) == sum(end - first for first, end in self._gone) - before)

    def _is_gone(self, position: int) -> bool:
        """Whether a position has no record any more."""
        return range_with(self._gone, position) is not None

    def _check_rest(self, connection: apsw.Connection, rollups: RollupCheck) -> None:
        """What lies outside of all ranges, and what is counted beside the rows."""
        stray: list[Any] = connection.execute(self._sql["stray"], (self.end,)).fetchall()
        for (position,) in stray:
            self._add("a row past what the index says that it has read", position)
        for (name,) in connection.execute(self._sql["unused"]).fetchall():
            self._add(f"a name that no record has: {str(name)[:60]!r}")
        for problem in check_postings(connection):
            self._add(problem)
        quarter = -1 << 63
        if rollups.prune_at and not rollups.knows_tally:
            last: list[Any] = connection.execute(
                "SELECT recorded / 900000000 FROM saved.event WHERE position >= ?1 ORDER BY position LIMIT 1",
                (self._store.pruned_below(),),
            ).fetchall()
            quarter = last[0][0] if last else 1 << 60
        for (number,) in connection.execute(self._sql["tallies"], (quarter,)).fetchall():
            self._add(f"other counts for the quarter of an hour {number} than its records have")

    def _compare_words(self, connection: apsw.Connection) -> Iterator[int]:
        if not self._compares_words:
            return
        if self._print == self._print_of(connection, "words_of_index", with_gone=self._has_forgotten):
            [[unfound]] = connection.execute(self._sql["lookups"]).fetchall()
            if unfound:
                self._add(f"{unfound} words cannot be looked up")
            elif self._has_forgotten:  # before that nobody uses snapshots: they may be of what is gone
                yield from check_snapshots(connection, self._store, end=self.end, add=self._add)
            return
        before = len(self.faults)
        yield from self._search_words(connection)
        if len(self.faults) == before:
            self._add("posting lists have words that no record has")

    def _search_words(self, connection: apsw.Connection) -> Iterator[int]:
        """Look each word up, range by range; gives the position reached."""
        before = len(self.faults)
        for first, end, lines in self._ranges():
            if len(self.faults) - before >= FAULTS_MAX:
                return
            assert lines is not None, "they were all read once"
            self._fill(connection, first, lines)
            self._find_words(connection, first, end)
            self._clear(connection)
            yield end

    def _find_words(self, connection: apsw.Connection, first: int, end: int) -> None:
        """In which records of a range words are not where they should be."""
        words: list[Any] = connection.execute("SELECT term, doc FROM temp.words_of_log").fetchall()
        wanted: dict[str, set[int]] = {}
        for word, position in words:
            wanted.setdefault(word, set()).add(position)
        match = "SELECT rowid FROM saved.posting WHERE posting MATCH ? AND rowid >= ? AND rowid < ?"
        differing: set[int] = set()
        for word, positions in wanted.items():
            quoted = '"' + word.replace('"', '""') + '"'
            found: list[Any] = connection.execute(match, (quoted, first, end)).fetchall()
            differing |= {at for (at,) in found} ^ positions
        if not self._has_forgotten:
            differing = {at for at in differing if not self._is_gone(at)}
        self._add_positions(sorted(differing), "the posting lists have other words than the record")

    def _ranges(self) -> Iterator[tuple[int, int, list[StoredRecord] | None]]:
        """The records range by range; None for a range that cannot be read."""
        first = 0
        while first < self.end:
            end = min(first + RANGE_RECORDS, self.end)
            if first < self._below < end:
                end = self._below
            lines: list[StoredRecord] | None = None
            with suppress(StoreError):
                end, lines = some_of(self._store.read(first, end), end, bytes_max=_RANGE_BYTES)
            yield first, end, lines
            first = end

    def _fill(self, connection: apsw.Connection, first: int, lines: list[StoredRecord]) -> None:
        """Make an index of records in memory, with the numbers that the saved one has for names."""
        steps = save_statements()
        connection.execute(steps["clear"])
        try:
            text = b"[%b]" % b",".join(stored.line for stored in lines)
            text.decode()
            connection.execute(steps["stage"], (text, first), can_cache=False)  # a cached one would keep the text
        except _NO_RECORD:
            # A record that is damaged is found by the scan of the log; the index is compared with the others.
            connection.execute(steps["clear"])
            for stored in lines:
                self._stage_one(connection, stored, first)
        connection.execute(self._sql["names"])
        connection.execute(self._sql["terms"])
        for step in ("entities", "terms", "events", "labels", "postings"):
            connection.execute(steps[step])
        for position, moment in self._corrections:
            correct(connection, position, moment)

    def _stage_one(self, connection: apsw.Connection, stored: StoredRecord, first: int) -> None:
        try:
            stored.line.decode()
            connection.execute(save_statements()["stage"], (b"[%b]" % stored.line, first))
        except _NO_RECORD:
            return

    def _clear(self, connection: apsw.Connection) -> None:
        run_script(connection, self._sql["clear"])

    def _print_of(self, connection: apsw.Connection, table: str, *, with_gone: bool = True) -> int:
        """One number for all words of a table and where they stand, perhaps without positions that have no record."""
        total, secret = 0, self._secret
        statement = self._sql["prints"].replace("temp.words", f"temp.{table}")
        if not with_gone:
            connection.executemany("INSERT INTO temp.absent VALUES (?, ?)", self._gone)
            statement = statement.replace("GROUP BY", self._sql["there"] + "GROUP BY")
        rows: Iterable[Any] = connection.execute(statement)
        for word, count, number in rows:
            factor = int.from_bytes(blake2b(word.encode(), key=secret, digest_size=8).digest(), "big")
            total += factor * (number + (count << 64))
        return total

    def _add_positions(self, positions: list[int], seen: str) -> None:
        """Neighbours are one fault."""
        room = FAULTS_MAX - len(self.faults)
        runs: list[list[int]] = []
        for position in positions:
            if runs and runs[-1][1] == position:
                runs[-1][1] += 1
            else:
                runs.append([position, position + 1])
        for first, end in islice(runs, max(0, room)):
            self.faults.append(IndexFault(seen, first, end))

    def _add(self, seen: str, position: int | None = None) -> None:
        self.faults.append(IndexFault(seen, position))


@cache
def _statements() -> dict[str, str]:
    return named_statements(files("tallystick.read").joinpath("index_check.sql").read_text("utf-8"))
