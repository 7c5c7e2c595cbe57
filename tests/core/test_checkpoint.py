"""Checkpoints: the known answer, every malformed text, and whose they are."""

from __future__ import annotations

from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Note, Signer, sign_note
from tallystick.errors import RejectedError, TamperError
from tallystick.limits import SIZE_MAX

ORIGIN: Final = "audit.example/tenant/t1"
SIGNER: Final = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY: Final = SIGNER.verifier_key
OTHER: Final = Signer("audit.example/tenant/t2", Ed25519PrivateKey.from_private_bytes(bytes(32)))

RECORDS: Final = (b'{"seq":0,"type":"t","x":""}', '{"seq":1,"type":"t","x":"é"}'.encode())
TEXT: Final = f"{ORIGIN}\n2\nNagYmulXm3NkFnVxj8kmFS/5a7O6V2f7NmqIDDSV9Yw=\n"
CHECKPOINT: Final = Checkpoint.parse(TEXT)
SIGNED: Final = (
    f"{TEXT}\n— {ORIGIN} VsgQzeamOI5QBlL+HUqxzO2kWeOyn1NKJp2UPgh0iCnDsAgGm8tBy8CCm9RyIevzvzbUZx5GW5UISJ1Vl+GWheqDLQo=\n"
).encode()

OF_ANOTHER_LOG: Final = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
"""The example of C2SP tlog-checkpoint."""


def test_the_known_checkpoint_is_made_from_its_records() -> None:
    tree, _ = Tree.empty().extend([leaf_hash(record) for record in RECORDS])
    checkpoint = Checkpoint(ORIGIN, tree.size, tree.root)

    assert checkpoint.render() == TEXT
    assert sign_checkpoint(checkpoint, SIGNER) == SIGNED
    assert open_checkpoint(SIGNED, [KEY], origin=ORIGIN) == checkpoint


def test_a_checkpoint_of_another_log_is_read() -> None:
    checkpoint = Checkpoint.parse(OF_ANOTHER_LOG)

    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.render() == OF_ANOTHER_LOG


@given(
    st.text(st.characters(min_codepoint=32), min_size=1),
    st.integers(0, SIZE_MAX),
    st.binary(min_size=32, max_size=32),
)
def test_any_checkpoint_is_read_as_it_is_written(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, root)

    assert Checkpoint.parse(checkpoint.render()) == checkpoint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ""),
        ("\n\n\n", "line 2"),
        (TEXT[:-1], ""),
        (TEXT + "\n", ""),
        (TEXT + "extension\n", ""),
        (TEXT + "extension", ""),
        ("\n" + TEXT, ""),
        (TEXT.replace("\n", "\r\n"), "line 2"),
        (TEXT.replace(ORIGIN, ""), "line 1"),
        (TEXT.replace(ORIGIN, "a\tb"), "line 1"),
        (TEXT.replace("\n2\n", "\n02\n"), "line 2"),
        (TEXT.replace("\n2\n", "\n+2\n"), "line 2"),
        (TEXT.replace("\n2\n", "\n-2\n"), "line 2"),
        (TEXT.replace("\n2\n", "\n 2\n"), "line 2"),
        (TEXT.replace("\n2\n", "\n2_0\n"), "line 2"),
        (TEXT.replace("\n2\n", "\n\n"), "line 2"),
        (TEXT.replace("\n2\n", f"\n{SIZE_MAX + 1}\n"), "line 2"),
        (TEXT.replace("\n2\n", f"\n{'9' * 5000}\n"), "line 2"),
        (TEXT.replace("=\n", "\n"), "line 3"),
        (TEXT.replace("Yw=\n", "Yx=\n"), "line 3"),
        (TEXT.replace("9Yw=\n", "\n"), "line 3"),
        (TEXT.replace("9Yw=\n", "9YwA\n"), "line 3"),
        (TEXT.replace("9Yw=\n", "9Yw= \n"), "line 3"),
        (TEXT.replace("9Yw=\n", "AAAAAA==\n"), "line 3"),
    ],
)
def test_a_malformed_text_is_refused_at_its_place(text: str, place: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        Checkpoint.parse(text)

    assert refusal.value.place == place


@given(st.text(max_size=80), st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))
def test_any_text_is_a_checkpoint_in_its_one_form_or_rejected(text: str, first: int, end: int) -> None:
    for hostile in (text, TEXT[:first] + text + TEXT[end:]):
        try:
            checkpoint = Checkpoint.parse(hostile)
        except RejectedError:
            continue
        assert checkpoint.render() == hostile


def test_an_origin_need_not_look_like_a_url() -> None:
    text = TEXT.replace(ORIGIN, "our own log + more")

    assert Checkpoint.parse(text).render() == text


@pytest.mark.parametrize("size", [-1, SIZE_MAX + 1])
def test_a_checkpoint_has_a_size_that_can_be_written(size: int) -> None:
    with pytest.raises(RejectedError):
        Checkpoint(ORIGIN, size, bytes(32))


def test_only_the_ledgers_own_key_signs_its_checkpoint() -> None:
    with pytest.raises(RejectedError, match="may not sign"):
        sign_checkpoint(CHECKPOINT, OTHER)


def test_another_ledgers_checkpoint_does_not_pass_for_ours() -> None:
    theirs = sign_checkpoint(Checkpoint(OTHER.name, 2, CHECKPOINT.root), OTHER)

    with pytest.raises(TamperError, match=r"of the ledger audit\.example/tenant/t2, not of"):
        open_checkpoint(theirs, [KEY, OTHER.verifier_key], origin=ORIGIN)


def test_a_checkpoint_that_only_another_known_key_signed_does_not_hold() -> None:
    forged = sign_note(TEXT, OTHER)

    with pytest.raises(TamperError, match="not signed by a known key of"):
        open_checkpoint(forged.render(), [KEY, OTHER.verifier_key], origin=ORIGIN)


def test_a_checkpoint_with_a_second_signature_holds() -> None:
    second = Note(TEXT, (*sign_note(TEXT, OTHER).signatures, *sign_note(TEXT, SIGNER).signatures))

    assert open_checkpoint(second.render(), [KEY, OTHER.verifier_key], origin=ORIGIN) == CHECKPOINT
    assert open_checkpoint(second.render(), [KEY], origin=ORIGIN) == CHECKPOINT


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(RejectedError, match="three lines"):
        open_checkpoint(sign_note(TEXT + "extension\n", SIGNER).render(), [KEY], origin=ORIGIN)


def test_a_changed_size_or_root_does_not_hold() -> None:
    for changed in (SIGNED.replace(b"\n2\n", b"\n1\n"), SIGNED.replace(b"NagY", b"OagY")):
        with pytest.raises(TamperError, match="does not fit"):
            open_checkpoint(changed, [KEY], origin=ORIGIN)
