"""The index: what the log says, arranged so that questions need no scan (I5).

It follows the log with a cursor of its own, in large batches, off the commit path; rows and cursor are
saved together. It can be deleted at any moment and comes back to the same content. Today it answers the
sealer's two questions: an entity's present version, and where an event id was sealed.

`IndexFile` is what an adapter keeps; `Follower` is how any of them follows a log.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import orjson

from tallystick.core.record import record_hash
from tallystick.errors import TamperError
from tallystick.ids import split_made
from tallystick.limits import INTEGER_MAX
from tallystick.store.contract import Store, StoredRecord
from tallystick.store.reading import read_lines

FLUSH_RECORDS: Final = 50_000
"""Records learned before they are written to the index in one transaction: large batches are what keeps a
row cheap, and this many are what memory holds beside the cache."""

CACHE_ENTITIES: Final = 100_000
"""Entity versions kept in memory, in two generations of at most this many."""

Progress = Callable[[int, int], None]
"""Called with how many records are done, and of how many; for all long work over a ledger."""

_log: Final = logging.getLogger("tallystick.index")


@dataclass(slots=True)
class Rows:
    """What the records in [first, end) add to the index."""

    first: int
    end: int
    versions: dict[str, int] = field(default_factory=dict)
    """The last version of every entity among them."""
    brought: dict[int, list[int]] = field(default_factory=dict)
    """`hash_id` of ids that callers brought, with the positions."""
    made: dict[str, list[list[int]]] = field(default_factory=dict)
    """Runs of made ids by prefix: counter, position and count each."""

    def add_brought(self, event_id: str, position: int) -> None:
        self.brought.setdefault(hash_id(event_id), []).append(position)

    def add_made(self, prefix: str, counter: int, position: int, count: int = 1) -> None:
        """Add neighbours, joining them to the run before where they continue it."""
        runs = self.made.setdefault(prefix, [])
        if runs and runs[-1][0] + runs[-1][2] == counter and runs[-1][1] + runs[-1][2] == position:
            runs[-1][2] += count
        else:
            runs.append([counter, position, count])

    def followed_by(self, later: Rows) -> Rows:
        """These rows and the ones right after them, as one."""
        out = Rows(self.first, later.end, {**self.versions, **later.versions})
        for rows in (self, later):
            for key, positions in rows.brought.items():
                out.brought.setdefault(key, []).extend(positions)
            for prefix, runs in rows.made.items():
                for run in runs:
                    out.add_made(prefix, *run)
        return out

    def find(self, event_id: str) -> list[int]:
        """The positions at which the id may stand: certain for made ids, candidates for brought ones."""
        made = split_made(event_id)
        if made is None:
            return self.brought.get(hash_id(event_id), [])
        prefix, counter = made
        return [
            position + counter - first
            for first, position, count in self.made.get(prefix, ())
            if first <= counter < first + count
        ]


class IndexFile(Protocol):
    """Where rows rest: one ledger's index. All of it may be lost; none of it may be half-written."""

    def cursor(self) -> int:
        """Up to which position rows were saved; 0 for a new index."""

    def version(self, entity_id: str) -> int:
        """The version of the entity in the saved rows; 0 when it is not there."""

    def find(self, event_id: str) -> list[int]:
        """As `Rows.find`, over the saved rows."""

    def hashes_among(self, hashes: Sequence[int]) -> set[int]:
        """Which of these `hash_id`s the saved rows have."""

    def save(self, rows: Rows, last_hash: bytes) -> None:
        """Save rows and cursor together. Rows that were saved before, by whomever, change nothing."""

    def close(self) -> None:
        """Let go of files."""


