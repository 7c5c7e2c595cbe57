"""The tree over what was scanned, held against the signed root and the stored tiles (SPEC 8, steps 9 and 12).

Three things speak for each tile of leaves: the records, the stored tile's hashes, and its stored root. When
they differ, the signed root decides who is right: with the right choice for each tile the root comes out, and
then every record that fits its leaf is proven, and every other one is known to be altered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tallystick.core.merkle import (
    TILE_HEIGHT,
    TILE_WIDTH,
    extend_frontier,
    inclusion_path,
    leaf_hash,
    node_hash,
    range_root,
    root_from_frontier,
    verify_inclusion,
)
from tallystick.core.pruned import frontier_at
from tallystick.errors import RejectedError, StoreError, TamperError
from tallystick.evidence.findings import Finding, Kind
from tallystick.evidence.verification.scan import Block, Scan
from tallystick.store.contract import Store
from tallystick.store.reading import stored_nodes


class TreeCheck:
    """Fed range by range, in order; `first` is the first position scanned, a multiple of 256."""

    def __init__(self, store: Store, *, size: int, first: int) -> None:
        self.findings: list[Finding] = []
        self.proven = False
        """Whether the chosen hashes lead to the signed root."""
        self.altered: set[int] = set()
        """Positions whose records are not the ones in the tree."""
        self._store: Final = store
        self._size: Final = size
        self._first_block: Final = first // TILE_WIDTH
        self._blocks: list[Block] = []
        self._chosen: list[bytes | None] = []
        self._ragged: list[bytes | None] = []
        self._made: dict[tuple[int, int], bytes] = {}
        self._stored: Final = stored_nodes(store, size)

    def add(self, scan: Scan) -> None:
        """Take the next range."""
        self._blocks += scan.blocks
        self._ragged = scan.ragged

    def finish(self, signed_root: bytes | None) -> list[Finding]:
        """Decide what is right, and report the rest: all findings. None when no signed root is to be had."""
        choices: tuple[Callable[[Block], bytes | None], ...] = (
            _likeliest,
            lambda b: b.by_records,
            lambda b: b.by_tile,
        )
        for choose in choices:
            self._choose(choose)
            root = self.root_at(self._size)
            if root is not None and root == signed_root:
                self.proven = True
                break
        else:
            self._choose(_likeliest)
            if signed_root is not None:
                seen = "the records cannot be hashed to a root" if root is None else "the records have another root"
                self.findings.append(Finding(Kind.ROOT, None, seen))
        self._report_blocks()
        self._report_upper_tiles()
        return self.findings

    def root_at(self, size: int) -> bytes | None:
        """The root of the first `size` leaves by the chosen hashes; None when something is missing."""
        try:
            return range_root(0, size, node=self._node) if size else root_from_frontier(())
        except (_UnknownError, TamperError, RejectedError, StoreError):
            return None

    def frontier_at(self, size: int) -> tuple[bytes, ...] | None:
        """The frontier of the first `size` leaves by the chosen hashes; None when something is missing."""
        try:
            return frontier_at(size, node=self._node)
        except (_UnknownError, TamperError, RejectedError, StoreError):
            return None

    def holds(self, position: int, line: bytes) -> bool:
        """Whether the tree has this record there: proven up to its root, wherever the way leads."""
        try:
            path = inclusion_path(position, self._size, node=self._node)
            root = range_root(0, self._size, node=self._node)
        except (_UnknownError, TamperError, RejectedError, StoreError):
            return False
        return verify_inclusion(leaf_hash(line), position, size=self._size, path=path, root=root)

    def _choose(self, choose: Callable[[Block], bytes | None]) -> None:
        self._chosen = [choose(block) for block in self._blocks]
        self._made = {}

    def _node(self, level: int, index: int) -> bytes:
        """The hash of a perfect subtree: by what was scanned, or where nothing was, by the stored tiles."""
        if level < TILE_HEIGHT:
            return self._ragged_node(level, index)
        shift = level - TILE_HEIGHT
        first, end = (index << shift) - self._first_block, ((index + 1) << shift) - self._first_block
        if end <= 0 or first >= len(self._chosen):
            return self._stored(level, index)
        if not shift:
            chosen = self._chosen[first]
            if chosen is None:
                raise _UnknownError
            return chosen
        made = self._made.get((level, index))
        if made is None:
            made = node_hash(self._node(level - 1, 2 * index), self._node(level - 1, 2 * index + 1))
            self._made[level, index] = made
        return made

    def _ragged_node(self, level: int, index: int) -> bytes:
        start = (self._first_block + len(self._blocks)) * TILE_WIDTH
        first = (index << level) - start
        leaves = self._ragged[first : first + (1 << level)] if first >= 0 else []
        if len(leaves) < 1 << level:
            return self._stored(level, index)
        whole = [leaf for leaf in leaves if leaf is not None]
        if len(whole) < len(leaves):
            raise _UnknownError
        return root_from_frontier(extend_frontier(0, (), whole))

    def _report_blocks(self) -> None:
        for number, (block, chosen) in enumerate(zip(self._blocks, self._chosen, strict=True), self._first_block):
            if block.stored is None:
                self._add_tile(0, number, "is not in the store")
            elif block.by_records != chosen and block.differing:
                for position in block.differing:
                    self._add_leaf(position)
            elif {block.by_records or chosen, block.by_tile, block.stored} != {chosen}:
                self._add_tile(0, number, "is not what the records hash to")

    def _add_leaf(self, position: int) -> None:
        seen = "the signed tree holds another record here" if self.proven else "the stored tile holds another hash here"
        self.altered.add(position)
        self.findings.append(Finding(Kind.LEAF, position, seen))

    def _add_tile(self, level: int, index: int, seen: str) -> None:
        width = TILE_WIDTH ** (level + 1)
        self.findings.append(
            Finding(Kind.TILE, index * width, f"hash tile {level}/{index} {seen}", (index + 1) * width)
        )

    def _report_upper_tiles(self) -> None:
        """Tiles above level 0 that lie wholly over what was scanned, and tiles where none should be yet."""
        level = 0
        while self._size >> TILE_HEIGHT * level:
            full = self._size >> TILE_HEIGHT * (level + 1)
            per_tile = TILE_WIDTH**level
            first = -(-self._first_block // per_tile)
            end = min(full, (self._first_block + len(self._blocks)) // per_tile)
            if level:
                self._compare_tiles(level, range(first, end))
            level += 1

    def _compare_tiles(self, level: int, indices: range) -> None:
        try:
            stored = {tile.index: tile for tile in self._store.tiles(level, indices.start, indices.stop)}
        except StoreError as error:
            self.findings.append(Finding(Kind.UNREADABLE, None, f"hash tiles of level {level}: {error}"))
            return
        for index in indices:
            tile = stored.get(index)
            if tile is None:
                self._add_tile(level, index, "is not in the store")
                continue
            try:
                below = [self._node(TILE_HEIGHT * level, index * TILE_WIDTH + n) for n in range(TILE_WIDTH)]
                root = self._node(TILE_HEIGHT * (level + 1), index)
            except (_UnknownError, TamperError, RejectedError, StoreError):
                continue  # what is missing below was reported there
            if b"".join(below) != tile.hashes or root != tile.root:
                self._add_tile(level, index, "is not what the records hash to")


class _UnknownError(Exception):
    """A hash that cannot be known, because its records and its tile are both gone."""


def _likeliest(block: Block) -> bytes | None:
    """Two of three agree, or else the records speak."""
    voices: Sequence[bytes | None] = (block.by_records, block.by_tile, block.stored)
    for voice in voices:
        if voice is not None and voices.count(voice) > 1:
            return voice
    return next((voice for voice in voices if voice is not None), None)
