"""Reading a store with suspicion: what every reader of records and tiles asks of them, in one place.

A store hands back what is there; here a gap, a wrong CRC32 or bytes that are no record become a
`TamperError` that names the position, instead of passing for data (I8). A gap below the end of the last prune is
taken for pruned: whether it is lawfully there, the verification judges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

from tallystick.core.merkle import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, leaf_hash
from tallystick.core.record import Record, record_hash
from tallystick.core.system import Genesis, KeyRotated
from tallystick.core.tiles import TileNodes
from tallystick.errors import NotFoundError, RejectedError, TamperError
from tallystick.limits import READ_RECORDS_MAX, SIZE_MAX
from tallystick.store.contract import Store, StoredRecord


def read_records(store: Store, first: int, end: int) -> Iterator[Record]:
    """The records at [first, end), in order; those that were pruned are passed over.

    `TamperError` at the first that is missing or damaged.
    """
    for stored in read_lines(store, first, end):
        try:
            yield Record.parse(stored.line)
        except RejectedError as error:
            raise TamperError(f"the record at position {stored.position} was altered: {error}; verify") from error


def read_lines(store: Store, first: int, end: int) -> Iterator[StoredRecord]:
    """As `read_records`, without looking into the records."""
    expected = first
    for stored in store.read(first, end):
        if stored.position != expected and not _may_be_absent(store, stored.position):
            break
        if crc32(stored.line) != stored.crc32:
            raise TamperError(f"the record at position {stored.position} is damaged (its CRC32 does not fit): verify")
        yield stored
        expected = stored.position + 1
    if expected < end and not _may_be_absent(store, end):
        missing = max(expected, store.pruned_below())
        raise TamperError(f"the record at position {missing} is missing: run a verification")


def some_of(lines: Iterable[StoredRecord], end: int, *, bytes_max: int) -> tuple[int, list[StoredRecord]]:
    """The first of the records below `end`, until they come to so many bytes; and up to which position they go."""
    found: list[StoredRecord] = []
    room = bytes_max
    for stored in lines:
        found.append(stored)
        room -= len(stored.line)
        if room <= 0:
            return stored.position + 1, found
    return end, found


def _may_be_absent(store: Store, end: int) -> bool:
    """Whether positions up to `end` may have been pruned. Asked after they were seen to be absent, as a prune
    may come in between."""
    return end <= store.pruned_below()


def fetch_lines(store: Store, positions: Sequence[int], *, newest_first: bool = False) -> Iterator[StoredRecord]:
    """The records at these positions, which are in the order asked for; those that were pruned are left out.

    A bounded number of them is in memory. `TamperError` at the first that is missing or damaged.
    """
    for first in range(0, len(positions), READ_RECORDS_MAX):
        found = _fetch_checked(store, positions[first : first + READ_RECORDS_MAX])
        yield from reversed(found) if newest_first else found


def _fetch_checked(store: Store, positions: Sequence[int]) -> list[StoredRecord]:
    found = store.fetch(positions)
    for stored in found:
        if crc32(stored.line) != stored.crc32:
            raise TamperError(f"the record at position {stored.position} is damaged (its CRC32 does not fit): verify")
    absent = {*positions} - {stored.position for stored in found}
    below = store.pruned_below() if absent else 0
    missing = [position for position in absent if position >= below]
    if missing:
        raise TamperError(f"the record at position {min(missing)} is missing: run a verification")
    return found


def read_record(store: Store, position: int) -> Record:
    """One record. `NotFoundError` when it was pruned, `TamperError` when it is not there, or is damaged."""
    for record in read_records(store, position, position + 1):
        return record
    if not position:  # the ledger's own records are never pruned, and a genesis is at 0
        raise TamperError("the record at position 0 is missing: run a verification")
    raise NotFoundError(f"the record at position {position} was pruned: its time to be kept was over")


def hash_at(store: Store, position: int) -> bytes:
    """The hash of the record that the store has there, 32 bytes, or nothing. Nothing says that it is the right one."""
    for stored in store.read(position, position + 1):
        return record_hash(stored.line)
    return b""


def absent_ranges(store: Store, first: int, end: int) -> Iterator[tuple[int, int]]:
    """The maximal ranges of positions within [first, end) that have no record, in order."""
    expected = first
    for stored in store.read(first, end):
        if stored.position != expected:
            yield expected, stored.position
        expected = stored.position + 1
    if expected < end:
        yield expected, end


def range_with(ranges: Sequence[tuple[int, int]], position: int) -> tuple[int, int] | None:
    """Which of some ranges [first, end), in order and apart, has a position."""
    at = bisect_right(ranges, (position, SIZE_MAX)) - 1
    return ranges[at] if at >= 0 and position < ranges[at][1] else None


def tile_hashes(store: Store, level: int, index: int, width: int) -> bytes:
    """The first `width` hashes of a tile: a full one is stored, a partial one is put together from the
    records below it, or from the roots of the full tiles below it."""
    if width == TILE_WIDTH:
        tiles = store.tiles(level, index, index + 1)
        if not tiles:
            raise TamperError(f"the hash tile {level}/{index} is missing: run a verification")
        return tiles[0].hashes
    first = index << TILE_HEIGHT
    if level == 0:
        return _partial_tile(store, index, width)
    below = store.tiles(level - 1, first, first + width)
    if len(below) < width:
        raise TamperError(f"hash tiles of level {level - 1} are missing: run a verification")
    return b"".join(tile.root for tile in below)


def stored_nodes(store: Store, size: int) -> TileNodes:
    """The hashes of the tree of the first `size` records, from what the store has of them; for one thread."""
    return TileNodes(size, lambda level, index, width: tile_hashes(store, level, index, width))


def _partial_tile(store: Store, index: int, width: int) -> bytes:
    """Leaf hashes from the records; of pruned ones from the full tile that there is by now, or as they were kept."""
    first = index << TILE_HEIGHT
    hashes = {stored.position: leaf_hash(stored.line) for stored in read_lines(store, first, first + width)}
    if len(hashes) < width:
        for tile in store.tiles(0, index, index + 1):
            return tile.hashes[: width * HASH_BYTES]
        hashes.update(store.leaves(first, first + width))
    if len(hashes) < width:
        raise TamperError(f"leaf hashes of pruned records from position {first} on are missing: run a verification")
    return b"".join(hashes[position] for position in sorted(hashes))


def checkpoint_key(store: Store, named_at: int, *, genesis: Genesis) -> bytes:
    """The public checkpoint key that the record at `named_at` put in force; at 0 it is the genesis."""
    return KeyRotated.of(read_record(store, named_at)).new_key if named_at else genesis.checkpoint_key


def evidence_key(store: Store, named_at: int, *, genesis: Genesis) -> bytes:
    """The public evidence key that the record at `named_at` put in force; at 0 it is the genesis."""
    return KeyRotated.of(read_record(store, named_at)).new_key if named_at else genesis.evidence_key
