"""Plain YAML takes what people mean and refuses, with its place, what could be more than it looks."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.errors import RejectedError
from tallystick.evidence.controls.plain_yaml import DEPTH_MAX, YAML_BYTES_MAX, Members, parse_yaml

BOMB: Final = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"

REFUSED: Final[tuple[tuple[str, bytes, str], ...]] = (
    ("an alias bomb", BOMB.encode(), "line 1: anchors and aliases"),
    ("a merge key", b"a: {b: 1}\nc:\n  <<: *a\n", "line 3: anchors and aliases"),
    ("a tag", b"a: !!python/object/apply:os.system [ls]\n", "line 1: tags are not read"),
    ("a local tag", b"a: !secret x\n", "line 1: tags are not read"),
    ("a key that comes twice", b"a: 1\nb: 2\na: 3\n", "line 3: the key 'a' comes twice"),
    ("a key that is no text", b"a: 1\n2: x\n", "line 2: the key '2' is not text"),
    ("a second document", b"a: 1\n---\nb: 2\n", "a second document begins"),
    ("too deep", b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "nested more than"),
    ("far too deep", b"[" * 100_000, "nest"),
    ("too long", b"#" * (YAML_BYTES_MAX + 1), "at most"),
    ("no UTF-8", b"a: \xff\n", "not UTF-8"),
    ("no YAML", b"a: [1\nb: 2\n", "not YAML"),
    ("a control character", b"a: \x07\n", "not YAML"),
)


@pytest.mark.parametrize(("data", "problem"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_not_plain_is_refused_with_its_place(data: bytes, problem: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_yaml(data, place="own.yaml")

    assert str(caught.value).startswith("own.yaml")
    assert problem in str(caught.value)


def test_scalars_are_what_they_look_like_and_dates_and_words_stay_text() -> None:
    text = b"[2026-03-01, yes, no, on, off, 012, 0x1f, 1_000, 10:30, ~, .inf, 10.2, 7, -1, true, null, '7']"

    assert parse_yaml(text, place="x") == [
        *("2026-03-01", "yes", "no", "on", "off", "012", "0x1f", "1_000", "10:30", "~", ".inf"),
        *(10.2, 7, -1, True, None, "7"),
    ]


@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|> \n'\"#?,", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_with_the_one_error(data: bytes) -> None:
    try:
        parse_yaml(data, place="x")
    except RejectedError:
        return


def test_members_are_asked_for_by_name_and_the_rest_is_refused_with_what_there_is() -> None:
    def read(value: Any, *names: str) -> None:
        members = Members(value, "x.yaml")
        for name in names:
            members.text(name)
        members.done()

    def refused(value: Any, *names: str) -> str:
        with pytest.raises(RejectedError) as caught:
            read(value, *names)
        return str(caught.value)

    assert refused({"a": "x", "b": "y"}, "a") == "x.yaml: there is no member 'b'; use a"
    assert refused({}, "a") == "x.yaml: a is missing; add it"
    assert refused({"a": 7}, "a") == "x.yaml, a: '7' is not text; put it in quotes"
    assert "a text of 0 characters" in refused({"a": " "}, "a")
    assert refused(["a"]) == "x.yaml: not a mapping of names to values"
