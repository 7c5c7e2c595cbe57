"""The key hierarchy: its known answers, and that every input counts."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.keys import (
    BLIND_INDEX,
    EVENT_MAC,
    HEAD_MAC,
    INDEX_MAC,
    QUEUE_MAC,
    SUBJECT_KEK,
    LedgerKeys,
    commitment,
    epoch_key,
    genesis_message,
    ledger_key,
    purpose_key,
    rotation_message,
    tagger,
)

MASTER: Final = bytes(range(32))
LEDGER: Final = ledger_key(MASTER, "acme")
MAC: Final = purpose_key(LEDGER, EVENT_MAC)


@pytest.mark.parametrize(
    ("name", "key", "known"),
    [
        ("K_ledger", LEDGER, "1a7ac30f203c24f9cf6833bc573e36010309eb244513d80ed2f96a6a8932bd23"),
        ("K_event-mac", MAC, "0195c13db1ebfd6af072a5be80a700e6c8a61a0afa11901a0b07328e0606e5d0"),
        (
            "K_subject-kek",
            purpose_key(LEDGER, SUBJECT_KEK),
            "d3a71f72f0e12d0db7373ae84fef00a8ab334ec94c9c59f3f2bf08b7efbadb4b",
        ),
        ("M_0", epoch_key(MAC, 0), "db1a135b8684a2edc16673e8c86bab2d2fdd1384da26720cfa442c737cf858fd"),
        ("M_1", epoch_key(MAC, 1), "6d9f9f7fbcd4e0400b6a16c3b62fc5153546303b37c8f60713ebcbe32d67ad00"),
        (
            "commitment of M_0",
            commitment(epoch_key(MAC, 0)),
            "d446e097c357612fb625571e298425ceaf24ba408aa7f86c3912d22d4186b676",
        ),
        (
            "commitment of M_1",
            commitment(epoch_key(MAC, 1)),
            "fbdbe4d0210a4ebd23a30357cc09884a1839095076761e5b74074653d0144578",
        ),
    ],
)
def test_a_derived_key_is_the_known_one(name: str, key: bytes, known: str) -> None:
    assert key.hex() == known, name


def test_a_signature_is_the_known_one() -> None:
    tag = tagger(epoch_key(MAC, 0))

    assert tag(b'{"position":0}') == b"84abbe69a6c44e4c9412f82ec9eb43cde40736b5a9e6501ee5cf2b2852f50fac"


@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_a_tagger_is_hmac_sha256_however_often_it_is_used(key: bytes, parts: list[bytes]) -> None:
    tag = tagger(key)

    for part in parts:
        assert tag(part).decode() == hmac.new(key, b"tallystick/v1/event\0" + part, sha256).hexdigest()


def test_ledgers_purposes_and_epochs_never_share_a_key() -> None:
    keys = [
        *(ledger_key(MASTER, name) for name in ("acme", "acm", "acme/x", "ACME")),
        ledger_key(bytes(32), "acme"),
        *(
            purpose_key(LEDGER, purpose)
            for purpose in (EVENT_MAC, SUBJECT_KEK, BLIND_INDEX, INDEX_MAC, QUEUE_MAC, HEAD_MAC)
        ),
        *(epoch_key(MAC, epoch) for epoch in (0, 1, 255, 256, 2**63)),
        *(commitment(epoch_key(MAC, epoch)) for epoch in (0, 1)),
    ]

    assert {len(key) for key in keys} == {32}
    assert len(set(keys)) == len(keys)


def test_what_is_signed_tells_its_kind_apart() -> None:
    part = b'{"a":1}'

    assert len({genesis_message(part), rotation_message(part), part}) == 3


def test_the_keys_of_a_ledger_are_derived_from_its_name_and_kept_out_of_sight() -> None:
    signing = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(4)]
    keys = LedgerKeys.derive(MASTER, "acme", root=signing[0], checkpoint=signing[1], evidence=signing[2])

    derived = {"event_mac": MAC, "index_mac": purpose_key(LEDGER, INDEX_MAC)}
    derived |= {"queue_mac": purpose_key(LEDGER, QUEUE_MAC), "head_mac": purpose_key(LEDGER, HEAD_MAC)}
    for name, key in derived.items():
        assert getattr(keys, name) == key
        assert key.hex() not in repr(keys)
        assert name not in repr(keys)
