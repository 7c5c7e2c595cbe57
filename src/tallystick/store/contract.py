"""The store of one ledger: the port that every adapter keeps. Its promises stand at `Store`.

A store knows positions and bytes. What the bytes say, and whether they are right, is for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from tallystick.core.merkle import Tile
from tallystick.made_file import Made


class StoredRecord(NamedTuple):
    """One record as it rests. `crc32` was computed over `line` when it was written: it tells bit rot,
    which leaves it wrong, from tampering, which takes care to leave it right."""

    position: int
    line: bytes
    crc32: int


@dataclass(frozen=True, slots=True)
class Head:
    """The newest commit: a size, its signed checkpoint, and three positions that lead the writer back to
    its state: where the present epoch was opened, and where the checkpoint and evidence keys in force
    were named. All of it can be checked against the log."""

    size: int
    checkpoint: bytes
    epoch_at: int
    checkpoint_key_at: int
    evidence_key_at: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit adds: neighbouring records from position `first`, and the tiles that they completed."""

    first: int
    lines: Sequence[bytes]
    tiles: Sequence[Tile]


class Store(Protocol):
    """Where one ledger's records rest. Every adapter promises:

    1. Durable on return: when `create` or `commit` returns, what it wrote survives a crash of the machine.
    2. A record is visible exactly below the head's size. Committing the head is the one act that publishes (I4).
    3. `commit` is all or nothing, and compares-and-swaps the head: `ConflictError` when its size is not the
       expected one. Of several writers one wins, and the losers' bytes leave no trace.
    4. Committed bytes never change (I2), and the adapter has the database refuse it as well as it can. The one way
       in which records go is `prune`.
    5. After a `StoreError` the outcome may be unknown; every call may then be repeated.
    6. Reads are in position order and half-open. They hand back what is there, gaps and damage included: the
       caller judges it.
    7. Ledgers never see each other's data (I9).
    8. `copy` gives the ledger as it was at one commit, whoever writes meanwhile, and holds no writer up.

    All methods may be called from many threads; a store object does not cross a fork.
    """

    def create(self, batch: Batch, head: Head) -> None:
        """Begin the ledger with its first batch. `ConflictError` when it already has a head."""

    def head(self) -> Head | None:
        """The newest committed head; None before `create`."""

    def commit(
        self, expected_size: int, batch: Batch, head: Head, *, after: bytes | None = None, patient: bool = True
    ) -> None:
        """Append the batch and publish the head, if the present head's size is `expected_size`.

        Where `after` is given, the present head's checkpoint has to be that one, too: another log may have the size.
        Who is not `patient` gets a `BusyError` where others, who wait, wait for another writer to end.
        """

    def turn(self, *, patient: bool = True) -> AbstractContextManager[None]:
        """Hold up all other writers from here to the first commit inside, or to the end.

        Who plans from the newest head, commits, and is told `ConflictError` for a head that moved meanwhile may lose to
        faster ones for ever. Inside, a plan from the newest head cannot lose, where the adapter has such a lock.
        """

    def read(self, first: int, end: int) -> Iterator[StoredRecord]:
        """The records at positions [first, end), in order; those that are not there are left out."""

    def fetch(self, positions: Sequence[int]) -> list[StoredRecord]:
        """The records at these positions, in order of position; those that are not there are left out."""

    def tiles(self, level: int, first: int, end: int) -> list[Tile]:
        """The full tiles of a level with an index in [first, end), in order; absent ones left out."""

    def prune(self, end: int, kept: Sequence[int]) -> int:
        """Remove the records at positions below `end` that are not among `kept`, which ascend; how many those were.

        Durable on return, all or nothing, and may be repeated; also what the file had of them is overwritten, and
        its room given back. Tiles and head stay, and of records that no full tile covers their leaf hashes. Whether
        a record may go, the caller must have made sure, and must have said so in the log.
        """

    def pruned_below(self) -> int:
        """The largest `end` of any prune; 0 before the first. Below it records may lawfully be absent."""

    def leaves(self, first: int, end: int) -> list[tuple[int, bytes]]:
        """The leaf hashes at [first, end), with their positions in order, that prunes left where no tile was full."""

    def last_position(self) -> int | None:
        """The largest position of any record there is, published or not; None when there is none."""

    def inspect(self) -> list[str]:
        """What the adapter itself finds wrong with its own arrangements, in sentences; empty when nothing."""

    def copy(self, folder: Path, *, progress: Callable[[int], None] | None = None) -> Made:
        """Make a copy of the ledger in a folder, which is there and has none: what is opened there is as this was.

        Durable on return, but for the names in the folder; what was written is the result. `progress` is told the bytes
        as they are copied. Raises `RejectedError` where an adapter cannot do it.
        """

    def probe(self) -> None:
        """Read the ends of the log from where it rests, past everything in memory. Raises `StoreError` if it fails."""

    def look(self) -> None:
        """Look whether what was opened is still there. Costs next to nothing. Raises `DamagedError` if it is not."""

    def bytes_used(self) -> int:
        """The bytes that the ledger takes where it rests, the index not included."""

    def close(self) -> None:
        """Let go of files and connections. Closing twice is harmless."""
