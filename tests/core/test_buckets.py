"""Calendar buckets against a twin that walks the clock of a zone minute by minute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import buckets, timestamp
from tallystick.core.buckets import HOUR, MINUTE, QUARTER_HOUR, WIDTHS, Calendar
from tallystick.core.moment import DAY
from tallystick.errors import RejectedError
from tallystick.limits import BUCKETS_MAX

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTES = {"minute": 1, "5 minutes": 5, "15 minutes": 15, "hour": 60}

CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("Europe/Berlin", "2047-03-31T01:00Z"),
    ("America/New_York", "2026-03-08T07:00Z"),
    ("America/New_York", "2026-11-01T06:00Z"),
    ("Asia/Kolkata", "2026-03-01T00:00Z"),
    ("Asia/Kathmandu", "1985-12-31T18:30Z"),  # from +05:30 to +05:45
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),  # half an hour back
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
    ("UTC", "2026-01-01T00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),  # no 30 December
    ("Pacific/Kwajalein", "1993-08-21T12:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00Z"),  # from midnight back to 23:00
    ("America/Sao_Paulo", "2018-11-04T03:00Z"),  # no midnight
    ("America/Havana", "2026-11-01T05:00Z"),  # midnight twice
    ("America/St_Johns", "2005-10-30T02:31Z"),  # from 00:01 back to 23:01
    ("America/Juneau", "1867-10-19T00:31Z"),  # a day twice
    ("Africa/Monrovia", "1972-01-07T00:44Z"),  # from -00:44:30 to +00:00
]


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def at(text: str) -> int:
    return micros(datetime.fromisoformat(text))


def clock(moment: int, zone: str) -> datetime:
    """What the clocks of the zone show."""
    return (EPOCH + timedelta(microseconds=moment)).astimezone(ZoneInfo(zone))


def period(day: date, width: str) -> tuple[int, ...]:
    if width == "day":
        return day.year, day.month, day.day
    if width == "week":
        return day.isocalendar()[:2]
    return (day.year, {"month": day.month, "quarter": (day.month - 1) // 3, "year": 0}[width])


def walk(calendar: Calendar, first: int, end: int) -> Iterator[int]:
    """The minutes in [first, end) at which a bucket starts. Walks from two days before, to know the latest date."""
    minutes = MINUTES.get(calendar.width)
    latest: tuple[int, ...] = ()
    grid = None
    for moment in range(first - 2 * DAY, end, MINUTE):
        now = clock(moment, calendar.zone)
        offset = now.utcoffset()
        assert offset is not None
        if minutes is None:
            key = period(now.date(), calendar.width)
            starts = key > latest
            latest = max(latest, key)
        else:
            since = (now.replace(tzinfo=None) - datetime(1970, 1, 1)) % timedelta(minutes=minutes)
            starts = since < timedelta(minutes=1) or grid not in (None, offset % timedelta(minutes=minutes))
            grid = offset % timedelta(minutes=minutes)
        if starts and moment >= first:
            yield moment


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("zone", "moment"), CHANGES[:-2])
def test_buckets_start_where_the_clocks_say(zone: str, moment: str, width: str) -> None:
    calendar = Calendar(width, zone)
    first, end = at(moment) - 30 * HOUR, at(moment) + 40 * HOUR

    found = [*calendar.range(first, end)]

    assert [start for start, _ in found if start >= first] == [*walk(calendar, first, end)]
    assert [calendar.start_of(end) for _, end in found] == [end for _, end in found]


@given(st.sampled_from(CHANGES[:-2]), st.sampled_from(WIDTHS), st.integers(-40, 40), st.integers(1, 40))
def test_buckets_start_where_the_clocks_say_wherever_one_begins_to_look(
    change: tuple[str, str], width: str, before: int, hours: int
) -> None:
    zone, moment = change
    calendar = Calendar(width, zone)
    first = at(moment) + before * HOUR
    end = first + hours * HOUR

    starts = [start for start, _ in calendar.range(first, end) if start >= first]

    assert starts == [*walk(calendar, first, end)]


@pytest.mark.parametrize("width", ["week", "month", "quarter", "year"])
@given(
    zone=st.sampled_from(sorted({zone for zone, _ in CHANGES})),
    day=st.dates(min_value=date(1990, 1, 1), max_value=date(2100, 1, 1)),
)
def test_periods_start_on_their_first_day_in_the_zone(width: str, zone: str, day: date) -> None:
    moment = micros(datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone)))
    calendar = Calendar(width, zone)

    start, following = calendar.start_of(moment), calendar.next(moment)

    assert start <= moment < following
    of = period(clock(moment, zone).date(), width)
    assert period(clock(start, zone).date(), width) == of
    assert period(clock(following - 1, zone).date(), width) == of
    assert period(clock(start - 1, zone).date(), width) < of
    assert period(clock(following, zone).date(), width) > of


@given(
    st.sampled_from(WIDTHS),
    st.sampled_from(CHANGES),
    st.integers(-4 * DAY, 4 * DAY),
    st.integers(0, 3 * DAY),
)
def test_buckets_cover_time_without_gap_or_overlap(
    width: str, change: tuple[str, str], before: int, length: int
) -> None:
    calendar = Calendar(width, change[0])
    first = at(change[1]) + before
    end = first + length

    found = [*calendar.range(first, end)]

    assert all(one[1] == other[0] for one, other in pairwise(found))
    assert all(start < end for start, end in found)
    assert bool(found) == (first < end)
    if found:
        assert found[0][0] <= first < found[0][1]
        assert found[-1][0] < end <= found[-1][1]
    for start, following in found:
        for moment in (start, (start + following) // 2, following - 1):
            assert (calendar.start_of(moment), calendar.next(moment)) == (start, following)


@given(st.integers(-(10**19), 10**19), st.sampled_from(WIDTHS), st.sampled_from(sorted({zone for zone, _ in CHANGES})))
def test_any_moment_is_in_a_bucket(moment: int, width: str, zone: str) -> None:
    calendar = Calendar(width, zone)

    start, end = calendar.start_of(moment), calendar.next(moment)

    assert start <= moment < end
    assert calendar.start_of(start) == calendar.start_of(end - 1) == start
    assert calendar.label(start)


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC)),
    st.sampled_from(sorted({zone for zone, _ in CHANGES})),
)
def test_offsets_are_those_of_zoneinfo_in_all_years(moment: datetime, zone: str) -> None:
    second = micros(moment) // timestamp.SECOND * timestamp.SECOND
    local = clock(second, zone)
    offset = local.utcoffset()
    assert offset is not None
    odd = offset % timedelta(minutes=1) != timedelta(0)

    label = Calendar("day", zone).label(second)

    assert label == (
        clock(second, "UTC").isoformat().replace("+00:00", "Z") if odd or zone == "UTC" else local.isoformat()
    )


@pytest.mark.parametrize(
    ("zone", "first", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T00:00+01:00", [24, 23, 24]),
        ("Europe/Berlin", "2026-10-24T00:00+02:00", [24, 25, 24]),
        ("Australia/Lord_Howe", "2026-04-04T00:00+11:00", [24, 24.5, 24]),
        ("America/Sao_Paulo", "2018-11-03T00:00-03:00", [24, 23, 24]),
        ("America/Havana", "2026-10-31T00:00-04:00", [24, 25, 24]),
    ],
)
def test_a_day_has_the_hours_that_its_clocks_give_it(zone: str, first: str, hours: list[float]) -> None:
    days = Calendar("day", zone).range(at(first), at(first) + 3 * DAY - HOUR)

    assert [(end - start) / HOUR for start, end in days] == hours


def test_a_day_that_a_zone_skipped_is_no_bucket() -> None:
    calendar = Calendar("day", "Pacific/Apia")

    days = calendar.range(at("2011-12-29T12:00-10:00"), at("2012-01-01T12:00+14:00"))

    assert [calendar.label(start)[:10] for start, _ in days] == ["2011-12-29", "2011-12-31", "2012-01-01"]


def test_an_hour_that_the_clocks_repeat_is_two_buckets() -> None:
    calendar = Calendar("hour", "Europe/Berlin")

    hours = calendar.range(at("2026-10-25T00:00Z"), at("2026-10-25T02:00Z"))

    assert [calendar.label(start) for start, _ in hours] == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_an_hour_is_cut_short_where_the_zone_moves_by_half_an_hour() -> None:
    calendar = Calendar("hour", "Australia/Lord_Howe")

    hours = [*calendar.range(at("2026-04-04T14:00Z"), at("2026-04-04T16:00Z"))]

    assert [(calendar.label(start), (end - start) // MINUTE) for start, end in hours] == [
        ("2026-04-05T01:00:00+11:00", 60),
        ("2026-04-05T01:30:00+10:30", 30),
        ("2026-04-05T02:00:00+10:30", 60),
    ]


def test_weeks_begin_on_monday() -> None:
    calendar = Calendar("week", "America/New_York")

    assert calendar.label(calendar.start_of(at("2026-03-15T12:00Z"))) == "2026-03-09T00:00:00-04:00"
    assert calendar.label(calendar.start_of(at("2026-03-16T12:00Z"))) == "2026-03-16T00:00:00-04:00"


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"])
@pytest.mark.parametrize("width", ["15 minutes", "hour", "day", "week", "month", "quarter", "year"])
def test_the_zones_of_today_are_aligned_to_quarter_hours(zone: str, width: str) -> None:
    assert Calendar(width, zone).aligned_to_quarter_hours(at("2012-01-01T00:00Z"), at("2100-01-01T00:00Z"))


@given(
    st.sampled_from(WIDTHS),
    st.sampled_from([*CHANGES, ("Asia/Kathmandu", "1920-01-01T00:00Z"), ("Africa/Monrovia", "1972-05-01T00:00Z")]),
    st.integers(-60 * 24, 60 * 24),
    st.integers(0, 60 * 30),
)
def test_aligned_means_that_every_start_is_a_quarter_hour(
    width: str, change: tuple[str, str], before: int, minutes: int
) -> None:
    calendar = Calendar(width, change[0])
    first = at(change[1]) + before * MINUTE
    end = first + minutes * MINUTE

    aligned = calendar.aligned_to_quarter_hours(first, end)

    if width in ("minute", "5 minutes"):
        assert not aligned
    else:
        assert aligned == all(start % QUARTER_HOUR == 0 for start, _ in calendar.range(first, end) if start >= first)


def test_no_zone_changes_twice_between_two_looks() -> None:
    """Each zone's changes are looked for every two days: none may change and change back between."""
    for zone in ("Africa/Freetown", "Africa/Casablanca", "Asia/Gaza", "America/Boa_Vista", "Europe/Vienna"):
        calendar = Calendar("hour", zone)
        for moment in range(at("1935-01-01T00:00Z"), at("2088-01-01T00:00Z"), 29 * HOUR):
            assert calendar.label(moment) == clock(moment, zone).isoformat()


