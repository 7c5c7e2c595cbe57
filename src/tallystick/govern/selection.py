"""Which records a prune removes, and why the others stay: one mark a position, a byte each.

The index proposes what stays; what stays and what goes the log itself decides (`doomed`). The
same terms select the same records at any later time, so a prune that was cut short is finished from its record.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from tallystick.core import timestamp
from tallystick.core.corrected import Times
from tallystick.core.custody import Hold, RetentionPolicy, expired_until
from tallystick.core.event import RESERVED_PREFIX
from tallystick.core.pruned import Absent
from tallystick.core.record import Record
from tallystick.errors import RejectedError, StoreError, TamperError
from tallystick.read.index import Progress, Questions
from tallystick.read.query import Query
from tallystick.store.contract import Store
from tallystick.store.reading import read_lines
from tallystick.store.when import first_at

_AT_ONCE: Final = 50_000
"""Positions that the index is asked for at a time."""

_PROGRESS_RECORDS: Final = 4_096

_DOOMED, _OWN, _KEPT, _ABSENT = b"\0\1\2\3"
_RUN_OF_KEPT: Final = re.compile(rb"[\1\2]+")
_RUN_OF_ABSENT: Final = re.compile(rb"[\0\3]+")
_KEEP: Final = bytes.maketrans(b"\0", b"\2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under what is selected: everything here stands in, or is named by, the record of the prune."""

    end: int
    moment: int
    """As of when records have expired, in microseconds."""
    policy: RetentionPolicy
    holds: tuple[Hold, ...]
    times: Times
    """By what records have expired: the corrections of the clock before the prune."""


