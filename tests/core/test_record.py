"""The record: built by splicing, read byte for byte, and nothing near it taken for one."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.content import Content
from tallystick.core.record import (
    NO_HASH,
    Record,
    body_format,
    check_ledger_name,
    record_hash,
    signed_part,
    split_signature,
    with_signature,
)
from tallystick.errors import RejectedError
from tallystick.limits import DEPTH_MAX, INTEGER_MAX, NAME_CHARACTERS_MAX, RECORD_BYTES_MAX

GOOD: Final[dict[str, Any]] = {
    "actor": {"id": "jane"},
    "context": {"ip": "10.0.0.1"},
    "entity_id": "user-1",
    "entity_version": 3,
    "epoch": 2,
    "event_type": "user.created",
    "event_version": 1,
    "id": "id-1",
    "labels": ["phi"],
    "ledger": "acme/eu",
    "occurred_at": None,
    "payload": {"a": [1, 2.5, "é\u2028\u0085"]},
    "position": 17,
    "prev_hash": "0123456789abcdef" * 4,
    "recorded_at": "2026-03-15T09:30:00.000000Z",
    "signature": "fedcba9876543210" * 4,
}
LINE: Final[bytes] = rfc8785.dumps(GOOD)


def line_of(**changes: Any) -> bytes:
    return bytes(rfc8785.dumps({**GOOD, **changes}))


def test_splicing_gives_the_canonical_bytes_of_all_sixteen_members() -> None:
    content = Content.of(GOOD)
    form = body_format(ledger=GOOD["ledger"], epoch=GOOD["epoch"], recorded_at=GOOD["recorded_at"])

    body = form % (content.before, 3, content.middle, content.after, 17, GOOD["prev_hash"].encode())

    assert with_signature(body, GOOD["signature"].encode()) == LINE
    unsigned = {name: value for name, value in GOOD.items() if name != "signature"}
    assert signed_part(body) == rfc8785.dumps(unsigned)


def test_a_record_is_read_as_it_stands() -> None:
    record = Record.parse(LINE)

    assert record.line == LINE
    assert record.members == GOOD
    assert record.hash == record_hash(LINE) == hashlib.sha256(LINE).digest()
    assert {name: getattr(record, name) for name in ("actor", "context", "entity_id", "entity_version", "id")} == {
        name: GOOD[name] for name in ("actor", "context", "entity_id", "entity_version", "id")
    }
    assert (record.event_type, record.event_version, record.labels) == ("user.created", 1, ["phi"])
    assert (record.occurred_at, record.payload, record.position) == (None, GOOD["payload"], 17)
    assert record.recorded_at == GOOD["recorded_at"]
    assert split_signature(LINE) == (record.signed_part, GOOD["signature"].encode())


@pytest.mark.parametrize("odd", [',"signature":"', '"signature":"x"', "}", "%b%d%%"])
def test_a_payload_that_looks_like_a_part_of_a_record_misleads_nobody(odd: str) -> None:
    members = {**GOOD, "payload": {odd: odd}, "entity_id": odd, "context": {"signature": odd, "z": [odd]}}
    content = Content.of(members)
    form = body_format(ledger="l", epoch=0, recorded_at=GOOD["recorded_at"])

    body = form % (content.before, 1, content.middle, content.after, 1, NO_HASH.encode())
    line = with_signature(body, b"0" * 64)

    record = Record.parse(line)
    assert record.payload == {odd: odd}
    assert record.signed_part == signed_part(body)
    assert split_signature(line)[1] == b"0" * 64


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("entity_version", 1),
        ("epoch", 0),
        ("position", INTEGER_MAX),
        ("prev_hash", NO_HASH),
        ("occurred_at", "2026-03-15t09:30:00+01:00"),
        ("actor", None),
        ("labels", []),
        ("event_type", "tallystick.epoch.opened"),
        ("entity_id", "tallystick.ledger"),
        ("recorded_at", "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_what_a_record_may_hold_is_read(member: str, value: Any) -> None:
    assert Record.parse(line_of(**{member: value})).members[member] == value


def test_the_genesis_alone_has_a_signature_of_64_bytes() -> None:
    assert Record.parse(line_of(position=0, signature="ab" * 64)).position == 0
    with pytest.raises(RejectedError, match="128 in the genesis"):
        Record.parse(line_of(position=0))


BAD: Final[tuple[tuple[str, Any], ...]] = (
    ("actor", "jane"),
    ("actor", {}),
    ("actor", {"id": []}),
    ("context", None),
    ("entity_id", ""),
    ("entity_version", 0),
    ("entity_version", "1"),
    ("entity_version", True),
    ("epoch", -1),
    ("epoch", None),
    ("epoch", False),
    ("epoch", "0"),
    ("event_type", "a b"),
    ("event_version", 0),
    ("event_version", True),
    ("id", 7),
    ("labels", ["a", "a"]),
    ("labels", {}),
    ("labels", None),
    ("ledger", None),
    ("ledger", 7),
    ("occurred_at", "now"),
    ("occurred_at", 7),
    ("payload", []),
    ("position", -1),
    ("position", 1.5),
    ("position", None),
    ("position", True),
    ("prev_hash", "0" * 63),
    ("prev_hash", "0" * 65),
    ("prev_hash", "A" * 64),
    ("prev_hash", "g" * 64),
    ("prev_hash", "0" * 63 + "\n"),
    ("prev_hash", None),
    ("recorded_at", "2026-03-15T09:30:00Z"),
    ("recorded_at", "2026-03-15T09:30:00.000000+00:00"),
    ("recorded_at", "2026-02-30T09:30:00.000000Z"),
    ("recorded_at", None),
    ("signature", ""),
    ("signature", "0" * 63),
    ("signature", "0" * 65),
    ("signature", "0" * 127),
    ("signature", "0" * 128),
    ("signature", "A" * 64),
    ("signature", None),
    ("more", 1),
)


@pytest.mark.parametrize(("member", "value"), BAD)
def test_a_record_with_a_member_that_may_not_be_is_refused_at_that_member(member: str, value: Any) -> None:
    with pytest.raises(RejectedError) as caught:
        Record.parse(line_of(**{member: value}))

    assert caught.value.place.split("/")[1] == member


@pytest.mark.parametrize("member", sorted(GOOD))
def test_a_record_that_lacks_a_member_is_refused(member: str) -> None:
    members = {name: value for name, value in GOOD.items() if name != member}

    with pytest.raises(RejectedError, match=f"lacks {member}"):
        Record.parse(bytes(rfc8785.dumps(members)))


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"text"', b"{}", b""])
def test_a_document_that_is_no_object_of_ours_is_no_record(data: bytes) -> None:
    with pytest.raises(RejectedError):
        Record.parse(data)


@pytest.mark.parametrize(
    "line",
    [
        LINE + b"\n",
        b" " + LINE,
        LINE.replace(b'"epoch":2', b'"epoch": 2'),
        LINE.replace(b'"epoch":2', b'"epoch":2.0'),
        LINE.replace(b'"epoch":2', b'"epoch":02'),
        LINE.replace(b'"epoch":2', b'"epoch":2e0'),
        LINE.replace(b'"epoch":2', b'"epoch":2,"epoch":2'),
        LINE.replace(b'"epoch":2', b'"epoch":1,"epoch":2'),
        LINE.replace(b"2.5", b"2.50"),
        LINE.replace(b"2.5", b"-0"),
        LINE.replace(b"jane", b"j\\u0061ne"),
        LINE.replace(b"acme/eu", b"acme\\/eu"),
        LINE.replace("é".encode(), b"\\u00e9"),
        LINE.replace(b'"id":"id-1"', b'"id":"id-1" '),
        b"\xef\xbb\xbf" + LINE,
        LINE[:-1],
        LINE.replace(b"\n", b"\r\n") + b"\r\n",
        json.dumps(GOOD).encode(),
        json.dumps(dict(reversed(GOOD.items())), separators=(",", ":"), ensure_ascii=False).encode(),
    ],
)
def test_another_spelling_of_the_same_record_is_no_record(line: bytes) -> None:
    with pytest.raises(RejectedError):
        Record.parse(line)


def test_composed_and_decomposed_letters_make_different_records() -> None:
    composed, decomposed = line_of(payload={"n": "é"}), line_of(payload={"n": "e\u0301"})

    assert Record.parse(composed).hash != Record.parse(decomposed).hash


def test_the_longest_record_is_read_and_one_byte_more_is_refused() -> None:
    room = RECORD_BYTES_MAX - len(line_of(payload={"x": ""}))

    assert len(Record.parse(line_of(payload={"x": "x" * room})).line) == RECORD_BYTES_MAX
    with pytest.raises(RejectedError, match=f"{RECORD_BYTES_MAX + 1} bytes"):
        Record.parse(line_of(payload={"x": "x" * (room + 1)}))


def test_the_deepest_record_is_read_and_one_level_more_is_refused() -> None:
    def nested(levels: int) -> bytes:
        marked = line_of(payload={"x": "mark"})
        return marked.replace(b'"mark"', b"[" * (levels - 2) + b"]" * (levels - 2))

    Record.parse(nested(DEPTH_MAX))
    for levels in (DEPTH_MAX + 1, 10_000, 30_000):
        with pytest.raises(RejectedError, match=r"deeper than|not canonical"):
            Record.parse(nested(levels))


@given(st.integers(0, len(LINE) - 1), st.integers(1, 255))
def test_a_changed_byte_gives_another_record_or_none(at: int, change: int) -> None:
    line = bytearray(LINE)
    line[at] ^= change

    try:
        record = Record.parse(bytes(line))
    except RejectedError:
        return
    assert record.line != LINE
    assert record.hash != record_hash(LINE)
    assert rfc8785.dumps(record.members) == record.line


@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_or_are_refused(data: bytes) -> None:
    with pytest.raises(RejectedError):
        Record.parse(data)


@pytest.mark.parametrize(
    "name", ["a", "A9", "audit.example/tenant/t1", "a_b-c.d", "a.", "0", "a" * NAME_CHARACTERS_MAX]
)
def test_a_ledger_name_of_plain_letters_is_taken(name: str) -> None:
    check_ledger_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "a/", "/a", "a//b", ".a", "-a", "_a", "a/.b", "a/../b", "a b", "a+b", "é", "a\n", "a\x00"),
        *('a"b', "a\\b", "a%b", "a" * (NAME_CHARACTERS_MAX + 1)),
    ],
)
def test_a_ledger_name_that_would_need_escaping_somewhere_is_refused(name: str) -> None:
    with pytest.raises(RejectedError) as caught:
        check_ledger_name(name, place="name")

    assert caught.value.place == "name"
    assert "letters, digits" in caught.value.cure
