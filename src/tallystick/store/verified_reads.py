"""Reading a log so that every record handed out is proven to be in the signed tree.

A CRC32 tells bit rot, and nothing else: whoever can write the file fits it. Here a record counts only if its leaf
hash stands in a hash tile whose path leads to the root of a checkpoint whose signature was checked. A record that
is absent counts as pruned only if a proven `tallystick.records.pruned` says exactly which positions are absent.
What is obeyed, sealed upon or shown as evidence is read through this module (I6, I8).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.custody import RECORDS_PRUNED
from tallystick.core.merkle import (
    HASH_BYTES,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tree,
    leaf_hash,
    split_hashes,
    tile_roots,
)
from tallystick.core.note import VerifierKey
from tallystick.core.pruned import Absent, RecordsPruned
from tallystick.core.record import Record
from tallystick.errors import NotFoundError, RejectedError, TamperError
from tallystick.limits import READ_RECORDS_MAX
from tallystick.store.contract import Head, Store, StoredRecord
from tallystick.store.reading import absent_ranges, range_with, tile_hashes

_TILES_CACHED: Final = 64
"""Proven tiles that are kept, 8 KiB each: neighbours share a tile, and all tiles share those above them."""

_PRUNES_TRIED: Final = 10
"""Prunes that are compared with what is absent. Only the newest can be unfinished, and then the one before it fits."""


class VerifiedReads:
    """The first `tree.size` records of one ledger, proven against the root of `tree`. For one thread at a time.

    The caller has checked that the root is the one of a checkpoint by the right key. Reading raises `TamperError` at
    the first record that is missing or is not the one in the tree, and names its position.
    """

    def __init__(self, store: Store, tree: Tree, *, like: VerifiedReads | None = None) -> None:
        """`like` are reads of another state of the same ledger: what was pruned lawfully then, is so for ever."""
        self._store: Final = store
        self._tree = tree
        self._tiles: Final[OrderedDict[tuple[int, int], bytes]] = OrderedDict()
        self._lawful: list[tuple[int, int]] = [] if like is None else like._lawful
        """The ranges that a proven prune names as absent, in order."""
        self._has_prune: bool | None = True if like is not None and like._has_prune else None

    @property
    def size(self) -> int:
        """How many records are proven."""
        return self._tree.size

    def advance(self, tree: Tree) -> None:
        """Go on with a later state of the same tree, as the caller has grown it. What was proven stays so."""
        self._tree = tree

    def read(self, first: int, end: int) -> Iterator[StoredRecord]:
        """The records at [first, end), in order; those that were lawfully pruned are left out."""
        if end > self.size:
            raise TamperError(f"the records up to position {end} are asked for, and {self.size} are proven: verify")
        expected = first
        for stored in self._store.read(first, end):
            if stored.position != expected:
                self._check_absent(expected, stored.position)
            self._check(stored)
            yield stored
            expected = stored.position + 1
        self._check_absent(expected, end)

    def fetch(self, positions: Sequence[int]) -> list[StoredRecord]:
        """The records at these positions, in order of position; those that were lawfully pruned are left out."""
        found = self._store.fetch(positions)
        for stored in found:
            self._check(stored)
        for position in sorted({*positions} - {stored.position for stored in found}):
            self._check_absent(position, position + 1)
        return found

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The first `width` hashes of a tile. `NotFoundError` for one that the tree does not have."""
        if not 0 < width <= TILE_WIDTH or index * TILE_WIDTH + width > self.size >> TILE_HEIGHT * level:
            raise NotFoundError(f"a tree of {self.size} records has no tile {level}/{index} of {width} hashes")
        return self._tile(level, index)[: width * HASH_BYTES]

    @property
    def has_prune(self) -> bool:
        """Whether a record says that a prune removed others. That the store says so (`pruned_below`) is no proof."""
        if self._has_prune is None:
            has = self._store.pruned_below() > 0
            prunes = self.backwards(RECORDS_PRUNED.encode(), 0, self.size) if has else ()
            self._has_prune = any(_prune_of(stored) is not None for stored in prunes)
        return self._has_prune

    def _check(self, stored: StoredRecord) -> None:
        position = stored.position
        at = position % TILE_WIDTH * HASH_BYTES
        if self._tile(0, position // TILE_WIDTH)[at : at + HASH_BYTES] != leaf_hash(stored.line):
            raise TamperError(f"the record at position {position} is not the one in the signed tree: verify the ledger")

    def _tile(self, level: int, index: int) -> bytes:
        """The proven hashes of a tile: at the right edge those of the tree, else those whose root stands above."""
        if index == self._tree.size >> TILE_HEIGHT * (level + 1):
            return self._tree.edges[level]
        cached = self._tiles.get((level, index))
        if cached is not None:
            self._tiles.move_to_end((level, index))
            return cached
        hashes = tile_hashes(self._store, level, index, TILE_WIDTH)
        above, at = self._tile(level + 1, index // TILE_WIDTH), index % TILE_WIDTH * HASH_BYTES
        if len(hashes) != TILE_BYTES or tile_roots(split_hashes(hashes))[0] != above[at : at + HASH_BYTES]:
            raise TamperError(f"the hash tile {level}/{index} is not the one in the signed tree: verify the ledger")
        self._tiles[level, index] = hashes
        if len(self._tiles) > _TILES_CACHED:
            self._tiles.popitem(last=False)
        return hashes

    def _check_absent(self, first: int, end: int) -> None:
        """Whether the records at [first, end), which the store does not have, were lawfully pruned."""
        if first < end and self._first_unlawful(first, end) is not None:
            self._lawful = self._find_prune()
            position = self._first_unlawful(first, end)
            if position is not None:
                raise TamperError(f"the record at position {position} is missing: verify the ledger")

    def _first_unlawful(self, first: int, end: int) -> int | None:
        """The first position of [first, end) that is in none of the ranges."""
        found = range_with(self._lawful, first)
        if found is None:
            return first
        return None if end <= found[1] else found[1]

    def _find_prune(self) -> list[tuple[int, int]]:
        """The ranges without records that the newest prune names, which says exactly what is absent below its end.

        The store's own word for it (`pruned_below`) is only where to look: whoever can remove a record can change it.
        """
        below = min(self._store.pruned_below(), self.size)
        if not below:
            return []
        absent = [*absent_ranges(self._store, 0, below)]
        for pruned in islice(self._prunes(below), _PRUNES_TRIED):
            within = [(first, min(last, pruned.end)) for first, last in absent if first < pruned.end]
            if Absent.over(within) == pruned.absent:
                return within
        return []

    def backwards(self, mark: bytes, first: int, end: int) -> Iterator[StoredRecord]:
        """The records at [first, end) that have the bytes `mark`, newest first, each proven.

        Whether they are all, this does not tell: what has other bytes is not looked at.
        """
        for stop in range(min(end, self.size), first, -READ_RECORDS_MAX):
            for stored in reversed([*self._store.read(max(stop - READ_RECORDS_MAX, first), stop)]):
                if mark in stored.line:
                    self._check(stored)
                    yield stored

    def _prunes(self, below: int) -> Iterator[RecordsPruned]:
        """The prunes that end at `below` or before, newest first. A prune stands past all that it removed."""
        for stored in self.backwards(RECORDS_PRUNED.encode(), below, self.size):
            pruned = _prune_of(stored)
            if pruned is not None and pruned.end <= below:
                yield pruned


def _prune_of(stored: StoredRecord) -> RecordsPruned | None:
    """The prune that a record tells of; None for another record that has these words."""
    try:
        record = Record.parse(stored.line)
        return RecordsPruned.of(record) if record.event_type == RECORDS_PRUNED else None
    except RejectedError:
        return None


def unfinished_tiles(store: Store, size: int) -> list[bytes]:
    """The hashes of the unfinished tile of every level of the tree of the first `size` records, as stored.

    Whether they are the right ones, the root of `Tree.from_edges` tells.
    """
    edges = []
    for level in range(-(-size.bit_length() // TILE_HEIGHT)):
        index, width = divmod(size >> TILE_HEIGHT * level, TILE_WIDTH)
        edges.append(tile_hashes(store, level, index, width) if width else b"")
    return edges


def verified_tree(store: Store, head: Head, key: VerifierKey) -> Tree:
    """The tree of a head whose checkpoint is signed by `key`. `TamperError` when head, log and signature disagree."""
    try:
        checkpoint = open_checkpoint(head.checkpoint, [key], origin=key.name)
    except TamperError as error:
        raise TamperError(f"the head's checkpoint is not by the key that the head names: {error} Verify") from error
    except RejectedError as error:
        raise TamperError(f"the head does not hold: {error}; run a verification") from error
    try:
        return tree_under(store, checkpoint, size=head.size)
    except RejectedError as error:
        raise TamperError(f"the head does not hold: {error}; run a verification") from error


def tree_under(store: Store, checkpoint: Checkpoint, *, size: int) -> Tree:
    """The tree of the first `size` records, under a checkpoint whose signature was checked.

    `TamperError` when the log lacks some of them, or the checkpoint is of others.
    """
    tree = Tree.from_edges(size, unfinished_tiles(store, size))
    if (checkpoint.size, checkpoint.root) != (size, tree.root):
        raise TamperError("the head's checkpoint, with its signed root, is not of these records: run a verification")
    return tree
