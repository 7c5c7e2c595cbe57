"""The ledger as one report sees it: one size, one period, asked by terms or by the selectors of the catalogue.

Every answer is bounded by the size of the checkpoint that was read at the start, so that the figures of a report
belong together and can be had again, and each says which query it came from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import merge
from itertools import groupby
from typing import Any, Final
from weakref import finalize

from tallystick.core import timestamp
from tallystick.core.buckets import Calendar
from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.moment import Moment
from tallystick.core.record import Record
from tallystick.errors import NotFoundError, RejectedError
from tallystick.evidence.controls.assessment import Assessment, Assessor
from tallystick.evidence.controls.catalogue import Catalogue
from tallystick.evidence.controls.period import Period, When, Window
from tallystick.evidence.report.allowance import Allowance
from tallystick.evidence.report.blocks import Counted, Entry, Source
from tallystick.evidence.report.folded import FoldedState, Member
from tallystick.evidence.report.telling import changed_of, entry_of, weight_of_entry
from tallystick.ledger import Ledger
from tallystick.read.as_of import AsOf, ClockName
from tallystick.read.bucketed import Bucketed, moment_of
from tallystick.read.growth import CELL_BYTES, Growth
from tallystick.read.query import Query, parse_terms
from tallystick.read.timeseries import Point
from tallystick.read.weight import weight_of

RECORDS_MAX: Final = 5_000
BYTES_MAX: Final = 16_777_216
"""Records of one query in a report, and their bytes: a page is for reading."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Found:
    """Records that fit any of the queries, the first so many in order, and how many there are in all."""

    records: tuple[Record, ...]
    total: int
    source: Source
    time: str
    """The clock that the report goes by."""


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class FoundSeries:
    """A series, by start and then by group."""

    points: tuple[Point, ...]
    calendar: Calendar
    group: str | None
    measure: str
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundState:
    """What an entity was, member by member, each with the record that made it so; empty when nothing was known."""

    entity_id: str
    described: str
    members: tuple[Member, ...]
    """The first so many by name."""
    total: int | None
    """How many there are; None when they are more than a report folds."""
    source: Source


@dataclass(frozen=True, slots=True, weakref_slot=True)
class FoundTurns:
    """What changed an entity, event by event."""

    turns: tuple[Entry, ...]
    total: int | None
    """How many there are; None when its state is more than a report folds."""
    source: Source
    time: str


@dataclass(frozen=True, slots=True)
class Assessed:
    """Assessments of controls, those with gaps first."""

    controls: tuple[Assessment, ...]
    period: Period

    @property
    def gaps(self) -> int:
        return sum(each.status == "gap" for each in self.controls)

    @property
    def evidenced(self) -> int:
        return len(self.controls) - self.gaps


def checkpoint_of(ledger: Ledger) -> Checkpoint:
    """The newest checkpoint, its signature checked."""
    return open_checkpoint(ledger.checkpoint(), [ledger.verifier_key], origin=ledger.origin)


