"""What a prune takes from the ledger's head: that it holds, and what then vouches for the records that go.

It looks at the signed checkpoint and the tree that rests under it, not at records: that is for the verification.
"""

from __future__ import annotations

from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.merkle import consistency_path, range_root, root_from_frontier, verify_consistency
from tallystick.core.note import VerifierKey
from tallystick.core.pruned import frontier_at
from tallystick.core.system import Genesis
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError
from tallystick.store.contract import Head, Store
from tallystick.store.reading import checkpoint_key, read_record, stored_nodes
from tallystick.store.trusted_keys import prove_key
from tallystick.store.verified_reads import VerifiedReads, tree_under


def check_head(store: Store) -> Head:
    """The head, if a key that the genesis leads to signed its checkpoint, and the tree in the store has its root."""
    head = store.head()
    if head is None:
        raise StoreError("the ledger has lost its head: run a verification")
    try:
        genesis = Genesis.of(read_record(store, 0))
        key = VerifierKey(genesis.origin, checkpoint_key(store, head.checkpoint_key_at, genesis=genesis))
        checkpoint = open_checkpoint(head.checkpoint, [key], origin=genesis.origin)
        root = range_root(0, head.size, node=stored_nodes(store, head.size))
        reads = VerifiedReads(store, tree_under(store, checkpoint, size=head.size))
        prove_key(reads, genesis, "checkpoint", head.checkpoint_key_at)
    except (RejectedError, NotFoundError, TamperError) as error:
        raise TamperError(f"the head does not hold, and nothing is pruned: {error}; run a verification") from error
    if checkpoint != Checkpoint(genesis.origin, head.size, root):
        raise TamperError("the head is not of these records, and nothing is pruned: run a verification")
    return head


def checked_frontier(store: Store, end: int, head: Head) -> tuple[bytes, ...]:
    """The frontier of the first `end` records, if the tree under a head that holds has grown from it."""
    node = stored_nodes(store, head.size)
    frontier = frontier_at(end, node=node)
    path = consistency_path(end, head.size, node=node)
    old_root, root = root_from_frontier(frontier), range_root(0, head.size, node=node)
    if not verify_consistency(end, head.size, path=path, old_root=old_root, root=root):
        raise TamperError("the hash tiles do not lead to the signed root, and nothing is pruned: run a verification")
    return frontier


def last_hash(store: Store, end: int, head: Head) -> bytes:
    """The hash of the record at `end` - 1, which may be gone already: the next one names it. `store` proves both."""
    if end < head.size:
        return bytes.fromhex(read_record(store, end).members["prev_hash"])
    return read_record(store, end - 1).hash
