"""Who can answer for a time series, and how: the index's tally, a stored roll-up, the index's rows, the records.

Each of the four gives what is asked for exactly, or nothing, so that the next may. What they give is in cells:
bucket, group → the measure and how many records it is of.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import gcd
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from tallystick.core.buckets import QUARTER_HOUR, WIDTHS, Calendar
from tallystick.core.corrected import NEVER_CORRECTED, Times
from tallystick.core.measure import Measure, Totals
from tallystick.core.rollup import Cells
from tallystick.errors import RejectedError
from tallystick.limits import BUCKETS_MAX
from tallystick.read.bucketed import Bucketed
from tallystick.read.index import GroupKind, Questions, TimeKind
from tallystick.read.query import Query
from tallystick.read.rollup import Rollup, Rollups
from tallystick.read.search import Search

_SLICE_RECORDS: Final = 1_000_000
"""Positions that the index counts at once: it may answer with a row for each."""

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
        first = first if self.after is None else max(first, self.after)
        end = end if self.before is None else min(end, self.before)
        return Boundaries([*self.calendar.range(first, end)])


class Boundaries:
    """Neighbouring buckets, by where they begin and end."""

    def __init__(self, buckets: list[tuple[int, int]]) -> None:
        self.buckets: Final = buckets
        self.starts: Final = [start for start, _ in buckets]
        self.all: Final = [*self.starts, *(end for _, end in buckets[-1:])]

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
    counts: dict[tuple[int, str], int] = {}
    start_of = cache(boundaries.start_of)
    for moment, group, count in _tallied(asked, questions, boundaries, low, high):
        key = (start_of(moment), group if asked.group else "")
        counts[key] = counts.get(key, 0) + count
    return Answer({key: (count, count) for key, count in counts.items() if count}, "tally", asked.size)


def _tallied(
    asked: Asked, questions: Questions, boundaries: Boundaries, low: int, high: int
) -> Iterator[tuple[int, str, int]]:
    """A moment, the type and the count, of as large parts of buckets as can be counted at once."""
    low = low if asked.after is None else max(low, asked.after)
    high = high if asked.before is None else min(high, asked.before)
    first, end = -(-low // QUARTER_HOUR), high // QUARTER_HOUR
    cut = [(low, first * QUARTER_HOUR), (end * QUARTER_HOUR, high)] if first <= end else [(low, high)]
    for after, before in cut:
        if after < before:
            query = _within(asked.query, after, before, "recorded")
            for unit, group, count in questions.counts(
                query, first=0, end=asked.size, time="recorded", unit=QUARTER_HOUR, group="type"
            ):
                yield unit * QUARTER_HOUR, group or "", count
    for part_first, part_end, quarters in _parts(boundaries, first, end):
        for quarter, group, count in questions.tally(
            first=part_first, end=part_end, quarters=quarters, event_types=asked.query.event_types, size=asked.size
        ):
            yield quarter * QUARTER_HOUR, group, count


def _parts(boundaries: Boundaries, first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Quarters [first, end) in parts: the rest of a bucket, whole buckets, the beginning of one; and in each, how
    many quarters can be taken together."""
    quarters = [boundary // QUARTER_HOUR for boundary in boundaries.all]
    low, high = bisect_left(quarters, first), bisect_right(quarters, end) - 1
    if low > high:
        parts = [(first, end, end - first)]
    else:
        steps = gcd(*(after - before for before, after in pairwise(quarters[low : high + 1])))
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
        found = rollups.cells(rollup, first=first, end=end, size=asked.size)
        cells = None if found is None else _coarser(rollup, asked, found[1])
        if found is not None and cells is not None:
            values = {key: (asked.measure.value(totals), totals.records) for key, totals in cells.items()}
            return Answer(values, f"rollup:{rollup.name}", found[0])
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


def _coarser(rollup: Rollup, asked: Asked, cells: Cells) -> Cells | None:
    """The cells in the buckets and groups that are asked for; None when the roll-up's buckets cross theirs."""
    if not cells or (rollup.calendar == asked.calendar and rollup.definition.group == asked.group):
        return cells
    starts = [start for start, _ in cells]
    boundaries = asked.buckets(min(starts), max(starts) + 1)
    inner = boundaries.all if rollup.calendar != asked.calendar else ()
    if any(rollup.calendar.start_of(boundary) != boundary for boundary in inner):
        return None
    out: Cells = {}
    for (start, group), totals in cells.items():
        key = (boundaries.start_of(start), group if asked.group else "")
        out.setdefault(key, Totals()).add(totals)
    return out


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
    unit = gcd(*boundaries.all)  # no unit crosses a boundary then
    counts: dict[tuple[int, str], int] = {}
    for first in range(0, size, _SLICE_RECORDS):
        end = min(first + _SLICE_RECORDS, size)
        for number, group, count in questions.counts(
            query, first=first, end=end, time=asked.time, unit=unit, group=asked.group
        ):
            key = (boundaries.start_of(number * unit), group or "")
            counts[key] = counts.get(key, 0) + count
        if len(counts) > BUCKETS_MAX:
            cure = "ask for wider buckets, for less time, or for fewer groups"
            raise RejectedError(f"more than {BUCKETS_MAX} buckets and groups", place="width", cure=cure)
    if function == "count":
        return Answer({key: (count, count) for key, count in counts.items()}, "index", size)
    what = cast("Literal['actor', 'entity']", asked.measure.what)
    distinct = questions.distinct(
        query, first=0, end=size, time=asked.time, buckets=boundaries.buckets, what=what, group=asked.group
    )
    values = {(start, group or ""): count for start, group, count in distinct}
    return Answer({key: (values.get(key, 0), count) for key, count in counts.items()}, "index", size)


def from_records(asked: Asked, search: Search, times: Times = NEVER_CORRECTED) -> Answer:
    """Every record that fits, one after another."""
    measure = asked.measure
    bucketed = Bucketed(
        asked.calendar,
        group=asked.group,
        time=asked.time,
        path=measure.path,
        distinct=measure.what,
        bounded=True,
        times=times,
    )
    for record in search.glances(asked.windowed, first=0, end=asked.size):
        bucketed.add(record)
    starts = [start for start, _ in bucketed.cells]
    if starts:
        asked.buckets(min(starts), max(starts) + 1)  # as many as may be, whoever answers
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
