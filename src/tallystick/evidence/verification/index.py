"""Whether the index says what the log says, for a verification (SPEC 8 does not speak of it: it is derived).

The comparison is `tallystick.read.sqlite_check`'s; here its faults become findings, and its steps can be taken by
another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from tallystick.config import Location
from tallystick.errors import DamagedError, DamagedIndexError
from tallystick.evidence.findings import Finding, Kind, Report
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
    try:
        check = location.check_index(store)
    except DamagedError as error:  # of the log, which does not even say what was pruned
        store.look()  # one whose file is gone from under it is no finding: it has to be opened again
        yield IndexStep(0, (Finding(Kind.INDEX, None, f"index.db cannot be compared: {error}"),))
        return
    if check is None:
        yield IndexStep(0, ())
        return
    for position in check.run():
        yield IndexStep(position)
    # A comparison that was given up has found something: it says up to where nothing was compared.
    yield IndexStep(
        check.end, tuple(Finding(Kind.INDEX, one.position, f"index.db: {one.seen}", one.end) for one in check.faults)
    )


def with_open_index(report: Report, look: Callable[..., bool], *, is_in_file: bool) -> Report:
    """A report, with what is wrong with the index that the caller has open: that need not be the one that has its name,
    and was compared. `look` is `Ledger.look`; `is_in_file` whether what is open is a file, and not in memory."""
    is_whole = (report.first, report.end) == (0, report.size)
    try:
        if look(now=True):
            if report.index is not None or not is_whole or not is_in_file:
                return report
            found = Finding(Kind.INDEX, None, "index.db: the one that is open here could not be compared")
            return replace(report, findings=(*report.findings, found))
    except DamagedIndexError as error:
        found = Finding(Kind.INDEX, None, f"index.db: {error}")
        return replace(report, findings=(*report.findings, found))
    except DamagedError:
        return report  # of the log, of which the verification says more
    note = "the index that is open here was rebuilt by another process, and answers as it did: open the ledger again"
    return replace(report, notes=(*report.notes, note))
