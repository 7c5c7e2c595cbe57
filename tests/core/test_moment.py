"""Moments in questions: an instant or a day of UTC, half-open; anything else is refused with an example."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import timestamp
from tallystick.core.moment import DAY, Moment
from tallystick.errors import RejectedError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def test_an_instant_is_one_microsecond() -> None:
    moment = Moment.parse("2026-03-15T10:30:00+01:00")

    assert moment.start == timestamp.parse("2026-03-15T09:30:00.000000Z")
    assert moment.end == moment.start + 1
    assert not moment.is_date
    assert moment.text == moment.described == "2026-03-15T10:30:00+01:00"


def test_a_date_is_that_day_of_utc_and_says_so() -> None:
    moment = Moment.parse("2026-03-15")

    assert moment.start == timestamp.parse("2026-03-15T00:00:00.000000Z")
    assert moment.end == timestamp.parse("2026-03-16T00:00:00.000000Z")
    assert moment.is_date
    assert moment.described == "2026-03-15 (UTC)"


@given(st.dates())
def test_a_day_ends_where_the_next_begins(day: date) -> None:
    moment = Moment.parse(day.isoformat())

    assert moment.start == micros(datetime(day.year, day.month, day.day, tzinfo=UTC))
    assert moment.end == moment.start + DAY


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)), st.integers(-1439, 1439))
def test_a_datetime_with_a_zone_is_the_moment_that_it_is(local: datetime, minutes: int) -> None:
    value = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))

    moment = Moment.of(value)

    assert (moment.start, moment.end, moment.is_date) == (micros(value), micros(value) + 1, False)
    assert Moment.parse(moment.text) == moment


def test_a_datetime_of_a_zone_with_odd_seconds_is_taken() -> None:
    value = datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))  # +00:53:28

    assert Moment.of(value).start == micros(value)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 3, 15, 9, 30),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        date(2026, 3, 15),
        1_773_567_000,
        None,
        b"2026-03-15",
    ],
)
def test_what_is_neither_text_nor_a_datetime_with_a_zone_is_refused(value: Any) -> None:
    with pytest.raises(RejectedError) as caught:
        Moment.of(value, place="after")

    assert caught.value.place == "after"
    assert caught.value.cure


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "yesterday", "2026", "2026-03", "2026-3-15", "2026-03-15 ", "2026-03-15\n", " 2026-03-15"),
        *("2026-02-30", "2027-02-29", "0000-01-01", "10000-01-01", "20260315", "2026-W11-7", "2026-074"),
        *("2026-03-15T09:30:00", "2026-03-15T24:00:00Z", "1773567000", "2026-03-15Z", "2026-03-15+01:00"),
        "\N{FULLWIDTH DIGIT TWO}026-03-15",
    ],
)
def test_anything_else_is_refused_with_examples_of_both(text: str) -> None:
    with pytest.raises(RejectedError) as caught:
        Moment.parse(text, place="after=…")

    assert caught.value.place == "after=…"
    assert "2026-03-15T09:30:00Z" in caught.value.cure
    assert "such as 2026-03-15" in caught.value.cure


@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))?", fullmatch=True))
def test_any_text_is_a_moment_or_is_refused(text: str) -> None:
    try:
        moment = Moment.parse(text)
    except RejectedError:
        return

    assert moment.start < moment.end
    assert timestamp.parse(timestamp.render(moment.start)) == moment.start
