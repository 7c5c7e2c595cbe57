"""Time series the naive way: every record looked at, every bucket found by walking, sums as fractions.

What the library answers is compared with what this says. It shares nothing with it but `Query.takes`, which has a
twin of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from tallystick.core.record import Record
from tallystick.read.query import Query, parse_terms
from tests.read.ledgers import events, terms_like

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE: Final = 60_000_000
EVEN: Final = {"minute": 1, "5 minutes": 5, "15 minutes": 15, "hour": 60}
ZONES: Final = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo")
WIDTHS: Final = ("minute", "5 minutes", "15 minutes", "hour", "day", "week", "month", "quarter", "year")
NEARBY: Final = "2026-03-29T00:30:00Z"
"""Half an hour before the clocks of Berlin go forward."""


@dataclass(frozen=True)
class Question:
    terms: tuple[str, ...] = ()
    width: str = "hour"
    zone: str = "UTC"
    measure: str = "count"
    group: str | None = None
    time: str = "recorded"
    after: str | None = None
    before: str | None = None
    fill: bool = False

    @property
    def query(self) -> Query:
        return parse_terms(self.terms)


# ------------------------------------------------------------------------------------------------ buckets


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def local(moment: int, zone: str) -> datetime:
    return (EPOCH + timedelta(microseconds=moment)).astimezone(ZoneInfo(zone))


def offset(moment: int, zone: str) -> int:
    found = local(moment, zone).utcoffset()
    assert found is not None
    return found // timedelta(microseconds=1)


def begins(moment: int, width: str, zone: str) -> bool:
    """Whether a bucket of at most an hour begins at a whole minute."""
    length = EVEN[width] * MINUTE
    moved = (offset(moment, zone) - offset(moment - 1, zone)) % length != 0
    return moved or (moment + offset(moment, zone)) % length == 0


def first_day(day: date, width: str) -> date:
    if width == "day":
        return day
    if width == "week":
        return day - timedelta(days=day.weekday())
    month = {"month": day.month, "quarter": (day.month - 1) // 3 * 3 + 1, "year": 1}[width]
    return day.replace(day=1, month=month)


def midnight(day: date, zone: str) -> int:
    return micros(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)))


def bucket(moment: int, width: str, zone: str) -> tuple[int, int]:
    if width in EVEN:
        start = moment - moment % MINUTE
        while not begins(start, width, zone):
            start -= MINUTE
        end = start + MINUTE
        while not begins(end, width, zone):
            end += MINUTE
        return start, end
    day = first_day(local(moment, zone).date(), width)
    following = first_day(
        day + timedelta(days={"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}[width]), width
    )
    return midnight(day, zone), midnight(following, zone)


# ------------------------------------------------------------------------------------------------ records


def moment_of(members: dict[str, Any], time: str) -> int:
    text = members["recorded_at"]
    if time == "occurred" and members["occurred_at"] is not None:
        text = members["occurred_at"].upper().replace(" ", "T")
        head, dot, rest = text.partition(".")
        if dot:  # what is finer than a microsecond is dropped
            digits = "".join(character for character in rest[:9] if character.isdigit())
            digits = digits[: next((i for i, c in enumerate(rest) if not c.isdigit()), len(rest))]
            text = f"{head}.{digits[:6]}{rest[len(digits) :]}"
    return micros(datetime.fromisoformat(text))


def numbers(value: Any, path: list[str]) -> Iterator[int | float]:
    if isinstance(value, list):
        for element in value:
            yield from numbers(element, path)
    elif path:
        if isinstance(value, dict) and path[0] in value:
            yield from numbers(value[path[0]], path[1:])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def groups_of(members: dict[str, Any], group: str | None) -> list[str | None]:
    actor = members["actor"]["id"] if members["actor"] else None
    every: dict[str | None, list[str | None]] = {
        None: [None],
        "type": [members["event_type"]],
        "actor": [actor],
        "entity": [members["entity_id"]],
        "label": [*members["labels"]],
    }
    return every[group]


def measured(measure: str, records: list[dict[str, Any]]) -> int | float | None:
    function, _, of = measure.partition(":")
    if function == "count":
        return len(records)
    if function == "distinct":
        return len({groups_of(members, of)[0] for members in records} - {None})
    found = [number for members in records for number in numbers(members, of.split("."))]
    if function in ("min", "max"):
        return {"min": min, "max": max}[function](found, default=None)
    total = sum(map(Fraction, found), Fraction(0))
    if function == "avg":
        return float(total / len(found)) if found else None
    return int(total) if all(isinstance(number, int) for number in found) else rounded(total)


def rounded(total: Fraction) -> float | None:
    try:
        return float(total)
    except OverflowError:
        return None


def series(records: Iterable[Record], asked: Question) -> list[tuple[int, int, str | None, int | float | None, int]]:
    """Start, end, group, value and count of every point."""
    after = micros(datetime.fromisoformat(asked.after)) if asked.after else None
    before = micros(datetime.fromisoformat(asked.before)) if asked.before else None
    cells: dict[tuple[int, int], dict[str | None, list[dict[str, Any]]]] = {}
    for record in records:
        members = json.loads(record.line)
        moment = moment_of(members, asked.time)
        if not asked.query.takes(record) or (after is not None and moment < after):
            continue
        if before is not None and moment >= before:
            continue
        for group in groups_of(members, asked.group):
            cell = cells.setdefault(bucket(moment, asked.width, asked.zone), {})
            cell.setdefault(group, []).append(members)
    if asked.fill:
        fill(cells, asked, after, before)
    return [
        (start, end, group, measured(asked.measure, found), len(found))
        for (start, end), cell in sorted(cells.items())
        for group, found in sorted(cell.items(), key=lambda item: item[0] or "")
    ]


def fill(cells: dict[tuple[int, int], Any], asked: Question, after: int | None, before: int | None) -> None:
    first = min((start for start, _ in cells), default=None) if after is None else after
    end = max((end for _, end in cells), default=None) if before is None else before
    groups = {group for cell in cells.values() for group in cell} if asked.group else {None}
    while first is not None and end is not None and first < end:
        found = bucket(first, asked.width, asked.zone)
        for group in groups:
            cells.setdefault(found, {}).setdefault(group, [])
        first = found[1]


# ----------------------------------------------------------------------------------------------- of chance

NUMBERS: Final = st.one_of(
    st.integers(-20, 20),
    st.sampled_from([2**53 - 1, -(2**53 - 1), 0.1, -0.2, 0.3, 1e308, -1e308, 5e-324, 1e-7, 1e21, 2.5]),
    st.floats(-1e6, 1e6),
)
VALUES: Final[st.SearchStrategy[Any]] = st.one_of(
    NUMBERS,
    st.sampled_from(["7", True, False, None, {}]),
    st.lists(st.one_of(NUMBERS, st.sampled_from(["x", True]), st.lists(NUMBERS, max_size=2)), max_size=3),
    st.fixed_dictionaries({"y": NUMBERS}),
    st.lists(st.fixed_dictionaries({"y": st.one_of(NUMBERS, st.lists(NUMBERS, max_size=2))}), max_size=2),
)
MOMENTS: Final = st.builds(
    lambda minutes, seconds, zone: (
        (datetime.fromisoformat(NEARBY) + timedelta(minutes=minutes, microseconds=seconds))
        .astimezone(ZoneInfo(zone))
        .isoformat(timespec="microseconds")
    ),
    st.one_of(st.integers(-200, 200), st.integers(-40_000, 40_000)),
    st.sampled_from([0, 1, 59_999_999]),
    st.sampled_from(ZONES[:2]),
)
STEPS: Final = st.sampled_from([0, 1, 7 * MINUTE, 15 * MINUTE, 20 * MINUTE, 61 * MINUTE, 26 * 60 * MINUTE])
"""What may pass between two commits."""


@st.composite
def counted_events(draw: st.DrawFn) -> dict[str, Any]:
    event = draw(events())
    event["payload"] = event["payload"] | draw(st.dictionaries(st.just("x"), VALUES))
    if "occurred_at" in event:
        event["occurred_at"] = draw(MOMENTS)
    return event


BATCHES: Final = st.lists(st.tuples(STEPS, st.lists(counted_events(), min_size=1, max_size=6)), max_size=6)
MEASURES: Final = st.one_of(
    st.sampled_from(["count", "distinct:actor", "distinct:entity", "sum:payload.x", "min:payload.x", "max:payload.x"]),
    st.sampled_from(["count", "avg:payload.x", "sum:payload.x.y", "avg:payload.x.y"]),
)
QUERIES: Final[st.SearchStrategy[list[str]]] = st.one_of(
    st.just([]),
    st.sampled_from([["payload.x"], ["payload.x>=0"], ["text=admin"]]),
    st.sampled_from([["event_type=user.*"], ["event_type=user", "event_type=file.read"], ["event_type=tallystick.*"]]),
    terms_like(),
)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    terms = tuple(term for term in draw(QUERIES) if not term.startswith("occurred"))
    edges = [draw(st.one_of(st.none(), MOMENTS)) for _ in range(2)]
    width = draw(st.sampled_from(WIDTHS))
    fill_in = draw(st.booleans()) and width not in ("minute", "5 minutes")
    return Question(
        terms=terms,
        width=width,
        zone=draw(st.sampled_from(ZONES)),
        measure=draw(MEASURES),
        group=draw(st.sampled_from([None, None, "type", "actor", "entity", "label"])),
        time=draw(st.sampled_from(["recorded", "recorded", "occurred"])),
        after=edges[0],
        before=edges[1],
        fill=fill_in,
    )
