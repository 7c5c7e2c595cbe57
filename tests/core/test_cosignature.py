"""Cosignatures: who saw a checkpoint, and when; a witness' key passes for no ledger's."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.cosignature import WitnessKey, WitnessSigner, with_cosignatures
from tallystick.core.note import Note, SignatureLine, Signer, VerifierKey, sign_note
from tallystick.errors import RejectedError, TamperError

SIGNER = WitnessSigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32))
KEY = SIGNER.witness_key
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
LINE = SIGNER.cosign(TEXT, seconds=1_679_315_147)


def test_a_cosignature_tells_when_it_was_given() -> None:
    assert KEY.verify(TEXT, LINE) == 1_679_315_147


def test_the_example_of_the_specification_is_read() -> None:
    """C2SP tlog-cosignature; its key is not given, but its form is: 4 bytes of key id, 8 of time, 64 of signature."""
    line = SignatureLine.parse(
        "\N{EM DASH} witness.example.com/w1 "
        "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA=="
    )

    assert len(line.signature) == 72
    assert int.from_bytes(line.signature[:8], "big") == 1_679_315_147


def test_another_text_or_time_is_not_what_was_cosigned() -> None:
    with pytest.raises(TamperError):
        KEY.verify(TEXT.replace("2", "3"), LINE)
    later = (1_679_315_148).to_bytes(8, "big") + LINE.signature[8:]
    with pytest.raises(TamperError):
        KEY.verify(TEXT, SignatureLine(LINE.name, LINE.key_id, later))


def test_the_line_of_another_is_not_judged() -> None:
    other = WitnessSigner("witness.example/w2", Ed25519PrivateKey.from_private_bytes(bytes([8]) * 32))

    assert KEY.verify(TEXT, other.cosign(TEXT, seconds=1)) is None


def test_a_witness_key_is_written_and_read_in_one_form() -> None:
    text = KEY.render()

    assert WitnessKey.parse(text) == KEY
    for wrong in (text.upper(), text[:-1], f" {text}", text.replace("+", "++"), "w1", ""):
        with pytest.raises(RejectedError):
            WitnessKey.parse(wrong)


def test_a_ledgers_key_is_no_witness_key_and_the_other_way_round() -> None:
    with pytest.raises(RejectedError, match="type 4"):
        WitnessKey.parse(VerifierKey(KEY.name, KEY.public_key).render())
    with pytest.raises(RejectedError, match="type 1"):
        VerifierKey.parse(KEY.render())


@given(st.binary(min_size=1, max_size=100))
def test_any_bytes_in_the_place_of_a_cosignature_are_refused(data: bytes) -> None:
    with pytest.raises(TamperError):
        KEY.verify(TEXT, SignatureLine(KEY.name, KEY.key_id, data))


def test_a_newer_cosignature_takes_the_place_of_an_older_one() -> None:
    checkpoint = sign_note(TEXT, Signer("example.com/x", Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)))

    once = with_cosignatures(checkpoint.render(), (LINE,))
    twice = with_cosignatures(once, (SIGNER.cosign(TEXT, seconds=1_679_315_200),))

    signatures = Note.parse(twice).signatures
    assert len(signatures) == 2
    assert signatures[0] == checkpoint.signatures[0]
    assert KEY.verify(TEXT, signatures[1]) == 1_679_315_200
