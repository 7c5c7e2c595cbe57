"""Who can answer for a time series, and how: the index's tally, a stored roll-up, the index's rows, the records.

Each of the four gives what is asked for exactly, or nothing, so that the next may. What they give is in cells:
bucket, group → the measure and how many records it is of.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from math import gcd
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from tallystick.core.buckets import QUARTER_HOUR, WIDTHS, Calendar
from tallystick.core.corrected import NEVER_CORRECTED, Times
from tallystick.core.measure import Measure, Totals
from tallystick.core.rollup import Cells
from tallystick.limits import BUCKETS_MAX, LABELS_MAX
from tallystick.read.bucketed import Bucketed
from tallystick.read.growth import Growth
from tallystick.read.index import Counted, GroupKind, Questions, Take, TimeKind
from tallystick.read.query import Query
from tallystick.read.rollup import Rollup, Rollups
from tallystick.read.search import Search
from tallystick.read.state import Held, held_anyhow

_SLICE_RECORDS: Final = 1_000_000
"""Positions that the index counts at once, each under one group; of labels a record has several."""

_LOOKS: Final = 256
"""How many records are read, or buckets made, between two looks at what is held."""

_EMPTY_BUCKETS: Final = 4
"""Times the points that may be answered: so many buckets there may be between the first and the last."""

Value: TypeAlias = int | float | None


class Answer(NamedTuple):
    """The cells that there are."""

    cells: dict[tuple[int, str], tuple[Value, int]]
    """The measure and the count, by the start of the bucket and the group; '' is no group."""
    source: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for. Times are microseconds, half-open."""

    query: Query
    after: int | None
    before: int | None
    calendar: Calendar
    measure: Measure
    group: GroupKind | None
    time: TimeKind
    size: int
    points_max: int = BUCKETS_MAX
    held: Held = held_anyhow

    def growth(self) -> Growth:
        """Of an answer that begins."""
        return Growth(points_max=self.points_max, held=self.held)

    @property
    def is_nothing(self) -> bool:
        """Whether no time is left to answer for."""
        return self.after is not None and self.before is not None and self.after >= self.before

    @property
    def windowed(self) -> Query:
        """The query, with the time that is asked for."""
        return _within(self.query, self.after, self.before, self.time)

    def buckets(self, first: int, end: int) -> Boundaries:
        """The buckets that touch [first, end) and the time that is asked for. `RejectedError` for too many."""
        return Boundaries(self._range(first, end), self.growth())

    def check_buckets(self, first: int, end: int) -> None:
        """Raises as `buckets`, and makes none."""
        self._range(first, end)

    def _range(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        first = first if self.after is None else max(first, self.after)
        end = end if self.before is None else min(end, self.before)
        return self.calendar.range(first, end, most=min(BUCKETS_MAX, _EMPTY_BUCKETS * self.points_max))


class Boundaries:
    """Neighbouring buckets, by where they begin and end."""

    def __init__(self, buckets: Iterable[tuple[int, int]], growth: Growth) -> None:
        """The growth is told of them as they are made, which takes seconds for the most there may be."""
        self.starts: Final = array("q")
        self.all: Final = array("q")
        end = None
        for number, (start, end) in enumerate(buckets):  # noqa: B007 - the last one
            if number % _LOOKS == 0:
                growth.hold()
            self.starts.append(start)
        self.all.extend(self.starts)
        if end is not None:
            self.all.append(end)

    def buckets(self) -> list[tuple[int, int]]:
        """Where each begins and ends."""
        return [*pairwise(self.all)]

    def unit(self) -> int:
        """The longest time of which all boundaries are multiples; 0 if there are none."""
        return reduce(gcd, self.all, 0)

    def start_of(self, moment: int) -> int:
        """The start of the bucket that contains the moment, which is in one of them."""
        return self.starts[bisect_right(self.starts, moment) - 1]


# ----------------------------------------------------------------------------------------------- the tally


def from_tally(asked: Asked, questions: Questions, rollups: Rollups) -> Answer | None:
    """Counts by type over whole quarters of an hour; where a quarter is cut, its rows are counted."""
    event_types = asked.query.event_types
    plain = asked.query == Query(event_types=event_types) and asked.time == "recorded"
    if not plain or asked.measure.function != "count" or asked.group not in (None, "type"):
        return None
    rollups.advance_types(asked.size)
    extent = questions.tally_extent(event_types)
    if extent is None:
        return Answer({}, "tally", asked.size)
    low, high = (quarter * QUARTER_HOUR for quarter in extent)
    boundaries = asked.buckets(low, high)
    if low <= 0 or any(boundary % QUARTER_HOUR for boundary in boundaries.all):
        return None  # before 1970 quarters are not told apart at zero
    counting = _Counting(asked, boundaries, QUARTER_HOUR)
    _tally(asked, questions, boundaries, low, high, take=counting.take)
    return Answer({key: (count, count) for key, count in counting.counts.items() if count}, "tally", asked.size)


def _tally(asked: Asked, questions: Questions, boundaries: Boundaries, low: int, high: int, *, take: Take) -> None:
    """Hand over quarters of an hour, types and counts, of as large parts of buckets as can be counted at once."""
    low = low if asked.after is None else max(low, asked.after)
    high = high if asked.before is None else min(high, asked.before)
    first, end = -(-low // QUARTER_HOUR), high // QUARTER_HOUR
    cut = [(low, first * QUARTER_HOUR), (end * QUARTER_HOUR, high)] if first <= end else [(low, high)]
    for after, before in cut:
        if after < before:
            query = _within(asked.query, after, before, "recorded")
            unit = QUARTER_HOUR
            questions.counts(query, first=0, end=asked.size, time="recorded", unit=unit, group="type", take=take)
    types, size = asked.query.event_types, asked.size
    for part_first, part_end, quarters in _parts(boundaries, first, end):
        questions.tally(first=part_first, end=part_end, quarters=quarters, event_types=types, size=size, take=take)


def _parts(boundaries: Boundaries, first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Quarters [first, end) in parts: the rest of a bucket, whole buckets, the beginning of one; and in each, how
    many quarters can be taken together."""
    quarters = array("q", (boundary // QUARTER_HOUR for boundary in boundaries.all))
    low, high = bisect_left(quarters, first), bisect_right(quarters, end) - 1
    if low > high:
        parts = [(first, end, end - first)]
    else:
        steps = reduce(gcd, (after - before for before, after in pairwise(quarters[low : high + 1])), 0)
        whole = (quarters[low], quarters[high])
        parts = [(first, whole[0], whole[0] - first), (*whole, steps), (whole[1], end, end - whole[1])]
    return (part for part in parts if part[0] < part[1])


# -------------------------------------------------------------------------------------------- the roll-ups


def from_rollups(asked: Asked, rollups: Rollups) -> Answer | None:
    """The cells of a roll-up that counts just that, or counts it more finely."""
    fitting = [rollup for rollup in rollups.defined(asked.size).values() if _counts_it(rollup, asked)]
    fitting.sort(key=lambda rollup: (rollup.definition.group != asked.group, -WIDTHS.index(rollup.calendar.width)))
    for rollup in fitting:
        first = -(1 << 62) if asked.after is None else asked.after
        end = 1 << 62 if asked.before is None else asked.before
        merging = _Merging(rollup, asked)
        try:
            reached = rollups.cells(rollup, first=first, end=end, size=asked.size, take=merging.take)
        except _CrossingError:
            continue
        if reached is not None:
            values = {key: (asked.measure.value(totals), totals.records) for key, totals in merging.cells.items()}
            return Answer(values, f"rollup:{rollup.name}", reached)
    return None


def _counts_it(rollup: Rollup, asked: Asked) -> bool:
    made_of, calendar = rollup.definition, rollup.calendar
    edges = [edge for edge in (asked.after, asked.before) if edge is not None]
    return (
        made_of.time == asked.time
        and _sorted(rollup.query) == _sorted(asked.query)
        and asked.measure.path in (None, made_of.path)
        and asked.measure.function != "distinct"
        # The same record may have several labels.
        and (made_of.group == asked.group or (asked.group is None and made_of.group != "label"))
        and WIDTHS.index(calendar.width) <= WIDTHS.index(asked.calendar.width)
        and all(calendar.start_of(edge) == edge for edge in edges)
    )


class _CrossingError(Exception):
    """A bucket of a roll-up is in two of those that are asked for."""


class _Merging:
    """The cells of a roll-up in the buckets and groups that are asked for."""

    def __init__(self, rollup: Rollup, asked: Asked) -> None:
        self.cells: Final[Cells] = {}
        self._finer: Final = rollup.calendar
        self._asked: Final = asked
        self._growth: Final = asked.growth()
        self._start: int | None = None
        self._bucket = 0

    def take(self, cells: Cells) -> None:
        """Add cells. Raises `_CrossingError`, and as the growth of an answer does."""
        self._growth.hold()
        for (start, group), totals in cells.items():
            if start != self._start:
                self._start, self._bucket = start, self._bucket_of(start)
            key = (self._bucket, group if self._asked.group else "")
            present = self.cells.get(key)
            if present is None:
                present = self.cells[key[0], self._growth.add_cell(key[1])] = Totals()
            present.add(totals)

    def _bucket_of(self, start: int) -> int:
        calendar = self._asked.calendar
        if calendar == self._finer:
            return start
        bucket = calendar.start_of(start)
        if any(self._finer.start_of(edge) != edge for edge in (bucket, calendar.next(bucket))):
            raise _CrossingError
        return bucket


def _sorted(query: Query) -> Query:
    """The query in one order of its members: it means the same in any."""
    names = ("entities", "event_types", "actors", "labels")
    orderless: dict[str, Any] = {name: tuple(sorted(getattr(query, name))) for name in names}
    conditions = tuple(sorted(query.conditions, key=lambda condition: condition.render()))
    return replace(query, **orderless, conditions=conditions)


# ------------------------------------------------------------------------------------ the index, the records


def from_index(asked: Asked, questions: Questions) -> Answer | None:
    """Rows counted, where they are exactly the records that fit."""
    function, query, size = asked.measure.function, asked.windowed, asked.size
    if function not in ("count", "distinct") or not questions.answers_exactly(query):
        return None
    extent = questions.extent(query, first=0, end=size, time=asked.time)
    if extent is None:
        return Answer({}, "index", size)
    boundaries = asked.buckets(extent[0], extent[1] + 1)
    unit = boundaries.unit()  # none crosses a boundary then
    counting = _Counting(asked, boundaries, unit)
    step = max(_SLICE_RECORDS // LABELS_MAX, 1) if asked.group == "label" else _SLICE_RECORDS
    for first in range(0, size, step):
        end = min(first + step, size)
        counting.growth.hold()
        questions.counts(query, first=first, end=end, time=asked.time, unit=unit, group=asked.group, take=counting.take)
    counts = counting.counts
    if function == "count":
        return Answer({key: (count, count) for key, count in counts.items()}, "index", size)
    what = cast("Literal['actor', 'entity']", asked.measure.what)
    values: dict[tuple[int, str], int] = {}
    counting.growth.hold(buckets=2 * len(boundaries.starts))
    questions.distinct(
        query,
        first=0,
        end=size,
        time=asked.time,
        buckets=boundaries.buckets(),
        what=what,
        group=asked.group,
        take=lambda rows: values.update({(start, group or ""): count for start, group, count in rows}),
    )
    return Answer({key: (values.get(key, 0), count) for key, count in counts.items()}, "index", size)


class _Counting:
    """Records by bucket and group, from rows of a finer time, as they are handed over."""

    def __init__(self, asked: Asked, boundaries: Boundaries, unit: int) -> None:
        self.counts: Final[dict[tuple[int, str], int]] = {}
        self.growth: Final = asked.growth()
        self._start_of: Final = boundaries.start_of
        self._is_grouped: Final = asked.group is not None
        self._unit: Final = unit

    def take(self, rows: Counted) -> None:
        """Add rows of a time in units. Raises as the growth of an answer does."""
        self.growth.hold()
        counts = self.counts
        for number, group, count in rows:
            key = (self._start_of(number * self._unit), group or "" if self._is_grouped else "")
            if key in counts:
                counts[key] += count
            else:
                counts[key[0], self.growth.add_cell(key[1])] = count


def from_records(asked: Asked, search: Search, times: Times = NEVER_CORRECTED) -> Answer:
    """Every record that fits, one after another."""
    measure, growth = asked.measure, asked.growth()
    bucketed = Bucketed(
        asked.calendar,
        group=asked.group,
        time=asked.time,
        path=measure.path,
        distinct=measure.what,
        growth=growth,
        times=times,
    )
    for number, record in enumerate(search.glances(asked.windowed, first=0, end=asked.size)):
        if number % _LOOKS == 0:
            growth.hold()
        bucketed.add(record)
    starts = [start for start, _ in bucketed.cells]
    if starts:
        asked.check_buckets(min(starts), max(starts) + 1)  # as many as may be, whoever answers
    if measure.function == "distinct":
        counted = {key: (len(bucketed.names.get(key, ())), cell.records) for key, cell in bucketed.cells.items()}
        return Answer(dict(counted), "records", asked.size)
    values = {key: (measure.value(cell), cell.records) for key, cell in bucketed.cells.items()}
    return Answer(values, "records", asked.size)


def _within(query: Query, after: int | None, before: int | None, time: TimeKind) -> Query:
    """The query, with a time beside those that it has."""
    names = ("after", "before") if time == "recorded" else ("occurred_after", "occurred_before")
    afters = [moment for moment in (getattr(query, names[0]), after) if moment is not None]
    befores = [moment for moment in (getattr(query, names[1]), before) if moment is not None]
    within: dict[str, Any] = {names[0]: max(afters, default=None), names[1]: min(befores, default=None)}
    return replace(query, **within)
