"""The Merkle tree over the records of one ledger (RFC 6962, RFC 9162): grow it, prove from it, check.

A leaf is the hash of one record, its index the record's position. A tree is never held whole: the
writer's state is its right edge, the `frontier` of perfect subtrees and the unfinished tiles, and what
lies to the left of it is in the store as tiles, for ever (I2, I3). Proofs are computed from whatever
answers for the hash of a perfect subtree, and are checked from the proof alone.

Hashes are 32 bytes. Nothing here knows of records, files or signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from tallystick.errors import RejectedError
from tallystick.limits import SIZE_MAX

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_LEVELS_MAX: Final = 8  # of a tree of up to 2^63 - 1 leaves
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES

NodeSource = Callable[[int, int], bytes]
"""`node(level, index)` is the hash of the perfect subtree over `[index << level, (index + 1) << level)`."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_NODE_BEGUN: Final = sha256(_NODE)


def leaf_hash(data: bytes) -> bytes:
    """Hash one record as a leaf; its prefix keeps a leaf from passing for a node (RFC 9162 2.1.1)."""
    return sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two neighbouring subtrees into their parent (RFC 9162 2.1.1)."""
    return sha256(_NODE + left + right).digest()


@dataclass(frozen=True, slots=True)
class Tile:
    """A full tile: 256 neighbouring hashes of one tile level, and their parent eight heights up.

    A hash at tile level `level` covers 256**level leaves. `root` is therefore one hash of the tile
    above, and needs no storing.
    """

    level: int
    index: int
    hashes: bytes
    root: bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of `size` leaves, as far as growing it needs: its right edge.

    `frontier` holds the roots of its perfect subtrees, largest first. `edges[level]` holds the hashes of
    the tile that is unfinished at that tile level, concatenated, and is empty where the last one is full;
    there is an edge for every tile level that has a hash. Parts that do not fit `size` raise `RejectedError`.
    """

    size: int
    frontier: tuple[bytes, ...]
    edges: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_frontier(self.size, self.frontier)
        if len(self.edges) != -(-self.size.bit_length() // TILE_HEIGHT):
            raise RejectedError(f"a tree of {self.size} leaves does not have {len(self.edges)} tile levels")
        for level, edge in enumerate(self.edges):
            width = (self.size >> TILE_HEIGHT * level) % TILE_WIDTH
            if len(edge) != width * HASH_BYTES:
                problem = f"the unfinished tile has {len(edge)} bytes, not {width} hashes"
                raise RejectedError(problem, place=f"tile level {level}")

    @classmethod
    def empty(cls) -> Tree:
        """The tree without leaves."""
        return cls(0, (), ())

    @classmethod
    def from_edges(cls, size: int, edges: Sequence[bytes]) -> Tree:
        """Rebuild a tree from its unfinished tiles alone, hashing its frontier anew.

        If `root` then equals a signed root, the edges are those that were signed. Raises `RejectedError`
        when the edges do not fit `size`.
        """
        frontier: list[bytes] = []
        for edge in reversed(edges):
            frontier += extend_frontier(0, (), split_hashes(edge))
        return cls(size, tuple(frontier), tuple(edges))

    @property
    def root(self) -> bytes:
        """The root hash of the whole tree."""
        return root_from_frontier(self.frontier)

    def extend(self, leaves: Sequence[bytes]) -> tuple[Tree, list[Tile]]:
        """Append leaf hashes: the tree thereafter, and the tiles that they completed.

        Tiles come in the order in which they can be checked: by level, then by index. The cost is one
        hash a leaf, whatever the size of the tree.
        """
        frontier, rows = _grow(self.size, self.frontier, leaves, height=0)
        edges = list(self.edges)
        tiles: list[Tile] = []
        for level, row in enumerate(rows[::TILE_HEIGHT]):
            if level == len(edges):
                edges.append(b"")
            hashes = edges[level] + b"".join(row)
            full = len(hashes) // TILE_BYTES
            if full:
                first = self.size >> TILE_HEIGHT * (level + 1)
                # Eight heights up, the nodes just made are the roots of the tiles just filled, one for one.
                roots = rows[TILE_HEIGHT * (level + 1)]
                for n in range(full):
                    tile = hashes[n * TILE_BYTES : (n + 1) * TILE_BYTES]
                    tiles.append(Tile(level, first + n, tile, roots[n]))
            edges[level] = hashes[full * TILE_BYTES :]
        return Tree(self.size + len(leaves), frontier, tuple(edges)), tiles


def split_hashes(hashes: bytes) -> list[bytes]:
    """Cut concatenated hashes apart; `RejectedError` when the last one is short."""
    if len(hashes) % HASH_BYTES:
        raise RejectedError(f"{len(hashes)} bytes are not a whole number of {HASH_BYTES}-byte hashes")
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]


