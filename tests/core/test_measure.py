"""Measures and totals: exact against fractions, in any order and in any parts, written down and read back."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.canonical import decode, encode
from tallystick.core.measure import Measure, Totals, numbers_at
from tallystick.core.member import MemberPath
from tallystick.errors import RejectedError

NUMBERS: Final = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0, 0.5, 5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 2.2250738585072014e-308]
    ),
)
RECORDS: Final = st.lists(st.lists(NUMBERS, max_size=3), min_size=1, max_size=6)


def totals_of(records: list[list[int | float]]) -> Totals:
    totals = Totals()
    for numbers in records:
        totals.add_record(numbers)
    return totals


@given(RECORDS)
def test_totals_are_exact(records: list[list[int | float]]) -> None:
    totals = totals_of(records)

    numbers = [number for record in records for number in record]
    assert (totals.records, totals.numbers) == (len(records), len(numbers))
    assert totals.total == sum(map(Fraction, numbers))
    assert isinstance(totals.total, int) == all(isinstance(number, int) for number in numbers)
    assert (totals.least, totals.most) == (min(numbers, default=None), max(numbers, default=None))


@given(RECORDS, RECORDS)
def test_totals_can_be_added_up_in_parts(first: list[list[int | float]], second: list[list[int | float]]) -> None:
    parts = totals_of(second)
    parts.add(totals_of(first))

    whole = totals_of(first + second)
    assert parts.total_text == whole.total_text
    assert (parts.records, parts.numbers, parts.least, parts.most) == (
        *(whole.records, whole.numbers, whole.least, whole.most),
    )


@given(RECORDS)
def test_totals_come_back_from_what_was_written_down(records: list[list[int | float]]) -> None:
    totals = totals_of(records)

    read = Totals.read(totals.records, totals.numbers, totals.total_text, totals.least, totals.most)

    assert read.total == totals.total
    assert type(read.total) is type(totals.total)
    assert read.total_text == totals.total_text
    assert (read.records, read.numbers, read.least, read.most) == (
        *(totals.records, totals.numbers, totals.least, totals.most),
    )


@pytest.mark.parametrize(
    "row",
    [
        (0,),
        (-1,),
        (True,),
        ("1",),
        (1, -1, "0"),
        (1, True, "1", 1, 1),
        (1, 1, 1, 1, 1),
        (1, 1, "1"),
        (1, 0, "0", 1, 1),
        (1, 1, "1", 1, None),
        (1, 1, "1", True, 1),
        (1, 1, "+1", 1, 1),
        (1, 1, "1/0", 1, 1),
        (1, 1, "1/3", 1, 1),
        (1, 1, "1/-2", 1, 1),
        (1, 1, f"1/{2**1075}", 1, 1),
        (1, 1, "9" * 1_501, 1, 1),
        (1, 1, "\u0661", 1, 1),
        (1, 1, "1\n", 1, 1),
    ],
)
def test_what_cannot_be_totals_is_refused(row: tuple[Any, ...]) -> None:
    with pytest.raises(RejectedError, match="not the totals of a cell"):
        Totals.read(*row)


# --------------------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize(
    "text",
    [
        *("count", "distinct:actor", "distinct:entity", "sum:payload.a", 'min:payload."a b"."c.d"'),
        *("max:context.x", "avg:payload.a.b.c"),
    ],
)
def test_measures_are_written_as_they_are_read(text: str) -> None:
    assert Measure.parse(text).render() == text
    assert Measure.parse(Measure.parse(text).render()) == Measure.parse(text)


@given(st.text(max_size=40).map(lambda rest: "sum:payload." + rest) | st.text(max_size=40))
def test_any_text_is_a_measure_or_refused_with_its_place(text: str) -> None:
    measure, refused = None, None
    try:
        measure = Measure.parse(text)
    except RejectedError as error:
        refused = error

    assert (measure is None) == (refused is not None)
    assert refused is None or (refused.place == "measure" and refused.cure)
    assert measure is None or Measure.parse(measure.render()) == measure


@pytest.mark.parametrize(
    ("function", "what", "path"),
    [
        ("count", "actor", None),
        ("distinct", "", None),
        ("distinct", "actor", MemberPath(("payload", "a"))),
        ("sum", "", None),
        ("sum", "x", MemberPath(("payload", "a"))),
        ("sum", "", MemberPath(("payload",))),
        ("sum", "", MemberPath(("actor", "id"))),
        ("count", "", MemberPath(("payload", "a"))),
    ],
)
def test_a_measure_is_valid_once_built(function: str, what: str, path: MemberPath | None) -> None:
    with pytest.raises(RejectedError):
        Measure(function, what, path)


def test_a_measure_is_answered_from_totals() -> None:
    totals = totals_of([[1, 2], [], [4.5]])

    answers = [Measure.parse(text).value(totals) for text in ("count", *(f"{f}:payload.x" for f in FUNCTIONS))]

    assert answers == [3, 7.5, 1, 4.5, 2.5]


def test_where_there_are_no_numbers_there_is_only_a_count_and_a_sum() -> None:
    totals = totals_of([[], []])

    answers = [Measure.parse(text).value(totals) for text in ("count", *(f"{f}:payload.x" for f in FUNCTIONS))]

    assert answers == [2, 0, None, None, None]


FUNCTIONS: Final = ("sum", "min", "max", "avg")


def test_numbers_are_found_through_objects_and_arrays() -> None:
    path = MemberPath.parse("payload.items.price")
    line = encode(
        {"payload": {"items": [{"price": 1}, {"price": [2.5, "3", True, [4, None]]}, {"other": 5}, 6, {"price": {}}]}}
    )

    assert [*numbers_at(path, decode(line))] == [1, 2.5, 4]
