"""Acceptance: what becomes of an event on its way in, by whichever door, and what is refused and why."""

from __future__ import annotations

import datetime
import json
from collections import OrderedDict, UserDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from tallystick.core.event import Event
from tallystick.core.record import Record, body_format, with_signature
from tallystick.errors import RejectedError
from tallystick.ids import IdMaker, split_made
from tallystick.limits import (
    DEPTH_MAX,
    DRAFT_BYTES_MAX,
    ENTITY_ID_CHARACTERS_MAX,
    EVENT_ID_CHARACTERS_MAX,
    EVENT_TYPE_CHARACTERS_MAX,
    INPUT_BYTES_MAX,
    INTEGER_MAX,
    LABEL_CHARACTERS_MAX,
    LABELS_MAX,
    NAME_CHARACTERS_MAX,
    RECORD_BYTES_MAX,
)
from tallystick.write.accept import Acceptor
from tallystick.write.draft import BROUGHT, Draft

MADE: Final = "00000000-0000-8000-8000-000000000000"
"""The first id of a maker whose randomness is all zeros."""

PADDING: Final = b" " * 20_000
"""White space enough that no short way is taken for an event of any kind."""


def acceptor(principal: str | None = None) -> Acceptor:
    return Acceptor(IdMaker(bytes), principal=principal)


def accept(event: Any, principal: str | None = None) -> Draft:
    return acceptor(principal).accept(event)


def members_of(draft: Draft) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(b"{" + b",".join(draft.content) + b"}")
    return members


def refusal(event: Any) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        accept(event)
    return caught.value


FULL: Final[dict[str, Any]] = {
    "event_type": "user.permission_changed",
    "entity_id": "user-456",
    "payload": {"field": "role", "old_value": "viewer", "new_value": "é", "n": 1e-6},
    "actor": {"id": "admin-jane", "type": "user", "name": "Jane", "identity_provider": "okta"},
    "context": {"ip": "10.0.1.42", "grants": ["a", {"b": 2}], "anything": "else"},
    "labels": ["phi", "pci"],
    "occurred_at": "2026-03-15T10:30:00+01:00",
    "id": "order-17",
    "event_version": 3,
    "expected_version": 4,
}
LEAST: Final[dict[str, Any]] = {"event_type": "user.created", "entity_id": "user-1"}


def with_(**changes: Any) -> dict[str, Any]:
    return {**LEAST, **changes}


# ------------------------------------------------------------------------------------------- three doors


def test_all_nine_members_are_kept_as_they_were_sent() -> None:
    draft = accept(FULL)

    assert members_of(draft) == {name: value for name, value in FULL.items() if name != "expected_version"}
    assert (draft.entity_id, draft.id, draft.made, draft.expected_version) == (
        "user-456",
        "order-17",
        BROUGHT,
        4,
    )


def test_what_is_left_out_gets_its_default() -> None:
    draft = accept(LEAST)

    assert members_of(draft) == {
        "actor": None,
        "context": {},
        "entity_id": "user-1",
        "event_type": "user.created",
        "event_version": 1,
        "id": MADE,
        "labels": [],
        "occurred_at": None,
        "payload": {},
    }
    assert (draft.id, draft.made, draft.expected_version) == (MADE, 0, "any")


@pytest.mark.parametrize("members", [LEAST, FULL, with_(actor="jane"), with_(payload={"a": {"b": []}})])
def test_bytes_a_mapping_and_an_event_give_the_same_draft(members: dict[str, Any]) -> None:
    drafts = [
        accept(form)
        for form in (
            members,
            MappingProxyType(members),
            UserDict(members),
            OrderedDict(members),
            Event(**members),
            json.dumps(members).encode(),
            json.dumps(members, indent=3, ensure_ascii=False).encode(),
            json.dumps(dict(reversed(members.items()))).encode(),
        )
    ]

    assert drafts == [drafts[0]] * len(drafts)


