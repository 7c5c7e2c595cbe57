"""What lies beside the log and is sealed from, for a verification: the sealing index, and the queue.

Both are authenticated under keys of their own; without the keys nothing is known of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tallystick.config import Location
from tallystick.core import timestamp
from tallystick.core.keys import LedgerKeys
from tallystick.core.record import record_hash
from tallystick.errors import StoreError, TamperError
from tallystick.evidence.findings import Finding, Kind
from tallystick.evidence.verification.plan import Plan
from tallystick.evidence.verification.workers import compare_index
from tallystick.read.compared import Compared, keep_compared
from tallystick.read.index import Progress
from tallystick.store.contract import Store
from tallystick.write.queue import FOLDER
from tallystick.write.queue_check import check_queue
from tallystick.write.queue_mark import queue_mark_path
from tallystick.write.run_set import RunSet


class Beside:
    """One check of all that lies beside a log. Without `index` the indexes are left out."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        keys: LedgerKeys | None,
        *,
        ledger_id: bytes,
        marks: Path | None,
        index: bool,
        now: int,
    ) -> None:
        """`marks` is the directory of the marks."""
        self._plan: Final = plan
        self._store: Final = store
        self._keys: Final = keys
        self._ledger_id: Final = ledger_id
        self._marks: Final = marks
        self._index: Final = index
        self._now: Final = now
        self.end: int | None = None
        """Up to where the query index was compared with the log; None when it was not, or there is none."""

    def check(self, progress: Progress | None, *, found_in_log: Sequence[Finding]) -> list[Finding]:
        """All that is wrong. Where the query index is good, that is stated beside it.

        What was found in the log is given: that the index does not say the same of an altered record is no news.
        """
        location, keys = self._plan.location, self._keys
        if location is None or location.folder is None:
            return []
        found: list[Finding] = []
        if keys is not None and not location.still:  # that of a copy is checked by who judges the copy
            mark = queue_mark_path(self._marks, self._ledger_id)
            found += queue_findings(location.folder / FOLDER, keys.queue_mac, mark=mark)
        if self._index and keys is not None:
            found += sealing_findings(location, self._store, key=keys.index_mac, ledger_id=self._ledger_id)
        if not self._index or not self._plan.is_whole:
            return found
        # By another process, if others scanned the records, too.
        self.end, differing = compare_index(location, self._store, apart=self._plan.is_apart, progress=progress)
        altered = [(one.position, one.end or one.position + 1) for one in found_in_log if one.position is not None]
        differing = tuple(one for one in differing if not _is_within(one, altered))
        if self.end and not differing and not found_in_log and keys is not None:
            compared = Compared(self.end, timestamp.render(self._now))
            with suppress(OSError):  # who may not write there has verified it all the same
                keep_compared(location.folder, compared, key=keys.index_mac, ledger_id=self._ledger_id)
        return [*found, *differing]


def _is_within(finding: Finding, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether a finding is of positions in these ranges alone."""
    if finding.position is None:
        return False
    last = (finding.end or finding.position + 1) - 1
    return all(any(first <= at < end for first, end in ranges) for at in (finding.position, last))


def queue_findings(folder: Path, key: bytes, *, mark: Path | None) -> Iterator[Finding]:
    """What is wrong with a queue."""
    try:
        for found in check_queue(folder, key, mark=mark):
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
