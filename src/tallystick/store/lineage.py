"""That the log this process goes on with is the one it knew: each tree it proves extends the one before.

A log can be put back in place while it is open, and then grow past what this process had read: by an operator who
accepted the loss in another process, or because nobody knew of the last commits before a crash. Whatever is kept in
memory, or was derived and written, would then be of another history, and be sealed upon.
"""

from __future__ import annotations

import threading
from typing import Final

from tallystick.core.merkle import Tree, consistency_path, verify_consistency
from tallystick.errors import DamagedError, RejectedError, TamperError
from tallystick.store.contract import Store
from tallystick.store.reading import stored_nodes


def extends(store: Store, *, old_size: int, old_root: bytes, size: int, root: bytes) -> bool:
    """Whether a tree has grown from an older one, shown by a proof (RFC 9162 2.1.4): the store cannot make one up.

    Raises `RejectedError` or `TamperError` when the store lacks tiles that the proof takes.
    """
    path = consistency_path(old_size, size, node=stored_nodes(store, size))
    return verify_consistency(old_size, size, path=path, old_root=old_root, root=root)


class Lineage:
    """The largest tree that this process has proven of one ledger. Safe for many threads."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        self._lock: Final = threading.Lock()
        self._tree = Tree.empty()

    def follow(self, tree: Tree) -> None:
        """A tree was read back and proven. Raises `DamagedError` for one that is of another history.

        It may be smaller than the largest, where another thread has read more meanwhile.
        """
        with self._lock:
            if self._tree.size and not self._is_of_one(tree):
                shared = min(self._tree.size, tree.size)
                raise DamagedError(
                    f"the first {shared} records are not those that this process had read: the log was put back while "
                    "it was open, or split. Open the ledger again, and verify it"
                )
            self._keep(tree)

    def advance(self, tree: Tree) -> None:
        """This process committed a tree, which it has grown from the one it followed."""
        with self._lock:
            self._keep(tree)

    def _keep(self, tree: Tree) -> None:
        if tree.size > self._tree.size:
            self._tree = tree

    def _is_of_one(self, tree: Tree) -> bool:
        older, newer = sorted((self._tree, tree), key=lambda one: one.size)
        try:
            return extends(self._store, old_size=older.size, old_root=older.root, size=newer.size, root=newer.root)
        except (RejectedError, TamperError):
            return False