def root_from_frontier(frontier: Sequence[bytes]) -> bytes:
    """Fold the roots of a tree's perfect subtrees, largest first, into the root of the tree."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def extend_frontier(
    size: int, frontier: Sequence[bytes], nodes: Sequence[bytes], *, height: int = 0
) -> tuple[bytes, ...]:
    """Append to a tree of `size` leaves, known by its frontier, perfect subtrees of 2**height leaves each.

    Height 0 appends leaf hashes; height 8 appends the roots of whole tiles, so that tiles can be hashed
    elsewhere and joined here. Gives the new frontier. Raises `RejectedError` when the frontier does not fit
    `size`, or `size` is not a multiple of 2**height.
    """
    _check_frontier(size, frontier)
    if size % (1 << height):
        raise RejectedError(f"subtrees of {1 << height} leaves cannot follow {size} leaves")
    return _grow(size, frontier, nodes, height=height)[0]


def tile_roots(leaves: Sequence[bytes]) -> list[bytes]:
    """Hash the leaf hashes of a run of whole tiles into one root a tile, for `extend_frontier(height=8)`."""
    assert len(leaves) % TILE_WIDTH == 0, "a run of whole tiles"
    row = leaves
    for _ in range(TILE_HEIGHT):
        row = _parents(row)
    return list(row)


def inclusion_path(index: int, size: int, *, node: NodeSource) -> list[bytes]:
    """Prove that leaf `index` is in the tree of `size` leaves (RFC 9162 2.1.3.1).

    The path is the hash of each sibling on the way to the root, lowest first. Raises `RejectedError` when
    there is no such leaf.
    """
    if not 0 <= index < size:
        raise RejectedError(f"there is no leaf {index} in a tree of {size} leaves")
    return _siblings(index, size, node=node, level=0)


def consistency_path(old_size: int, size: int, *, node: NodeSource) -> list[bytes]:
    """Prove that the tree of `size` leaves begins with the tree of `old_size` leaves (RFC 9162 2.1.4.1).

    Nothing needs proving, and the path is empty, from the empty tree and between equal sizes. Raises
    `RejectedError` when `old_size` is not within `size`.
    """
    if not 0 <= old_size <= size:
        raise RejectedError(f"a tree of {size} leaves cannot have grown from one of {old_size}")
    if old_size in (0, size):
        return []
    # The smallest perfect subtree of the old tree is where the two trees' paths part.
    level = (old_size & -old_size).bit_length() - 1
    known = [] if old_size == 1 << level else [node(level, (old_size >> level) - 1)]
    return known + _siblings(old_size - 1, size, node=node, level=level)


def verify_inclusion(leaf: bytes, index: int, *, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves leaf hash `leaf` at `index` of the tree `size`, `root` (RFC 9162 2.1.3.2)."""
    if not 0 <= index < size or {len(leaf), len(root)} != {HASH_BYTES}:  # (1)
        return False
    fn, sn, r = index, size - 1, leaf  # (2) (3)
    for p in path:  # (4)
        if sn == 0 or len(p) != HASH_BYTES:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root  # (5)


