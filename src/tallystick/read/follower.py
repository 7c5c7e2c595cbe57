"""Keeping an index abreast of a log, and answering for what is not written yet from memory.

Learning happens on the way of an append and is cheap; writing happens in a thread beside it, a chunk at a
time, and an append waits for it only when very much is unwritten. A crash leaves the older cursor, and what
is past it is read from the log once more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tallystick.errors import StoreError, TamperError
from tallystick.ids import split_made
from tallystick.limits import INTEGER_MAX
from tallystick.read.index import IndexFile, Progress, Rows, glimpse, has_id, hash_id
from tallystick.store.contract import Store, StoredRecord
from tallystick.store.reading import read_lines

FLUSH_RECORDS: Final = 20_000
"""Records that are written to the index in one transaction: large batches are what keeps a row cheap."""

CHUNKS_WITH_LINES: Final = 3
"""Chunks that keep their records in memory while they wait to be written; later ones are read again."""

CHUNKS_MAX: Final = 25
"""Unwritten chunks at which learning waits: half a million records behind."""

CACHE_ENTITIES: Final = 100_000
"""Entity versions kept in memory, in two generations of at most this many."""

_log: Final = logging.getLogger("tallystick.index")


class Follower:
    """Keeps one index abreast of one log.

    `catch_up`, `flush`, `learn` and the questions are for one thread at a time, the holder of the sealing
    turn; `wait` is for any.
    """

    def __init__(self, store: Store, file: IndexFile, *, progress: Progress | None = None) -> None:
        self._store: Final = store
        self.file: Final = file
        self._progress: Final = progress
        start = file.cursor()
        self._tail = Rows(start, start)
        self._changed: Final = threading.Condition()
        """Guards the three below."""
        self._unwritten: deque[Rows] = deque()
        self._saver: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.told: Final = threading.Condition()
        """Notified when this process has committed."""
        self.after_save: Callable[[int], None] | None = None
        """Called by the thread that writes, whenever the file answers for more, with the end of that."""
        self._hashes: dict[str, int] = {}  # of the ids last asked for: they are what is learned next
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    @property
    def end(self) -> int:
        """Up to which position records were learned, written or not."""
        return self._tail.end

    @property
    def written(self) -> int:
        """Up to which position the file answers."""
        unwritten = tuple(self._unwritten)
        return unwritten[0].first if unwritten else self._tail.first

    def catch_up(self, size: int) -> None:
        """Read what the log has below `size` and the index has not."""
        first = self._tail.end
        if first > size:
            # Another process may have been ahead of us; but then the head has moved, and we are asked again.
            self._check_not_shorter(first)
        if first < size and self._is_written():
            self._follow_others()
            first = self._tail.end
        for stored in read_lines(self._store, first, size):
            self._take(stored)
            if self._tail.end % 10_000 == 0 and self._progress:
                self._progress(self._tail.end, size)
            if self._tail.end - self._tail.first >= FLUSH_RECORDS:
                self.flush()
        self._tail.end = max(self._tail.end, size)
        if self._progress and size - first >= 10_000:
            self._progress(size, size)

    def version(self, entity_id: str) -> int:
        """The entity's present version; 0 when it has no events."""
        version = self._tail.versions.get(entity_id)
        if version is None:
            version = self._young.get(entity_id)
        return self._recall(entity_id) if version is None else version

    def find(self, event_id: str) -> int | None:
        """The position of the record with this event id, if there is one."""
        parts = (*self._unwritten, self._tail)
        candidates = {*self.file.find(event_id), *(position for rows in parts for position in rows.find(event_id))}
        below = (position for position in candidates if 0 <= position < self._tail.end)
        return min((position for position in below if self._stands_at(event_id, position)), default=None)

    def find_all(self, event_ids: Sequence[str]) -> dict[str, int]:
        """The positions of the records with these event ids; those that no record has are left out.

        The index is asked once for all of them, as nearly always none is there.
        """
        hashes = {event_id: hash_id(event_id) for event_id in event_ids if not split_made(event_id)}
        if len(self._hashes) > FLUSH_RECORDS:
            self._hashes = {}
        self._hashes.update(hashes)
        parts = (*self._unwritten, self._tail)
        suspects = self.file.hashes_among([*hashes.values()]) if hashes else set()
        for rows in parts:
            suspects.update(hashed for hashed in hashes.values() if hashed in rows.brought)
        asked = [event_id for event_id, hashed in hashes.items() if hashed in suspects]
        asked += self._made_among(event_id for event_id in event_ids if event_id not in hashes)
        found = {event_id: self.find(event_id) for event_id in asked}
        return {event_id: position for event_id, position in found.items() if position is not None}

    def _made_among(self, event_ids: Iterable[str]) -> Iterator[str]:
        """Of made ids those that may be there: all of a prefix, or none, as what was made together came together."""
        counters: dict[str, dict[int, str]] = {}
        for event_id in event_ids:
            made = split_made(event_id)
            assert made is not None, "they are made ones"
            counters.setdefault(made[0], {})[made[1]] = event_id
        for prefix, ids in counters.items():
            first, last = min(ids), max(ids)
            parts = (*self._unwritten, self._tail)
            if self.file.has_made(prefix, first, last) or any(one.has_made(prefix, first, last) for one in parts):
                yield from ids.values()

    def learn(
        self,
        end: int,
        versions: Mapping[str, int],
        *,
        lines: Sequence[bytes],
        brought: Sequence[tuple[str, int]],
        made: Iterable[tuple[str, int, int, int]],
    ) -> None:
        """The records up to `end`, of which `lines` are the last, were committed by this process."""
        tail = self._tail
        tail.versions.update(versions)
        for event_id, position in brought:
            hashed = self._hashes.get(event_id)
            if hashed is None:
                _add_id(tail, event_id, position)
            else:
                tail.brought.setdefault(hashed, []).append(position)
        self._hashes = {}
        for prefix, counter, position, count in made:
            tail.add_made(prefix, counter, position, count)
        assert tail.lines is not None, "a tail has its records"
        tail.lines += lines
        tail.end = end
        if end - tail.first >= FLUSH_RECORDS:
            self.flush()
        with self.told:
            self.told.notify_all()

    def forget_versions(self) -> None:
        """Keep no entity's version in memory that the file does not give: records were pruned."""
        self._young, self._old = {}, {}

    def flush(self) -> None:
        """Hand what was learned to the thread that writes. Waits only when very much is unwritten."""
        rows = self._tail
        with self._changed:
            if rows.end > rows.first:
                if len(self._unwritten) >= CHUNKS_WITH_LINES:
                    rows.lines = None
                self._unwritten.append(rows)
                self._tail = Rows(rows.end, rows.end)
            if self._unwritten and self._saver is None:
                self._saver = threading.Thread(target=self._save, name="tallystick-index", daemon=True)
                self._saver.start()
            while len(self._unwritten) >= CHUNKS_MAX and self._failure is None:
                self._changed.wait()
        self._remember(rows.versions)

    def wait(self, size: int) -> None:
        """Until the index file answers for everything below `size`, which was flushed. Raises `StoreError`
        when it cannot be written."""
        with self._changed:
            while self._unwritten and self._unwritten[0].first < size:
                if self._failure is not None and self._saver is None:
                    raise StoreError(f"the index could not be written: {self._failure}") from self._failure
                self._changed.wait()

    def close(self) -> None:
        """Write what is not written yet, and let go of the file."""
        try:
            self.flush()
            saver = self._saver
            if saver is not None:
                saver.join()
        finally:
            self.file.close()

    def _check_not_shorter(self, seen: int) -> None:
        head = self._store.head()
        if head is None or head.size < seen:
            raise TamperError(
                f"the ledger had {seen} records and now has {head.size if head else 0}: an older copy was put "
                "back, or records were cut off. If you did that on purpose, delete index.db and open it again"
            )

    def _is_written(self) -> bool:
        return not self._unwritten and self._tail.first == self._tail.end

    def _follow_others(self) -> None:
        """Skip what another process has written to the index meanwhile; what is in memory may be older."""
        cursor = self.file.cursor()
        if cursor > self._tail.end:
            self._tail = Rows(cursor, cursor)
            self._young, self._old = {}, {}

    def _take(self, stored: StoredRecord) -> None:
        try:
            seen = glimpse(stored.line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise TamperError(f"the record at position {stored.position} is damaged: run a verification") from error
        tail = self._tail
        assert tail.lines is not None, "a tail has its records"
        tail.versions[seen.entity_id] = seen.entity_version
        _add_id(tail, seen.id, stored.position)
        tail.lines.append(stored.line)
        tail.end = stored.position + 1

    def _save(self) -> None:
        """Write chunk by chunk until none is left, or one cannot be written; that is tried again with the next."""
        while True:
            with self._changed:
                if not self._unwritten:
                    self._saver = None
                    return
                rows = self._unwritten[0]
            try:
                lines = rows.lines
                if lines is None:
                    lines = [stored.line for stored in read_lines(self._store, rows.first, rows.end)]
                self.file.save(rows, lines)
            except BaseException as error:  # noqa: BLE001  it is reported to whoever waits for the rows
                _log.warning("the index could not be written, and is kept in memory for now: %s", error)
                with self._changed:
                    self._failure, self._saver = error, None
                    rows.lines = None
                    self._changed.notify_all()
                return
            with self._changed:
                self._failure = None
                self._unwritten.popleft()
                self._changed.notify_all()
            self._tell_of_save(rows.end)

    def _tell_of_save(self, end: int) -> None:
        """What follows the index may fail, and catch up later; the index goes on."""
        try:
            if self.after_save is not None:
                self.after_save(end)
        except Exception as error:  # noqa: BLE001
            _log.warning("what follows the index stopped before position %d, to be tried again: %s", end, error)

    def _recall(self, entity_id: str) -> int:
        """The version of an entity that was not met lately."""
        unwritten = tuple(self._unwritten)  # before the file is asked, so that nothing is missed between
        version = self._old.get(entity_id)
        if version is None:
            found = (rows.versions[entity_id] for rows in reversed(unwritten) if entity_id in rows.versions)
            version = next(found, None)
        if version is None:
            version = self.file.version(entity_id)
            if type(version) is not int or not 0 <= version < INTEGER_MAX:
                raise TamperError(f"the index gives an entity the version {version!r}: delete index.db, and verify")
        self._remember({entity_id: version})
        return version

    def _remember(self, versions: Mapping[str, int]) -> None:
        self._young.update(versions)
        if len(self._young) >= CACHE_ENTITIES:
            self._old, self._young = self._young, {}

    def _stands_at(self, event_id: str, position: int) -> bool:
        """Brought ids are kept by hash, so a hit is only a candidate until the record says so."""
        for stored in self._store.read(position, position + 1):
            return has_id(stored.line, event_id)
        return False


def _add_id(rows: Rows, event_id: str, position: int) -> None:
    made = split_made(event_id)
    if made is None:
        rows.add_brought(event_id, position)
    else:
        rows.add_made(*made, position)
