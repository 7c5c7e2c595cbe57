"""Moments: one form inside records, any RFC 3339 with a zone from outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import timestamp
from tallystick.errors import RejectedError

MOMENTS = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_773_567_000_000_000, "2026-03-15T09:30:00.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_a_moment_has_one_text(moment: int, text: str) -> None:
    assert timestamp.render(moment) == text
    assert timestamp.parse(text) == timestamp.parse_rfc3339(text) == moment


@given(MOMENTS)
def test_any_moment_is_read_as_it_is_written(moment: int) -> None:
    assert timestamp.parse(timestamp.render(moment)) == moment


@given(MOMENTS, MOMENTS)
def test_texts_sort_as_moments_do(one: int, other: int) -> None:
    assert (timestamp.render(one) < timestamp.render(other)) == (one < other)


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from("Tt "),
)
def test_a_time_of_any_zone_is_the_moment_that_it_is(local: datetime, minutes: int, separator: str) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = moment.isoformat(sep=separator, timespec="microseconds")

    assert timestamp.parse_rfc3339(text) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-03-15T09:30:00Z", "2026-03-15T09:30:00.000000Z"),
        ("2026-03-15t09:30:00z", "2026-03-15T09:30:00.000000Z"),
        ("2026-03-15 09:30:00Z", "2026-03-15T09:30:00.000000Z"),
        ("2026-03-15T10:30:00+01:00", "2026-03-15T09:30:00.000000Z"),
        ("2026-03-15T09:30:00-00:00", "2026-03-15T09:30:00.000000Z"),
        ("2026-03-14T23:30:00-10:00", "2026-03-15T09:30:00.000000Z"),
        ("2026-03-15T09:30:00.5Z", "2026-03-15T09:30:00.500000Z"),
        ("2026-03-15T09:30:00.1234567Z", "2026-03-15T09:30:00.123456Z"),
        ("2026-03-15T09:30:00.999999999Z", "2026-03-15T09:30:00.999999Z"),
        ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00.000000Z"),
    ],
)
def test_rfc_3339_is_read(text: str, same: str) -> None:
    assert timestamp.parse_rfc3339(text) == timestamp.parse(same)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-03-15",
        "2026-03-15T09:30:00",
        "2026-03-15T09:30Z",
        "2026-03-15T09:30:00.Z",
        "2026-03-15T09:30:00.1234567890Z",
        "2026-03-15T09:30:00,5Z",
        "2026-03-15T09:30:00+0100",
        "2026-03-15T09:30:00+01",
        "2026-03-15T09:30:00+01:60",
        "2026-03-15T09:30:00+24:00",
        "2026-02-30T09:30:00Z",
        "2026-13-01T09:30:00Z",
        "2026-03-15T24:00:00Z",
        "2026-03-15T09:60:00Z",
        "2026-03-15T23:59:60Z",
        "2027-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "+2026-03-15T09:30:00Z",
        " 2026-03-15T09:30:00Z",
        "2026-03-15T09:30:00Z\n",
        "\N{FULLWIDTH DIGIT TWO}026-03-15T09:30:00Z",
        "2026-W11-7T09:30:00Z",
        "20260315T093000Z",
        "1773567000",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_what_is_no_time_with_a_zone_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RejectedError) as caught:
        timestamp.parse_rfc3339(text, place="/occurred_at")

    assert caught.value.place == "/occurred_at"
    assert "2026-03-15T09:30:00Z" in caught.value.cure


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-15T09:30:00Z",
        "2026-03-15T09:30:00.00000Z",
        "2026-03-15T09:30:00.0000000Z",
        "2026-03-15t09:30:00.000000Z",
        "2026-03-15T09:30:00.000000z",
        "2026-03-15 09:30:00.000000Z",
        "2026-03-15T09:30:00.000000+00:00",
        "2026-03-15T09:30:00.000000",
        "2026-02-30T09:30:00.000000Z",
        "2026-03-15T24:00:00.000000Z",
        "2026-03-15T09:30:00.000000Z ",
        "2026-03-15T09:30:00.000000Z\n",
        "\N{FULLWIDTH DIGIT TWO}026-03-15T09:30:00.000000Z",
    ],
)
def test_a_recorded_time_has_exactly_its_one_form(text: str) -> None:
    with pytest.raises(RejectedError):
        timestamp.parse(text)


@given(
    st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(Z|[+-]\d\d:\d\d)", fullmatch=True)
)
def test_any_text_is_a_time_or_is_refused(text: str) -> None:
    for read in (timestamp.parse, timestamp.parse_rfc3339):
        try:
            moment = read(text)
        except RejectedError:
            continue
        assert -62_135_596_800_000_000 <= moment <= 253_402_300_799_999_999
