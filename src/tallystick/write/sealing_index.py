"""What the sealer has to know of the past: the version of every entity, and which event ids there are.

Derived from the log by verified reads, and kept in runs (`write.runs`) that prove themselves: what is altered, removed
or put back in their file is noticed before a record is sealed that relies on it, and is rebuilt. What the query index
says never reaches the log. The newest records are in memory, and are written in chunks by a thread beside.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from tallystick.core.record import record_hash
from tallystick.errors import BusyError, ConflictError, StoreError, TamperError
from tallystick.ids import random_bytes, split_made
from tallystick.store.contract import Store
from tallystick.store.verified_reads import VerifiedReads
from tallystick.write import runs as form
from tallystick.write.chunk import Chunk, RecentVersions, block_of, glimpse
from tallystick.write.known import BehindError
from tallystick.write.run_set import RunFile, RunSet
from tallystick.write.runs import Manifest

FLUSH_RECORDS: Final = 20_000
"""Records of one chunk, of which one run is made."""

CHUNKS_MAX: Final = 25
"""Unwritten chunks past which nothing more is sealed: half a million records, some hundred megabytes."""

_HEALED_MAX: Final = 5  # times that one question has the file rebuilt, or read again after others

_log: Final = logging.getLogger("tallystick.sealing")


class SealingIndex:
    """Keeps the port `Known` for one ledger. One thread at a time uses it: the holder of the sealing turn."""

    def __init__(
        self,
        store: Store,
        file: RunFile,
        *,
        key: bytes,
        ledger_id: bytes,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """`key` is K_index-mac of SPEC 5.1. Nothing is read yet: `catch_up` does."""
        self._store: Final = store
        self._runs: Final = RunSet(file, key=key, ledger_id=ledger_id, check=self._check_same_log)
        self._ledger_id: Final = ledger_id
        self._progress: Final = progress
        self._entity_key: Final = form.keyed(key, "entity")
        self._id_key: Final = form.keyed(key, "id")
        self._made_key: Final = form.keyed(key, "made")
        self._reads: VerifiedReads | None = None
        self._begun = False
        self._begun_as = self._runs.manifest
        self._changed: Final = threading.Condition()
        """Guards the unwritten chunks, the thread that writes them, and why it failed."""
        self._unwritten: deque[Chunk] = deque()
        self._saver: threading.Thread | None = None
        self._failure: Exception | None = None
        self._tail = Chunk(0, 0)
        self._recent = RecentVersions()
        self._keys: dict[str, bytes] = {}
        """Of the ids that were last asked for: they are what is learned next."""
        self.problem: str | None = None
        """Why the file was rebuilt since it was opened here."""

    # ------------------------------------------------------------------------------------------ the port `Known`

    def catch_up(self, reads: VerifiedReads) -> None:
        """Read what the log has and the runs have not. Answers then cover at least what `reads` proves.

        `TamperError` when the log is shorter than what the runs cover, or another: then it was put back.
        """
        self._reads = reads
        if reads.size < self._tail.end:
            raise _put_back(self._tail.end, reads.size)
        if not self._begun:
            self._begin()
        elif not self._unwritten and self._tail.first == self._tail.end < reads.size:
            self._follow_others()
        self.check_room()
        self._read_on(reads)

    def check_room(self) -> None:
        """Nothing is sealed that could not be remembered: the memory of unwritten chunks is bounded.

        Raises `BusyError` when very much is unwritten and cannot be written.
        """
        if isinstance(self._failure, TamperError):
            self._heal(self._failure)
        elif isinstance(self._failure, ConflictError):
            self._restart()
        if len(self._unwritten) < CHUNKS_MAX:
            return
        self.flush()  # which tries again
        with self._changed:
            self._changed.wait_for(lambda: self._saver is None or len(self._unwritten) < CHUNKS_MAX)
            if len(self._unwritten) >= CHUNKS_MAX:
                raise BusyError(
                    f"sealing.db cannot be written, and {len(self._unwritten) * FLUSH_RECORDS:,} records wait for it "
                    f"in memory: free some room on the disk, then repeat ({self._failure})"
                )

    def version(self, entity_id: str) -> int:
        version = self._tail.versions.get(entity_id)
        if version is None:
            version = self._recent.young.get(entity_id)
        return self._recall(entity_id) if version is None else version

    def find_all(self, event_ids: Sequence[str]) -> dict[str, int]:
        found, self._keys, id_key = {}, {}, self._id_key
        for event_id in event_ids:
            made = split_made(event_id)
            if made is None:
                self._keys[event_id] = id_key(event_id)
            elif (position := self._find_made(event_id, *made)) is not None:
                found[event_id] = position
        return found | self._find_brought(self._keys)

    def learn(
        self,
        end: int,
        versions: Mapping[str, int],
        *,
        lines: Sequence[bytes],
        brought: Sequence[tuple[str, int]],
        made: Iterable[tuple[str, int, int, int]],
    ) -> None:
        tail, keys = self._tail, self._keys
        tail.versions.update(versions)
        for event_id, position in brought:
            key = keys.get(event_id)
            if key is None:
                self._add_id(event_id, position)
            else:
                tail.brought[key] = position
        for run in made:
            tail.add_made(*run)
        tail.end, tail.last_hash = end, record_hash(lines[-1])
        if end - tail.first >= FLUSH_RECORDS:
            self.flush()

    # ------------------------------------------------------------------------------------------ beginning, following

    def rebuild(self) -> None:
        """Forget all there is; the next `catch_up` reads the log. Entities whose records were pruned are unknown."""
        self._begun = False
        self.wait(whatever=True)
        self._runs.begin(self._empty())

    def flush(self) -> None:
        """Hand what was learned to the thread that writes."""
        tail = self._tail
        with self._changed:
            if tail.end > tail.first:
                self._unwritten.append(tail)
                self._tail = Chunk(tail.end, tail.end, tail.last_hash)
            if self._unwritten and self._saver is None:
                self._saver = threading.Thread(target=self._save_all, name="tallystick-sealing", daemon=True)
                self._saver.start()
        self._recent.remember(tail.versions)

    def wait(self, *, whatever: bool = False) -> None:
        """Until what was flushed is written. Raises `StoreError` when it cannot be, unless `whatever`."""
        with self._changed:
            self._changed.wait_for(lambda: self._saver is None)
            if self._failure and not whatever:
                raise StoreError(f"sealing.db could not be written: {self._failure}") from self._failure

    def close(self) -> None:
        """Write what is not written yet, and let go of the file. What cannot be written is read from the log again."""
        if self._begun:
            self.flush()
        self.wait(whatever=True)
        self._runs.close()

    def _begin(self) -> None:
        """Go on with the runs there are, if they are ours, whole, and of this log; else with none."""
        self._begun = False
        self._unwritten.clear()
        self._failure = None
        self._recent = RecentVersions()
        try:
            manifest = self._runs.look()
        except TamperError as error:
            self._report(error)
            manifest = self._empty()
            self._runs.begin(manifest)
        self._check_same_log(manifest)
        self._runs.trust()
        if not manifest.generation or manifest.pruned_below != self._store.pruned_below():
            begun, manifest = manifest, self._empty()
            self._runs.begin(manifest, discards=bool(begun.generation))
        self._begun_as = manifest
        self._tail = Chunk(manifest.size, manifest.size, manifest.last_hash)
        self._begun = True

    def _empty(self) -> Manifest:
        below = self._store.pruned_below()
        return Manifest.empty(self._ledger_id, pruned_below=below, generation=random_bytes(form.NONCE_BYTES))

    def _check_same_log(self, manifest: Manifest) -> None:
        """What was written under our key was committed: a log that lacks it was put back, or cut off."""
        assert self._reads is not None, "asked after catching up"
        reads, head = (
            self._reads,
            self._store.head(),
        )  # read after the manifest: another process may have sealed and saved since `reads`
        size = head.size if head else 0
        if manifest.size > size:
            raise _put_back(manifest.size, size)
        if manifest.size > reads.size:
            raise BehindError(f"another process has sealed {manifest.size} records, and {reads.size} were read")
        for stored in reads.fetch([manifest.size - 1]) if manifest.size else ():
            if record_hash(stored.line) != manifest.last_hash:
                raise TamperError(
                    f"another record was sealed at position {stored.position} than the ledger now has: verify. If "
                    "you put another copy in its place on purpose, delete sealing.db"
                )

    def _follow_others(self) -> None:
        """Skip what another process has written meanwhile; what is in memory may be older."""
        try:
            manifest = self._runs.look()
            self._check_same_log(manifest)
            self._runs.trust()
        except TamperError as error:
            self._heal(error)
            return
        if manifest.generation != self._begun_as.generation:
            self._restart()
        elif manifest.size > self._tail.end:
            self._tail = Chunk(manifest.size, manifest.size, manifest.last_hash)
            self._recent = RecentVersions()

    def _read_on(self, reads: VerifiedReads) -> None:
        """Learn the records from the end of what is known on, up to all that is proven."""
        for stored in reads.read(self._tail.end, reads.size):
            seen, tail = glimpse(stored.line), self._tail
            tail.versions[seen.entity_id] = seen.entity_version
            self._add_id(seen.id, stored.position)
            tail.end, tail.last_hash = stored.position + 1, record_hash(stored.line)
            if tail.end - tail.first >= FLUSH_RECORDS:
                self.flush()
                self.check_room()
                if self._progress:
                    self._progress(tail.end, reads.size)
        self._tail.end = max(self._tail.end, reads.size)  # the last of them may have been pruned

    def _heal(self, error: TamperError) -> None:
        """The runs are not what was written: rebuild them from the log, before anything relies on them."""
        self._report(error)
        self.rebuild()
        self._restart()

    def _restart(self) -> None:
        """Drop what is in memory, and go on from what the file covers; all of that is in the log."""
        assert self._reads is not None, "asked after catching up"
        self.wait(whatever=True)
        self._begin()
        self._read_on(self._reads)

    def _report(self, error: TamperError) -> None:
        self.problem = str(error)
        _log.warning("sealing.db is not what was written, and is rebuilt from the log: %s", error)

    # ------------------------------------------------------------------------------------------ answering

    def _recall(self, entity_id: str) -> int:
        """The version of an entity that was not met lately."""
        version = self._recent.old.get(entity_id)
        if version is None:
            unwritten = tuple(self._unwritten)  # before the runs are asked, so that nothing is missed between
            found = (chunk.versions[entity_id] for chunk in reversed(unwritten) if entity_id in chunk.versions)
            version = next(found, None)
        if version is None:
            key = self._entity_key(entity_id)
            version = max(map(form.version_of, self._entries_of([key]).get(key, ())), default=0)
            version = max(version, self._tail.versions.get(entity_id, 0))
        self._recent.remember({entity_id: version})
        return version

    def _find_brought(self, keys: Mapping[str, bytes]) -> dict[str, int]:
        """Where ids stand that are looked up as they are. An entry is a candidate; the record itself decides."""
        chunks = [self._tail.brought, *(chunk.brought for chunk in tuple(self._unwritten))]
        suspects: dict[str, list[int]] = {
            event_id: [brought[key] for brought in chunks if key in brought]
            for event_id, key in keys.items()
            if any(key in brought for brought in chunks)
        }
        entries = self._entries_of(keys.values())
        if entries:
            for event_id, key in keys.items():
                suspects.setdefault(event_id, []).extend(map(form.position_of, entries.get(key, ())))
        found = {}
        for event_id, positions in suspects.items():
            for position in sorted(positions):
                if self._stands_at(event_id, position):
                    found[event_id] = position
                    break
        return found

    def _find_made(self, event_id: str, prefix: str, counter: int) -> int | None:
        """Where a made id stands: as far after the first of its block as its counter says."""
        for chunk in (self._tail, *tuple(self._unwritten)):
            position = chunk.find_made(prefix, counter)
            if position is not None:
                return position
        key = self._made_key(block_of(prefix, counter))
        for one in self._entries_of([key]).get(key, ()):
            position = form.position_of(one)
            for line in self._lines([position]):
                begun = split_made(glimpse(line).id)
                if begun is not None and begun[0] == prefix and begun[1] <= counter:
                    position += counter - begun[1]
                    if self._stands_at(event_id, position):
                        return position
        return self._tail.find_made(prefix, counter)  # to heal is to read the log again

    def _stands_at(self, event_id: str, position: int) -> bool:
        return any(glimpse(line).id == event_id for line in self._lines([position]))

    def _lines(self, positions: Sequence[int]) -> list[bytes]:
        assert self._reads is not None, "asked after catching up"
        return [one.line for one in self._reads.fetch([at for at in positions if at < self._reads.size])]

    def _entries_of(self, keys: Collection[bytes]) -> dict[bytes, list[bytes]]:
        """What the runs have of keys, by proven pages; runs that do not prove themselves are rebuilt first."""
        for _ in range(_HEALED_MAX):
            try:
                return self._runs.find(keys, covering=self._covered, generation=self._begun_as.generation)
            except TamperError as error:
                self._heal(error)
            except BehindError:
                raise
            except ConflictError:
                self._restart()
            self._write_all()
        raise BusyError("sealing.db is altered again and again: find out who does that, then repeat")

    def _write_all(self) -> None:
        """Have all that is known in the runs, as they alone are asked next."""
        for _ in range(_HEALED_MAX):
            self.flush()
            self.wait(whatever=True)
            if not isinstance(self._failure, ConflictError):
                return self.wait()
            self._restart()  # another process was first
        raise BusyError("other processes write sealing.db all the time: wait a moment, then repeat")

    @property
    def _covered(self) -> int:
        """What is not in memory any more must be in the runs: the records below this position."""
        return next(iter(tuple(self._unwritten)), self._tail).first

    def _add_id(self, event_id: str, position: int) -> None:
        made = split_made(event_id)
        if made is None:
            self._tail.brought[self._id_key(event_id)] = position
        else:
            self._tail.add_made(*made, position, 1)

    # ------------------------------------------------------------------------------------------ writing

    def _save_all(self) -> None:
        """Write chunk by chunk until none is left, or one cannot be written; that is tried again with the next."""
        while True:
            with self._changed:
                if not self._unwritten:
                    self._saver = None
                    self._changed.notify_all()
                    return
                chunk = self._unwritten[0]
            try:
                cover = msgspec.structs.replace(self._begun_as, size=chunk.end, last_hash=chunk.last_hash)
                self._runs.add(chunk.first, cover, form.merged(chunk.entries(self._entity_key, self._made_key)))
            except Exception as error:  # noqa: BLE001  it is reported to whoever waits, and at the bound to all
                level = logging.DEBUG if isinstance(error, ConflictError) else logging.WARNING
                _log.log(level, "sealing.db could not be written, and what it lacks stays in memory: %s", error)
                with self._changed:
                    self._failure, self._saver = error, None
                    self._changed.notify_all()
                return
            with self._changed:
                self._failure = None
                self._unwritten.popleft()
                self._changed.notify_all()


def _put_back(seen: int, size: int) -> TamperError:
    why = "an older copy was put back, or records were cut off; verify. If you did that on purpose, delete sealing.db"
    return TamperError(f"the ledger had {seen} records and now has {size}: {why}")
