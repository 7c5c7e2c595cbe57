"""A store in memory, for tests and for trying things out: nothing outlives the process.

It is also the policeman of the tests. It keeps a second copy of all that it was given, and fails the call
in which sealed bytes turn out to have changed, so code that mutates what it handed over cannot pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from tallystick.core.merkle import TILE_WIDTH, Tile, leaf_hash
from tallystick.errors import ConflictError, RejectedError, StoreError, TamperError
from tallystick.made_file import Made
from tallystick.sqlite_file import held
from tallystick.store.contract import Batch, Head, StoredRecord


class MemoryStore:
    """Keeps the contract except for durability, which memory does not have."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._head: Head | None = None
        self._records: list[StoredRecord] = []
        self._tiles: dict[tuple[int, int], Tile] = {}
        self._sealed: list[bytes] = []
        self._absent: set[int] = set()
        self._leaves: dict[int, bytes] = {}
        self._pruned_below = 0
        self._closed = False

    def create(self, batch: Batch, head: Head) -> None:
        with self._lock:
            self._check_open()
            if self._head is not None:
                raise ConflictError("the ledger already exists")
            self._publish(batch, head)

    def head(self) -> Head | None:
        self._check_open()
        return self._head

    def commit(
        self,
        expected_size: int,
        batch: Batch,
        head: Head,
        *,
        after: bytes | None = None,
        patient: bool = True,  # noqa: ARG002 - nobody is ever waited for
    ) -> None:
        with self._lock:
            self._check_open()
            present = self._head.size if self._head else None
            if present != expected_size or (after is not None and self._head and after != self._head.checkpoint):
                raise ConflictError(f"the head is at {present}, and not the one at {expected_size}")
            self._publish(batch, head)

    @contextmanager
    def turn(self, *, patient: bool = True) -> Iterator[None]:
        with held(self._lock, patient=patient, doing="commit"):
            yield

    def _publish(self, batch: Batch, head: Head) -> None:
        # An interrupt in an earlier call may have left records that no head published.
        published = self._head.size if self._head else 0
        del self._records[published:], self._sealed[published:]
        if batch.first != published or head.size != batch.first + len(batch.lines):
            raise StoreError("the batch does not continue the ledger up to the head's size")
        for position, line in enumerate(batch.lines, batch.first):
            self._records.append(StoredRecord(position, line, crc32(line)))
            self._sealed.append(bytes(bytearray(line)))
        for tile in batch.tiles:
            if (tile.level, tile.index) in self._tiles:
                raise TamperError(f"tile {tile.level}/{tile.index} was written twice")
            self._tiles[tile.level, tile.index] = tile
        self._head = head

    def read(self, first: int, end: int) -> Iterator[StoredRecord]:
        self._check_open()
        for position in range(first, min(end, len(self._records))):
            record = self._records[position]
            if position in self._absent:
                continue
            if record.line != self._sealed[position] or record.position != position:
                raise TamperError(f"sealed bytes changed in memory at position {position}")
            yield record

    def fetch(self, positions: Sequence[int]) -> list[StoredRecord]:
        return [stored for position in sorted({*positions}) for stored in self.read(position, position + 1)]

    def tiles(self, level: int, first: int, end: int) -> list[Tile]:
        self._check_open()
        found = sorted(key for key in self._tiles if key[0] == level and first <= key[1] < end)
        return [self._tiles[key] for key in found]

    def prune(self, end: int, kept: Sequence[int]) -> int:
        with self._lock:
            self._check_open()
            size = self._head.size if self._head else 0
            if end > size:
                raise StoreError(f"cannot prune up to {end}: the head is at {size}")
            covered = size - size % TILE_WIDTH
            gone = [at for at in sorted({*range(end)} - {*kept}) if at not in self._absent]
            self._leaves = {at: leaf for at, leaf in self._leaves.items() if at >= covered}
            self._leaves.update((at, leaf_hash(self._records[at].line)) for at in gone if at >= covered)
            for position in gone:
                self._records[position] = StoredRecord(position, b"", 0)
                self._sealed[position] = b""
            self._absent.update(gone)
            self._pruned_below = max(self._pruned_below, end)
            return len(gone)

    def pruned_below(self) -> int:
        self._check_open()
        return self._pruned_below

    def leaves(self, first: int, end: int) -> list[tuple[int, bytes]]:
        self._check_open()
        return sorted((at, leaf) for at, leaf in self._leaves.items() if first <= at < end)

    def last_position(self) -> int | None:
        return len(self._records) - 1 if self._records else None

    def inspect(self) -> list[str]:
        return []

    def copy(self, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
        del folder, progress
        raise RejectedError("a ledger in memory cannot be copied into a folder", cure="keep the ledger in a folder")

    def probe(self) -> None:
        """There is nothing but memory."""

    def look(self) -> None:
        """Memory stays what it is."""

    def bytes_used(self) -> int:
        return sum(len(record.line) for record in self._records) + 8224 * len(self._tiles)

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
