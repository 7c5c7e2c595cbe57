"""Proof files: known bytes, every malformed form, and that every byte of one counts."""

from __future__ import annotations

from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.merkle import Tree, inclusion_path, leaf_hash
from tallystick.core.note import Signer, sign_note
from tallystick.core.proof import Proof
from tallystick.core.tiles import TileNodes
from tallystick.errors import RejectedError
from tallystick.limits import NOTE_BYTES_MAX, PROOF_HASHES_MAX, SIZE_MAX

ORIGIN: Final = "audit.example/tenant/t1"
SIGNER: Final = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))

RECORDS: Final = [b'{"position":%d}' % position for position in range(5)]
TREE: Final = Tree.empty().extend([leaf_hash(record) for record in RECORDS])[0]
NOTE: Final = sign_checkpoint(Checkpoint(ORIGIN, 5, TREE.root), SIGNER)
NODES: Final = TileNodes(5, lambda _level, _index, _width: TREE.edges[0])


def proof_of(index: int, *, note: bytes = NOTE, extra: bytes = b"") -> Proof:
    return Proof(index, tuple(inclusion_path(index, 5, node=NODES)), note, extra)


FILE: Final = proof_of(2).render()
LINES: Final = FILE.split(b"\n")


def test_a_proof_file_reads_as_c2sp_prints_it() -> None:
    assert LINES[:2] == [b"c2sp.org/tlog-proof@v1", b"index 2"]
    assert [len(line) for line in LINES[2:5]] == [44, 44, 44]
    assert LINES[5] == b""
    assert FILE.endswith(b"\n\n" + NOTE)


def test_extra_data_stands_before_the_index() -> None:
    file = proof_of(2, extra=b"context").render()

    assert file.startswith(b"c2sp.org/tlog-proof@v1\nextra Y29udGV4dA==\nindex 2\n")
    assert Proof.parse(file).extra == b"context"


def test_a_record_alone_in_its_ledger_has_an_empty_path() -> None:
    root = leaf_hash(b"{}")
    proof = Proof(0, (), sign_checkpoint(Checkpoint(ORIGIN, 1, root), SIGNER))

    assert proof.render().startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\naudit.example/")
    assert Proof.parse(proof.render()) == proof


@given(
    st.integers(0, SIZE_MAX - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=PROOF_HASHES_MAX),
    st.binary(max_size=50),
)
def test_any_proof_is_read_as_it_is_written(index: int, path: list[bytes], extra: bytes) -> None:
    proof = Proof(index, tuple(path), NOTE, extra)

    assert Proof.parse(proof.render()) == proof


HASH: Final = LINES[2]
MALFORMED: Final = {
    "nothing": b"",
    "only the header": b"c2sp.org/tlog-proof@v1\n",
    "header and empty line": b"c2sp.org/tlog-proof@v1\n\n" + NOTE,
    "extra and no index": b"c2sp.org/tlog-proof@v1\nextra AAAA\n\n" + NOTE,
    "no header": FILE.partition(b"\n")[2],
    "another version": FILE.replace(b"@v1", b"@v2"),
    "a space after the header": FILE.replace(b"@v1", b"@v1 "),
    "an empty line first": b"\n" + FILE,
    "CRLF": FILE.replace(b"\n", b"\r\n"),
    "a BOM": b"\xef\xbb\xbf" + FILE,
    "no index": FILE.replace(b"index 2\n", b""),
    "index with two spaces": FILE.replace(b"index 2", b"index  2"),
    "index with a tab": FILE.replace(b"index 2", b"index\t2"),
    "index without a number": FILE.replace(b"index 2", b"index "),
    "index with a leading zero": FILE.replace(b"index 2", b"index 02"),
    "index with a sign": FILE.replace(b"index 2", b"index +2"),
    "index below zero": FILE.replace(b"index 2", b"index -2"),
    "index with an underscore": FILE.replace(b"index 2", b"index 2_0"),
    "index too large": FILE.replace(b"index 2", b"index %d" % SIZE_MAX),
    "a number without the word index": FILE.replace(b"index 2", b"2"),
    "index twice": FILE.replace(b"index 2", b"index 2\nindex 2"),
    "index in capitals": FILE.replace(b"index 2", b"Index 2"),
    "empty extra": FILE.replace(b"index", b"extra \nindex"),
    "extra without data": FILE.replace(b"index", b"extra\nindex"),
    "extra unpadded": FILE.replace(b"index", b"extra AA\nindex"),
    "extra twice": FILE.replace(b"index", b"extra AAAA\nextra AAAA\nindex"),
    "extra after the index": FILE.replace(b"index 2", b"index 2\nextra AAAA"),
    "hash unpadded": FILE.replace(HASH, HASH[:-1]),
    "hash too short": FILE.replace(HASH, HASH[:40]),
    "hash too long": FILE.replace(HASH, HASH[:-1] + b"A"),
    "hash with a space": FILE.replace(HASH, HASH + b" "),
    "hash line not ASCII": FILE.replace(HASH, "é".encode()),
    "too many hashes": FILE.replace(HASH, b"\n".join([HASH] * PROOF_HASHES_MAX)),
    "no empty line": FILE.replace(b"\n\n", b"\n", 1),
    "a second empty line": FILE.replace(b"\n\n", b"\n\n\n", 1),
    "no checkpoint": FILE[: -len(NOTE)],
    "a checkpoint without signature": FILE[: -len(NOTE)] + NOTE[: NOTE.index(b"\n\n") + 2],
    "a note that is no checkpoint": FILE[: -len(NOTE)] + sign_note("text\n", SIGNER).render(),
    "a last newline missing": FILE[:-1],
    "a newline more": FILE + b"\n",
    "too many bytes": FILE.replace(b"index", b"extra " + b"AAAA" * NOTE_BYTES_MAX + b"\nindex"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_proof_file_is_refused(name: str) -> None:
    with pytest.raises(RejectedError):
        Proof.parse(MALFORMED[name])


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(RejectedError, match=r"^line 2: .* is not a decimal"):
        Proof.parse(MALFORMED["index with a sign"])
    with pytest.raises(RejectedError, match=r"^line 3: .* is not standard, padded base64"):
        Proof.parse(MALFORMED["hash unpadded"])
    with pytest.raises(RejectedError, match=r"^checkpoint, line 2: .* is not a decimal"):
        Proof.parse(FILE.replace(b"\n5\n", b"\n05\n"))


def test_a_path_through_the_largest_tree_is_read() -> None:
    proof = Proof(SIZE_MAX - 1, (TREE.root,) * PROOF_HASHES_MAX, NOTE)

    assert Proof.parse(proof.render()) == proof


@pytest.mark.parametrize("index", [-1, SIZE_MAX])
def test_a_proof_has_an_index_that_can_be_written(index: int) -> None:
    with pytest.raises(RejectedError):
        Proof(index, (), NOTE)


@given(st.binary(max_size=60), st.integers(0, len(FILE)), st.integers(0, len(FILE)))
def test_any_bytes_are_a_proof_in_its_one_form_or_rejected(data: bytes, first: int, end: int) -> None:
    for hostile in (data, FILE[:first] + data + FILE[end:], FILE[:first] + data + FILE[first:]):
        try:
            proof = Proof.parse(hostile)
        except RejectedError:
            continue
        assert proof.render() == hostile
