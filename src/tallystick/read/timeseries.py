"""Time series: records counted, or their numbers added up, by buckets of a calendar and by groups.

What answers is chosen by what is asked, and every answer names it. The tally of the index counts event types by
quarters of an hour; a stored roll-up has its cells; the index counts rows; else the records are read one by one.
All of them say the same for records that are there. Of records that were removed only tally and roll-ups know.

Times are microseconds, `after` is inclusive and `before` exclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import msgspec

from tallystick.core import timestamp
from tallystick.core.buckets import Calendar
from tallystick.core.corrected import Times, never_corrected
from tallystick.core.measure import Measure
from tallystick.core.moment import Moment
from tallystick.core.rollup import GROUPS, TIMES, Definition
from tallystick.errors import RejectedError
from tallystick.limits import BUCKETS_MAX
from tallystick.read.answers import Answer, Asked, from_index, from_records, from_rollups, from_tally
from tallystick.read.bucketed import moment_of
from tallystick.read.compared import Compared
from tallystick.read.index import GroupKind, Questions, TimeKind
from tallystick.read.query import Query
from tallystick.read.rollup import Rollups, SealOwn
from tallystick.read.search import Search
from tallystick.read.state import Held, held_anyhow


class Point(msgspec.Struct, frozen=True, gc=False):
    """One bucket of one group."""

    start: int
    end: int
    label: str
    """The start as people in the zone write it."""
    group: str | None
    value: int | float | None
    """The measure; None where there are no numbers to have one of, or their sum is beyond all doubles."""
    count: int
    """How many records it is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What was asked for, by start and then by group."""

    buckets: tuple[Point, ...]
    width: str
    zone: str
    measure: str
    group: str | None
    time: str
    size: int
    """The size of the ledger that the answer speaks for."""
    source: str
    """What answered: `tally`, `rollup:<name>`, `index` or `records`."""
    pruned_below: int
    """Records at positions below may have been removed; 0 when none were."""
    assumptions: tuple[str, ...]
    """How what was not said in full was taken, in sentences."""
    index_verified: Compared | None = None
    """When the index that answered was last compared with the log, and up to where; None when that is not known."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The first and the last time of the records that fit, None when there are none, and how many there are."""

    first: int | None
    last: int | None
    count: int


class TimeSeries:
    """Answers over one ledger, for sizes up to which its index has followed. Safe for many threads."""

    def __init__(
        self,
        search: Search,
        questions: Questions,
        rollups: Rollups,
        *,
        pruned_below: int = 0,
        times: Callable[[int], Times] = never_corrected,
    ) -> None:
        """`times` gives what the first so many records count by."""
        self._search: Final = search
        self._questions: Final = questions
        self._rollups: Final = rollups
        self._pruned_below: Final = pruned_below
        self._times: Final = times

    def query(
        self,
        query: Query,
        *,
        size: int,
        width: str,
        zone: str = "UTC",
        after: Moment | None = None,
        before: Moment | None = None,
        measure: str = "count",
        group: str | None = None,
        time: str = "recorded",
        fill: bool = False,
        points_max: int = BUCKETS_MAX,
        held: Held = held_anyhow,
    ) -> Series:
        """The measure of the records that fit, in every bucket in which there are any.

        From the first record that fits to the last, where `after` and `before` do not say otherwise. With `fill`
        every bucket of that time is there, for every group that occurs. A record with several labels counts under
        each of them. A roll-up that is ahead of `size` answers for what it has counted, and the series says so.

        `held` is told of the bytes that are held to make it, again and again, and may raise. Raises `RejectedError` for
        what cannot be asked, and for more than `points_max` points.
        """
        asked = Asked(
            query=query,
            after=after.start if after else None,
            before=before.start if before else None,
            calendar=Calendar(width, zone),
            measure=Measure.parse(measure),
            group=_group(group),
            time=_time(time),
            size=size,
            points_max=points_max,
            held=held,
        )
        answer = self._answer(asked)
        points = _points(asked, answer, fill=fill)
        return Series(
            buckets=points,
            width=width,
            zone=zone,
            measure=asked.measure.render(),
            group=group,
            time=time,
            size=answer.size,
            source=answer.source,
            pruned_below=self._pruned_below,
            assumptions=(*query.assumptions, *_assumptions(after, before), *_remarks(asked, points)),
        )

    def rollups(self, *, size: int) -> list[Definition]:
        """The definitions of the stored roll-ups, by name."""
        return [rollup.definition for _, rollup in sorted(self._rollups.defined(size).items())]

    def range(self, query: Query, *, size: int, time: str = "recorded") -> Extent:
        """From when to when there are records that fit, and how many."""
        kind = _time(time)
        if self._questions.answers_exactly(query):
            extent = self._questions.extent(query, first=0, end=size, time=kind)
            if extent is None:
                return Extent(None, None, 0)
            return Extent(*extent, self._questions.count(query, first=0, end=size))
        first = last = None
        count = 0
        moment = moment_of(time, self._times(size))
        for record in self._search.glances(query, first=0, end=size):
            at = moment(record.members)
            first = at if first is None else min(first, at)
            last = at if last is None else max(last, at)
            count += 1
        return Extent(first, last, count)

    def downsample(
        self,
        name: str,
        query: Query,
        *,
        size: int,
        seal_own: SealOwn,
        width: str,
        zone: str = "UTC",
        measure: str | Sequence[str] = "count",
        group: str | None = None,
        time: str = "recorded",
    ) -> Definition:
        """Define a stored roll-up of one measure, or of several of one member; its name may be used again.

        It counts all records that are there, and outlives them, with the names of its groups: who groups by actor or
        entity keeps those names for good. Raises `RejectedError`.
        """
        definition = Definition(
            name=name,
            terms=tuple(query.terms()),
            width=width,
            zone=zone,
            measures=(measure,) if isinstance(measure, str) else tuple(measure),
            group=group,
            time=time,
        )
        self._rollups.define(definition, size=size, seal_own=seal_own)
        return definition

    def _answer(self, asked: Asked) -> Answer:
        if asked.is_nothing:
            return Answer({}, "index", asked.size)
        answer = from_tally(asked, self._questions, self._rollups)
        if answer is None:
            answer = from_rollups(asked, self._rollups)
        if answer is None:
            answer = from_index(asked, self._questions)
        return from_records(asked, self._search, self._times(asked.size)) if answer is None else answer