class Selection:
    """The records below `terms.end` that go, and those that stay. `absent` are the ranges that are gone already.

    `store` says when records were sealed; the index, who and what they are of.
    """

    def __init__(self, store: Store, questions: Questions, terms: Terms, absent: Iterable[tuple[int, int]]) -> None:
        self._store: Final = store
        self._questions: Final = questions
        self.terms: Final = terms
        self._marks: Final = bytearray(terms.end)
        for first, end in absent:
            self._marks[first:end] = bytes([_ABSENT]) * (min(end, terms.end) - first)
        self.own: Final = self._keep(Query(event_types=(f"{RESERVED_PREFIX}*",)), mark=_OWN)
        self.held: Final = {hold.name: self._hold(hold) for hold in terms.holds}
        """How many stay for each hold, and for each label, the ledger's own aside; one that stays for several is
        counted for each."""
        self.labelled: Final = {name: self._keep_label(name, days) for name, days in terms.policy.labels.items()}
        # Below the end of an earlier prune there may be records that a longer policy keeps now.
        unexpired = self._first_unexpired(terms.policy.period_days)
        self._marks[unexpired:] = self._marks[unexpired:].translate(_KEEP)

    @property
    def count(self) -> int:
        """How many records go."""
        return self._marks.count(_DOOMED)

    @property
    def stay(self) -> int:
        """How many records stay, the ledger's own included."""
        return self._marks.count(_OWN) + self._marks.count(_KEPT)

    @property
    def first(self) -> int | None:
        """The first position that goes."""
        found = self._marks.find(_DOOMED)
        return None if found < 0 else found

    @property
    def oldest_kept(self) -> int | None:
        """The first position of a record that stays and is not one of the ledger's own."""
        found = self._marks.find(_KEPT)
        return None if found < 0 else found

    def absent_after(self) -> Absent:
        """Which positions have no record once this is done."""
        return Absent.over(self.absent_ranges())

    def absent_ranges(self) -> Iterator[tuple[int, int]]:
        return (match.span() for match in _RUN_OF_ABSENT.finditer(self._marks))

    def kept(self) -> array[int]:
        """The positions that stay, for `Store.prune`."""
        kept = array("q")
        for match in _RUN_OF_KEPT.finditer(self._marks):
            kept.extend(range(*match.span()))
        return kept

    def doomed(
        self, store: Store, *, expired_from: int | None = None, progress: Progress | None = None
    ) -> Iterator[Record]:
        """The records that go.

        All records below the end are read, also those that stay, and are held against the terms once more: what the
        prune seals it seals of all positions. `store` proves that what is missing was lawfully pruned. With
        `expired_from`, the end of the prune before, all from there on must have expired by the general period.

        `StoreError` at a record of which the index says something else.
        """
        end, expected = self.terms.end, 0
        for stored in read_lines(store, 0, end):
            position = stored.position
            self._check_gap(expected, position)
            expected = position + 1
            if self._marks[position] != _ABSENT:  # else a prune that was cut short is about to remove it
                record = _glance(position, stored.line)
                self._check(record, is_past=expired_from is None or position < expired_from)
                if self._marks[position] == _DOOMED:
                    yield record
            if progress is not None and expected % _PROGRESS_RECORDS == 0:
                progress(expected, end)
        self._check_gap(expected, end)
        if progress is not None:
            progress(end, end)

    def _check_gap(self, first: int, end: int) -> None:
        if first < end and self._marks.count(_ABSENT, first, end) != end - first:
            raise TamperError(f"of positions {first} to {end - 1} records are missing, and nothing is pruned: verify")

    def _check(self, record: Record, *, is_past: bool) -> None:
        terms = self.terms
        try:
            moment = terms.times.of(record.position, timestamp.parse(record.recorded_at))
        except RejectedError as error:
            raise TamperError(f"the record at position {record.position} was altered: {error}; verify") from error
        stays = (
            not self._is_expired(moment, terms.policy.days_for(record.labels))
            or record.event_type.startswith(RESERVED_PREFIX)
            or any(hold.placed.covers(record.members) for hold in terms.holds)
        )
        is_due = is_past or self._is_expired(moment, terms.policy.period_days)
        if not is_due or stays == (self._marks[record.position] == _DOOMED):
            raise StoreError(
                f"the index does not say of position {record.position} what the log says: the record there "
                f"{'must stay' if stays else 'may go'}. Nothing was pruned; run `tallystick index rebuild`, and verify"
            )

    def _is_expired(self, moment: int, days: int | None) -> bool:
        return days is not None and moment <= expired_until(days, self.terms.moment)

    def _hold(self, hold: Hold) -> int:
        first, end = hold.placed.first, hold.placed.end
        if first is None or end is None:
            return self._keep(_query_of(hold))
        marks = self._marks[first:end]
        self._marks[first:end] = marks.translate(_KEEP)
        return len(marks) - marks.count(_ABSENT) - marks.count(_OWN)

    def _keep_label(self, label: str, days: int | None) -> int:
        longest = self.terms.policy.days_for([label])
        if longest != days or days == self.terms.policy.period_days:
            return 0  # what has the label stays no longer than any other record
        return self._keep(Query(labels=(label,)), first=self._first_unexpired(days))

    def _keep(self, query: Query, *, first: int = 0, mark: int = _KEPT) -> int:
        count, marks = 0, self._marks
        for position in self._positions(query, first=first):
            if marks[position] == _DOOMED:
                marks[position] = mark
            count += marks[position] == mark
        return count

    def _positions(self, query: Query, *, first: int = 0) -> Iterator[int]:
        assert self._questions.answers_exactly(query), "asked only what the index knows"
        while first < self.terms.end:
            found = self._questions.positions(
                query, first=first, end=self.terms.end, newest_first=False, limit=_AT_ONCE
            )
            yield from found
            if len(found) < _AT_ONCE:
                return
            first = found[-1] + 1

    def _first_unexpired(self, days: int | None) -> int:
        return first_unexpired(self._store, days, self.terms.moment, end=self.terms.end, times=self.terms.times)


def first_unexpired(store: Store, days: int | None, moment: int, *, end: int, times: Times) -> int:
    """The first position below `end` whose record is kept if records are kept for so many days; else `end`."""
    return 0 if days is None else first_at(store, expired_until(days, moment) + 1, size=end, times=times)


def _query_of(hold: Hold) -> Query:
    placed = hold.placed
    return Query(labels=(placed.label,)) if placed.label is not None else Query(entities=(str(placed.entity),))


def _glance(position: int, line: bytes) -> Record:
    try:
        record = Record(line, orjson.loads(line))
        if record.position == position:
            return record
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise TamperError(f"the record at position {position} is damaged: run a verification") from error
    raise TamperError(f"the record at position {position} belongs elsewhere: run a verification")
