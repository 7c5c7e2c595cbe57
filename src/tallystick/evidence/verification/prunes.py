"""Prunes: which absent records are lawfully gone, and whether what says so is true (SPEC 8, 9.7, steps 15 and 16).

The newest prune says by a digest exactly which positions below its end have no record. What is absent beyond
that is missing. A prune that was cut short has removed nothing yet, and then the one before it counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from tallystick.core import timestamp
from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.corrected import CLOCK_CORRECTED, Correction
from tallystick.core.custody import CUSTODY_TYPES, RECORDS_PRUNED, InForce, RetentionSet, expired_until
from tallystick.core.note import VerifierKey
from tallystick.core.pruned import Absent, RecordsPruned
from tallystick.core.record import Record
from tallystick.errors import NotFoundError, RejectedError, StoreError, TamperError
from tallystick.evidence.findings import Finding, Kind, LawfulPrune
from tallystick.evidence.verification.history import History
from tallystick.evidence.verification.ranges import Ranges
from tallystick.evidence.verification.scan import Scan
from tallystick.evidence.verification.tree import TreeCheck
from tallystick.limits import READ_RECORDS_MAX
from tallystick.store.contract import Store, StoredRecord
from tallystick.store.reading import absent_ranges, read_record

PRUNES_MAX: Final = 10_000
"""Prunes that are remembered, which is one a day for 27 years; of earlier ones only their order is checked."""

MISSING_MAX: Final = 1_000
"""Ranges of missing records that are findings of their own; further ones are told together."""

_OLDER_MAX: Final = 10
"""Earlier prunes that are asked when the newest does not fit, to say more closely where records are missing."""


class _Told(NamedTuple):
    """A prune, and the record that tells of it."""

    position: int
    pruned: RecordsPruned
    line: bytes
    recorded_at: int


class PruneCheck:
    """Fed range by range, in order; then `judge`, and when the tree is known, `hold_against`."""

    def __init__(self, store: Store, *, first: int, size: int) -> None:
        self._found: list[Finding] = []
        self.lawful = 0
        """Positions in the range scanned whose records are lawfully gone."""
        self._store: Final = store
        self._first: Final = first
        self._size: Final = size
        self._told: deque[_Told] = deque(maxlen=PRUNES_MAX)
        self._in_force: Final = InForce()
        self._newest_finished = True
        self._partial = False

    def add(self, scan: Scan) -> None:
        """Take the next range."""
        damaged = {finding.position for finding in scan.findings}
        for position, line in scan.own_records:
            if b'"event_type":"tallystick.' in line and position not in damaged:
                record = Record.parse(line)
                if record.event_type in CUSTODY_TYPES:
                    self._take(record)

    @property
    def prunes(self) -> tuple[LawfulPrune, ...]:
        """What the report says of them, oldest first."""
        newest = self._told[-1].position if self._told else -1
        return tuple(
            LawfulPrune(
                first=told.pruned.first,
                end=told.pruned.end,
                count=told.pruned.count,
                policy_position=told.pruned.policy_position,
                position=told.position,
                finished=self._newest_finished or told.position != newest,
            )
            for told in self._told
        )

    def judge(self, absent: Ranges, *, end: int) -> list[Finding]:
        """(15) Which of the absent positions in the range scanned, up to `end`, are lawfully so; what was found."""
        self._partial = self._first > 0 or end < self._size
        if self._partial:
            self._told.clear()
            if not absent:
                return self._take_found()
            self._told.extend(reversed([*islice(self._newest_first(absent), 2)]))
        every = self._with_unscanned(absent, end) if self._partial else absent
        below = self._lawful_below(every)
        self.lawful = absent.below(below)
        self._report_missing(absent.within(below, self._size))
        if not self._partial:
            self._check_store()
        return self._take_found()

    def hold_against(self, tree: TreeCheck, history: History, *, origin: str) -> list[Finding]:
        """(16) What the prunes say of the tree, its checkpoints and the records at their edges; what is wrong in it."""
        for told in self._told:
            if self._partial and not tree.holds(told.position, told.line):
                self._add(told, "the signed tree does not have this record")
            self._check_tree(told, tree, history, origin)
            self._check_edges(told)
        if self._told:
            self._check_expired(self._told[-1], history.absent)
        return self._take_found()

    # ------------------------------------------------------------------------------ the order of what was told

    def _take(self, record: Record) -> None:
        try:
            if record.event_type != RECORDS_PRUNED:
                self._in_force.take(record)
                return
            told = _told_by(record)
        except RejectedError as error:
            self._found.append(Finding(Kind.PRUNE, record.position, str(error)))
            return
        if not self._first:
            self._check_orders(told)
        self._check_order(told)
        self._told.append(told)

    def _check_orders(self, told: _Told) -> None:
        """The policy and the holds must be those in force where the prune stands."""
        pruned, in_force = told.pruned, self._in_force
        if pruned.policy_position != in_force.policy_position:
            self._add(told, f"the policy at position {pruned.policy_position} is not the one in force")
        elif in_force.policy is not None and in_force.policy.period_days is None:
            self._add(told, "the policy in force keeps records for ever")
        if pruned.holds_checked != tuple(sorted(hold.position for hold in in_force.holds.values())):
            self._add(told, "the holds that were checked are not those in force")

    def _check_order(self, told: _Told) -> None:
        """Prunes follow one another: further on, and with more and more absent."""
        pruned, before = told.pruned, self._told[-1].pruned if self._told else None
        if pruned.end > told.position:
            self._add(told, f"it ends at {pruned.end}, past its own record")
        if pruned.moment > told.recorded_at:
            self._add(told, "it says that it was decided after it was sealed")
        if before is None:
            first_of_all = not self._first and len(self._told) == 0
            if first_of_all and pruned.absent.count != pruned.count:
                self._add(told, f"{pruned.absent.count} are absent, of which the first prune removed {pruned.count}")
            return
        if pruned.end < before.end:
            self._add(told, f"it ends at {pruned.end}, and the one before at {before.end}")
        if pruned.absent.count != before.absent.count + pruned.count or pruned.absent.digest == before.absent.digest:
            self._add(told, f"what it says is absent is not {pruned.count} more than before")

    # --------------------------------------------------------------------------------------- what is absent

    def _lawful_below(self, every: Ranges) -> int:
        """Below which position all that is absent is lawfully so."""
        if not self._told:
            return 0
        newest, *older = reversed(self._told)
        if _is(newest.pruned, every):
            return newest.pruned.end
        before = older[0].pruned if older else None
        last = before.end if before else 0
        if every.below(self._size) == every.below(last) and (before is None or _is(before, every)):
            self._newest_finished = False
            return last
        count = every.below(newest.pruned.end)
        seen = f"it says which {newest.pruned.absent.count} positions have no record, and these {count} are not they"
        self._add(newest, seen)
        return next((told.pruned.end for told in older[:_OLDER_MAX] if _is(told.pruned, every)), 0)

    def _report_missing(self, ranges: Iterator[tuple[int, int]]) -> None:
        for first, end in islice(ranges, MISSING_MAX):
            many = end - first > 1
            seen = f"{end - first} records are not in the store" if many else "the record is not in the store"
            self._found.append(Finding(Kind.MISSING, first, seen, end))
        rest = [*ranges]
        if rest:
            count = sum(end - first for first, end in rest)
            seen = f"{count} more records in {len(rest)} places are not in the store"
            self._found.append(Finding(Kind.MISSING, rest[0][0], seen, rest[-1][1]))

    def _newest_first(self, absent: Ranges) -> Iterator[_Told]:
        """The prunes that could speak for what is absent, read back from the head."""
        *_, (_, last) = absent
        for end in range(self._size, last, -READ_RECORDS_MAX):
            for stored in reversed(self._read(max(end - READ_RECORDS_MAX, last), end)):
                if RECORDS_PRUNED.encode() in stored.line:
                    try:
                        yield _told_by(Record.parse(stored.line))
                    except RejectedError:
                        continue  # another record that has these words, or one that a whole verification finds

    def _read(self, first: int, end: int) -> list[StoredRecord]:
        try:
            return [*self._store.read(first, end)]
        except StoreError as error:
            self._found.append(Finding(Kind.UNREADABLE, first, str(error), end))
            return []

    def _with_unscanned(self, absent: Ranges, end: int) -> Ranges:
        """All absent positions that the newest prune speaks for, also those outside of the range scanned."""
        every = Ranges()
        until = self._told[-1].pruned.end if self._told else 0
        try:
            every.extend(absent_ranges(self._store, 0, min(self._first, until)))
            every.extend(absent)
            every.extend(absent_ranges(self._store, end, until))
        except StoreError as error:
            self._found.append(Finding(Kind.UNREADABLE, None, str(error)))
        return every

    def _check_store(self) -> None:
        """Below where the store lets readers pass over what is absent, it must have been pruned."""
        ends = [told.pruned.end for told in self._told if self._newest_finished or told is not self._told[-1]]
        try:
            below = self._store.pruned_below()
        except StoreError as error:
            self._found.append(Finding(Kind.STORE, None, str(error)))
            return
        told = max(ends, default=0)
        if below != told:
            seen = f"the store passes over what is absent below {below}; the ledger's prunes end at {told}"
            self._found.append(Finding(Kind.PRUNE, None, seen))

    # ------------------------------------------------------------------------------ what else the prunes say

    def _check_tree(self, told: _Told, tree: TreeCheck, history: History, origin: str) -> None:
        pruned = told.pruned
        frontier = tree.frontier_at(pruned.end)
        if frontier is not None and frontier != pruned.frontier_at_end:
            self._add(told, f"its frontier is not that of the first {pruned.end} records")
        try:
            key = history.key_at("checkpoint", Checkpoint.of_note(pruned.checkpoint_at_prune).size)
            if key is None:
                return  # not known where only a part is verified
            checkpoint = open_checkpoint(pruned.checkpoint_at_prune, [VerifierKey(origin, key)], origin=origin)
        except (RejectedError, TamperError) as error:
            self._add(told, f"its checkpoint does not hold: {error}")
            return
        root = tree.root_at(checkpoint.size) if checkpoint.size <= told.position else None
        if not pruned.end <= checkpoint.size <= told.position or (root is not None and root != checkpoint.root):
            self._add(told, f"its checkpoint of {checkpoint.size} records is none of this ledger's before it")

    def _check_edges(self, told: _Told) -> None:
        """The hashes of the first and the last record, where a neighbour that stayed names them."""
        pruned = told.pruned
        after_first, after_last = self._hash_before(pruned.first + 1), self._hash_before(pruned.end)
        if after_first not in (None, pruned.first_hash):
            self._add(told, f"first_hash is not the hash of the record at position {pruned.first}")
        if after_last not in (None, pruned.last_hash):
            self._add(told, f"last_hash is not the hash of the record at position {pruned.end - 1}")

    def _check_expired(self, newest: _Told, every: Ranges) -> None:
        """The last record that stayed below the end of the newest prune must have expired by the general period."""
        pruned, before = newest.pruned, self._told[-2].pruned if len(self._told) > 1 else None
        policy_record = self._record(pruned.policy_position)
        if policy_record is None or (before is not None and before.end == pruned.end):
            return
        try:
            days = RetentionSet.of(policy_record).policy.period_days
        except RejectedError as error:
            self._add(newest, f"it names what is no policy: {error}")
            return
        last = self._record(every.start_of(pruned.end - 1) - 1 if pruned.end - 1 in every else pruned.end - 1)
        if days is None or last is None or last.position < (before.end if before else 0):
            return
        latest = expired_until(days, pruned.moment)
        expired = timestamp.parse(last.recorded_at) <= latest
        if not expired and not self._is_corrected(last.position, newest.position, latest):
            self._add(newest, f"the record at position {last.position}, below its end, had not expired")

    def _is_corrected(self, first: int, end: int, latest: int) -> bool:
        """Whether the clock was corrected at [first, end) to such a time or an earlier one (SPEC 5.9)."""
        try:
            lines = [one.line for one in self._store.read(first, end) if CLOCK_CORRECTED.encode() in one.line]
        except StoreError:
            return False
        for line in lines:
            with suppress(RejectedError):
                if Correction.of(Record.parse(line)).moment <= latest:
                    return True
        return False

    def _hash_before(self, position: int) -> bytes | None:
        record = self._record(position)
        return bytes.fromhex(record.members["prev_hash"]) if record else None

    def _record(self, position: int) -> Record | None:
        try:
            return read_record(self._store, position)
        except (NotFoundError, TamperError, StoreError):
            return None  # pruned later; or what is wrong with it was found when it was scanned

    def _take_found(self) -> list[Finding]:
        found, self._found = self._found, []
        return found

    def _add(self, told: _Told, seen: str) -> None:
        self._found.append(Finding(Kind.PRUNE, told.position, seen))


def pruned_meanwhile(store: Store, *, size: int, below: int | None) -> bool:
    """Whether something was pruned since the ledger had `size` records and prunes went up to `below`."""
    head = store.head()
    if below != prunes_below(store) or head is None:
        return True
    return any(RECORDS_PRUNED.encode() in stored.line for stored in store.read(size, head.size))


def prunes_below(store: Store) -> int | None:
    """As the store says; None when it cannot."""
    try:
        return store.pruned_below()
    except StoreError:
        return None  # the inspection of the store says why


def _told_by(record: Record) -> _Told:
    return _Told(record.position, RecordsPruned.of(record), record.line, timestamp.parse(record.recorded_at))


def _is(pruned: RecordsPruned, every: Ranges) -> bool:
    """Whether exactly what the prune says is absent below its end."""
    if every.below(pruned.end) != pruned.absent.count:
        return False
    return Absent.over(every.within(0, pruned.end)) == pruned.absent
