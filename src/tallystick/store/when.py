"""Which records are of a time: in a ledger whose clock was corrected, too, a range of time is a range of positions."""

from __future__ import annotations

from tallystick.core import timestamp
from tallystick.core.corrected import Times
from tallystick.core.record import Record
from tallystick.errors import RejectedError, TamperError
from tallystick.store.contract import Store, StoredRecord


def first_at(store: Store, moment: int, *, size: int, times: Times) -> int:
    """The position of the first record of `size` whose time is a moment, in microseconds, or later; else `size`.

    Times never go back as positions rise, so that halving finds it. Positions that were pruned count with the next
    record.
    """
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        found = next(store.read(middle, high), None)
        if found is None or time_of(found, times) >= moment:
            high = middle
        else:
            low = found.position + 1
    found = next(store.read(low, size), None)
    return size if found is None else found.position


def time_of(stored: StoredRecord, times: Times) -> int:
    """The time by which a record counts, in microseconds (SPEC 5.9)."""
    try:
        return times.of(stored.position, timestamp.parse(Record.parse(stored.line).recorded_at))
    except RejectedError as error:
        raise TamperError(f"the record at position {stored.position} was altered: {error}; verify") from error