def test_an_event_takes_any_mapping_and_sequence_as_its_parts() -> None:
    event = Event(
        event_type="t",
        entity_id="e",
        payload=MappingProxyType({"a": 1}),
        actor=MappingProxyType({"id": "jane"}),
        context=UserDict({"ip": "1.1.1.1"}),
        labels=("phi",),
        id="x",
    )

    plain = {"payload": {"a": 1}, "actor": {"id": "jane"}, "context": {"ip": "1.1.1.1"}, "labels": ["phi"]}
    assert accept(event) == accept({"event_type": "t", "entity_id": "e", "id": "x", **plain})


def test_ids_are_made_one_after_another_and_only_for_those_who_bring_none() -> None:
    accepting = acceptor()

    drafts = [accepting.accept(event) for event in (LEAST, FULL, json.dumps(LEAST).encode(), with_(labels=["a"]))]

    assert [split_made(draft.id) for draft in drafts] == [
        (MADE[:24], 0),
        None,
        (MADE[:24], 1),
        (MADE[:24], 2),
    ]
    assert [draft.made for draft in drafts] == [0, BROUGHT, 1, 2]


@pytest.mark.parametrize("event_id", [MADE, "5", "ünï", "a/b?c=d&e", "0" * EVENT_ID_CHARACTERS_MAX])
def test_an_id_that_was_brought_is_looked_up_later_whatever_its_form(event_id: str) -> None:
    draft = accept(with_(id=event_id))

    assert (draft.id, draft.made) == (event_id, BROUGHT)


def test_a_draft_is_immune_to_what_the_caller_does_afterwards() -> None:
    payload: dict[str, Any] = {"list": [1, 2], "nested": {"a": 1}}
    context: dict[str, Any] = {"ip": "10.0.0.1"}
    labels = ["phi"]
    members = with_(payload=payload, context=context, labels=labels, actor={"id": "jane"})
    draft = accept(members)
    before = members_of(draft)

    payload["list"].append(3)
    payload["nested"]["a"] = 2
    context.clear()
    labels[0] = "none"
    members["entity_id"] = "other"

    assert members_of(draft) == before
    assert draft.entity_id == "user-1"


def test_accepting_changes_nothing_of_the_callers() -> None:
    members = with_(payload={"actor": {"id": "x"}}, expected_version="none")
    copy = json.loads(json.dumps(members))

    accept(members)

    assert members == copy


# ---------------------------------------------------------------------------------------------- the actor


@pytest.mark.parametrize(
    ("members", "principal", "actor"),
    [
        ({"actor": "jane"}, "service", {"id": "jane"}),
        ({"actor": {"id": "jane", "name": "Jane"}}, "service", {"id": "jane", "name": "Jane"}),
        ({"actor": "jane", "payload": {"actor": "joe"}}, "service", {"id": "jane"}),
        ({"payload": {"actor": "joe"}}, "service", {"id": "joe"}),
        ({"payload": {"actor": {"id": "joe", "type": "user"}}}, "service", {"id": "joe", "type": "user"}),
        ({"actor": None, "payload": {"actor": "joe"}}, "service", {"id": "joe"}),
        ({"payload": {"actor": 7}}, "service", {"id": "service"}),
        ({"payload": {"actor": None}}, "service", {"id": "service"}),
        ({"payload": {"actor": {"name": "no id"}}}, "service", {"id": "service"}),
        ({"payload": {"actor": ["joe"]}}, None, None),
        ({}, "service", {"id": "service"}),
        ({}, None, None),
        ({"actor": None}, None, None),
    ],
)
@pytest.mark.parametrize("padding", [b"", PADDING])
def test_the_actor_is_the_one_named_else_the_payloads_else_the_principal(
    members: dict[str, Any], principal: str | None, actor: Any, padding: bytes
) -> None:
    draft = accept(json.dumps(with_(**members)).encode() + padding, principal)

    assert members_of(draft)["actor"] == actor
    assert members_of(draft)["payload"] == members.get("payload", {})


