"""What a sealer needs of the past, in memory, for tests that put one together by hand."""

from __future__ import annotations

from tallystick.core.keys import LedgerKeys
from tallystick.core.record import record_hash
from tallystick.store.contract import Store
from tallystick.store.memory_sealing import MemoryRunFile
from tallystick.write.sealing_index import SealingIndex


def sealing_index(store: Store, keys: LedgerKeys) -> SealingIndex:
    """The sealing index of the ledger in `store`, which has its genesis."""
    [genesis] = store.fetch([0])
    return SealingIndex(store, MemoryRunFile(), key=keys.index_mac, ledger_id=record_hash(genesis.line))
