"""What lies beside the log and is sealed from, for a verification: the sealing index, and the queue.

Both are authenticated under keys of their own; without the keys nothing is known of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from tallystick.config import Location
from tallystick.core.keys import LedgerKeys
from tallystick.core.record import record_hash
from tallystick.errors import StoreError, TamperError
from tallystick.evidence.findings import Finding, Kind
from tallystick.store.contract import Store
from tallystick.write.queue import FOLDER
from tallystick.write.queue_check import check_queue
from tallystick.write.run_set import RunSet


def beside_findings(
    location: Location, store: Store, keys: LedgerKeys, *, ledger_id: bytes, index: bool
) -> Iterator[Finding]:
    """All that is wrong with either; the sealing index is left out without `index`."""
    if index:
        yield from sealing_findings(location, store, key=keys.index_mac, ledger_id=ledger_id)
    if location.folder is None:
        return
    try:
        for found in check_queue(location.folder / FOLDER, keys.queue_mac):
            yield Finding(Kind.QUEUE, None, found.text)
    except StoreError as error:
        yield Finding(Kind.UNREADABLE, None, str(error))


def sealing_findings(location: Location, store: Store, *, key: bytes, ledger_id: bytes) -> list[Finding]:
    """Whether what the sealer knows of the past is what was written under its key, and is of this log."""
    file = location.open_runs_readonly()
    if file is None:
        return []
    try:
        manifest = RunSet(file, key=key, ledger_id=ledger_id).check()
        head = store.head()  # read after the manifest, which is never ahead of it
        size = head.size if head else 0
        if manifest.size > size:
            raise TamperError(f"it covers {manifest.size} records, and the ledger has {size}")
        for stored in store.read(manifest.size - 1, manifest.size):
            if record_hash(stored.line) != manifest.last_hash:
                raise TamperError(f"another record was sealed at position {stored.position}")
    except (StoreError, TamperError) as error:
        return [Finding(Kind.INDEX, None, f"sealing.db: {error}")]
    finally:
        file.close()
    return []
