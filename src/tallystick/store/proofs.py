"""What proofs are made from: the hashes under the newest signed root, each proven before it leaves.

A path that does not lead to the root, or an altered tile, would be handed to monitors that keep it for ever, and would
have them hold the operator for a forger. So what is given is checked here, and who altered it is found here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tallystick.core.merkle import Tree
from tallystick.store.contract import Head, Store
from tallystick.store.verified_reads import VerifiedReads


class Proofs:
    """The newest proven state of one ledger. Safe for many threads, one of which reads at a time."""

    def __init__(self, store: Store, tree_of: Callable[[Head], Tree]) -> None:
        """`tree_of` gives the tree of a head that holds, or raises `TamperError`."""
        self._store: Final = store
        self._tree_of: Final = tree_of
        self._lock: Final = threading.Lock()
        self._checkpoint = b""
        self._reads: VerifiedReads | None = None

    @contextmanager
    def at(self, head: Head) -> Iterator[VerifiedReads]:
        """Reads of a head that was just read. What is held while it is in use is short: a proof, a tile, a record."""
        with self._lock:
            reads = self._reads
            if reads is None or head.checkpoint != self._checkpoint:
                reads = VerifiedReads(self._store, self._tree_of(head), like=reads)
                self._reads, self._checkpoint = reads, head.checkpoint
            yield reads
