"""Decimals and base64 have one text each; Python's readers would take more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.strict import parse_base64, parse_decimal, render_base64
from tallystick.errors import RejectedError


@given(st.integers(0, 2**63 - 1))
def test_a_decimal_is_read_as_it_is_written(number: int) -> None:
    assert parse_decimal(str(number), maximum=2**63 - 1, place="") == number


@pytest.mark.parametrize(
    "text",
    [
        *("", "00", "01", "+1", "-1", "-0", "4_2", " 4", "4 ", "4\n", "1.0", "1e0", "0x1", "abc"),
        *("\N{ARABIC-INDIC DIGIT FOUR}", "\N{SUPERSCRIPT TWO}", "\N{FULLWIDTH DIGIT ONE}", "4\0"),
        *(str(2**63), "9" * 20, "9" * 5_000),
    ],
)
def test_no_other_spelling_of_a_number_is_read(text: str) -> None:
    with pytest.raises(RejectedError, match=r"line 2: .* is not a decimal from 0 to 9223372036854775807"):
        parse_decimal(text, maximum=2**63 - 1, place="line 2")


def test_a_decimal_is_bounded() -> None:
    assert parse_decimal("255", maximum=255, place="") == 255
    with pytest.raises(RejectedError, match="from 0 to 255"):
        parse_decimal("256", maximum=255, place="")


@given(st.binary(max_size=100))
def test_base64_is_read_as_it_is_written(data: bytes) -> None:
    assert parse_base64(render_base64(data), place="") == data


@pytest.mark.parametrize(
    "text",
    [
        *("A", "AA", "AA=", "AAA", "AA==AA==", "AA==\n", " AA==", "A A==", "AA ==", "====", "="),
        *("AB==", "AAB=", "-_-_", "AA==é", "AAA=A", "AAAA\0", "A" * 200 + "="),
    ],
)
def test_no_other_spelling_of_base64_is_read(text: str) -> None:
    with pytest.raises(RejectedError, match=r"line 3: .* is not standard, padded base64"):
        parse_base64(text, place="line 3")


@given(st.text(max_size=20))
def test_any_text_is_a_value_in_its_one_form_or_rejected(text: str) -> None:
    try:
        data = parse_base64(text, place="")
    except RejectedError:
        return
    assert render_base64(data) == text