class View:
    """Answers for one report. `window` is the time that its questions are held to, if they do not say otherwise."""

    def __init__(
        self,
        ledger: Ledger,
        period: Period,
        catalogue: Catalogue,
        *,
        window_days: int,
        checkpoint: Checkpoint | None = None,
        assessor: Assessor | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self.allowance: Final = allowance or Allowance()
        self._ledger: Final = ledger
        self._period: Final = period
        self._catalogue: Final = catalogue
        self.checkpoint: Final = checkpoint_of(ledger) if checkpoint is None else checkpoint
        self.size: Final = self.checkpoint.size
        self.window: Final = period.window(window_days)
        self._selectors: Final = {
            selector.name: selector for control in catalogue.controls for selector in control.all_selectors
        }
        self._assessor: Final = assessor or Assessor(ledger, period, size=self.size)

    @property
    def is_pruned(self) -> bool:
        """Whether records were removed under the retention policy; what was removed is in no figure."""
        return self._ledger.is_pruned

    def check_known(self, entity_id: str) -> None:
        """Whether any event is about this entity, or caused by it. Raises `NotFoundError`."""
        if not any(
            self._ledger.count(query)
            for query in (Query(entities=(entity_id,), end=self.size), Query(actors=(entity_id,), end=self.size))
        ):
            raise NotFoundError(f"there is no event about {entity_id[:100]!r} in this ledger, and none caused by it")

    def found(
        self,
        terms: Iterable[str],
        *,
        selector: str | None,
        after: When,
        before: When,
        limit: int,
        newest_first: bool = False,
    ) -> Found:
        """The first records that fit, and how many there are."""
        _check_limit(limit)
        queries, source = self._asked(terms, selector, after, before)
        records: list[Record] = []
        is_all, size, weight = True, 0, 0
        for record in self._records(queries, newest_first=newest_first):
            size, heavy = size + len(record.line), weight_of(record.line)
            is_all = len(records) < limit and size <= BYTES_MAX and self.allowance.take(heavy)
            if not is_all:
                break
            records.append(record)
            weight += heavy
        total = len(records) if is_all else self._count(queries)
        found = Found(tuple(records), total, source, self.window.time)
        finalize(found, self.allowance.give_back, weight)
        return found

    def count(self, terms: Iterable[str], *, selector: str | None, after: When, before: When) -> Counted:
        """How many records fit."""
        queries, source = self._asked(terms, selector, after, before)
        return Counted.of(self._count(queries), replace(source, how="counted"))

    def series(
        self,
        terms: Iterable[str],
        *,
        selector: str | None,
        after: When,
        before: When,
        width: str,
        zone: str,
        group: str | None,
        measure: str,
    ) -> FoundSeries:
        """Records by buckets of time. By a selector they can only be counted."""
        queries, source = self._asked(terms, selector, after, before)
        calendar = Calendar(width, zone)
        how = f"{measure} per {width}{f' and {group}' if group else ''}, {zone}, by {self.window.time} time"
        if len(queries) == 1:
            found = self._ledger.series(
                queries[0],
                width=width,
                zone=zone,
                measure=measure,
                group=group,
                time=self.window.time,  # type: ignore[arg-type]
                held=self.allowance.hold,
            )
            points: tuple[Point, ...] = found.buckets
        elif measure != "count":
            raise RejectedError("a selector can only be counted", place="measure", cure="ask by terms")
        else:
            points = tuple(self._bucketed(queries, calendar, group))
        found_series = FoundSeries(
            points=points, calendar=calendar, group=group, measure=measure, source=replace(source, how=how)
        )
        weight = len(points) * CELL_BYTES
        self.allowance.hold(weight)
        self.allowance.take(weight)
        finalize(found_series, self.allowance.give_back, weight)
        return found_series

    def state(self, entity_id: str, as_of: When) -> FoundState:
        """What an entity was at a time, by default at the end of the report's, by the report's clock."""
        moment = self._as_of(as_of)
        source = self._entity_source(entity_id, moment, "state")
        members: tuple[Member, ...] = ()
        total: int | None = None
        # The state is folded from the records below the size, so that one sealed since cannot be in it.
        with self._folded() as folded:
            if all(folded.add(record) is not None for record in self._history(entity_id, moment)):
                members, total = folded.first(RECORDS_MAX), len(folded)
        return FoundState(entity_id=entity_id, described=moment.described, members=members, total=total, source=source)

    def turns(self, entity_id: str, as_of: When, *, limit: int) -> FoundTurns:
        """What changed an entity up to a time, the last `limit` changes, or fewer where they are large."""
        moment = self._as_of(as_of)
        source = self._entity_source(entity_id, moment, "changes of state")
        _check_limit(limit)
        last, total = _Last(limit, self.allowance), 0
        with self._folded() as folded:
            for record in self._history(entity_id, moment):
                changes = folded.add(record)
                if changes is None:
                    return FoundTurns((), None, source, self.window.time)
                if changes:
                    last.add(entry_of(record, changed_of(changes), self._moment))
                    total += 1
        found = FoundTurns(tuple(last.entries), total, source, self.window.time)
        finalize(found, self.allowance.give_back, last.weight)
        return found

    @property
    def _moment(self) -> Callable[[dict[str, Any]], int]:
        return moment_of(self.window.time)

    def _folded(self) -> FoldedState:
        return FoldedState(self._ledger.folds, self.allowance, self._moment)

    def assessed(self, names: Iterable[str]) -> Assessed:
        """Controls by id, frameworks by name; all that are known when nothing is named."""
        wanted = [control for name in names for control in self._controls(name)] or [*self._catalogue.controls]
        unique = {control.key: control for control in wanted}
        found = self._assessor.assess_all([*unique.values()])
        return Assessed(tuple(sorted(found, key=lambda each: each.status != "gap")), self._period)

    def _controls(self, name: str) -> Iterable[Any]:
        try:
            return self._catalogue.of(name)
        except NotFoundError:
            return [self._catalogue.find(name)]

    def _asked(
        self, terms: Iterable[str], selector: str | None, after: When, before: When
    ) -> tuple[tuple[Query, ...], Source]:
        """The queries, held to the time and the size, and what is said of them below a figure."""
        terms = [*terms]
        if selector is None:
            asked: tuple[Query, ...] = (parse_terms(terms),)
        elif terms:
            raise RejectedError("both terms and a selector are given", place=selector[:60], cure="give one of them")
        elif selector not in self._selectors:
            raise NotFoundError(
                f"there is no selector {selector[:60]!r}: see evidence/controls/frameworks/selectors.yaml"
            )
        else:
            asked = self._selectors[selector].joined
        window = Window(
            after=self.window.after if after is None else Moment.of(after, place="after").start,
            before=self.window.before if before is None else Moment.of(before, place="before").start,
            occurred=self.window.occurred,
        )
        queries = tuple(window.of(query, size=self.size) for query in asked)
        if selector is None:
            return queries, Source(terms=(tuple(queries[0].terms()),))
        named = (selector, tuple(map(tuple, self._selectors[selector].terms)))
        return queries, Source(selectors=(named,), within=tuple(window.of(Query(), size=self.size).terms()))

    def _records(self, queries: tuple[Query, ...], *, newest_first: bool = False) -> Iterator[Record]:
        """The records that fit any of the queries, each once, by position."""
        sign = -1 if newest_first else 1
        found = [self._ledger.records(query, newest_first=newest_first) for query in queries]
        merged = merge(*found, key=lambda record: sign * record.position)
        return (next(same) for _, same in groupby(merged, key=lambda record: record.position))

    def _count(self, queries: tuple[Query, ...]) -> int:
        return self._ledger.count(queries[0]) if len(queries) == 1 else sum(1 for _ in self._records(queries))

    def _bucketed(self, queries: tuple[Query, ...], calendar: Calendar, group: str | None) -> Iterator[Point]:
        times, growth = self._ledger.times(self.size), Growth(held=self.allowance.hold)
        bucketed = Bucketed(calendar, group=group, time=self.window.time, growth=growth, times=times)
        for record in self._records(queries):
            bucketed.add(record)
        for (start, name), totals in sorted(bucketed.cells.items()):
            label = calendar.label(start)
            yield Point(start, calendar.next(start), label, name or None, totals.records, totals.records)

    def _history(self, entity_id: str, moment: AsOf) -> Iterator[Record]:
        try:
            history = self._ledger.history(entity_id, later=moment)
            yield from (record for record in history if record.position < self.size)
        except NotFoundError:
            return

    def _as_of(self, as_of: When) -> AsOf:
        if as_of is None:
            last = self.window.before - 1  # the window is half-open, and a point takes itself in
            return AsOf(time=_instant(last), clock="occurred" if self.window.occurred else "recorded")
        if isinstance(as_of, str) and as_of[:1] in ("v", "@"):
            return AsOf.of(as_of)
        clock: ClockName = "occurred" if self.window.occurred else "recorded"
        return AsOf.of(as_of if isinstance(as_of, datetime) else str(as_of), clock=clock)

    def _entity_source(self, entity_id: str, moment: AsOf, how: str) -> Source:
        terms = tuple(Query(entities=(entity_id,), end=self.size).terms())
        return Source(terms=(terms,), how=f"{how} {moment.described}")


class _Last:
    """The last entries of many, so many or fewer: where there is no room for one more the oldest of them go."""

    def __init__(self, limit: int, allowance: Allowance) -> None:
        self._limit: Final = limit
        self._allowance: Final = allowance
        self.entries: Final[deque[Entry]] = deque()
        self.weight = 0

    def add(self, entry: Entry) -> None:
        weight = weight_of_entry(entry)
        while len(self.entries) >= self._limit or self.weight + weight > BYTES_MAX or not self._allowance.take(weight):
            if not self.entries:
                return
            oldest = weight_of_entry(self.entries.popleft())
            self._allowance.give_back(oldest)
            self.weight -= oldest
        self.entries.append(entry)
        self.weight += weight


def _check_limit(limit: object) -> None:
    if type(limit) is not int or not 1 <= limit <= RECORDS_MAX:
        raise RejectedError(f"a limit of {limit!r}", place="limit", cure=f"ask for 1 to {RECORDS_MAX} records")


def _instant(moment: int) -> Moment:
    """The moment; the last one of a day is that day, so that people read a date."""
    date = timestamp.render(moment)[:10]
    day = Moment.parse(date)
    return day if day.end == moment + 1 else Moment.parse(timestamp.render(moment))