class Follower:
    """Keeps one index abreast of one log, and answers for what is not written yet from memory.

    Called by one thread at a time, the sealing one; writing the file happens in a thread beside it.
    """

    def __init__(self, store: Store, file: IndexFile, *, progress: Progress | None = None) -> None:
        self._store: Final = store
        self._file: Final = file
        self._progress: Final = progress
        start = file.cursor()
        self._tail = Rows(start, start)
        self._saving: Rows | None = None
        self._saver: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._hashes: dict[str, int] = {}  # of the ids last asked for: they are what is learned next
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def catch_up(self, size: int) -> None:
        """Read what the log has below `size` and the index has not."""
        first = self._tail.end
        if first > size:
            # Another process may have been ahead of us; but then the head has moved, and we are asked again.
            self._check_not_shorter(first)
        for stored in read_lines(self._store, first, size):
            self._take(stored)
            if self._tail.end % 10_000 == 0 and self._progress:
                self._progress(self._tail.end, size)
            if self._tail.end - self._tail.first >= FLUSH_RECORDS:
                self._begin_save()
        if self._progress and size - first >= 10_000:
            self._progress(size, size)

    def version(self, entity_id: str) -> int:
        """The entity's present version; 0 when it has no events."""
        for known in (self._tail.versions, self._saving.versions if self._saving else {}, self._young):
            version = known.get(entity_id)
            if version is not None:
                return version
        version = self._old.get(entity_id)
        if version is None:
            version = self._file.version(entity_id)
            if type(version) is not int or not 0 <= version < INTEGER_MAX:
                raise TamperError(f"the index gives an entity the version {version!r}: delete index.db, and verify")
        self._remember({entity_id: version})
        return version

    def find(self, event_id: str) -> int | None:
        """The position of the record with this event id, if there is one."""
        candidates = self._tail.find(event_id)
        if self._saving:
            candidates = [*self._saving.find(event_id), *candidates]
        candidates = [*self._file.find(event_id), *candidates]
        below = {position for position in candidates if 0 <= position < self._tail.end}
        return min((position for position in below if self._stands_at(event_id, position)), default=None)

    def find_all(self, event_ids: Sequence[str]) -> dict[str, int]:
        """The positions of the records with these event ids; those that no record has are left out.

        The index is asked once for all of them, as nearly always none is there.
        """
        hashes = {event_id: hash_id(event_id) for event_id in event_ids if not split_made(event_id)}
        if len(self._hashes) > FLUSH_RECORDS:
            self._hashes = {}
        self._hashes.update(hashes)
        suspects = self._file.hashes_among([*hashes.values()])
        for rows in (self._tail, self._saving):
            if rows:
                suspects.update(hashed for hashed in hashes.values() if hashed in rows.brought)
        asked = (event_id for event_id in event_ids if event_id not in hashes or hashes[event_id] in suspects)
        found = {event_id: self.find(event_id) for event_id in asked}
        return {event_id: position for event_id, position in found.items() if position is not None}

    def learn(
        self,
        end: int,
        versions: Mapping[str, int],
        *,
        brought: Sequence[tuple[str, int]],
        made: Iterable[tuple[str, int, int, int]],
    ) -> None:
        """The records up to `end` were committed by this process."""
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
        tail.end = end
        if end - tail.first >= FLUSH_RECORDS:
            self._begin_save()

    def close(self) -> None:
        """Write what is not written yet, and let go of the file."""
        try:
            if self._tail.end > self._tail.first:
                self._begin_save()
            self._join()
        finally:
            self._file.close()

    def _check_not_shorter(self, seen: int) -> None:
        head = self._store.head()
        if head is None or head.size < seen:
            raise TamperError(
                f"the ledger had {seen} records and now has {head.size if head else 0}: an older copy was put "
                "back, or records were cut off. If you did that on purpose, delete index.db and open it again"
            )

    def _take(self, stored: StoredRecord) -> None:
        try:
            glimpse = _glimpse(stored.line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise TamperError(f"the record at position {stored.position} is damaged: run a verification") from error
        self._tail.versions[glimpse.entity_id] = glimpse.entity_version
        _add_id(self._tail, glimpse.id, stored.position)
        self._tail.end = stored.position + 1

    def _begin_save(self) -> None:
        """Hand the tail to a thread of its own. One at a time: waiting here is what bounds memory."""
        self._join()
        rows = self._saving = self._tail
        self._tail = Rows(rows.end, rows.end)
        self._remember(rows.versions)
        # A crash before the thread is done leaves the older cursor, and these records are read once more.
        self._saver = threading.Thread(target=self._save, args=(rows,), name="tallystick-index")
        self._saver.start()

    def _save(self, rows: Rows) -> None:
        try:
            last = next(self._store.read(rows.end - 1, rows.end))
            self._file.save(rows, record_hash(last.line))
        except BaseException as error:  # noqa: BLE001  it is reported by whoever joins the thread
            self._failure = error

    def _join(self) -> None:
        if self._saver is None:
            return
        self._saver.join()
        self._saver = None
        failure, self._failure = self._failure, None
        if failure is None:
            self._saving = None
            return
        _log.warning("the index could not be written, and is kept in memory for now: %s", failure)
        # The rows stay answerable; they are tried again together with what came after.
        assert self._saving is not None, "the saver saves something"
        self._tail = self._saving.followed_by(self._tail)
        self._saving = None

    def _remember(self, versions: Mapping[str, int]) -> None:
        self._young.update(versions)
        if len(self._young) >= CACHE_ENTITIES:
            self._old, self._young = self._young, {}

    def _stands_at(self, event_id: str, position: int) -> bool:
        """Brought ids are kept by hash, so a hit is only a candidate until the record says so."""
        for stored in self._store.read(position, position + 1):
            return has_id(stored.line, event_id)
        return False


class _Glimpse(msgspec.Struct):
    id: str
    entity_id: str
    entity_version: int


_glimpse: Final = msgspec.json.Decoder(_Glimpse).decode


def has_id(line: bytes, event_id: str) -> bool:
    """Whether the record of these bytes has the event id."""
    try:
        return orjson.dumps(event_id) in line and _glimpse(line).id == event_id
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise TamperError(f"a record that has the text {event_id!r} is damaged: run a verification") from error


def hash_id(event_id: str) -> int:
    """A signed 64-bit hash of an event id. Different ids may share one: hits are candidates."""
    return int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8], "big", signed=True)


def _add_id(rows: Rows, event_id: str, position: int) -> None:
    made = split_made(event_id)
    if made is None:
        rows.add_brought(event_id, position)
    else:
        rows.add_made(*made, position)
