"""Paths to members: what is written is read again, and what a path leads to is what a walk by hand finds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.member import MemberPath
from tallystick.errors import RejectedError
from tallystick.limits import DEPTH_MAX

NAMES = st.sampled_from(["a", "b", "a.b", "", "größe", '"']) | st.text(st.characters(exclude_categories=["Cs"]))
PATHS = st.lists(NAMES, min_size=1, max_size=DEPTH_MAX).map(lambda parts: MemberPath(tuple(parts)))
DOCUMENTS = st.recursive(
    st.sampled_from([None, True, 0, 1.5, "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=12,
)


def leaves(value: Any) -> list[Any]:
    """A value, or the elements of an array and of the arrays in it."""
    return [leaf for element in value for leaf in leaves(element)] if isinstance(value, list) else [value]


def walk(document: Any, parts: list[str]) -> tuple[bool, list[Any]]:
    """Whether the path is there, and the values at its end: step by step, from all places reached so far."""
    reached = [document]
    for part in parts:
        objects = [leaf for value in reached for leaf in leaves(value) if isinstance(leaf, dict)]
        reached = [one[part] for one in objects if part in one]
    return bool(reached), [leaf for value in reached for leaf in leaves(value)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("payload", ("payload",)),
        ("payload.user.name", ("payload", "user", "name")),
        ('payload."a.b".c', ("payload", "a.b", "c")),
        ('payload.""', ("payload", "")),
        (r'payload."say \"hi\""', ("payload", 'say "hi"')),
        ('payload."\\u00e9"', ("payload", "é")),
        ("payload.größe", ("payload", "größe")),
        ("payload.0", ("payload", "0")),
        ("payload.a-b_c/d:e@f", ("payload", "a-b_c/d:e@f")),
    ],
)
def test_a_path_names_members_from_the_outside_in(text: str, parts: tuple[str, ...]) -> None:
    assert MemberPath.parse(text).parts == parts


@given(PATHS)
def test_a_path_is_read_as_it_is_written(path: MemberPath) -> None:
    assert MemberPath.parse(path.render()) == path


@given(PATHS, st.sampled_from(["", "=", "!=5", "<.", '="x"', " and more", ",b"]))
def test_a_path_ends_where_something_else_begins(path: MemberPath, rest: str) -> None:
    assert MemberPath.parse_start(path.render() + rest) == (path, len(path.render()))


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a.", ".a", "a..b", "a b", "a=b", "a!", "a,b", "'a'", 'a"b"', '"a', '"a"b', '"a\\"', '"\\x"'),
        *('"a\nb"', "a.\ud800", '"\\ud800"', "a\n", ".".join("a" * (DEPTH_MAX + 1))),
    ],
)
def test_what_is_no_path_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RejectedError) as caught:
        MemberPath.parse(text, place="--path")

    assert caught.value.place == "--path"
    assert "payload.user.name" in caught.value.cure


@given(st.text(max_size=40) | st.text(alphabet='ab."\\ =', max_size=20))
def test_any_text_is_a_path_or_is_refused(text: str) -> None:
    try:
        path = MemberPath.parse(text)
    except RejectedError:
        return

    assert MemberPath.parse(path.render()) == path


@given(DOCUMENTS, st.lists(st.sampled_from("ab"), max_size=4))
def test_a_path_leads_through_objects_and_all_elements_of_arrays(document: Any, parts: list[str]) -> None:
    path = MemberPath(tuple(parts))

    there, values = walk(document, parts)

    assert [*path.values(document)] == values
    assert path.is_in(document) == there


def test_an_empty_array_is_there_and_has_no_value() -> None:
    path = MemberPath.parse("payload.tags")

    assert path.is_in({"payload": {"tags": []}})
    assert [*path.values({"payload": {"tags": []}})] == []
    assert not path.is_in({"payload": {}})