# ------------------------------------------------------------------------------------- limits, at the edge

AT_THE_EDGE: Final[tuple[tuple[str, Callable[[int], Any], int], ...]] = (
    ("event_type", lambda length: "t" * length, EVENT_TYPE_CHARACTERS_MAX),
    ("entity_id", lambda length: "é" * length, ENTITY_ID_CHARACTERS_MAX),
    ("id", lambda length: "é" * length, EVENT_ID_CHARACTERS_MAX),
    ("labels", lambda count: [f"l{number}" for number in range(count)], LABELS_MAX),
    ("labels", lambda length: ["l" * length], LABEL_CHARACTERS_MAX),
    ("actor", lambda length: "j" * length, ENTITY_ID_CHARACTERS_MAX),
    ("actor", lambda length: {"id": "j", "name": "n" * length}, ENTITY_ID_CHARACTERS_MAX),
    ("event_version", lambda version: version, INTEGER_MAX),
    ("expected_version", lambda version: version, INTEGER_MAX),
)


@pytest.mark.parametrize("padding", [b"", PADDING])
@pytest.mark.parametrize(("member", "make", "limit"), AT_THE_EDGE)
def test_exactly_the_limit_is_taken_and_one_past_it_refused_at_its_place(
    member: str, make: Callable[[int], Any], limit: int, padding: bytes
) -> None:
    accept(json.dumps(with_(**{member: make(limit)})).encode() + padding)

    error = refusal(json.dumps(with_(**{member: make(limit + 1)})).encode() + padding)

    assert error.place.startswith(f"/{member}")


def test_the_deepest_payload_is_taken_and_one_level_more_refused() -> None:
    def nested(levels: int) -> bytes:
        # The event is the first level and its payload the second.
        inner = b"[" * (levels - 2) + b"]" * (levels - 2)
        return b'{"event_type":"t","entity_id":"e","payload":{"a":%b}}' % inner

    accept(nested(DEPTH_MAX))

    assert f"deeper than {DEPTH_MAX}" in refusal(nested(DEPTH_MAX + 1)).problem


def test_the_longest_input_is_read_and_one_byte_more_is_not() -> None:
    data = json.dumps(LEAST).encode()

    accept(data.ljust(INPUT_BYTES_MAX))

    assert f"{INPUT_BYTES_MAX + 1} bytes" in refusal(data.ljust(INPUT_BYTES_MAX + 1)).problem


def largest() -> dict[str, Any]:
    """An event whose canonical parts have exactly as many bytes as may be."""
    size = len(b"".join(accept(with_(payload={"x": ""})).content))
    return with_(payload={"x": "x" * (DRAFT_BYTES_MAX - size)})


def test_the_largest_event_is_taken_and_one_byte_more_refused_with_the_cure() -> None:
    event = largest()
    accept(event)

    event["payload"]["x"] += "x"

    assert f"{DRAFT_BYTES_MAX + 1} canonical bytes" in refusal(event).problem
    assert "SHA-256" in refusal(event).cure


