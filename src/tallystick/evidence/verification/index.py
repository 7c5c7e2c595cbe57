"""Whether the index says what the log says, for a verification (SPEC 8 does not speak of it: it is derived).

The comparison is `tallystick.read.sqlite_check`'s; here its faults become findings, and its steps can be taken by
another process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tallystick.config import Location
from tallystick.evidence.findings import Finding, Kind
from tallystick.store.contract import Store

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
