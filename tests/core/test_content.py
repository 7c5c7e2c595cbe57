"""The caller's part of a record: its rules, at the edge, and its three runs of bytes."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.content import CONTENT_MEMBERS, Content, check_content
from tallystick.errors import RejectedError
from tallystick.limits import (
    ENTITY_ID_CHARACTERS_MAX,
    EVENT_ID_CHARACTERS_MAX,
    EVENT_TYPE_CHARACTERS_MAX,
    INTEGER_MAX,
    LABEL_CHARACTERS_MAX,
    LABELS_MAX,
)

GOOD: Final[dict[str, Any]] = {
    "actor": {"id": "jane", "type": "user", "name": "Jané", "identity_provider": "okta"},
    "context": {"ip": "10.0.0.1"},
    "entity_id": "user-1",
    "event_type": "user.created",
    "event_version": 2,
    "id": "id-1",
    "labels": ["phi"],
    "occurred_at": "2026-03-15T09:30:00Z",
    "payload": {"a": [1, 2.5, None]},
}
PLAIN: Final[dict[str, Any]] = {
    "actor": None,
    "context": {},
    "entity_id": "e",
    "event_type": "t",
    "event_version": 1,
    "id": "x",
    "labels": [],
    "occurred_at": None,
    "payload": {},
}


@pytest.mark.parametrize("members", [GOOD, PLAIN])
def test_the_three_runs_are_the_canonical_members_in_order(members: dict[str, Any]) -> None:
    content = Content.of(members)

    assert b"{" + b",".join(content) + b"}" == rfc8785.dumps(members)
    assert json.loads(b"{" + b",".join(content) + b"}") == members


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("actor", None),
        ("actor", {"id": "j"}),
        ("actor", {"id": "j" * ENTITY_ID_CHARACTERS_MAX}),
        ("entity_id", "é" * ENTITY_ID_CHARACTERS_MAX),
        ("entity_id", "a\u0085b\u2028"),
        ("entity_id", " "),
        ("id", "😀" * EVENT_ID_CHARACTERS_MAX),
        ("event_type", "A-b_0.C"),
        ("event_type", "t" * EVENT_TYPE_CHARACTERS_MAX),
        ("event_version", 1),
        ("event_version", INTEGER_MAX),
        ("labels", []),
        ("labels", [f"l{number}" for number in range(LABELS_MAX)]),
        ("labels", ["l" * LABEL_CHARACTERS_MAX]),
        ("occurred_at", None),
        ("payload", {}),
        ("context", {}),
    ],
)
@pytest.mark.parametrize("others", [GOOD, PLAIN], ids=["good", "plain"])
def test_what_the_rules_allow_is_taken(others: dict[str, Any], member: str, value: Any) -> None:
    check_content({**others, member: value})


BAD: Final[tuple[tuple[str, Any, str], ...]] = (
    ("actor", "jane", "/actor"),
    ("actor", {}, "/actor"),
    ("actor", {"type": "user"}, "/actor"),
    ("actor", [], "/actor"),
    ("actor", {"id": ""}, "/actor/id"),
    ("actor", {"id": None}, "/actor/id"),
    ("actor", {"id": []}, "/actor/id"),
    ("actor", {"id": {}}, "/actor/id"),
    ("actor", {"id": True}, "/actor/id"),
    ("actor", {"id": "j" * (ENTITY_ID_CHARACTERS_MAX + 1)}, "/actor/id"),
    ("actor", {"id": "j", "name": "a\nb"}, "/actor/name"),
    ("actor", {"id": "j", "role": "x"}, "/actor/role"),
    ("actor", {"id": "j", "x" * 100: "x"}, f"/actor/{'x' * 60}"),
    ("context", None, "/context"),
    ("context", [], "/context"),
    ("entity_id", "", "/entity_id"),
    ("entity_id", "é" * (ENTITY_ID_CHARACTERS_MAX + 1), "/entity_id"),
    ("entity_id", "a\x1f", "/entity_id"),
    ("entity_id", 1, "/entity_id"),
    ("event_type", "", "/event_type"),
    ("event_type", ".a", "/event_type"),
    ("event_type", "a.", "/event_type"),
    ("event_type", "a..b", "/event_type"),
    ("event_type", "é", "/event_type"),
    ("event_type", "a b", "/event_type"),
    ("event_type", "a\n", "/event_type"),
    ("event_type", "t" * (EVENT_TYPE_CHARACTERS_MAX + 1), "/event_type"),
    ("event_type", ["t"], "/event_type"),
    ("event_version", 0, "/event_version"),
    ("event_version", -1, "/event_version"),
    ("event_version", True, "/event_version"),
    ("event_version", 1.0, "/event_version"),
    ("event_version", "1", "/event_version"),
    ("event_version", INTEGER_MAX + 1, "/event_version"),
    ("id", "", "/id"),
    ("id", None, "/id"),
    ("id", "x" * (EVENT_ID_CHARACTERS_MAX + 1), "/id"),
    ("id", "\x7f", "/id"),
    ("labels", None, "/labels"),
    ("labels", "phi", "/labels"),
    ("labels", "", "/labels"),
    ("labels", {}, "/labels"),
    ("labels", [f"l{number}" for number in range(LABELS_MAX + 1)], "/labels"),
    ("labels", ["a", "a"], "/labels"),
    ("labels", ["a", ""], "/labels/1"),
    ("labels", [["a"]], "/labels/0"),
    ("labels", ["l" * (LABEL_CHARACTERS_MAX + 1)], "/labels/0"),
    ("occurred_at", "", "/occurred_at"),
    ("occurred_at", "2026-03-15", "/occurred_at"),
    ("occurred_at", 0, "/occurred_at"),
    ("payload", None, "/payload"),
    ("payload", [], "/payload"),
    ("payload", "", "/payload"),
)


@pytest.mark.parametrize(("member", "value", "place"), BAD)
@pytest.mark.parametrize("others", [GOOD, PLAIN], ids=["good", "plain"])
def test_what_the_rules_forbid_is_refused_at_its_place(
    others: dict[str, Any], member: str, value: Any, place: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        check_content({**others, member: value})

    assert caught.value.place == place
    assert caught.value.problem


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(CONTENT_MEMBERS)), JSON, max_size=3))
def test_any_value_in_any_member_is_taken_or_refused_at_that_member(changes: dict[str, Any]) -> None:
    place = None
    try:
        check_content({**PLAIN, **changes})
    except RejectedError as error:
        place = error.place

    assert place is None or place.split("/")[1] in changes
