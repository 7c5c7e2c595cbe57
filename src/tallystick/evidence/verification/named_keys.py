"""The keys that the head names, for a verification that does not begin at the genesis and so did not follow them."""

from __future__ import annotations

from collections.abc import Iterator

from tallystick.core.note import VerifierKey
from tallystick.core.system import Genesis
from tallystick.errors import NotFoundError, RejectedError, TamperError
from tallystick.evidence.findings import Finding, Kind
from tallystick.store.contract import Head, Store
from tallystick.store.reading import checkpoint_key, read_record
from tallystick.store.trusted_keys import prove_key
from tallystick.store.verified_reads import VerifiedReads, verified_tree


def check_named_keys(store: Store, head: Head, *, first: int) -> Iterator[Finding]:
    """What is wrong with the way from the keys of the genesis to those that the head names.

    For a verification that finds nothing else. One that begins `first` at 0 has followed them.
    """
    if not first:
        return
    try:
        genesis = Genesis.of(read_record(store, 0))
        key = VerifierKey(genesis.origin, checkpoint_key(store, head.checkpoint_key_at, genesis=genesis))
        reads = VerifiedReads(store, verified_tree(store, head, key))
        prove_key(reads, genesis, "checkpoint", head.checkpoint_key_at)
        prove_key(reads, genesis, "evidence", head.evidence_key_at)
    except (NotFoundError, RejectedError, TamperError) as error:
        yield Finding(Kind.KEY_ROTATION, None, str(error))