def test_the_largest_event_fits_a_record_with_the_longest_of_everything_the_sealer_adds() -> None:
    content = accept(largest()).content

    form = body_format(ledger="n" * NAME_CHARACTERS_MAX, epoch=INTEGER_MAX, recorded_at="2026-03-15T09:30:00.000000Z")
    body = form % (content.before, INTEGER_MAX, content.middle, content.after, INTEGER_MAX, b"0" * 64)
    line = with_signature(body, b"0" * 64)

    assert len(line) <= RECORD_BYTES_MAX
    assert Record.parse(line).line == line


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("event", "place", "problem"),
    [
        ({}, "/event_type", "no event_type"),
        ({"event_type": "t"}, "/entity_id", "no entity_id"),
        (with_(user="jane"), "/user", "no such member"),
        (with_(position=7), "/position", "no such member"),
        (with_(signature="00"), "/signature", "no such member"),
        (with_(Payload={}), "/Payload", "no such member"),
        (with_(event_type="tallystick.epoch.opened"), "/event_type", "the ledger's own"),
        (with_(entity_id="tallystick.ledger"), "/entity_id", "the ledger's own"),
        (with_(event_type=""), "/event_type", "not an event type"),
        (with_(event_type="a..b"), "/event_type", "not an event type"),
        (with_(event_type="a b"), "/event_type", "not an event type"),
        (with_(event_type="a\n"), "/event_type", "not an event type"),
        (with_(event_type=7), "/event_type", "not an event type"),
        (with_(event_type=None), "/event_type", "not an event type"),
        (with_(entity_id=""), "/entity_id", "is empty"),
        (with_(entity_id=7), "/entity_id", "not a string"),
        (with_(entity_id=None), "/entity_id", "not a string"),
        (with_(entity_id="a\x00b"), "/entity_id", "control character"),
        (with_(entity_id="a\x7f"), "/entity_id", "control character"),
        (with_(id=""), "/id", "is empty"),
        (with_(id=None), "/id", "not a string"),
        (with_(id=17), "/id", "not a string"),
        (with_(id="a\n"), "/id", "control character"),
        (with_(payload=None), "/payload", "not an object"),
        (with_(payload=[1]), "/payload", "not an object"),
        (with_(payload="text"), "/payload", "not an object"),
        (with_(context=[]), "/context", "not an object"),
        (with_(context=None), "/context", "not an object"),
        (with_(labels="phi"), "/labels", "not an array"),
        (with_(labels={}), "/labels", "not an array"),
        (with_(labels=None), "/labels", "not an array"),
        (with_(labels=[""]), "/labels/0", "is empty"),
        (with_(labels=["a", 7]), "/labels/1", "not a string"),
        (with_(labels=["a", "a"]), "/labels", "twice"),
        (with_(labels=[["a"], ["a"]]), "/labels/0", "not a string"),
        (with_(actor=7), "/actor", "not an object"),
        (with_(actor=[]), "/actor", "not an object"),
        (with_(actor={}), "/actor", "no id"),
        (with_(actor={"name": "Jane"}), "/actor", "no id"),
        (with_(actor={"id": "jane", "role": "x"}), "/actor/role", "no such member"),
        (with_(actor={"id": 7}), "/actor/id", "not a string"),
        (with_(actor={"id": ["jane"]}), "/actor/id", "not a string"),
        (with_(actor={"id": {"a": 1}}), "/actor/id", "not a string"),
        (with_(actor={"id": "jane", "name": None}), "/actor/name", "not a string"),
        (with_(actor=""), "/actor/id", "is empty"),
        (with_(event_version=0), "/event_version", "not an integer"),
        (with_(event_version="1"), "/event_version", "not an integer"),
        (with_(event_version=True), "/event_version", "not an integer"),
        (with_(event_version=1.5), "/event_version", "not an integer"),
        (with_(event_version=None), "/event_version", "not an integer"),
        (with_(occurred_at="2026-03-15T09:30:00"), "/occurred_at", "zone"),
        (with_(occurred_at="2026-02-30T09:30:00Z"), "/occurred_at", "not a real time"),
        (with_(occurred_at="yesterday"), "/occurred_at", "zone"),
        (with_(occurred_at=1_700_000_000), "/occurred_at", "not a string"),
        (with_(expected_version=-1), "/expected_version", "not an expected version"),
        (with_(expected_version="some"), "/expected_version", "not an expected version"),
        (with_(expected_version=True), "/expected_version", "not an expected version"),
        (with_(expected_version=None), "/expected_version", "not an expected version"),
        (with_(expected_version=[]), "/expected_version", "not an expected version"),
        (with_(expected_version=1.5), "/expected_version", "not an expected version"),
        (with_(payload={"n": 2**53}), "/payload/n", "2^53"),
        (with_(payload={"a": ["\ud800"]}), "/payload/a/0", "lone surrogate"),
    ],
)
@pytest.mark.parametrize("padding", [None, b"", PADDING], ids=["mapping", "bytes", "long"])
def test_a_bad_event_is_refused_at_its_place(
    event: dict[str, Any], place: str, problem: str, padding: bytes | None
) -> None:
    error = refusal(event if padding is None else json.dumps(event).encode() + padding)

    assert error.place == place
    assert problem in error.problem