def test_more_buckets_than_are_answered_are_refused_before_the_first() -> None:
    calendar = Calendar("minute")

    with pytest.raises(RejectedError, match=str(BUCKETS_MAX)):
        calendar.range(0, (BUCKETS_MAX + 1) * MINUTE)

    assert len([*calendar.range(0, 366 * DAY)]) == 366 * 24 * 60


@pytest.mark.parametrize("width", ["", "2 hours", "Day", "days", "fortnight", "x" * 10_000])
def test_a_width_that_there_is_not_is_refused_with_those_that_there_are(width: str) -> None:
    with pytest.raises(RejectedError) as caught:
        Calendar(width)

    assert caught.value.place == "width"
    assert all(one in caught.value.cure for one in WIDTHS)


@pytest.mark.parametrize(
    "zone",
    [
        *("", "Mars/Olympus", "Europe", "europe/berlin ", "../../etc/passwd", "/etc/localtime", "Europe//Berlin"),
        *("localtime", "posixrules", "right/UTC", "posix/UTC", "tzdata.zi", "leapseconds", "+01:00", "a\0b"),
        *("Europe/Berlin\n", "Zürich", "\ud800", "A" * 65, "x/" * 100_000),
    ],
)
def test_what_is_no_zone_is_refused_with_an_example(zone: str) -> None:
    with pytest.raises(RejectedError) as caught:
        Calendar("day", zone)

    assert caught.value.place == "zone"
    assert "Europe/Berlin" in caught.value.cure
    assert len(str(caught.value)) < 200


def test_a_machine_without_zones_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise ZoneInfoNotFoundError(name)

    monkeypatch.setattr(buckets, "ZoneInfo", nothing)

    with pytest.raises(RejectedError, match="tzdata"):
        Calendar("day", "Antarctica/Vostok")
    assert re.fullmatch(r"1970-01-01T00:00:00Z", Calendar("day", "UTC").label(0))
