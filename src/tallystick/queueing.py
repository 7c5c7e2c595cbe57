"""The queue of the front door: opened when it is first used, authenticated under a key of its own, and cleared for a
prune.

What it does with events is `tallystick.write.queue`'s.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from tallystick.clock import Clock
from tallystick.config import Location
from tallystick.core.keys import LedgerKeys
from tallystick.errors import BusyError, ConflictError, RejectedError
from tallystick.read.reader import Reader
from tallystick.store.contract import Head, Store
from tallystick.write.queue import FOLDER as QUEUE_FOLDER
from tallystick.write.queue import Queue, QueueStats
from tallystick.write.queue_check import DAMAGED
from tallystick.write.queue_mark import queue_mark_path
from tallystick.write.resume import check_master_key
from tallystick.write.sealer import Sealer


class Pulse(NamedTuple):
    """How a ledger stands: its size, the records that its index has not taken yet (0 while nobody asked for one), and
    its queue (None while nobody used it)."""

    size: int
    index_behind: int
    queue: QueueStats | None
    mark_failing: bool = False
    """Whether its head mark cannot be written."""
    sealing_rebuilt: bool = False
    """Whether its sealing index was not what had been written, and was rebuilt, since the ledger was opened."""


class Queueing(ABC):
    """What opens and clears the queue of one ledger. Safe for many threads."""

    _store: Store
    _location: Location
    _clock: Clock
    _marks: Path | None
    id: bytes
    _opening: threading.Lock
    _queue: Queue | None
    _reader: Reader | None

    @abstractmethod
    def _open_sealer(self) -> Sealer:
        """What seals."""

    @property
    @abstractmethod
    def mark_failing(self) -> str | None:
        """Why the head mark cannot be written, if the last attempt failed."""

    @abstractmethod
    def _load_keys(self) -> LedgerKeys:
        """The keys of the ledger."""

    @abstractmethod
    def _head(self) -> Head:
        """The newest committed head."""

    @abstractmethod
    def _find(self, event_id: str) -> int | None:
        """The position of the record with an event id."""

    @property
    @abstractmethod
    def sealing_problem(self) -> str | None:
        """What was wrong with the sealing index, if anything was since the ledger was opened."""

    def pulse(self) -> Pulse:
        """How it stands; for whoever watches over it."""
        reader, queue, size = self._reader, self._queue, self._head().size
        behind = 0 if reader is None else max(0, size - reader.follower.end)
        stats, failing = None if queue is None else queue.stats(), self.mark_failing is not None
        return Pulse(size, behind, stats, failing, self.sealing_problem is not None)

    def look(self, *, now: bool = False) -> bool:
        """Look whether the index is still what was opened, if that is due; `now`, also the log. Costs microseconds.

        False when another process rebuilt the index, which opening the ledger again follows. Raises `DamagedIndexError`
        and `DamagedError`.
        """
        if now:
            self._store.look()
        reader = self._reader
        return reader is None or reader.follower.look(now=now)

    @property
    def queue(self) -> Queue:
        """The queue of what was published and is not sealed yet; opening it goes on with what an earlier process left.

        Raises `BusyError` when another process has it, `TamperError` when it is damaged.
        """
        if self._queue is None:
            sealer = self._open_sealer()
            with self._opening:
                if self._location.folder is None:
                    raise RejectedError("a ledger in memory has no queue", cure="append, or use a folder")
                if self._queue is None:
                    folder = self._location.folder / QUEUE_FOLDER
                    key = self.queue_key()
                    self._queue = Queue(
                        folder,
                        key=key,
                        mark=self.queue_mark,
                        seal=sealer.seal_each,
                        find=self._find,
                        clock=self._clock,
                    )
        return self._queue

    @property
    def queue_mark(self) -> Path | None:
        """The file of the queue's mark, beside the head mark; None where no marks are kept."""
        return queue_mark_path(self._marks, self.id)

    def queue_key(self) -> bytes:
        """The key under which the queue is authenticated. `RejectedError` for keys of another ledger: under them a good
        queue would look forged, and a new one would look forged under the right keys."""
        keys = self._load_keys()
        check_master_key(keys, self._store, epoch_at=self._head().epoch_at)
        return keys.queue_mac

    def _clear_queue(self) -> None:
        """Have events that are sealed, and may be pruned now, leave the queue's files (SPEC 9 speaks of records alone).

        `ConflictError` while a repair's folder keeps them: it is evidence, and not ours to delete. `TamperError` when
        the queue is damaged, and may have more than it says.
        """
        folder = None if self._location.folder is None else self._location.folder / QUEUE_FOLDER
        if folder is None or not folder.is_dir():
            return
        kept = sorted(path.name for path in folder.glob(f"{DAMAGED}-*"))
        if kept:
            raise ConflictError(
                f"{folder / kept[0]} keeps what a repair of the queue took away, which may have events that are to be "
                "pruned: move it to where it is kept as evidence, or delete it, then prune again"
            )
        try:
            queue = self.queue
        except BusyError:
            return  # another process has it, and removes what is sealed within a second
        queue.clear()
