"""Reading a store with suspicion: what every reader of records and tiles asks of them, in one place.

A store hands back what is there; here a gap, a wrong CRC32 or bytes that are no record become a
`TamperError` that names the position, instead of passing for data (I8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

from tallystick.core.merkle import TILE_HEIGHT, TILE_WIDTH, leaf_hash
from tallystick.core.record import Record
from tallystick.core.system import Genesis, KeyRotated
from tallystick.errors import RejectedError, TamperError
from tallystick.store.contract import Store, StoredRecord


def read_records(store: Store, first: int, end: int) -> Iterator[Record]:
    """The records at [first, end), all of them. `TamperError` at the first that is missing or damaged."""
    for stored in read_lines(store, first, end):
        try:
            yield Record.parse(stored.line)
        except RejectedError as error:
            raise TamperError(f"the record at position {stored.position} was altered: {error}; verify") from error


def read_lines(store: Store, first: int, end: int) -> Iterator[StoredRecord]:
    """As `read_records`, without looking into the records."""
    expected = first
    for stored in store.read(first, end):
        if stored.position != expected:
            break
        if crc32(stored.line) != stored.crc32:
            raise TamperError(f"the record at position {expected} is damaged (its CRC32 does not fit): verify")
        yield stored
        expected += 1
    if expected < end:
        raise TamperError(f"the record at position {expected} is missing: run a verification")


def fetch_lines(store: Store, positions: Sequence[int]) -> list[StoredRecord]:
    """The records at these positions, in order of position. `TamperError` at the first that is missing or damaged."""
    found = store.fetch(positions)
    for stored in found:
        if crc32(stored.line) != stored.crc32:
            raise TamperError(f"the record at position {stored.position} is damaged (its CRC32 does not fit): verify")
    missing = {*positions} - {stored.position for stored in found}
    if missing:
        raise TamperError(f"the record at position {min(missing)} is missing: run a verification")
    return found


def read_record(store: Store, position: int) -> Record:
    """One record. `TamperError` when it is not there, or is damaged."""
    return next(read_records(store, position, position + 1))


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
        return b"".join(leaf_hash(stored.line) for stored in read_lines(store, first, first + width))
    below = store.tiles(level - 1, first, first + width)
    if len(below) < width:
        raise TamperError(f"hash tiles of level {level - 1} are missing: run a verification")
    return b"".join(tile.root for tile in below)


def checkpoint_key(store: Store, named_at: int, *, genesis: Genesis) -> bytes:
    """The public checkpoint key that the record at `named_at` put in force; at 0 it is the genesis."""
    return KeyRotated.of(read_record(store, named_at)).new_key if named_at else genesis.checkpoint_key


def evidence_key(store: Store, named_at: int, *, genesis: Genesis) -> bytes:
    """The public evidence key that the record at `named_at` put in force; at 0 it is the genesis."""
    return KeyRotated.of(read_record(store, named_at)).new_key if named_at else genesis.evidence_key
