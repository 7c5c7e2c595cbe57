"""The ledger's own records, all of them: policies, holds, prunes, schemas and what else it is bound by.

What is obeyed must not depend on what an index leaves out. All of these records are of one entity, none of them is
ever pruned, and their versions count up by one; so whoever knows the entity's version from a source that proves it
can tell whether a list is complete. The index only says where to look; if it says too little, the log is read.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from tallystick.core.corrected import CLOCK_CORRECTED, Correction, Times
from tallystick.core.custody import CUSTODY_TYPES, RECORDS_PRUNED
from tallystick.core.record import EPOCH_CLOSED, EPOCH_OPENED, KEY_ROTATED, Record
from tallystick.core.rollup import ROLLUP_DEFINED
from tallystick.core.schema import SCHEMA_TYPES
from tallystick.core.system import SYSTEM_ENTITY
from tallystick.errors import RejectedError, StoreError, TamperError
from tallystick.limits import READ_RECORDS_MAX
from tallystick.read.query import Query
from tallystick.store.contract import StoredRecord
from tallystick.store.verified_reads import VerifiedReads

BINDING: Final = frozenset((*CUSTODY_TYPES, *SCHEMA_TYPES, CLOCK_CORRECTED, RECORDS_PRUNED, ROLLUP_DEFINED))
"""The types of those that are kept in memory, as they bind what comes after them."""

FRAMING: Final = frozenset((CLOCK_CORRECTED, KEY_ROTATED, EPOCH_OPENED, EPOCH_CLOSED, RECORDS_PRUNED))
"""The types of those that stand beside the records of a bundle."""

OF_THE_LEDGER: Final = Query(entities=(SYSTEM_ENTITY,))
_MARK: Final = b'"entity_id":"%b"' % SYSTEM_ENTITY.encode()

Candidates = Callable[[int], tuple[int, Sequence[int]]]
"""From a position on: up to where an index was asked, and where it says that the ledger's own records are."""


class Framing(NamedTuple):
    """Where one of `FRAMING` is, and of which epoch it tells, if of one."""

    event_type: str
    position: int
    epoch: int

    @classmethod
    def of(cls, record: Record) -> Framing:
        epoch = record.payload.get("epoch")
        return cls(sys.intern(record.event_type), record.position, epoch if type(epoch) is int else -1)


_log: Final = logging.getLogger("tallystick.read")


T = TypeVar("T")


class OwnRecords(Generic[T]):
    """Those of one ledger, followed as it grows. For one thread at a time."""

    def __init__(self, candidates: Candidates, *, types: frozenset[str], keep: Callable[[Record], T]) -> None:
        """`keep` makes of each record of these types what is kept of it in memory."""
        self._candidates: Final = candidates
        self._types: Final = types
        self._keep: Final = keep
        self._end = 0
        self._version = 0
        self._kept: list[T] = []

    def follow(self, reads: VerifiedReads, version: int) -> list[T]:
        """All that `reads` proves, in order. `version` is that of their entity, proven elsewhere.

        Raises `TamperError` when the log itself has not as many as there must be.
        """
        try:
            records = self._by_index(reads)
        except StoreError as error:  # an index that cannot be asked is no reason not to know
            _log.warning("the index cannot say where the ledger's own records are, and the log is read: %s", error)
            records = []
        if not self._continues(records, version):
            records = [*self._of(reads.read(self._end, reads.size))]
        if not self._continues(records, version):
            raise TamperError(f"the ledger has not all of its {version} own records: run a verification")
        self._kept += [self._keep(record) for record in records if record.event_type in self._types]
        self._version, self._end = version, reads.size
        return self._kept

    def follow_to(self, reads: VerifiedReads) -> list[T]:
        """As `follow`, for who knows no version: the newest of these records says it. All behind it is read, which is
        an epoch at most."""
        if reads.size > self._end:
            self.follow(reads, self._newest_version(reads))
        return self._kept

    def _newest_version(self, reads: VerifiedReads) -> int:
        for end in range(reads.size, self._end, -READ_RECORDS_MAX):
            found = [*self._of(reads.read(max(end - READ_RECORDS_MAX, self._end), end))]
            if found:
                return found[-1].entity_version
        return self._version

    def _by_index(self, reads: VerifiedReads) -> list[Record]:
        asked, positions = self._candidates(self._end)
        end = max(self._end, min(asked, reads.size))
        inside = [position for position in positions if self._end <= position < end]
        records: list[Record] = []
        for first in range(0, len(inside), READ_RECORDS_MAX):
            records += self._of(reads.fetch(inside[first : first + READ_RECORDS_MAX]))
        return [*records, *self._of(reads.read(end, reads.size))]

    def _of(self, lines: Iterable[StoredRecord]) -> Iterable[Record]:
        for stored in lines:
            if _MARK in stored.line:
                try:
                    record = Record.parse(stored.line)
                except RejectedError as error:
                    raise TamperError(f"the record at position {stored.position} cannot be: {error}; verify") from error
                if record.entity_id == SYSTEM_ENTITY:
                    yield record

    def _continues(self, records: Sequence[Record], version: int) -> bool:
        return [one.entity_version for one in records] == [*range(self._version + 1, version + 1)]


class Corrections:
    """The corrections of one ledger's clock, proven to be all. Safe for many threads."""

    def __init__(self, candidates: Candidates) -> None:
        self._own: Final = OwnRecords(candidates, types=frozenset((CLOCK_CORRECTED,)), keep=_correction)
        self._following: Final = threading.Lock()

    def times(self, reads: VerifiedReads) -> Times:
        """By what the records count that `reads` proves. Raises `TamperError`."""
        with self._following:
            return Times(one for one in self._own.follow_to(reads) if one.position < reads.size)


def _correction(record: Record) -> Correction:
    try:
        return Correction.of(record)
    except RejectedError as error:
        raise TamperError(f"the record at position {record.position} cannot be: {error}; verify") from error
