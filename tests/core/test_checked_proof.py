"""A record and its proof: what holds, and everything by which somebody could have it seem to."""

from __future__ import annotations

from typing import Final

import pytest

from tallystick.core.canonical import decode, encode
from tallystick.core.checked_proof import CheckedProof, check_proof
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.cosignature import WitnessSigner, with_cosignatures
from tallystick.core.merkle import inclusion_path, leaf_hash, node_hash, verify_consistency, verify_inclusion
from tallystick.core.note import Note, Signer
from tallystick.core.policy import Policy, Witness
from tallystick.core.proof import Proof
from tallystick.limits import PROOF_HASHES_MAX, SIZE_MAX
from tests.evidence.forge import KEYS, ORIGIN, fixed_key
from vectors.scene import Hashes, ledger, signed, vkey

LINES: Final = ledger().lines
SIZE: Final = 8
NOTE: Final = signed(LINES, SIZE)
TRUST: Final = Policy(logs=(vkey(KEYS.checkpoint),))


def proof_of(index: int, *, note: bytes = NOTE, at: int | None = None, extra: bytes = b"") -> bytes:
    path = tuple(inclusion_path(index, SIZE, node=Hashes(LINES).node))
    return Proof(index if at is None else at, path, note, extra).render()


def kinds(checked: CheckedProof) -> list[str]:
    return [finding.kind for finding in checked.findings]


@pytest.mark.parametrize("index", range(SIZE))
def test_a_proof_holds_for_its_record_alone(index: int) -> None:
    checked = check_proof(proof_of(index), LINES[index], TRUST)

    assert checked.holds
    assert checked.record is not None
    assert checked.record.position == index
    assert checked.checkpoint == Checkpoint(ORIGIN, SIZE, Hashes(LINES).root(SIZE))
    for other in range(SIZE):
        if other != index:
            assert kinds(check_proof(proof_of(index), LINES[other], TRUST)) == ["misplaced", "root"]
            assert "misplaced" in kinds(check_proof(proof_of(index, at=other), LINES[index], TRUST))


def test_bytes_that_are_no_record_are_not_proven_though_the_path_leads_from_them() -> None:
    left, right = leaf_hash(LINES[0]), leaf_hash(b"no record")
    note = sign_checkpoint(Checkpoint(ORIGIN, 2, node_hash(left, right)), Signer(ORIGIN, KEYS.checkpoint))

    assert kinds(check_proof(Proof(1, (left,), note).render(), b"no record", TRUST)) == ["not-canonical"]
    spaced = LINES[1].replace(b",", b", ", 1)
    assert kinds(check_proof(proof_of(1), spaced, TRUST)) == ["not-canonical"]


def test_a_record_that_says_another_position_is_not_proven_though_the_path_leads_from_it() -> None:
    moved = encode({**decode(LINES[1]), "position": 7})
    note = sign_checkpoint(
        Checkpoint(ORIGIN, 2, node_hash(leaf_hash(LINES[0]), leaf_hash(moved))), Signer(ORIGIN, KEYS.checkpoint)
    )
    proof = Proof(1, (leaf_hash(LINES[0]),), note).render()

    assert kinds(check_proof(proof, moved, TRUST)) == ["misplaced"]


def test_who_signed_counts() -> None:
    stranger = Policy(logs=(vkey(fixed_key(9)),))
    other = Policy(logs=(vkey(KEYS.checkpoint, "forge/other"),))
    for trust in (stranger, other, Policy(logs=())):
        assert kinds(check_proof(proof_of(3), LINES[3], trust)) == ["checkpoint"]
    both = Policy(logs=(vkey(fixed_key(9)), vkey(KEYS.checkpoint)))
    assert check_proof(proof_of(3), LINES[3], both).holds
    good, other_text = Note.parse(NOTE), Note.parse(signed(LINES, 7, key=fixed_key(9)))
    broken = Note(good.text, (*good.signatures, *other_text.signatures))
    beside = proof_of(3, note=broken.render())
    assert check_proof(beside, LINES[3], TRUST).holds, "who is not known says nothing"
    assert kinds(check_proof(beside, LINES[3], both)) == ["checkpoint"], "who is known, and did not sign it, does"


def test_witnesses_count_if_the_trust_file_asks_for_them() -> None:
    signer = WitnessSigner("w.example/1", fixed_key(11))
    trust = Policy(logs=TRUST.logs, witnesses=(Witness("w", signer.witness_key),), quorum="w")
    seen = with_cosignatures(NOTE, (signer.cosign(Note.parse(NOTE).text, seconds=1_780_000_000),))
    false = with_cosignatures(NOTE, (signer.cosign(Note.parse(signed(LINES, 7)).text, seconds=1_780_000_000),))

    assert kinds(check_proof(proof_of(2), LINES[2], trust)) == ["witness"]
    assert check_proof(proof_of(2, note=seen), LINES[2], trust).cosigned == ("w",)
    assert check_proof(proof_of(2, note=seen), LINES[2], trust.render()).holds
    assert kinds(check_proof(proof_of(2, note=false), LINES[2], trust)) == ["witness"]


def test_every_byte_of_a_proof_file_counts() -> None:
    file = proof_of(2)
    for at in range(len(file)):
        for bit in (0x01, 0x20, 0x80):
            changed = file[:at] + bytes([file[at] ^ bit]) + file[at + 1 :]
            assert not check_proof(changed, LINES[2], TRUST).holds, at


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        proof_of(2).replace(b"index", b"extra \nindex"),
        proof_of(2).replace(b"index 2", b"index %d" % SIZE_MAX),
        proof_of(2).replace(b"\n\n", b"\n" + b"A" * 43 + b"=\n" * PROOF_HASHES_MAX + b"\n", 1),
    ],
)
def test_what_is_no_proof_is_a_finding_and_no_error(proof: bytes) -> None:
    checked = check_proof(proof, LINES[2], TRUST)

    assert kinds(checked) == ["checkpoint"]
    assert (checked.proof, checked.checkpoint) == (None, None)


def test_a_hash_has_32_bytes() -> None:
    leaf, root = leaf_hash(b"a"), leaf_hash(b"a")
    assert verify_inclusion(leaf, 0, size=1, path=[], root=root)
    assert not verify_inclusion(b"", 0, size=1, path=[], root=b"")
    assert not verify_inclusion(leaf[:-1], 0, size=1, path=[], root=leaf[:-1])
    assert not verify_consistency(1, 1, path=[], old_root=b"", root=b"")
    assert verify_consistency(1, 1, path=[], old_root=root, root=root)
