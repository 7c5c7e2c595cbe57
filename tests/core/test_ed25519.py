"""Public keys of Ed25519: nobody's key is a point of small order, or one in a second spelling."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.cosignature import WitnessKey
from tallystick.core.ed25519 import check_public_key, signature_holds
from tallystick.core.note import VerifierKey
from tallystick.errors import RejectedError
from vectors import edwards
from vectors.cases_keys import BY_ANYBODY, NEUTRAL, no_keys

NO_KEYS = [pytest.param(key, id=name) for name, _, key in no_keys()]


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_is_made_is_a_key(seed: bytes) -> None:
    check_public_key(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw(), place="key")


@given(st.binary(min_size=32, max_size=32))
def test_bytes_are_a_key_if_they_are_a_point_in_its_one_form(data: bytes) -> None:
    number = int.from_bytes(data, "little")
    y, odd = number & (1 << 255) - 1, number >> 255 == 1
    found = edwards.point(y, odd=odd) if y < edwards.P else None
    is_key = found is not None and found not in edwards.SMALL and edwards.encoded(found) == data

    try:
        check_public_key(data, place="key")
        taken = True
    except RejectedError:
        taken = False
    assert taken == is_key


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_key_is_refused_where_keys_are_made_and_holds_for_nothing(key: bytes) -> None:
    for kind in (VerifierKey, WitnessKey):
        with pytest.raises(RejectedError, match="Ed25519 public key"):
            kind("example.org/log", key)
    assert not signature_holds(key, BY_ANYBODY, b"anything")


def test_a_point_of_small_order_would_let_anybody_sign() -> None:
    # What the refusal is for: the primitive beneath takes it.

    Ed25519PublicKey.from_public_bytes(NEUTRAL).verify(BY_ANYBODY, b"anything")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    with pytest.raises(RejectedError, match="32 bytes"):
        check_public_key(bytes(length), place="key")
    assert not signature_holds(bytes(length), bytes(64), b"")
