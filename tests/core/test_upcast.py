"""Upcasters: old events are read as new ones, and what was sealed stays as it was."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import upcast
from tallystick.core.canonical import decode
from tallystick.core.record import Record
from tallystick.core.upcast import (
    ABSENT,
    Upcasters,
    copied,
    is_same,
    member_at,
    merge_patch,
    with_member,
    without_member,
)
from tallystick.errors import ConflictError, RejectedError
from tallystick.limits import DEPTH_MAX, RECORD_BYTES_MAX

MEMBERS: Final[dict[str, Any]] = {
    "actor": {"id": "jane"},
    "context": {},
    "entity_id": "user-1",
    "entity_version": 3,
    "epoch": 0,
    "event_type": "user.created",
    "event_version": 1,
    "id": "id-1",
    "labels": [],
    "ledger": "acme",
    "occurred_at": None,
    "payload": {},
    "position": 17,
    "prev_hash": "0" * 64,
    "recorded_at": "2026-03-15T09:30:00.000000Z",
    "signature": "0" * 64,
}


def record_of(payload: dict[str, Any], **members: Any) -> Record:
    return Record.parse(bytes(rfc8785.dumps({**MEMBERS, "payload": payload, **members})))


def upcast_by(operations: list[dict[str, Any]], payload: dict[str, Any]) -> dict[str, Any]:
    """The payload after one declared step."""
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, operations)
    return upcasters.upcast(record_of(payload)).payload


# ------------------------------------------------------------------------------------------------ the steps


def test_steps_are_taken_one_after_the_other_until_there_is_none() -> None:
    upcasters = Upcasters()
    upcasters.register("user.created", 2, lambda payload: {**payload, "b": payload["a"] + 1})
    upcasters.declare("user.created", 1, [{"op": "rename", "member": "x", "to": "a"}])
    upcasters.declare("user.created", 4, [{"op": "drop", "member": "a"}])

    read = upcasters.upcast(record_of({"x": 1}))

    assert (read.payload, read.event_version) == ({"a": 1, "b": 2}, 3)
    assert upcasters.upcast(record_of({"a": 1}, event_version=4)).payload == {}
    assert upcasters.upcast(record_of({"a": 1}, event_version=4)).event_version == 5


@pytest.mark.parametrize("members", [{"event_type": "user.removed"}, {"event_version": 2}, {"event_version": 9}])
def test_a_record_that_no_step_begins_at_comes_back_as_it_is(members: dict[str, Any]) -> None:
    upcasters = Upcasters()
    upcasters.register("user.created", 1, lambda _: {})
    record = record_of({"a": 1}, **members)

    assert upcasters.upcast(record) is record


def test_the_sealed_bytes_and_all_other_members_stay() -> None:
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, [{"op": "drop", "member": "ssn"}])
    record = record_of({"ssn": "1", "name": "Jane"})
    before = copy.deepcopy(record.members)

    read = upcasters.upcast(record)

    assert (read.line, read.hash) == (record.line, record.hash)
    assert read.members == {**before, "payload": {"name": "Jane"}, "event_version": 2}
    assert record.members == before


def test_a_python_step_may_change_what_it_is_given() -> None:
    upcasters = Upcasters()

    def step(payload: dict[str, Any]) -> dict[str, Any]:
        payload["list"][0]["a"] = 2
        del payload["gone"]
        return payload

    upcasters.register("user.created", 1, step)
    record = record_of({"list": [{"a": 1}], "gone": True})

    assert upcasters.upcast(record).payload == {"list": [{"a": 2}]}
    assert record.payload == {"list": [{"a": 1}], "gone": True}


def test_what_a_python_step_gave_is_its_own_no_longer() -> None:
    upcasters, kept = Upcasters(), {"list": [1]}
    upcasters.register("user.created", 1, lambda _: kept)

    read = upcasters.upcast(record_of({}))
    kept["list"].append(2)

    assert read.payload == {"list": [1]}


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (None, "it gave a NoneType, not an object"),
        ([], "it gave a list, not an object"),
        ({"a": {1}}, "/payload/a: a Python set has no JSON form"),
        ({"a": float("nan")}, "/payload/a: NaN is not a JSON number"),
        ({"a": 2**53}, "/payload/a: the integer 9007199254740992 is beyond"),
        ({1: 2}, "the member name 1 is not a string"),
        ({"\ud800": 2}, "lone surrogate"),
        ({"a": "x" * RECORD_BYTES_MAX}, "at most 65535 are allowed"),
        (nested(DEPTH_MAX), "nested deeper than"),
        (endless(), "nested deeper than"),
    ],
)
def test_a_step_that_gives_what_no_payload_may_be_is_named(result: Any, problem: str) -> None:
    upcasters = Upcasters()
    upcasters.register("user.created", 1, lambda _: result)

    with pytest.raises(RejectedError) as caught:
        upcasters.upcast(record_of({}))

    assert "the upcaster of user.created from version 1 failed" in caught.value.problem
    assert problem in caught.value.problem
    assert caught.value.place == "position 17"


def test_a_payload_as_deep_as_a_record_has_room_for_is_taken() -> None:
    upcasters = Upcasters()
    upcasters.register("user.created", 1, lambda _: nested(DEPTH_MAX - 1))

    assert upcasters.upcast(record_of({})).payload == nested(DEPTH_MAX - 1)


def test_a_step_that_raises_is_named_with_what_it_raised() -> None:
    upcasters = Upcasters()
    upcasters.register("user.created", 1, lambda payload: payload)
    upcasters.register("user.created", 2, lambda payload: payload["name"])

    with pytest.raises(RejectedError, match=r"position 17: .* user\.created from version 2 failed: KeyError: 'name'"):
        upcasters.upcast(record_of({}))


# ------------------------------------------------------------------------------------------- the operations

OPERATIONS: Final[tuple[tuple[dict[str, Any], dict[str, Any], dict[str, Any]], ...]] = (
    # rename
    ({"op": "rename", "member": "ip", "to": "source_ip"}, {"ip": 1, "b": 2}, {"source_ip": 1, "b": 2}),
    ({"op": "rename", "member": "ip", "to": "source_ip"}, {"ip": None}, {"source_ip": None}),
    ({"op": "rename", "member": "ip", "to": "source_ip"}, {"b": 2, "source_ip": 3}, {"b": 2, "source_ip": 3}),
    ({"op": "rename", "member": "ip", "to": "source_ip"}, {"ip": 1, "source_ip": 3}, {"source_ip": 1}),
    ({"op": "rename", "member": "a.b", "to": "c"}, {"a": {"b": 1, "d": 2}, "c": 3}, {"a": {"c": 1, "d": 2}, "c": 3}),
    ({"op": "rename", "member": 'a."b.c"', "to": '"d.e"'}, {"a": {"b.c": 1}}, {"a": {"d.e": 1}}),
    ({"op": "rename", "member": "a.b", "to": "c"}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}),
    ({"op": "rename", "member": "a.b", "to": "c"}, {"a": "b"}, {"a": "b"}),
    # move
    ({"op": "move", "from": "user.name", "to": "name"}, {"user": {"name": "J"}}, {"user": {}, "name": "J"}),
    ({"op": "move", "from": "name", "to": "user.name"}, {"name": "J"}, {"user": {"name": "J"}}),
    ({"op": "move", "from": "name", "to": "user.name"}, {"name": "J", "user": "x"}, {"user": {"name": "J"}}),
    ({"op": "move", "from": "name", "to": "user.name"}, {"name": 1, "user": {"a": 2}}, {"user": {"a": 2, "name": 1}}),
    ({"op": "move", "from": "user", "to": "user.name"}, {"user": "J"}, {"user": {"name": "J"}}),
    ({"op": "move", "from": "user.name", "to": "user"}, {"user": {"name": "J", "a": 1}}, {"user": "J"}),
    ({"op": "move", "from": "user.name", "to": "name"}, {"name": "K"}, {"name": "K"}),
    ({"op": "move", "from": "a", "to": "b"}, {"a": [1, {"c": 2}], "b": {}}, {"b": [1, {"c": 2}]}),
    # default
    ({"op": "default", "member": "role", "value": "viewer"}, {}, {"role": "viewer"}),
    ({"op": "default", "member": "role", "value": "viewer"}, {"role": None}, {"role": None}),
    ({"op": "default", "member": "a.b.c", "value": [1]}, {"a": {"x": 1}}, {"a": {"x": 1, "b": {"c": [1]}}}),
    ({"op": "default", "member": "a.b", "value": 1}, {"a": "text"}, {"a": "text"}),
    ({"op": "default", "member": "a.b", "value": 1}, {"a": None}, {"a": None}),
    ({"op": "default", "member": "a", "value": None}, {}, {"a": None}),
    # drop
    ({"op": "drop", "member": "x"}, {"x": 1, "y": 2}, {"y": 2}),
    ({"op": "drop", "member": "x"}, {"y": 2}, {"y": 2}),
    ({"op": "drop", "member": "a.x"}, {"a": {"x": 1}}, {"a": {}}),
    ({"op": "drop", "member": "a.x"}, {"a": [{"x": 1}]}, {"a": [{"x": 1}]}),
    # map
    ({"op": "map", "member": "r", "values": {"1": "admin"}}, {"r": 1}, {"r": "admin"}),
    ({"op": "map", "member": "r", "values": {"1": "admin"}}, {"r": "1"}, {"r": "admin"}),
    ({"op": "map", "member": "r", "values": {"1": "admin"}}, {"r": 2}, {"r": 2}),
    ({"op": "map", "member": "r", "values": {"1": "admin"}}, {"r": [1]}, {"r": [1]}),
    ({"op": "map", "member": "r", "values": {"1": "admin"}}, {"r": True}, {"r": True}),
    ({"op": "map", "member": "r", "values": {"1": "admin"}}, {}, {}),
    ({"op": "map", "member": "r", "values": {"1": "admin"}, "otherwise": None}, {"r": 2}, {"r": None}),
    ({"op": "map", "member": "r", "values": {}, "otherwise": {"a": []}}, {"r": [1]}, {"r": {"a": []}}),
    ({"op": "map", "member": "r", "values": {"1": "admin"}, "otherwise": 0}, {}, {}),
    ({"op": "map", "member": "r", "values": {"null": 1, "true": 2, "1.5": 3}}, {"r": None}, {"r": 1}),
    ({"op": "map", "member": "r", "values": {"null": 1, "true": 2, "1.5": 3}}, {"r": True}, {"r": 2}),
    ({"op": "map", "member": "r", "values": {"null": 1, "true": 2, "1.5": 3}}, {"r": 1.5}, {"r": 3}),
)


@pytest.mark.parametrize(("operation", "payload", "expected"), OPERATIONS)
def test_an_operation_does_what_it_says(
    operation: dict[str, Any], payload: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = copy.deepcopy(payload)

    assert upcast_by([operation], payload) == expected
    assert payload == before


def test_operations_are_done_in_their_order() -> None:
    operations: list[dict[str, Any]] = [
        {"op": "default", "member": "role", "value": "1"},
        {"op": "map", "member": "role", "values": {"1": "admin"}},
        {"op": "move", "from": "role", "to": "access.role"},
    ]

    assert upcast_by(operations, {}) == {"access": {"role": "admin"}}
    assert upcast_by([], {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "default", "member": "list", "value": []},
        {"op": "map", "member": "list", "values": {"1": []}},
        {"op": "map", "member": "list", "values": {}, "otherwise": []},
    ],
)
def test_a_declared_value_is_put_in_as_a_copy(operation: dict[str, Any]) -> None:
    payload = {} if operation["op"] == "default" else {"list": 1}
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, [operation])

    upcasters.upcast(record_of(payload)).payload["list"].append("changed by a reader")

    assert upcasters.upcast(record_of(payload)).payload == {"list": []}


def test_a_declaration_is_its_own_once_made() -> None:
    operation: dict[str, Any] = {"op": "default", "member": "list", "value": [1]}
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, [operation])

    operation["value"].append(2)

    assert upcasters.upcast(record_of({})).payload == {"list": [1]}


def test_a_move_that_would_nest_too_deep_is_an_error_at_the_record() -> None:
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, [{"op": "move", "from": "x", "to": "a.b"}])

    assert upcasters.upcast(record_of({"x": nested(DEPTH_MAX - 3)})).payload == {"a": {"b": nested(DEPTH_MAX - 3)}}
    with pytest.raises(RejectedError, match=r"position 17: .*nested deeper than 31 levels"):
        upcasters.upcast(record_of({"x": nested(DEPTH_MAX - 2)}))


BAD_OPERATIONS: Final[tuple[tuple[Any, str], ...]] = (
    ({}, "operations"),
    ("drop", "operations"),
    ([None], "operations/0/op"),
    ([["drop"]], "operations/0/op"),
    ([{}], "operations/0/op"),
    ([{"op": "remove", "member": "x"}], "operations/0/op"),
    ([{"op": ["drop"], "member": "x"}], "operations/0/op"),
    ([{"op": "drop"}], "operations/0"),
    ([{"op": "drop", "member": "a", "to": "b"}], "operations/0/to"),
    ([{"op": "drop", "member": "a"}, {"op": "drop", "member": 7}], "operations/1/member"),
    ([{"op": "drop", "member": ""}], "operations/0/member"),
    ([{"op": "drop", "member": "a..b"}], "operations/0/member"),
    ([{"op": "drop", "member": '"\\ud800"'}], "operations/0/member"),
    ([{"op": "drop", "member": ".".join("a" * DEPTH_MAX)}], "operations/0/member"),
    ([{"op": "rename", "member": "a", "to": "b.c"}], "operations/0/to"),
    ([{"op": "rename", "member": "a", "to": "a"}], "operations/0/to"),
    ([{"op": "move", "from": "a.b", "to": 'a."b"'}], "operations/0/to"),
    ([{"op": "move", "member": "a", "to": "b"}], "operations/0"),
    ([{"op": "default", "member": "a"}], "operations/0"),
    ([{"op": "default", "member": "a", "value": 2**53}], "operations/0/value"),
    ([{"op": "default", "member": "a", "value": {1, 2}}], "operations/0/value"),
    ([{"op": "default", "member": ".".join("a" * 31), "value": []}], "operations/0/value"),
    ([{"op": "map", "member": "a", "values": []}], "operations/0/values"),
    ([{"op": "map", "member": "a", "values": {}, "else": 1}], "operations/0/else"),
    ([{"op": "drop", "member": "a"}] * (upcast.OPERATIONS_MAX + 1), "operations"),
    ([{"op": "default", "member": "a", "value": "x" * upcast.DECLARATION_BYTES_MAX}], "operations"),
)


@pytest.mark.parametrize(("operations", "place"), BAD_OPERATIONS)
def test_a_bad_declaration_is_refused_at_its_place_and_changes_nothing(operations: Any, place: str) -> None:
    upcasters = Upcasters()
    fingerprint = upcasters.fingerprint

    with pytest.raises(RejectedError) as caught:
        upcasters.declare("user.created", 1, operations)

    assert caught.value.place == place
    assert upcasters.fingerprint == fingerprint
    record = record_of({"a": 1})
    assert upcasters.upcast(record) is record


JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2).map(lambda number: round(number, 2))
    | st.text("ab.", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "op", "member", "to"]), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS: Final = st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON, max_size=3)
WORDS: Final = st.sampled_from(["a", "b", "c", "a.b", "b.a.c", "", "..", 'a."', 7, None])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"op": st.sampled_from(["rename", "move", "default", "drop", "map", "x"])},
            optional={"member": WORDS, "from": WORDS, "to": WORDS, "value": JSON, "values": JSON, "otherwise": JSON},
        )
        | JSON,
        max_size=4,
    ),
    OBJECTS,
)
def test_any_declaration_is_taken_or_refused_and_what_is_taken_gives_a_payload(operations: Any, payload: Any) -> None:
    try:
        given_payload = record_of(payload).payload
        result = upcast_by(operations, payload)
    except RejectedError:
        return
    assert record_of(result).payload == result
    assert given_payload == record_of(payload).payload


# ------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize("event_type", ["", "user.*", "a b", None, 7, "a" * 201])
def test_a_step_is_for_one_event_type(event_type: Any) -> None:
    with pytest.raises(RejectedError, match="is not an event type"):
        Upcasters().register(event_type, 1, lambda payload: payload)


@pytest.mark.parametrize("version", [0, -1, True, "1", None, 1.0, 2**53 - 1])
def test_a_step_begins_at_a_version_that_another_can_follow(version: Any) -> None:
    with pytest.raises(RejectedError, match="from_version"):
        Upcasters().declare("user.created", version, [])


def test_a_step_is_a_function() -> None:
    with pytest.raises(RejectedError, match="a dict is not a function"):
        Upcasters().register("user.created", 1, {})  # type: ignore[arg-type]


def test_there_is_one_step_from_each_version() -> None:
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, [])
    before = upcasters.fingerprint

    with pytest.raises(ConflictError, match=r"user\.created has an upcaster from version 1 already"):
        upcasters.register("user.created", 1, lambda payload: payload)
    with pytest.raises(ConflictError):
        upcasters.declare("user.created", 1, [{"op": "drop", "member": "x"}])

    assert upcasters.fingerprint == before


def test_the_steps_of_a_type_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcast, "STEPS_MAX", 2)
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, [])
    upcasters.declare("user.created", 2, [])

    with pytest.raises(RejectedError, match="2 upcasters, which is the most"):
        upcasters.declare("user.created", 3, [])


def test_the_fingerprint_is_that_of_what_was_declared_in_any_order_and_spelling() -> None:
    drop, role = {"op": "drop", "member": "x"}, {"op": "default", "member": "a", "value": 1}
    one, other = Upcasters(), Upcasters()
    one.declare("t.a", 1, [drop])
    one.declare("t.b", 2, [role])
    one.declare("t.b", 10, [drop])
    other.declare("t.b", 10, [drop])
    other.declare("t.b", 2, [dict(reversed(role.items()))])
    other.declare("t.a", 1, [drop])

    assert one.fingerprint == other.fingerprint
    assert one.fingerprint is not None
    assert len(bytes.fromhex(one.fingerprint)) == 32


def test_every_declaration_has_a_fingerprint_of_its_own() -> None:
    drop = {"op": "drop", "member": "x"}
    prints = {Upcasters().fingerprint}
    for event_type, version, operations in (
        ("t", 1, []),
        ("t", 2, []),
        ("u", 1, []),
        ("t", 1, [drop]),
        ("t", 1, [drop, drop]),
    ):
        upcasters = Upcasters()
        upcasters.declare(event_type, version, operations)
        prints.add(upcasters.fingerprint)

    assert len(prints) == 6


def test_a_python_step_leaves_no_fingerprint() -> None:
    upcasters = Upcasters()
    upcasters.declare("user.created", 1, [])
    upcasters.register("user.created", 2, lambda payload: payload)

    assert upcasters.fingerprint is None


# ---------------------------------------------------------------------------------------------- documents

PATHS: Final = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3)


@given(OBJECTS, PATHS, JSON)
def test_a_member_that_was_put_in_is_there_and_can_be_taken_out(
    document: dict[str, Any], parts: list[str], value: Any
) -> None:
    before = copy.deepcopy(document)

    changed = with_member(document, parts, value)

    assert member_at(changed, parts) == value
    assert member_at(without_member(changed, parts), parts) is ABSENT
    assert document == before
    assert without_member(document, parts) is document or member_at(document, parts) is not ABSENT


@given(JSON, JSON)
def test_two_values_are_the_same_exactly_when_their_canonical_bytes_are(old: Any, new: Any) -> None:
    old, new = (decode(json.dumps(value).encode()) for value in (old, new))

    assert is_same(old, new) == (rfc8785.dumps(old) == rfc8785.dumps(new))
    assert is_same(old, copied(old))


def test_true_is_not_one_however_deep() -> None:
    assert not is_same(True, 1)
    assert not is_same({"a": [0]}, {"a": [False]})
    assert is_same({"a": [0, None, "x"]}, {"a": [0.0, None, "x"]})


APPENDIX_A: Final = (
    # RFC 7396 appendix A: the target, the patch, the result.
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
)


@pytest.mark.parametrize(("target", "patch", "result"), APPENDIX_A)
def test_a_merge_patch_does_what_the_rfc_prints(target: str, patch: str, result: str) -> None:
    assert merge_patch(json.loads(target), json.loads(patch)) == json.loads(result)


def test_a_merge_patch_changes_neither_of_the_two() -> None:
    target, patch = {"a": {"b": {"c": 1}}}, {"a": {"b": {"d": {"e": None}}}}

    assert merge_patch(target, patch) == {"a": {"b": {"c": 1, "d": {}}}}
    assert target == {"a": {"b": {"c": 1}}}
    assert patch == {"a": {"b": {"d": {"e": None}}}}


def test_one_object_of_what_is_derived_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcast, "CHILDREN_MAX", 3)

    assert merge_patch({"a": 1, "b": 2}, {"c": 3}) == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(RejectedError, match="more than 3 members in one object"):
        merge_patch({"a": 1, "b": 2, "c": 3}, {"d": 4})