def _points(asked: Asked, answer: Answer, *, fill: bool) -> tuple[Point, ...]:
    groups = sorted({group for _, group in answer.cells})
    if fill:
        return _filled(asked, answer, [""] if asked.group is None else groups)
    _check_points(len(answer.cells), asked.points_max)
    calendar = asked.calendar
    buckets = {start: (calendar.next(start), calendar.label(start)) for start in {start for start, _ in answer.cells}}
    cells = answer.cells
    return tuple(Point(key[0], *buckets[key[0]], key[1] or None, *cells[key]) for key in sorted(cells))


def _filled(asked: Asked, answer: Answer, groups: list[str]) -> tuple[Point, ...]:
    starts = [start for start, _ in answer.cells]
    first, end = asked.after, asked.before
    if starts:
        first = min(starts) if first is None else first
        end = asked.calendar.next(max(starts)) if end is None else end
    if first is None or end is None:
        return ()
    buckets = [*asked.calendar.range(first, end, most=asked.points_max)]
    _check_points(len(buckets) * len(groups), asked.points_max)
    asked.growth().hold(points=len(buckets) * len(groups), buckets=len(buckets))
    nothing = (asked.measure.of_nothing, 0)
    return tuple(
        Point(start, bucket_end, label, group or None, *answer.cells.get((start, group), nothing))
        for start, bucket_end in buckets
        for label in (asked.calendar.label(start),)
        for group in groups
    )


def _check_points(count: int, most: int) -> None:
    if count > most:
        cure = "ask for wider buckets, for less time, or for fewer groups"
        raise RejectedError(f"{count} buckets and groups; at most {most}", place="width", cure=cure)


def _group(group: str | None) -> GroupKind | None:
    if group not in (None, *GROUPS):
        cure = f"use {', '.join(GROUPS)}, or none"
        raise RejectedError(f"records cannot be grouped by {str(group)[:40]!a}", place="group", cure=cure)
    return cast("GroupKind | None", group)


def _time(time: str) -> TimeKind:
    if time not in TIMES:
        raise RejectedError(f"{str(time)[:40]!a} is no time of a record", place="time", cure="use recorded or occurred")
    return cast("TimeKind", time)


def _assumptions(after: Moment | None, before: Moment | None) -> list[str]:
    return [
        f"{name}: {timestamp.render(moment.start)[:10]} is taken as midnight UTC"
        for name, moment in (("after", after), ("before", before))
        if moment is not None and moment.is_date
    ]


def _remarks(asked: Asked, points: Sequence[Point]) -> list[str]:
    if asked.measure.function != "sum" or all(point.value is not None for point in points):
        return []
    return ["where there is no sum, it is beyond what a double holds"]
