"""A store as it was at one signed head, of which every record that is read is proven to be in the tree.

What is read through it can be shown as evidence: an index that is derived from it, and what that finds, owe nothing to
files that somebody may have edited.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from tallystick.core.merkle import Tile, Tree
from tallystick.errors import StoreError, TamperError
from tallystick.limits import READ_RECORDS_MAX
from tallystick.made_file import Made
from tallystick.store.contract import Batch, Head, Store, StoredRecord
from tallystick.store.verified_reads import VerifiedReads

_READONLY: Final = "it is read as it was at one moment, and nothing is written"


class ProvenStore:
    """Reads `store` as of `head`, whose tree the caller has checked. What writes raises `StoreError`.

    Raises `TamperError` at a record that is missing, or is not the one in the tree. Closing it closes nothing.
    """

    def __init__(self, store: Store, head: Head, tree: Tree) -> None:
        self._store: Final = store
        self._head: Final = head
        self._reads: Final = VerifiedReads(store, tree)
        self._lock: Final = threading.Lock()
        """Verified reads are for one thread at a time."""

    @property
    def size(self) -> int:
        """How many records are proven."""
        return self._head.size

    @contextmanager
    def reads(self) -> Iterator[VerifiedReads]:
        """What it reads by, for one thread at a time."""
        with self._lock:
            yield self._reads

    def head(self) -> Head | None:
        return self._head

    def read(self, first: int, end: int) -> Iterator[StoredRecord]:
        if end > self._head.size:
            raise TamperError(f"the records up to position {end} are asked for, and {self._head.size} are proven")
        while first < end:
            stop = min(first + READ_RECORDS_MAX, end)
            with self._lock:
                page = [*self._reads.read(first, stop)]
            yield from page
            first = stop

    def fetch(self, positions: Sequence[int]) -> list[StoredRecord]:
        with self._lock:
            return self._reads.fetch([position for position in positions if position < self._head.size])

    def tiles(self, level: int, first: int, end: int) -> list[Tile]:
        return self._store.tiles(level, first, end)

    def pruned_below(self) -> int:
        return self._store.pruned_below()

    def leaves(self, first: int, end: int) -> list[tuple[int, bytes]]:
        return self._store.leaves(first, end)

    def last_position(self) -> int | None:
        return self._head.size - 1

    def inspect(self) -> list[str]:
        return self._store.inspect()

    def probe(self) -> None:
        self._store.probe()

    def look(self) -> None:
        self._store.look()

    def bytes_used(self) -> int:
        return self._store.bytes_used()

    def create(self, batch: Batch, head: Head) -> None:  # noqa: ARG002
        raise StoreError(_READONLY)

    def commit(
        self,
        expected_size: int,  # noqa: ARG002
        batch: Batch,  # noqa: ARG002
        head: Head,  # noqa: ARG002
        *,
        after: bytes | None = None,  # noqa: ARG002
        patient: bool = True,  # noqa: ARG002
    ) -> None:
        raise StoreError(_READONLY)

    def turn(self, *, patient: bool = True) -> AbstractContextManager[None]:  # noqa: ARG002
        raise StoreError(_READONLY)

    def prune(self, end: int, kept: Sequence[int]) -> int:  # noqa: ARG002
        raise StoreError(_READONLY)

    def copy(self, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
        return self._store.copy(folder, progress=progress)

    def close(self) -> None:
        """The store that it reads is another's to close."""
