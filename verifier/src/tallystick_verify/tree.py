"""The Merkle tree of RFC 9162 2.1, and the fold over what a bundle has of it (SPEC 7.1, 10.3)."""

from collections.abc import Iterable
from hashlib import sha256

from tallystick_verify.canonical import need


def leaf_hash(record: bytes) -> bytes:
    return sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Fold:
    """Grows a tree from left to right, by leaves and, over gaps cut at `cuts`, by roots of perfect subtrees.

    The first is a leaf. `roots` keeps the root at each size in `watched` that the fold passes.
    """

    def __init__(self, hashes: Iterable[bytes], *, cuts: Iterable[int], watched: Iterable[int]) -> None:
        self.size, self._stack, self._hashes = 0, list[bytes](), iter(hashes)
        self._cuts, self._watched = sorted(cuts), frozenset(watched)
        self.roots, self._fault = {0: sha256().digest()}, ""

    def place(self, position: int, record: bytes) -> None:
        """A record at its position, behind hashes for the gap before it."""
        self._cover(position)
        self._append(leaf_hash(record), 0)

    def finish(self, end: int) -> bytes:
        """The root of the tree of size `end`, every hash used; raises RefusedError."""
        self._cover(end)
        need(not self._fault, self._fault)
        need(next(self._hashes, None) is None, "there are more hashes than the tree needs")
        return self._root()

    def _append(self, root: bytes, height: int) -> None:
        """A perfect subtree of 2^height leaves."""
        size, self.size = self.size, self.size + (1 << height)
        while size >> height & 1:
            root = node_hash(self._stack.pop(), root)
            height += 1
        self._stack.append(root)
        if self.size in self._watched:
            self.roots[self.size] = self._root()

    def _cover(self, end: int) -> None:
        """The gap up to `end`, each piece of it by the largest subtrees that fit."""
        while self.size < end:
            edge = min([end, *(cut for cut in self._cuts if cut > self.size)])
            height = min((edge - self.size).bit_length(), (self.size & -self.size).bit_length()) - 1
            root = next(self._hashes, b"")
            if not root and not self._fault:
                self._fault = f"there is no hash for the subtree of {1 << height:,} records at {self.size:,}"
            self._append(root, height)

    def _root(self) -> bytes:
        root = self._stack[-1]
        for left in self._stack[-2::-1]:
            root = node_hash(left, root)
        return root


def root_of_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root to which an inclusion path leads (RFC 9162 2.1.3); raises RefusedError if the tree has no such path."""
    need(index < size and (size == 1) == (not path), "the path is not one of that index and tree")
    if size == 1:
        return leaf
    left = 1 << (size - 1).bit_length() - 1
    if index < left:
        return node_hash(root_of_path(leaf, index, left, path[:-1]), path[-1])
    return node_hash(path[-1], root_of_path(leaf, index - left, size - left, path[:-1]))
