"""The ledger's own events: what is written is read back, and nothing else is read as one of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.record import EPOCH_CLOSED, EPOCH_OPENED, KEY_ROTATED, LEDGER_CREATED, NO_HASH, Record
from tallystick.core.system import (
    SYSTEM_ENTITY,
    EpochClosed,
    EpochOpened,
    Genesis,
    KeyRotated,
    system_members,
)
from tallystick.errors import RejectedError
from tallystick.limits import NAME_CHARACTERS_MAX

ROOT, CHECKPOINT, EVIDENCE, NEW = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3, 4))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


GENESIS: Final = Genesis(
    ledger="acme",
    origin="audit.example/acme",
    nonce=bytes(range(32)),
    root_key=public(ROOT),
    checkpoint_key=public(CHECKPOINT),
    evidence_key=public(EVIDENCE),
    epoch_records_max=1_000_000,
    epoch_seconds_max=86_400,
)
GENESIS_RECORD: Final = Record.parse(GENESIS.seal(ROOT, event_id="id-0", recorded_at="2026-03-15T09:30:00.000000Z"))
ROTATED: Final = KeyRotated.sign("checkpoint", ledger="acme", old=CHECKPOINT, new=NEW)

Value: TypeAlias = Genesis | EpochOpened | EpochClosed | KeyRotated


def record_of(event_type: str, payload: Any, **changes: Any) -> Record:
    members = system_members(event_type, payload, event_id="id-7")
    sealed: dict[str, Any] = {
        "entity_version": 7,
        "epoch": 0,
        "ledger": "acme",
        "position": 7,
        "prev_hash": "ab" * 32,
        "recorded_at": "2026-03-15T09:30:00.000000Z",
        "signature": "cd" * 32,
    }
    return Record.parse(bytes(rfc8785.dumps({**members, **sealed, **changes})))


def genesis_with(**changes: Any) -> Record:
    members = {**json.loads(GENESIS_RECORD.line), **changes}
    return Record.parse(bytes(rfc8785.dumps(members)))


READERS: Final[dict[str, tuple[Callable[[Any], Record], Callable[[Record], Any], Any]]] = {
    "genesis": (lambda payload: genesis_with(payload=payload), Genesis.of, GENESIS),
    "opened": (
        lambda payload: record_of(EPOCH_OPENED, payload),
        EpochOpened.of,
        EpochOpened(3, bytes(range(32))),
    ),
    "closed": (lambda payload: record_of(EPOCH_CLOSED, payload), EpochClosed.of, EpochClosed(3, 10, 17)),
    "rotated": (lambda payload: record_of(KEY_ROTATED, payload), KeyRotated.of, ROTATED),
}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_written_is_read_back(kind: str) -> None:
    write, read, value = READERS[kind]

    assert read(write(value.payload())) == value


ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 7, 2.5, 2**53 - 1, "", "x", "00", "é", [], {}, [1], {"a": 1}),
    *("AAAA", "ab" * 32, "AB" * 32, "a" * 63, " " + "ab" * 32, "ab " * 32, "checkpoint", "evidence", "root"),
)


def places(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every member of a payload, at every depth."""
    if not isinstance(value, dict):
        return []
    return [path for name in value for path in ((*at, name), *places(value[name], (*at, name)))]


def changed(payload: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    out = copy.deepcopy(payload)
    target = out
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    return out


@pytest.mark.parametrize("kind", READERS)
def test_any_other_value_in_any_one_member_is_refused_or_says_something_else(kind: str) -> None:
    write, read, original = READERS[kind]
    payload = original.payload()

    for path in places(payload):
        before: Any = payload
        for name in path:
            before = before[name]
        tried = [
            *ODD,
            *([before.upper(), before + " ", before[:-1], before + "=", f"0{before}"] if type(before) is str else []),
        ]
        for value in tried:
            if type(value) is type(before) and value == before:
                continue
            try:
                record = write(changed(payload, path, value))
                other = read(record)
            except RejectedError:
                continue
            assert other != original, (path, value)
            assert other.payload() == record.payload, (path, value)


@pytest.mark.parametrize("kind", READERS)
def test_a_member_more_or_less_is_refused(kind: str) -> None:
    write, read, original = READERS[kind]
    payload = original.payload()

    for name in payload:
        less = {other: value for other, value in payload.items() if other != name}
        with pytest.raises(RejectedError):
            read(write(less))
    for more in ("note", "zzz", "Epoch"):
        with pytest.raises(RejectedError):
            read(write({**payload, more: 1}))
    with pytest.raises(RejectedError):
        read(write({}))


@pytest.mark.parametrize("kind", READERS)
def test_a_record_of_another_type_is_refused(kind: str) -> None:
    _, read, original = READERS[kind]

    for event_type in (LEDGER_CREATED, EPOCH_OPENED, EPOCH_CLOSED, KEY_ROTATED, "user.created"):
        record = record_of(event_type, original.payload())
        if event_type == record_type(kind):
            continue
        with pytest.raises(RejectedError):
            read(record)


def record_type(kind: str) -> str:
    return {
        "genesis": LEDGER_CREATED,
        "opened": EPOCH_OPENED,
        "closed": EPOCH_CLOSED,
        "rotated": KEY_ROTATED,
    }[kind]


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(max_size=3), children, max_size=2),
    max_leaves=4,
)


