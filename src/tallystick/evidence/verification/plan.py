"""What a verification is going to look at: one head, and the ranges to scan below it.

Decided before anything is read, and bounded by what is there: a head may claim whatever it likes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from tallystick.config import Location
from tallystick.core.merkle import TILE_WIDTH
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.verification.scan import RANGE_RECORDS, Task
from tallystick.store.contract import Head, Store


@dataclass(frozen=True, slots=True)
class Plan:
    """What to scan, and where."""

    head: Head
    """The one that is verified; what is published later is not."""
    tasks: list[Task]
    lost: range
    """Published positions past the last record there is."""
    location: Location | None
    processes: int
    is_apart: bool
    """Whether other processes scan, and this one only collects what they find."""

    @classmethod
    def of(
        cls,
        store: Store,
        *,
        location: Location | None,
        first: int,
        end: int | None,
        processes: int | None,
        apart: bool = False,
    ) -> Plan:
        try:
            head = store.head()
        except StoreError as error:
            raise TamperError(f"the ledger cannot be read, it is damaged or not a ledger: {error}") from error
        if head is None:
            raise NotFoundError("there is no ledger here")
        last = store.last_position()
        if last is None:
            raise TamperError(f"the ledger has a head that says {head.size} records, and no record")
        # A head may claim any size; what is not there is one finding, and no work.
        size = min(head.size, last + 1)
        end = size if end is None else min(end, size)
        if not 0 <= first < end:
            raise RejectedError(f"there are no positions {first} to {end} in a ledger of {size}")
        first -= first % TILE_WIDTH
        end = min(size, end + -end % TILE_WIDTH)
        tasks = [Task(at, min(at + RANGE_RECORDS, end)) for at in range(first, end, RANGE_RECORDS)]
        # A process takes longer to start than one range takes to scan.
        useful = min(processes or os.cpu_count() or 1, len(tasks))
        can_be = location is not None and location.folder is not None
        is_apart = can_be and (useful > 1 or (apart and len(tasks) > 1))
        return cls(head, tasks, range(size, head.size), location, useful if can_be else 1, is_apart)

    @property
    def is_whole(self) -> bool:
        """Whether all of a ledger in a folder is scanned, so that what is derived from it can be compared."""
        return self.location is not None and self.location.folder is not None and self.covers(self.head.size)

    def covers(self, size: int) -> bool:
        """Whether the first `size` records are scanned, as far as they are there."""
        return self.tasks[0].first == 0 and self.tasks[-1].end >= min(size, self.lost.start)