@pytest.mark.parametrize("event", [b"[]", b"7", b'"text"', b"null", b"", b"{", b'{"event_type":"t"}{}'])
def test_a_document_that_is_no_object_is_refused(event: bytes) -> None:
    assert refusal(event).cure


@pytest.mark.parametrize(
    "event",
    [
        None,
        7,
        "text",
        '{"event_type":"t","entity_id":"e"}',
        [LEAST],
        [("event_type", "t")],
        bytearray(b"{}"),
        object(),
    ],
)
def test_a_python_value_that_is_no_event_is_refused_as_input_and_not_as_a_mistake_of_ours(event: Any) -> None:
    assert refusal(event).cure


@pytest.mark.parametrize(
    ("member", "value", "place"),
    [
        ("payload", None, "/payload"),
        ("payload", [("a", 1)], "/payload"),
        ("payload", 7, "/payload"),
        ("payload", {"at": datetime.date(2026, 3, 15)}, "/payload/at"),
        ("actor", 7, "/actor"),
        ("actor", [("id", "jane")], "/actor"),
        ("context", [("ip", "10.0.0.1")], "/context"),
        ("context", "text", "/context"),
        ("labels", "phi", "/labels"),
        ("labels", 7, "/labels"),
        ("labels", {"phi": 1}, "/labels"),
        ("event_type", None, "/event_type"),
        ("entity_id", 7, "/entity_id"),
        ("occurred_at", datetime.datetime(2026, 3, 15, tzinfo=datetime.UTC), "/occurred_at"),
        ("id", 7, "/id"),
        ("event_version", "2", "/event_version"),
        ("expected_version", "2", "/expected_version"),
    ],
)
def test_an_event_value_with_a_part_of_the_wrong_type_is_refused_and_not_converted(
    member: str, value: Any, place: str
) -> None:
    error = refusal(Event(**with_(**{member: value})))

    assert error.place == place


def test_a_refused_event_makes_no_id() -> None:
    accepting = acceptor()
    for event in (with_(payload=7), with_(labels="x"), b"[", with_(entity_id="tallystick.x")):
        with pytest.raises(RejectedError):
            accepting.accept(event)

    assert accepting.accept(LEAST).made <= 4  # a counter may be lost, an id is never given twice
    assert accepting.accept(LEAST).made > accepting.accept(FULL).made


# ------------------------------------------------------------------- whichever way it took, the same result

ODD: Final[st.SearchStrategy[Any]] = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        1.0,
        1.5,
        1e-6,
        1e21,
        2**53,
        "",
        "x",
        "a:b",
        "\x00",
        "\u2028",
        "😀",
        [],
        {},
        [[]],
        {"": {}},
    ]
)
TEXTS: Final = st.sampled_from(["jane", "é", "a:b", 'q"q', "\\", "\x1f", "\x7f", "\u200b", "😀", "", "x" * 600])
KEYS: Final = st.sampled_from(["jane", "é", "a:b", 'q"q', "\\", "😀", "\u200b", "x" * 100])
GOOD: Final = st.fixed_dictionaries(
    {"event_type": st.sampled_from(["t", "a.b-c_D.9"]), "entity_id": KEYS},
    optional={
        "payload": st.dictionaries(TEXTS, ODD.filter(lambda value: value != 2**53) | TEXTS, max_size=4)
        | st.fixed_dictionaries({"actor": KEYS | ODD | st.fixed_dictionaries({"id": KEYS})}),
        "actor": st.none() | KEYS | st.fixed_dictionaries({"id": KEYS}, optional={"type": KEYS, "name": KEYS}),
        "context": st.dictionaries(TEXTS, TEXTS, max_size=3),
        "labels": st.lists(KEYS, max_size=3, unique=True),
        "occurred_at": st.sampled_from(["2026-03-15T09:30:00Z", "2026-03-15t09:30:00+01:00", None]),
        "id": KEYS,
        "event_version": st.integers(1, 3),
        "expected_version": st.sampled_from(["any", "none", "exists", 0, 7]),
    },
)
WRONG: Final = st.dictionaries(
    st.sampled_from([*FULL, "x"]),
    ODD | TEXTS | st.dictionaries(st.sampled_from(["id", "x"]), ODD),
    max_size=1,
)
MEMBERS: Final = st.one_of(GOOD, GOOD, st.builds(lambda good, wrong: {**good, **wrong}, GOOD, WRONG))


