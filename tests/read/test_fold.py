"""Folds: how a state follows from events, judged by a twin that keeps everything and shares nothing."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import upcast
from tallystick.core.record import Record
from tallystick.core.upcast import ABSENT
from tallystick.errors import ConflictError, RejectedError
from tallystick.limits import DEPTH_MAX, INTEGER_MAX
from tallystick.read import fold
from tallystick.read.fold import Changed, Folded, Folding, Folds, Snapshot

MEMBERS: Final[dict[str, Any]] = {
    "actor": {"id": "jane"},
    "context": {"ip": "10.0.0.1"},
    "entity_id": "user-1",
    "entity_version": 1,
    "epoch": 0,
    "event_type": "user.changed",
    "event_version": 1,
    "id": "id-1",
    "labels": ["phi"],
    "ledger": "acme",
    "occurred_at": None,
    "payload": {},
    "position": 1,
    "prev_hash": "0" * 64,
    "recorded_at": "2026-03-15T09:30:00.000000Z",
    "signature": "0" * 64,
}


def record_of(payload: dict[str, Any], *, position: int = 1, **members: Any) -> Record:
    return Record.parse(bytes(rfc8785.dumps({**MEMBERS, "payload": payload, "position": position, **members})))


def folded_by(folds: Folds, *payloads: dict[str, Any], state: dict[str, Any] | None = None) -> Folded:
    """The fold of these payloads at positions 1, 2, 3 …"""
    folded = Folded(state or {}, dict.fromkeys(state or {}, 0))
    for position, payload in enumerate(payloads, 1):
        folded = folds.apply(folded, record_of(payload, position=position))
    return folded


def declared(*steps: dict[str, Any]) -> Folds:
    folds = Folds()
    folds.declare("user.changed", [*steps])
    return folds


# ---------------------------------------------------------------------------------------- the default fold


def test_a_payload_is_a_merge_patch() -> None:
    folded = folded_by(Folds(), {"name": "Jane", "tags": {"a": 1}}, {"tags": {"b": 2}}, {"name": None, "x": [None]})

    assert folded.state == {"tags": {"a": 1, "b": 2}, "x": [None]}
    assert folded.made_by == {"tags": 2, "x": 3}


def test_a_change_event_sets_the_member_that_it_names() -> None:
    change = {"field": "role", "old_value": "viewer", "new_value": "editor"}
    folded = folded_by(Folds(), {"name": "Jane"}, change, {"field": "a.b", "new_value": {"c": None}})

    assert folded.state == {"name": "Jane", "role": "editor", "a.b": {"c": None}}
    assert folded.made_by == {"name": 1, "role": 2, "a.b": 3}


def test_a_change_to_null_removes_the_member_as_a_merge_does() -> None:
    assert folded_by(Folds(), {"field": "role", "new_value": None}, state={"role": 1, "a": 2}) == Folded(
        {"a": 2}, {"a": 0}
    )
    assert folded_by(Folds(), {"role": None}, state={"role": 1, "a": 2}) == Folded({"a": 2}, {"a": 0})


@pytest.mark.parametrize("payload", [{"field": "role"}, {"field": 7, "new_value": 1}, {"new_value": 1}])
def test_what_only_resembles_a_change_event_is_merged(payload: dict[str, Any]) -> None:
    assert folded_by(Folds(), payload).state == payload


def test_the_ledgers_own_events_are_folded_by_default_too() -> None:
    record = record_of({"epoch": 3}, event_type="tallystick.epoch.opened")

    assert Folds().apply(Folded(), record).state == {"epoch": 3}


def test_a_member_that_keeps_its_value_keeps_its_maker() -> None:
    folded = folded_by(Folds(), {"a": {"b": [1, 2.5]}, "c": 1}, {"a": {"b": [1, 2.5]}}, {"c": True}, {"c": True})

    assert folded.made_by == {"a": 1, "c": 3}
    assert folded.state["c"] is True


def test_a_folding_says_what_each_event_changed() -> None:
    folding = Folding(Folds())

    assert folding.add(record_of({"a": 1, "b": 2})) == [Changed("a", ABSENT, 1), Changed("b", ABSENT, 2)]
    assert folding.add(record_of({"a": 1, "b": None})) == [Changed("b", 2, ABSENT)]
    assert folding.add(record_of({"a": {"x": None}, "z": None})) == [Changed("a", 1, {})]
    assert folding.add(record_of({})) == []


def test_what_was_folded_before_does_not_change_with_what_is_folded_next() -> None:
    first = folded_by(Folds(), {"a": {"b": {"c": 1}}})
    before = copy.deepcopy(first)

    folding = Folding(Folds(), first)
    folding.add(record_of({"a": {"b": {"c": 2}}, "d": 1}))
    second = folding.folded()
    folding.add(record_of({"a": None}))

    assert first == before
    assert second.state == {"a": {"b": {"c": 2}}, "d": 1}


# --------------------------------------------------------------------------------------- the fold of a type


def test_the_most_exact_fold_wins() -> None:
    folds = Folds()
    for pattern in ("a.*", "a.b.*", "a.b.c"):
        folds.declare(pattern, {"fold": "set", "members": {"by": {"value": pattern}}})

    chosen = {
        event_type: folds.apply(Folded(), record_of({}, event_type=event_type)).state.get("by")
        for event_type in ("a.b.c", "a.b.c.d", "a.b.x", "a.b", "a.x", "a", "ab.c", "x")
    }

    assert chosen == {
        "a.b.c": "a.b.c",
        "a.b.c.d": "a.b.*",
        "a.b.x": "a.b.*",
        "a.b": "a.*",
        "a.x": "a.*",
        "a": None,
        "ab.c": None,
        "x": None,
    }


def test_a_fold_registered_later_holds_for_types_that_were_seen_before() -> None:
    folds = Folds()
    assert folded_by(folds, {"a": 1}).state == {"a": 1}

    folds.declare("user.*", {"fold": "ignore"})
    assert folded_by(folds, {"a": 1}).state == {}

    folds.declare("user.changed", {"fold": "merge"})
    assert folded_by(folds, {"a": 1}).state == {"a": 1}


def test_any_number_of_event_types_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "_CHOSEN_MAX", 3)
    folds = Folds()
    folds.declare("t.*", {"fold": "count", "member": "n"})

    folded = Folded()
    for number in range(10):
        folded = folds.apply(folded, record_of({}, event_type=f"t.x{number}"))

    assert folded.state == {"n": 10}


@pytest.mark.parametrize("pattern", ["", "*", ".*", "a.*.*", "a*", "*.a", "a b", None, 7, "a" * 201 + ".*"])
def test_a_fold_is_for_a_type_or_a_prefix(pattern: Any) -> None:
    with pytest.raises(RejectedError, match="names no event types"):
        Folds().declare(pattern, {"fold": "ignore"})


def test_there_is_one_fold_for_each() -> None:
    folds = Folds()
    folds.register("a.*", lambda state, _: state)

    with pytest.raises(ConflictError, match=r"a\.\* has a fold already"):
        folds.declare("a.*", {"fold": "ignore"})


def test_the_folds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "FOLDS_MAX", 1)
    folds = Folds()
    folds.declare("a", {"fold": "ignore"})

    with pytest.raises(RejectedError, match="there are 1 folds, which is the most"):
        folds.declare("b", {"fold": "ignore"})


# -------------------------------------------------------------------------------------------- Python folds


def test_a_python_fold_may_change_the_state_it_is_given() -> None:
    folds = Folds()

    def keep(state: dict[str, Any], record: Record) -> dict[str, Any]:
        state.setdefault("seen", []).append(record.position)
        state.pop("gone", None)
        return state

    folds.register("user.changed", keep)
    start = Folded({"seen": [0], "gone": 1, "still": {"a": 1}}, {"seen": 0, "gone": 0, "still": 0})
    before = copy.deepcopy(start)

    assert folds.apply(start, record_of({}, position=5)) == Folded(
        {"seen": [0, 5], "still": {"a": 1}}, {"seen": 5, "still": 0}
    )
    assert start == before


def test_what_a_python_fold_gave_is_its_own_no_longer() -> None:
    folds, kept = Folds(), {"list": [1]}
    folds.register("user.changed", lambda _, __: kept)

    folded = folded_by(folds, {})
    kept["list"].append(2)

    assert folded.state == {"list": [1]}


def test_null_is_a_value_in_what_a_python_fold_gives() -> None:
    folds = Folds()
    folds.register("user.changed", lambda _, __: {"a": None})

    assert folded_by(folds, {}, {}) == Folded({"a": None}, {"a": 1})


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (None, "it gave a NoneType, not an object"),
        ({"a": object()}, "/state/a: a Python object has no JSON form"),
        ({"a": float("inf")}, "/state/a: "),
        ({2: 2}, "the member name 2 is not a string"),
    ],
)
def test_a_python_fold_that_gives_no_state_is_named(result: Any, problem: str) -> None:
    folds = Folds()
    folds.register("user.*", lambda _, __: result)

    with pytest.raises(RejectedError) as caught:
        folded_by(folds, {})

    assert caught.value.place == "position 1"
    assert "the fold of user.changed failed" in caught.value.problem
    assert problem in caught.value.problem


def test_a_python_fold_that_raises_is_named_and_the_run_stands_where_it_stood() -> None:
    folds = Folds()
    folds.register("user.broken", lambda state, _: {"a": state["none"]})
    folding = Folding(folds)
    folding.add(record_of({"a": 1}, position=1))

    with pytest.raises(RejectedError, match=r"position 7: the fold of user\.broken failed: KeyError: 'none'"):
        folding.add(record_of({}, position=7, event_type="user.broken"))

    assert folding.folded() == Folded({"a": 1}, {"a": 1})


def test_a_fold_is_a_function() -> None:
    with pytest.raises(RejectedError, match="a str is not a function"):
        Folds().register("a", "merge")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ declared folds

DECLARED: Final[tuple[tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]], ...]] = (
    # The declaration, the state before, the payload, the state after.
    ({"fold": "merge"}, {"a": 1}, {"field": "x", "new_value": 1}, {"a": 1, "field": "x", "new_value": 1}),
    (
        {"fold": "merge", "from": "payload.changes"},
        {"a": 1, "b": 1},
        {"changes": {"a": None, "c": 2}},
        {"b": 1, "c": 2},
    ),
    ({"fold": "merge", "from": "payload.changes"}, {"a": 1}, {"changes": [1]}, {"a": 1}),
    ({"fold": "merge", "from": "payload.changes"}, {"a": 1}, {}, {"a": 1}),
    ({"fold": "merge", "from": "context"}, {}, {}, {"ip": "10.0.0.1"}),
    ({"fold": "change"}, {"a": 1}, {"field": "a", "new_value": 2, "b": 3}, {"a": 2}),
    ({"fold": "change"}, {"a": 1}, {"b": 3}, {"a": 1}),
    ({"fold": "ignore"}, {"a": 1}, {"a": 2}, {"a": 1}),
    ({"fold": "clear"}, {"a": 1, "b": {}}, {"a": 2}, {}),
    ({"fold": "set", "members": {"role": "payload.new", "by": "actor.id"}}, {}, {"new": 1}, {"role": 1, "by": "jane"}),
    ({"fold": "set", "members": {"role": "payload.new"}}, {"role": 1}, {}, {"role": 1}),
    ({"fold": "set", "members": {"role": "payload.new"}}, {"role": 1}, {"new": None}, {}),
    ({"fold": "set", "members": {"a.b": "payload.x"}}, {"a": {"c": 1}}, {"x": [2]}, {"a": {"c": 1, "b": [2]}}),
    ({"fold": "set", "members": {"a.b": "payload.x"}}, {"a": "text"}, {"x": 2}, {"a": {"b": 2}}),
    ({"fold": "set", "members": {"a.b": "payload.x"}}, {"a": {"b": 1}}, {"x": None}, {"a": {}}),
    ({"fold": "set", "members": {"a": "payload.x.y"}}, {}, {"x": [{"y": 1}]}, {}),
    ({"fold": "set", "members": {"a": {"value": {"value": 1}}}}, {}, {}, {"a": {"value": 1}}),
    ({"fold": "set", "members": {"a": {"value": None}}}, {"a": 1}, {}, {}),
    ({"fold": "set", "members": {"at": "recorded_at"}}, {}, {}, {"at": "2026-03-15T09:30:00.000000Z"}),
    ({"fold": "set", "members": {'"a.b"': "labels"}}, {}, {}, {"a.b": ["phi"]}),
    ({"fold": "set", "members": {}}, {"a": 1}, {}, {"a": 1}),
    ({"fold": "remove", "members": ["a", "b.c", "x"]}, {"a": 1, "b": {"c": 1, "d": 2}}, {}, {"b": {"d": 2}}),
    ({"fold": "remove", "members": ["a.b", "a.c"]}, {"a": {"b": 1, "c": 2, "d": 3}}, {}, {"a": {"d": 3}}),
    ({"fold": "remove", "members": ["a.b"]}, {"a": "text"}, {}, {"a": "text"}),
    ({"fold": "remove", "members": []}, {"a": 1}, {}, {"a": 1}),
    ({"fold": "append", "member": "notes", "from": "payload.text"}, {}, {"text": "x"}, {"notes": ["x"]}),
    ({"fold": "append", "member": "notes", "from": "payload.text"}, {"notes": [1]}, {"text": [2]}, {"notes": [1, [2]]}),
    ({"fold": "append", "member": "notes", "from": "payload.text"}, {"notes": [1]}, {}, {"notes": [1]}),
    ({"fold": "append", "member": "notes", "from": "payload.text"}, {"notes": "x"}, {"text": None}, {"notes": [None]}),
    ({"fold": "append", "member": "a.b", "from": "payload.text"}, {"a": 1}, {"text": "x"}, {"a": {"b": ["x"]}}),
    ({"fold": "count", "member": "n"}, {}, {}, {"n": 1}),
    ({"fold": "count", "member": "n"}, {"n": 41}, {}, {"n": 42}),
    ({"fold": "count", "member": "n"}, {"n": True}, {}, {"n": 1}),
    ({"fold": "count", "member": "n"}, {"n": INTEGER_MAX}, {}, {"n": INTEGER_MAX}),
    ({"fold": "count", "member": "a.n"}, {"a": {"n": 1, "b": 2}}, {}, {"a": {"n": 2, "b": 2}}),
    ([], {"a": 1}, {"a": 2}, {"a": 1}),
    ([{"fold": "count", "member": "n"}, {"fold": "count", "member": "n"}], {"n": 1}, {}, {"n": 3}),
    ([{"fold": "clear"}, {"fold": "merge"}], {"a": 1, "b": 2}, {"a": 1}, {"a": 1}),
    ([{"fold": "merge"}, {"fold": "remove", "members": ["b"]}], {"b": 2}, {"a": 1, "b": 3}, {"a": 1}),
)


@pytest.mark.parametrize(("declaration", "state", "payload", "expected"), DECLARED)
def test_a_declared_fold_does_what_it_says(
    declaration: Any, state: dict[str, Any], payload: dict[str, Any], expected: dict[str, Any]
) -> None:
    folds = Folds()
    folds.declare("user.changed", declaration)
    before, record = copy.deepcopy(state), record_of(payload)

    folded = folds.apply(Folded(state, dict.fromkeys(state, 0)), record)

    assert folded.state == expected
    unchanged = {name for name in expected if name in before and json.dumps(before[name]) == json.dumps(expected[name])}
    assert folded.made_by == {name: 0 if name in unchanged else 1 for name in expected}
    assert state == before
    assert record.payload == payload


def test_a_state_that_comes_back_to_what_it_was_was_not_changed() -> None:
    folds = declared({"fold": "clear"}, {"fold": "merge"})

    assert folded_by(folds, {"a": 1, "b": 2}, {"a": 1}) == Folded({"a": 1}, {"a": 1})


def test_literal_values_are_put_in_as_copies() -> None:
    folds = declared({"fold": "set", "members": {"a": {"value": []}}})

    folded_by(folds, {}).state["a"].append("changed by a reader")

    assert folded_by(folds, {}).state == {"a": []}


def test_arrays_and_objects_inside_a_state_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcast, "CHILDREN_MAX", 2)
    append = declared({"fold": "append", "member": "notes", "from": "payload.text"})

    assert folded_by(append, {"text": 1}, {"text": 2}).state == {"notes": [1, 2]}
    with pytest.raises(RejectedError, match=r"position 3: .*more than 2 elements in one array"):
        folded_by(append, {"text": 1}, {"text": 2}, {"text": 3})
    with pytest.raises(RejectedError, match=r"position 2: .*more than 2 members in one object"):
        folded_by(Folds(), {"a": {"b": 1, "c": 2}}, {"a": {"d": 3}})


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("declaration", "levels"),
    [
        ({"fold": "set", "members": {"a.b.c": "payload.x"}}, DEPTH_MAX - 4),
        ({"fold": "append", "member": "a.b", "from": "payload.x"}, DEPTH_MAX - 4),
    ],
)
def test_a_state_is_no_deeper_than_a_payload_may_be(declaration: dict[str, Any], levels: int) -> None:
    folds = declared(declaration)
    record_of(folded_by(folds, {"x": nested(levels)}).state)

    with pytest.raises(RejectedError, match="nested deeper than 31 levels"):
        folded_by(folds, {"x": nested(levels + 1)})


BAD: Final[tuple[tuple[Any, str], ...]] = (
    (None, "fold/0/fold"),
    ("merge", "fold/0/fold"),
    ({}, "fold/0/fold"),
    ({"fold": "keep"}, "fold/0/fold"),
    ({"fold": ["merge"]}, "fold/0/fold"),
    ([{"fold": "merge"}, []], "fold/1/fold"),
    ({"fold": "merge", "form": "payload"}, "fold/0/form"),
    ({"fold": "merge", "from": "changes"}, "fold/0/from"),
    ({"fold": "merge", "from": "signature"}, "fold/0/from"),
    ({"fold": "merge", "from": None}, "fold/0/from"),
    ({"fold": "set"}, "fold/0"),
    ({"fold": "set", "members": ["a"]}, "fold/0/members"),
    ({"fold": "set", "members": {"": "payload"}}, "fold/0/members/"),
    ({"fold": "set", "members": {"a": 7}}, "fold/0/members/a"),
    ({"fold": "set", "members": {"a": {"values": 1}}}, "fold/0/members/a"),
    ({"fold": "set", "members": {"a": {"value": 1, "x": 1}}}, "fold/0/members/a/x"),
    ({"fold": "set", "members": {".".join("a" * 31): {"value": []}}}, "fold/0/members/" + ".".join("a" * 31)[:60]),
    ({"fold": "remove", "members": {"a": 1}}, "fold/0/members"),
    ({"fold": "remove", "members": ["a", None]}, "fold/0/members/1"),
    ({"fold": "append", "member": "a"}, "fold/0"),
    ({"fold": "append", "member": ".".join("a" * 31), "from": "payload.x"}, "fold/0/member"),
    ({"fold": "count", "member": ""}, "fold/0/member"),
    ({"fold": "count", "member": "a", "by": 2}, "fold/0/by"),
    ({"fold": "set", "members": {"a": {"value": {1}}}}, "fold/members/a/value"),
    ([{"fold": "ignore"}] * (upcast.OPERATIONS_MAX + 1), "fold"),
    ({"fold": "set", "members": {"a": {"value": "x" * upcast.DECLARATION_BYTES_MAX}}}, "fold"),
)


@pytest.mark.parametrize(("declaration", "place"), BAD)
def test_a_bad_declaration_is_refused_at_its_place_and_changes_nothing(declaration: Any, place: str) -> None:
    folds = Folds()
    fingerprint = folds.fingerprint

    with pytest.raises(RejectedError) as caught:
        folds.declare("user.changed", declaration)

    assert caught.value.place == place
    assert folds.fingerprint == fingerprint
    assert folded_by(folds, {"a": 1}).state == {"a": 1}


# ---------------------------------------------------------------------------------------------- fingerprints


def test_the_fingerprint_is_that_of_what_was_declared_in_any_order() -> None:
    one, other = Folds(), Folds()
    one.declare("a.*", {"fold": "merge", "from": "payload.x"})
    one.declare("a.b", [])
    other.declare("a.b", [])
    other.declare("a.*", {"from": "payload.x", "fold": "merge"})

    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Folds().fingerprint
    other.declare("c", [])
    assert one.fingerprint != other.fingerprint


def test_a_python_fold_leaves_no_fingerprint() -> None:
    folds = Folds()
    folds.declare("a", [])
    folds.register("b", lambda state, _: state)

    assert folds.fingerprint is None


# --------------------------------------------------------------------------------------------- the twin

JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1e21, 1e-7, "", "x", "é", "\U0001f600"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=3),
    max_leaves=6,
)
CHANGES: Final = st.fixed_dictionaries({"field": st.sampled_from(["a", "b", "c"]), "new_value": JSON})
PAYLOADS: Final = st.dictionaries(st.sampled_from(["a", "b", "c", "field"]), JSON, max_size=3) | CHANGES


def twin_merge(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2, line by line, on deep copies."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    target = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = twin_merge(target.get(name), value)
    return target


def twin_fold(payloads: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, int]]:
    """Every state is made anew, and compared with the one before by its canonical bytes."""
    state: dict[str, Any] = {}
    made_by: dict[str, int] = {}
    for position, payload in enumerate(payloads, 1):
        is_change = isinstance(payload.get("field"), str) and "new_value" in payload
        new = copy.deepcopy(state)
        if is_change and payload["new_value"] is None:
            new.pop(payload["field"], None)
        elif is_change:
            new[payload["field"]] = copy.deepcopy(payload["new_value"])
        else:
            new = twin_merge(state, payload)
        made_by = {
            name: made_by[name]
            if name in state and rfc8785.dumps(state[name]) == rfc8785.dumps(new[name])
            else position
            for name in new
        }
        state = new
    return state, made_by


@given(st.lists(PAYLOADS, max_size=12))
def test_the_default_fold_says_what_the_twin_says_and_changes_no_record(payloads: list[dict[str, Any]]) -> None:
    records = [record_of(payload, position=position) for position, payload in enumerate(payloads, 1)]
    folding = Folding(Folds())
    on_the_way = []

    for record in records:
        folding.add(record)
        on_the_way.append((folding.folded(), twin_fold(payloads[: record.position])))

    for folded, (state, made_by) in on_the_way:
        assert rfc8785.dumps(folded.state) == rfc8785.dumps(state)
        assert folded.made_by == made_by
    for record in records:
        assert rfc8785.dumps(record.members) == record.line


STEPS: Final = st.lists(
    st.sampled_from(
        [
            step
            for declaration, _, _, _ in DECLARED
            for step in (declaration if isinstance(declaration, list) else [declaration])
        ]
    ),
    max_size=4,
)


@given(
    STEPS,
    st.lists(
        st.dictionaries(st.sampled_from(["a", "x", "text", "new", "changes", "field", "new_value"]), JSON, max_size=4),
        max_size=6,
    ),
)
def test_any_declared_folds_give_states_that_a_payload_may_be_and_change_no_record(
    steps: list[dict[str, Any]], payloads: list[dict[str, Any]]
) -> None:
    folds = declared(*steps)
    records = [record_of(payload, position=position) for position, payload in enumerate(payloads, 1)]

    folded = Folded()
    for record in records:
        folded = folds.apply(folded, record)

    assert folded.made_by.keys() == folded.state.keys()
    assert record_of(folded.state).payload == folded.state
    for record in records:
        assert rfc8785.dumps(record.members) == record.line


# --------------------------------------------------------------------------------------------- snapshots


def snapshot_of(folded: Folded) -> Snapshot:
    return Snapshot(
        entity_id="user-ä",
        version=7,
        position=19,
        folded=folded,
        fingerprint="abc",
        begins_at_version=3,
        events=5,
    )


@given(st.lists(PAYLOADS, max_size=6))
def test_a_snapshot_is_read_as_it_is_written_and_folded_on_to_the_same(payloads: list[dict[str, Any]]) -> None:
    half = len(payloads) // 2
    folded = folded_by(Folds(), *payloads[:half])

    data = snapshot_of(folded).to_bytes()
    read = Snapshot.of_bytes(data)

    assert read == snapshot_of(folded)
    assert read is not None
    assert read.to_bytes() == data
    whole, resumed = Folding(Folds(), folded), Folding(Folds(), read.folded)
    for payload in payloads[half:]:
        whole.add(record_of(payload, position=90))
        resumed.add(record_of(payload, position=90))
    assert rfc8785.dumps(whole.state) == rfc8785.dumps(resumed.state)
    assert whole.made_by == resumed.made_by


def test_the_deepest_state_is_kept_in_a_snapshot() -> None:
    folded = folded_by(Folds(), nested(DEPTH_MAX - 1))

    assert Snapshot.of_bytes(snapshot_of(folded).to_bytes()) == snapshot_of(folded)


WRITTEN: Final = snapshot_of(Folded({"a": {"b": [1, 2.5, "é"]}}, {"a": 4})).to_bytes()


@given(st.integers(0, len(WRITTEN) - 1), st.integers(1, 255))
def test_a_snapshot_with_a_changed_byte_is_none(at: int, change: int) -> None:
    data = bytearray(WRITTEN)
    data[at] ^= change

    assert Snapshot.of_bytes(bytes(data)) is None


@given(st.binary(max_size=200) | st.integers(0, len(WRITTEN) - 1).map(lambda end: WRITTEN[:end]))
def test_any_other_bytes_are_no_snapshot(data: bytes) -> None:
    assert Snapshot.of_bytes(data) is None
    assert Snapshot.of_bytes(WRITTEN + data) == (None if data else Snapshot.of_bytes(WRITTEN))


@pytest.mark.parametrize("body", ["{}", "[]", "1", '{"entity_id":7}', "[" * 100_000, "", '"\\ud800"', "é"])
def test_a_whole_snapshot_of_another_form_is_none(body: str) -> None:
    digest = hashlib.sha256(body.encode()).hexdigest()

    assert Snapshot.of_bytes(f'{{"digest":"{digest}","snapshot":{body}}}'.encode()) is None