@given(st.data())
def test_any_payload_is_read_to_the_byte_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(READERS)))
    write, read, original = READERS[kind]
    payload = {
        **original.payload(),
        **data.draw(st.dictionaries(st.sampled_from(sorted(original.payload())), JSON)),
    }

    try:
        record = write(payload)
        value = read(record)
    except RejectedError:
        return
    assert value.payload() == record.payload


# ---------------------------------------------------------------------------------------------- the genesis


def test_a_genesis_is_the_first_record_of_its_ledgers_own_stream() -> None:
    members = GENESIS_RECORD.members

    assert (members["position"], members["epoch"], members["entity_version"]) == (0, 0, 1)
    assert (members["entity_id"], members["prev_hash"], members["ledger"]) == (SYSTEM_ENTITY, NO_HASH, "acme")
    assert members["payload"]["retention"] is None
    assert len(members["signature"]) == 128
    assert GENESIS.verifier_key.name == GENESIS.origin


def test_a_genesis_is_signed_by_the_root_key_that_it_names() -> None:
    assert GENESIS.signature_holds(GENESIS_RECORD)
    signature = GENESIS_RECORD.members["signature"]
    for changes in (
        {"signature": signature[:-1] + ("0" if signature[-1] != "0" else "1")},
        {"signature": "00" * 64},
        {"recorded_at": "2026-03-15T09:30:00.000001Z"},
        {"id": "other"},
        {"labels": ["phi"]},
    ):
        record = genesis_with(**changes)
        assert not Genesis.of(record).signature_holds(record)
    by_another = Record.parse(GENESIS.seal(NEW, event_id="id-0", recorded_at="2026-03-15T09:30:00.000000Z"))
    assert not GENESIS.signature_holds(by_another)


@pytest.mark.parametrize(
    "changes",
    [
        *({"position": 1}, {"epoch": 1}, {"prev_hash": "ab" * 32}, {"ledger": "other"}, {"ledger": "ACME"}),
        *({"actor": {"id": "tallystick"}}, {"actor": None}, {"entity_id": "another"}),
    ],
)
def test_a_genesis_that_is_not_at_the_beginning_of_its_own_ledger_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        Genesis.of(genesis_with(**changes))


@pytest.mark.parametrize("member", ["nonce", "root_key", "evidence_key"])
@pytest.mark.parametrize("value", [b"", bytes(31), bytes(33)])
def test_a_genesis_with_a_key_of_another_length_cannot_be_made(member: str, value: bytes) -> None:
    values = {part: getattr(GENESIS, part) for part in Genesis.__slots__}

    with pytest.raises(RejectedError, match="32 bytes"):
        Genesis(**{**values, member: value})


@pytest.mark.parametrize("name", ["", "a b", "a\n", "é", "a" * (NAME_CHARACTERS_MAX + 1)])
@pytest.mark.parametrize("member", ["ledger", "origin"])
def test_a_genesis_cannot_be_made_that_nobody_could_read_back(member: str, name: str) -> None:
    values = {part: getattr(GENESIS, part) for part in Genesis.__slots__}

    with pytest.raises(RejectedError):
        Genesis(**{**values, member: name})


# --------------------------------------------------------------------------------------------- key rotation


@pytest.mark.parametrize("purpose", ["checkpoint", "evidence"])
def test_a_rotation_is_signed_by_both_keys(purpose: Any) -> None:
    rotated = KeyRotated.sign(purpose, ledger="acme", old=CHECKPOINT, new=NEW)

    assert rotated.signatures_hold()
    assert (rotated.old_key, rotated.new_key) == (public(CHECKPOINT), public(NEW))


def test_a_rotation_does_not_hold_for_anything_but_what_both_signed() -> None:
    values = {name: getattr(ROTATED, name) for name in KeyRotated.__slots__}
    swapped = {
        "old_key": ROTATED.new_key,
        "new_key": ROTATED.old_key,
        "old_signature": ROTATED.new_signature,
        "new_signature": ROTATED.old_signature,
    }
    for changes in (
        {"purpose": "evidence"},
        {"ledger": "other"},
        {"old_key": public(EVIDENCE)},
        {"new_key": public(EVIDENCE)},
        {"old_signature": ROTATED.new_signature},
        {"new_signature": ROTATED.old_signature},
        {"old_signature": b""},
        {"new_signature": bytes(64)},
        swapped,
    ):
        assert not KeyRotated(**{**values, **changes}).signatures_hold(), changes


def test_a_rotation_read_from_another_ledgers_record_does_not_hold() -> None:
    assert KeyRotated.of(record_of(KEY_ROTATED, ROTATED.payload())).signatures_hold()
    assert not KeyRotated.of(record_of(KEY_ROTATED, ROTATED.payload(), ledger="other")).signatures_hold()