@st.composite
def sent(draw: st.DrawFn) -> bytes:
    """An event as JSON, written in one of several ways, and perhaps with a member twice or a byte changed."""
    data = json.dumps(
        draw(MEMBERS),
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    ).encode()
    match draw(st.integers(0, 5)):
        case 0:
            name = draw(st.sampled_from(["event_type", "payload", "actor", "labels", "context", "id", "x"]))
            data = data[:-1] + f',"{name}":{json.dumps(draw(ODD | TEXTS))}}}'.encode()
        case 1:
            at = draw(st.integers(0, len(data)))
            data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


def outcome(data: bytes, principal: str | None) -> Draft | tuple[str, str, str]:
    try:
        return accept(data, principal)
    except RejectedError as error:
        return error.problem, error.place, error.cure


@given(sent(), st.sampled_from([None, "service"]))
@example(b'{"event_type":"t","entity_id":"e","payload":{"x":"\\u0041","n":1e-6}}', None)
@example(b'{"event_type":"t","entity_id":"e","payload":{"n":1e-6}}', None)
@example(b'{"event_type":"t","entity_id":"e","payload":{"a":1},"payload":{}}', None)
@example(b'{"event_type":"t","entity_id":"e","actor":{"id":"a","id":"b"}}', None)
@example(b'{"event_type":"t","entity_id":"e","event_version":1.0}', None)
@example(b'{"event_type":"t","entity_id":"e","event_version":2.0,"payload":{"actor":""}}', "service")
@example(b'{"event_type":"t","entity_id":"e","payload":{"actor":null}}', "service")
@example(b'{"event_type":"t","entity_id":"e","payload":{"actor":null}}', None)
def test_the_short_way_and_the_long_way_come_to_the_same(data: bytes, principal: str | None) -> None:
    # Given an event, and the same one with so much white space behind it that no short way is taken.
    short, long = outcome(data, principal), outcome(data + PADDING, principal)

    if isinstance(short, Draft):
        assert short == long
    else:
        assert isinstance(long, tuple)
        assert short[1:] == long[1:]


@given(sent())
def test_what_is_accepted_is_canonical_to_the_byte_and_valid_as_a_record(data: bytes) -> None:
    draft = outcome(data, "service")
    if not isinstance(draft, Draft):
        return

    before, middle, after = draft.content
    line = with_signature(
        body_format(ledger="l", epoch=0, recorded_at="2026-03-15T09:30:00.000000Z")
        % (before, 1, middle, after, 5, b"0" * 64),
        b"0" * 64,
    )

    assert rfc8785.dumps(json.loads(line)) == line
    record = Record.parse(line)
    assert (record.id, record.entity_id) == (draft.id, draft.entity_id)


@given(MEMBERS)
def test_a_mapping_and_its_json_come_to_the_same(members: Mapping[str, Any]) -> None:
    try:
        from_mapping: Draft | None = accept(members)
    except RejectedError:
        from_mapping = None
    try:
        from_bytes: Draft | None = accept(json.dumps(members).encode())
    except RejectedError:
        from_bytes = None

    assert from_mapping == from_bytes
