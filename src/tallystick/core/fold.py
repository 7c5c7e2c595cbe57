"""The fold: from some leaves of a tree, and the hashes of what lies between them, to its root (SPEC 10.3).

Whoever makes a bundle and whoever checks one go the same way, from left to right: a leaf where there is one, and
where there is none the largest perfect subtrees that fill the gap. The maker looks their hashes up, the checker takes
them from the bundle; if the root comes out right, the leaves are those that were signed, at their positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tallystick.core.merkle import NodeSource, extend_frontier, root_from_frontier

_RUN_LEAVES: Final = 4_096
"""Neighbouring leaves that are hashed at once."""


def cover(first: int, end: int) -> Iterator[tuple[int, int]]:
    """The perfect subtrees over [first, end), from left to right, each as large as can be: level and index."""
    while first < end:
        aligned = (first & -first).bit_length() - 1 if first else 63
        level = min(aligned, (end - first).bit_length() - 1)
        yield level, first >> level
        first += 1 << level


class Fold:
    """Fed leaf hashes at ascending positions; `cuts` are positions that no subtree reaches across.

    `node` is asked for the subtrees between the leaves, in order. `roots` tells the root at each of the `sizes` that
    are asked for, as far as the fold passes them.
    """

    def __init__(self, *, cuts: Iterable[int], node: NodeSource, sizes: Iterable[int] = ()) -> None:
        self.roots: Final[dict[int, bytes]] = {}
        self._cuts: Final = sorted({*cuts})
        self._node: Final = node
        self._sizes: Final = frozenset(sizes)
        self._size = 0
        self._frontier: tuple[bytes, ...] = ()
        self._leaves: list[bytes] = []
        self._keep_root()

    def add(self, position: int, leaf: bytes) -> None:
        """The next leaf. Its position is past those of the leaves before."""
        end = self._size + len(self._leaves)
        assert position >= end, "leaves come in order of position"
        if position != end:
            self._fill(position)
        self._leaves.append(leaf)
        if len(self._leaves) >= _RUN_LEAVES or position + 1 in self._sizes:
            self._flush()

    def root(self, size: int) -> bytes:
        """The root of the whole tree, which has `size` leaves. Nothing is added any more."""
        self._fill(size)
        return root_from_frontier(self._frontier)

    def _fill(self, end: int) -> None:
        self._flush()
        inner = [cut for cut in self._cuts if self._size < cut < end]
        for cut in (*inner, end):
            for level, index in cover(self._size, cut):
                self._grow([self._node(level, index)], level)

    def _flush(self) -> None:
        leaves, self._leaves = self._leaves, []
        if leaves:
            self._grow(leaves, 0)

    def _grow(self, nodes: list[bytes], level: int) -> None:
        self._frontier = extend_frontier(self._size, self._frontier, nodes, height=level)
        self._size += len(nodes) << level
        self._keep_root()

    def _keep_root(self) -> None:
        if self._size in self._sizes:
            self.roots[self._size] = root_from_frontier(self._frontier)


def recording(node: NodeSource, into: list[bytes]) -> NodeSource:
    """A source that keeps what it was asked for: the hashes that a bundle has to have."""

    def ask(level: int, index: int) -> bytes:
        into.append(node(level, index))
        return into[-1]

    return ask


def replaying(hashes: Iterator[bytes], missing: Callable[[], Exception]) -> NodeSource:
    """A source that gives the hashes of a bundle one after another, and raises `missing()` when there are no more."""

    def give(_level: int, _index: int) -> bytes:
        found = next(hashes, None)
        if found is None:
            raise missing()
        return found

    return give
