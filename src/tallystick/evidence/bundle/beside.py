"""What has to stand beside the records of a bundle, so that it can be checked by itself (SPEC 10.4).

The genesis, every change of keys and correction of the clock, the opening and the close of each epoch, and the prune
that says what is absent: all of them are the ledger's own, and are proven to be all there are. An index that left one
out would have the ledger hand over a bundle that nobody accepts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from tallystick.core.corrected import CLOCK_CORRECTED
from tallystick.core.custody import RECORDS_PRUNED
from tallystick.core.pruned import Absent, RecordsPruned
from tallystick.core.record import EPOCH_CLOSED, EPOCH_OPENED, KEY_ROTATED, Record
from tallystick.errors import RejectedError, TamperError
from tallystick.evidence.verification.ranges import Ranges
from tallystick.limits import BUNDLE_RECORDS_MAX
from tallystick.read.own_records import Framing
from tallystick.store.contract import Store
from tallystick.store.reading import absent_ranges, read_record


class Beside:
    """Answers for the first `size` records of a ledger."""

    def __init__(self, store: Store, framing: Iterable[Framing], *, size: int) -> None:
        """`framing` is all there is of the ledger's own that may stand beside records, in order."""
        self._store: Final = store
        self._framing: Final = [one for one in framing if one.position < size]
        self._size: Final = size

    def absent(self, first: int, end: int) -> tuple[Ranges, int | None]:
        """What no record is at, as the newest prune that fits says, and where that prune is.

        Nothing, when all of [first, end) is there. Raises `TamperError` when no prune speaks for what is absent.
        """
        below = self._store.pruned_below()
        if below <= first:
            return Ranges(), None
        every = Ranges()
        every.extend(absent_ranges(self._store, 0, below))
        if not any(True for _ in every.within(first, end)):
            return Ranges(), None
        for position in reversed(self._positions(RECORDS_PRUNED)):
            pruned = RecordsPruned.of(read_record(self._store, position))
            if pruned.end <= below and Absent.over(every.within(0, pruned.end)) == pruned.absent:
                return every, position
        raise TamperError("records are absent for which no prune speaks, and nothing is exported: run a verification")

    def of(self, taken: Sequence[int], prune: int | None) -> tuple[list[int], list[Record]]:
        """The epochs of the records at these positions, and what stands beside them, the genesis too, in order."""
        opened, closed = self._epochs()
        epochs = [
            epoch for epoch, at in sorted(opened.items()) if _any_within(taken, at, closed.get(epoch, self._size))
        ]
        if not epochs:  # the genesis alone stands before the opening of epoch 0
            epochs = [0]
        wanted = {0, *self._positions(KEY_ROTATED), *self._positions(CLOCK_CORRECTED)}
        for epoch in epochs:
            if epoch not in opened or epoch not in closed:
                raise TamperError(f"the ledger does not say where epoch {epoch} was opened and closed: verify it")
            wanted |= {opened[epoch], closed[epoch]}
        if prune is not None:
            wanted.add(prune)
        inside = taken if isinstance(taken, range) else frozenset(taken)
        beside = sorted(position for position in wanted if position not in inside)
        if len(beside) > BUNDLE_RECORDS_MAX:
            raise RejectedError("the records are of too many epochs", cure="export a smaller range")
        return epochs, [read_record(self._store, position) for position in beside]

    @property
    def is_clock_corrected(self) -> bool:
        """Whether recorded times do not ascend over all of the ledger."""
        return bool(self._positions(CLOCK_CORRECTED))

    def _epochs(self) -> tuple[dict[int, int], dict[int, int]]:
        """Where epochs were opened, and closed."""
        opened = {one.epoch: one.position for one in self._framing if one.event_type == EPOCH_OPENED}
        closed = {one.epoch: one.position for one in self._framing if one.event_type == EPOCH_CLOSED}
        return opened, closed

    def _positions(self, event_type: str) -> list[int]:
        return [one.position for one in self._framing if one.event_type == event_type]


def _any_within(taken: Sequence[int], first: int, last: int) -> bool:
    """Whether one of these positions, which ascend, is from the first to the last."""
    at = bisect_left(taken, first)
    return at < len(taken) and taken[at] <= last
