"""A store whose writes fail when it is told so, in every way in which a write can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tallystick.core.merkle import Tile
from tallystick.errors import BusyError, StoreError
from tallystick.made_file import Made
from tallystick.store.contract import Batch, Head, Store, StoredRecord

Fault: TypeAlias = Literal["failed", "busy", "failed, yet persisted", "failed, yet persisted, and then silent"]

FAULTS: Final[tuple[Fault, ...]] = (
    "failed",
    "busy",
    "failed, yet persisted",
    "failed, yet persisted, and then silent",
)


class FaultyStore:
    """Asks `next_fault` at every write whether, and how, it fails."""

    def __init__(self, inner: Store, next_fault: Callable[[], Fault | None]) -> None:
        self._inner = inner
        self._next_fault = next_fault
        self._silent = False

    def create(self, batch: Batch, head: Head) -> None:
        self._write(lambda: self._inner.create(batch, head))

    def commit(
        self, expected_size: int, batch: Batch, head: Head, *, after: bytes | None = None, patient: bool = True
    ) -> None:
        self._write(lambda: self._inner.commit(expected_size, batch, head, after=after, patient=patient))

    def turn(self, *, patient: bool = True) -> AbstractContextManager[None]:
        return self._inner.turn(patient=patient)

    def prune(self, end: int, kept: Sequence[int]) -> int:
        removed: list[int] = []
        self._write(lambda: removed.append(self._inner.prune(end, kept)))
        return removed[0]

    def pruned_below(self) -> int:
        return self._inner.pruned_below()

    def leaves(self, first: int, end: int) -> list[tuple[int, bytes]]:
        return self._inner.leaves(first, end)

    def _write(self, write: Callable[[], None]) -> None:
        fault = self._next_fault()
        if fault == "busy":
            raise BusyError("could not commit: the database is locked (injected)")
        if fault == "failed":
            raise StoreError("could not commit: disk I/O error (injected)")
        write()
        if fault is not None:
            self._silent = fault.endswith("silent")
            raise StoreError("could not commit: the connection was lost (injected)")

    def head(self) -> Head | None:
        if self._silent:
            self._silent = False
            raise StoreError("could not read the head: the connection was lost (injected)")
        return self._inner.head()

    def read(self, first: int, end: int) -> Iterator[StoredRecord]:
        return self._inner.read(first, end)

    def fetch(self, positions: Sequence[int]) -> list[StoredRecord]:
        return self._inner.fetch(positions)

    def tiles(self, level: int, first: int, end: int) -> list[Tile]:
        return self._inner.tiles(level, first, end)

    def last_position(self) -> int | None:
        return self._inner.last_position()

    def inspect(self) -> list[str]:
        return self._inner.inspect()

    def copy(self, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
        return self._inner.copy(folder, progress=progress)

    def probe(self) -> None:
        self._inner.probe()

    def look(self) -> None:
        self._inner.look()

    def bytes_used(self) -> int:
        return self._inner.bytes_used()

    def close(self) -> None:
        self._inner.close()