def verify_consistency(old_size: int, size: int, *, path: Sequence[bytes], old_root: bytes, root: bytes) -> bool:
    """Whether `path` proves that tree `size`, `root` begins with `old_size`, `old_root` (RFC 9162 2.1.4.2).

    The RFC leaves out two cases, both with an empty path. Every tree has grown from the empty one, whose
    root is `EMPTY_ROOT`; and trees of one size are consistent when their roots are equal.
    """
    if not 0 <= old_size <= size or {len(old_root), len(root)} != {HASH_BYTES}:
        return False
    if old_size == size:
        return not path and old_root == root and (size > 0 or root == EMPTY_ROOT)
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    if not path or any(len(c) != HASH_BYTES for c in path):  # (1)
        return False
    known = [old_root] if old_size & (old_size - 1) == 0 else []  # (2)
    fn, sn = old_size - 1, size - 1  # (3)
    while fn & 1:  # (4)
        fn, sn = fn >> 1, sn >> 1
    first, *rest = [*known, *path]
    fr = sr = first  # (5)
    for c in rest:  # (6)
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == root  # (7)


def _check_frontier(size: int, frontier: Sequence[bytes]) -> None:
    if not 0 <= size <= SIZE_MAX:
        raise RejectedError(f"a tree cannot have {size} leaves")
    if len(frontier) != size.bit_count():
        problem = f"a tree of {size} leaves has {size.bit_count()} perfect subtrees, not {len(frontier)}"
        raise RejectedError(problem, place="frontier")
    for root in frontier:
        if len(root) != HASH_BYTES:
            raise RejectedError(f"{len(root)} bytes are not a {HASH_BYTES}-byte hash", place="frontier")


def _grow(
    size: int, frontier: Iterable[bytes], nodes: Sequence[bytes], *, height: int
) -> tuple[tuple[bytes, ...], list[Sequence[bytes]]]:
    """Append nodes of one height to a tree: its new frontier, and the rows of nodes made, from `height` up.

    Row by row, the whole batch at once: a row's nodes join, two by two, into the next row. A lone left node
    waits in the frontier; the waiting one of before goes in front. So every node is hashed once, ever.
    """
    waiting = list(frontier)  # lowest last
    left_over: list[bytes] = []  # lowest first
    rows: list[Sequence[bytes]] = []
    row, before = nodes, size >> height
    while row:
        rows.append(row)
        if before & 1:
            row = [waiting.pop(), *row]
        if len(row) & 1:
            left_over.append(row[-1])
        row, before = _parents(row), before >> 1
    return (*waiting, *reversed(left_over)), rows


def _parents(row: Sequence[bytes]) -> list[bytes]:
    """Join a row two by two, leaving out an odd last node. This loop is what a tree costs.

    A copy of a hasher that has read the prefix already is cheaper than a new one.
    """
    parents = []
    fresh, nodes = _NODE_BEGUN.copy, iter(row)
    for left, right in zip(nodes, nodes, strict=False):
        hasher = fresh()
        hasher.update(left + right)
        parents.append(hasher.digest())
    return parents


def _siblings(index: int, size: int, *, node: NodeSource, level: int) -> list[bytes]:
    """The hashes beside the way to the root from the node at `level` above leaf `index`."""
    path = []
    for height in range(level, (size - 1).bit_length()):
        first = ((index >> height) ^ 1) << height
        if first < size:  # else the node is alone at this height, and rises as it is
            path.append(range_root(first, min(first + (1 << height), size), node=node))
    return path


def range_root(first: int, end: int, *, node: NodeSource) -> bytes:
    """The root over leaves `[first, end)`: a perfect subtree or, at the ragged right edge, several folded."""
    frontier = []
    while first < end:
        level = (end - first).bit_length() - 1
        frontier.append(node(level, first >> level))
        first += 1 << level
    return root_from_frontier(frontier)
