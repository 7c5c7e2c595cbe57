"""Whether the index says what the log says, for a verification (SPEC 8 does not speak of it: it is derived).

The comparison is `tallystick.read.sqlite_check`'s; here its faults become findings, and its steps can be taken by
another process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tallystick.config import Location
from tallystick.core.record import record_hash
from tallystick.errors import StoreError, TamperError
from tallystick.evidence.findings import Finding, Kind
from tallystick.store.contract import Store
from tallystick.write.run_set import RunSet

INDEX: Final = "index"
"""Asks a process for the next step."""


@dataclass(frozen=True, slots=True)
class IndexStep:
    """How far a comparison has come; at its end what was found, and up to which position the index answers."""

    position: int
    faults: tuple[Finding, ...] | None = None


def index_steps(location: Location, store: Store) -> Iterator[IndexStep]:
    """Compare the index of a ledger with its log, range by range. The last step has the findings."""
    check = location.check_index(store)
    if check is None:
        yield IndexStep(0, ())
        return
    for position in check.run():
        yield IndexStep(position)
    # A comparison that was given up has found something: it says up to where nothing was compared.
    yield IndexStep(
        check.end, tuple(Finding(Kind.INDEX, one.position, f"index.db: {one.seen}", one.end) for one in check.faults)
    )


def sealing_findings(location: Location, store: Store, *, key: bytes, ledger_id: bytes) -> list[Finding]:
    """Whether what the sealer knows of the past is what was written under its key, and is of this log."""
    file = location.open_runs_readonly()
    if file is None:
        return []
    try:
        manifest = RunSet(file, key=key, ledger_id=ledger_id).check()
        head = store.head()  # read after the manifest, which writers beside us take along
        if head is not None and manifest.size > head.size:
            raise TamperError(f"it covers {manifest.size} records, and the ledger has {head.size}")
        for stored in store.read(manifest.size - 1, manifest.size):
            if record_hash(stored.line) != manifest.last_hash:
                raise TamperError(f"another record was sealed at position {stored.position}")
    except (StoreError, TamperError) as error:
        return [Finding(Kind.INDEX, None, f"sealing.db: {error}")]
    finally:
        file.close()
    return []
