"""Canonical JSON, verifier keys, trust files, checkpoints and proofs, by themselves."""

from __future__ import annotations

import json
import struct

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from tallystick_verify import RefusedError, judge_checkpoint, judge_proof, judge_record
from tallystick_verify.canonical import number, parse
from tallystick_verify.forms import is_rfc3339, is_time
from tallystick_verify.notes import Policy, parse_checkpoint
from tallystick_verify.report import Report
from tallystick_verify.tree import Fold

from tests.verifier import cases, maker


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_as_ecmascript_does(value: float) -> None:
    assert number(value).encode() == rfc8785.dumps(value)


def test_the_sample_numbers_of_rfc_8785_come_out_as_published() -> None:
    for bits, text in (
        ("0000000000000001", "5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
        ("8000000000000000", "0"),
    ):
        assert number(struct.unpack(">d", bytes.fromhex(bits))[0]) == text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(-1e300, 1e300).filter(lambda x: x != int(x))
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_another_library_writes_is_canonical_and_reads_back(value: object) -> None:
    assert parse(rfc8785.dumps(value)) == value  # type: ignore[arg-type]


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE+-\\u nul tr', max_size=40).map(str.encode))
def test_a_text_is_taken_only_if_another_library_would_write_it(data: bytes) -> None:
    try:
        value = parse(data)
    except RefusedError:
        return
    assert rfc8785.dumps(value) == data


def test_depth_is_counted_outside_of_strings() -> None:
    assert parse(b"[" * 32 + b"]" * 32)
    assert parse(b'["' + b"[" * 100 + b'\\"{{"]')
    for text in (b"[" * 33 + b"]" * 33, b'["\\\\",' * 33 + b"1" + b"]" * 33):
        with pytest.raises(RefusedError, match="levels"):
            parse(text)


@pytest.mark.parametrize(
    "text",
    [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"1.0", b"1E5", b"9007199254740992", b"-9007199254740992"],
)
def test_numbers_that_are_no_json_or_no_canonical_json_are_refused(text: bytes) -> None:
    with pytest.raises(RefusedError):
        parse(text)


def test_whole_numbers_go_to_the_last_that_every_reader_reads() -> None:
    assert parse(b"[-9007199254740991,9007199254740991,1e+21,0]") == [1 - 2**53, 2**53 - 1, 1e21, 0]


@pytest.mark.parametrize(
    ("text", "exact", "loose"),
    [
        ("2026-03-03T09:30:00.000000Z", True, True),
        ("2024-02-29T23:59:59.999999Z", True, True),
        ("2026-12-31T00:00:00.000000Z", True, True),
        ("2000-02-29T00:00:00.000000Z", True, True),
        ("1900-02-29T00:00:00.000000Z", False, False),
        ("2026-02-29T00:00:00.000000Z", False, False),
        ("2026-04-31T00:00:00.000000Z", False, False),
        ("2026-00-01T00:00:00.000000Z", False, False),
        ("2026-13-01T00:00:00.000000Z", False, False),
        ("2026-01-00T00:00:00.000000Z", False, False),
        ("2026-01-01T24:00:00.000000Z", False, False),
        ("2026-01-01T00:60:00.000000Z", False, False),
        ("2026-01-01T00:00:60.000000Z", False, False),
        ("2026-01-01T00:00:61.000000Z", False, False),
        ("2026-01-01t00:00:00z", False, True),
        ("2026-01-01T00:00:00.1+23:59", False, True),
        ("2026-01-01T00:00:00+24:00", False, False),
        ("2026-01-01T00:00:00+00:60", False, False),
        ("2026-01-01T00:00:00", False, False),
        ("2026-01-01 00:00:00Z", False, True),
        ("2026-01-01T00:00:00.Z", False, False),
        ("2026-01-01T00:00:00.000000Z\n", False, False),
        ("２026-01-01T00:00:00.000000Z", False, False),  # noqa: RUF001
    ],
)
def test_times_are_times_of_the_calendar(text: str, exact: bool, loose: bool) -> None:
    assert (is_time(text), is_rfc3339(text)) == (exact, loose)


# -------------------------------------------------------------------------------------- trust files

LOG = f"log {maker.vkey('a.example/x', 1, maker.key(9))}\n"
WITNESSES = "".join(f"witness w{n} {maker.vkey(f'w{n}.example', 4, maker.key(30 + n))}\n" for n in range(4))
OTHER = maker.vkey("b.example/x", 1, maker.key(9))


def _vkey(name: str, kind: int, data: bytes) -> str:
    """The id is of type 1 and of all the data, whatever the type says."""
    digest = maker.sha256(name.encode() + b"\n\x01" + data).hex()[:8]
    return f"{name}+{digest}+{maker.b64(bytes([kind]) + data)}"


FAULTY = [_vkey("a", 1, bytes(33)), _vkey("a", 4, bytes(32)), _vkey("a\u00a0b", 1, bytes(32)), _vkey("", 1, bytes(32))]
SHOUTED = "+".join([OTHER.split("+")[0], OTHER.split("+")[1].upper(), OTHER.split("+", 2)[2]])


@pytest.mark.parametrize(
    "text",
    [
        "quorum none\n",
        f"# a comment\n\n \t\n\t# another\n{LOG}\tquorum \t none \n",
        f"{LOG[:-1]} url\n{WITNESSES}group g any w0 w1\ngroup h 2 w2 w3\ngroup all all g h\nquorum all\n",
        f"{WITNESSES}quorum w3\n",
        f"{WITNESSES}group é all w0\nquorum é\n",
        f"{WITNESSES}group K all w0\ngroup \u212a all w1\nquorum \u212a\n",
        f"{LOG}log {maker.vkey('a.example/x', 1, maker.key(10))}\nquorum none\n",
        "quorum none\n" + "# x\n" * 300,
    ],
)
def test_a_trust_file_as_the_standard_has_it_is_taken(text: str) -> None:
    assert Policy(text.encode()).quorum


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        LOG,
        "quorum none",
        "quorum none\r\n",
        "quorum none\x00\n",
        "quorum none\nquorum none\n",
        "quorum w0\n",
        f"quorum w0\n{WITNESSES}",
        "quorum\n",
        "quorum none none\n",
        "Quorum none\n",
        f"{LOG}{LOG}quorum none\n",
        f"{LOG}log {OTHER}\nquorum none\n",
        f"{LOG[:-1]} url more\nquorum none\n",
        "log\nquorum none\n",
        f"log {maker.vkey('a.example/x', 4, maker.key(9))}\nquorum none\n",
        f"log {OTHER[:-1]}\nquorum none\n",
        f"log {OTHER.replace('+', '+A', 1)}\nquorum none\n",
        f"log {OTHER.replace('b.example', 'c.example')}\nquorum none\n",
        f"log {OTHER.replace('b.example', '')}\nquorum none\n",
        f"log {SHOUTED}\nquorum none\n",
        f"witness w {maker.vkey('w.example', 1, maker.key(9))}\nquorum none\n",
        "witness w\nquorum none\n",
        f"witness none {maker.vkey('w.example', 4, maker.key(9))}\nquorum none\n",
        f"{WITNESSES}witness w9 {maker.vkey('other.example', 4, maker.key(30))}\nquorum none\n",
        f"{WITNESSES}witness w0 {maker.vkey('w9.example', 4, maker.key(39))}\nquorum none\n",
        f"{WITNESSES}{WITNESSES.split(chr(10))[0]} url more\nquorum none\n",
        f"witness w {maker.vkey('w.example', 4, maker.key(9))} url more\nquorum none\n",
        f"{WITNESSES}grupp g any w0\nquorum w0\n",
        f"log {FAULTY[0]}\nquorum none\n",
        f"log {FAULTY[1]}\nquorum none\n",
        f"log {FAULTY[2]}\nquorum none\n",
        f"log {FAULTY[3]}\nquorum none\n",
        f"{WITNESSES}group g any\nquorum g\n",
        f"{WITNESSES}group g 0 w0\nquorum g\n",
        f"{WITNESSES}group g 2 w0\nquorum g\n",
        f"{WITNESSES}group g 01 w0\nquorum g\n",
        f"{WITNESSES}group g +1 w0\nquorum g\n",
        f"{WITNESSES}group g some w0\nquorum g\n",
        f"{WITNESSES}group g any w0 w0\nquorum g\n",
        f"{WITNESSES}group g any w0\ngroup h any w0\nquorum g\n",
        f"{WITNESSES}group g any g\nquorum g\n",
        f"{WITNESSES}group g any none\nquorum g\n",
        f"{WITNESSES}group w0 any w1\nquorum w0\n",
        f"{WITNESSES}group none any w1\nquorum none\n",
        f"{WITNESSES}group g any h\ngroup h any w0\nquorum g\n",
        f"{WITNESSES}group g all w0\ngroup g all w1\nquorum g\n",
        "quorum none\n" + "# x\n" * 20_000,
        "".join(f"log {maker.vkey('a.example/x', 1, maker.key(n))}\n" for n in range(256)) + "quorum none\n",
    ],
)
def test_a_trust_file_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        Policy(text.encode())


@pytest.mark.parametrize(
    ("groups", "cosigned", "met"),
    [
        ("quorum none\n", "", True),
        ("quorum w0\n", "w0", True),
        ("quorum w0\n", "w1", False),
        ("group g any w0 w1\nquorum g\n", "w1", True),
        ("group g any w0 w1\nquorum g\n", "w2", False),
        ("group g all w0 w1\nquorum g\n", "w0", False),
        ("group g all w0 w1\nquorum g\n", "w0 w1", True),
        ("group g 2 w0 w1 w2\nquorum g\n", "w0 w2", True),
        ("group g 2 w0 w1 w2\nquorum g\n", "w0 w3", False),
        ("group g 2 w0 w1 w2\ngroup h all g w3\nquorum h\n", "w0 w1", False),
        ("group g 2 w0 w1 w2\ngroup h all g w3\nquorum h\n", "w0 w1 w3", True),
        ("group g 2 w0 w1 w2\ngroup h any g w3\nquorum h\n", "w3", True),
        ("group g any w0\nquorum none\n", "", True),
    ],
)
def test_a_quorum_is_met_as_groups_say(groups: str, cosigned: str, met: bool) -> None:
    policy = Policy(f"{WITNESSES}{groups}".encode())
    assert policy.quorum is not None
    assert policy.is_met(policy.quorum, {name.encode() for name in cosigned.split()}) is met


def test_a_deep_tower_of_groups_is_no_trouble() -> None:
    tower = "".join(f"group g{n} any {f'g{n - 1}' if n else 'w0'}\n" for n in range(240))
    policy = Policy(f"{WITNESSES}{tower}quorum g239\n".encode())
    assert policy.is_met(b"g239", {b"w0"})
    assert not policy.is_met(b"g239", {b"w1"})


# ------------------------------------------------------------------------------ proofs and small things

MADE = cases.ledger()


def kinds_of_proof(proof: bytes, record: bytes, trust: bytes = maker.TRUST) -> list[str]:
    return [finding.kind for finding in judge_proof(proof, record, trust)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18])
def test_every_record_is_proven_in_every_tree_and_in_no_other_place(size: int) -> None:
    for index in range(size):
        proof, record = MADE.proof(index, size), MADE.lines[index]
        assert kinds_of_proof(proof, record) == []
        head, path, note = proof.partition(b"\n")[2].partition(b"\n\n")[0], b"", proof.split(b"\n\n", 1)[1]
        rows = head.split(b"\n")[1:]
        hash_row = maker.b64(bytes(32)).encode()
        for wrong in ([*rows, hash_row], [hash_row, *rows], rows[:-1], rows[1:], rows[::-1]):
            if wrong != rows:
                path = b"".join(row + b"\n" for row in wrong)
                bad = b"c2sp.org/tlog-proof@v1\nindex %d\n%s\n%s" % (index, path, note)
                assert kinds_of_proof(bad, record) == ["root"]
        other = b"c2sp.org/tlog-proof@v1\nindex %d\n%s\n%s" % (size, b"".join(row + b"\n" for row in rows), note)
        assert kinds_of_proof(other, record) == ["misplaced", "root"]


PROOF = MADE.proof(4)


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        (b"@v1", b"@v2", ["checkpoint"]),
        (b"index 4", b"index +4", ["checkpoint"]),
        (b"index 4", b"index 04", ["checkpoint"]),
        (b"index 4", b"index  4", ["checkpoint"]),
        (b"index 4", b"Index 4", ["checkpoint"]),
        (b"index 4\n", b"", ["checkpoint"]),
        (b"index 4", b"extra AA==\nindex 4", []),
        (b"index 4", b"extra \nindex 4", ["checkpoint"]),
        (b"index 4", b"extra AA\nindex 4", ["checkpoint"]),
        (b"index 4", b"extra AA==\nextra AA==\nindex 4", ["checkpoint"]),
        (b"index 4", b"extra " + b"A" * 2**18 + b"\nindex 4", ["checkpoint"]),
        (b"index 4\n", b"index 4\nAAAA\n", ["checkpoint"]),
        (b"index 4", b"index 5", ["misplaced", "root"]),
        (b"index 4\n", b"index 4\n" + b"A" * 42 + b"B=\n", ["checkpoint"]),
        (b"index 4", b"index 1234", ["misplaced", "root"]),
        (b"\n18\n", b"\n17\n", ["checkpoint"]),
        (b"\n\n", b"\n", ["checkpoint"]),
        (b"\n", b"\r\n", ["checkpoint"]),
    ],
)
def test_a_proof_of_another_form_is_none(old: bytes, new: bytes, kinds: list[str]) -> None:
    assert sorted(set(kinds_of_proof(PROOF.replace(old, new, 1), MADE.lines[4]))) == kinds


def test_a_proof_needs_its_record_its_log_and_its_witnesses() -> None:
    key = maker.vkey("w.example/1", 4, maker.WITNESS)
    trust = maker.TRUST.replace(b"quorum none", b"witness w %s\nquorum w" % key.encode())
    witnessed = MADE.proof(4, more=[maker.cosignature(MADE.text(), "w.example/1", maker.WITNESS)])

    assert kinds_of_proof(PROOF, MADE.lines[4] + b"\n") == ["not-canonical"]
    assert kinds_of_proof(PROOF, MADE.lines[5]) == ["misplaced", "root"]
    assert kinds_of_proof(PROOF, maker.changed(MADE.lines[4], labels=["x"])) == ["root"]
    assert kinds_of_proof(PROOF, MADE.lines[4], b"quorum none\n") == ["checkpoint"]
    assert kinds_of_proof(PROOF, MADE.lines[4], trust) == ["witness"]
    assert kinds_of_proof(witnessed, MADE.lines[4], trust) == []


def test_a_checkpoint_is_signed_by_any_log_line_of_its_origin() -> None:
    note = MADE.checkpoint()
    other = f"log {maker.vkey(maker.ORIGIN, 1, maker.STRANGER)}\n".encode()

    assert judge_checkpoint(note, other + maker.TRUST) == []
    assert [finding.kind for finding in judge_checkpoint(note, other + b"quorum none\n")] == ["checkpoint"]
    assert [finding.kind for finding in judge_checkpoint(note[:-1], maker.TRUST)] == ["checkpoint"]


def test_notes_at_their_bounds_are_taken() -> None:
    text = MADE.text()
    vast = text.replace("\n18\n", f"\n{2**63 - 1}\n")
    room = 65_536 - len(maker.note(text)) - len("— x \n".encode())
    full = maker.note(text, more=["— x " + "A" * room + "\n"]) if room % 4 == 0 else b""
    padded = maker.note(text, more=["— " + "x" * (1 + room % 4) + " " + "A" * (room - room % 4) + "\n"])
    late = maker.cosignature(text, "w.example/1", maker.WITNESS, 2**63 - 1)
    trust = maker.TRUST.replace(b"none", b"w") + b""
    witness = b"witness w %s\n" % maker.vkey("w.example/1", 4, maker.WITNESS).encode()

    assert len(padded) == 65_536
    assert judge_checkpoint(full or padded, maker.TRUST) == judge_checkpoint(padded, maker.TRUST) == []
    assert judge_checkpoint(maker.note(vast), maker.TRUST) == []
    assert judge_checkpoint(maker.note(text, more=["— x AAAAAAA=\n"] * 99), maker.TRUST) == []
    assert judge_checkpoint(maker.note(text, more=[late]), witness + trust) == []
    assert judge_checkpoint(maker.note(text).replace(b"\n\n", b"\n\n\xe2\x80\x94 \xff AAAAAAAA\n"), maker.TRUST)
    assert judge_checkpoint(maker.note(text), b"log %s\nquorum none\n" % OTHER_NAME.encode())


OTHER_NAME = maker.vkey("audit.example/mode", 1, maker.CHECKPOINT)


def test_trust_files_at_their_bounds_are_taken() -> None:
    logs = "".join(f"log {maker.vkey('a.example/x', 1, maker.key(n))}\n" for n in range(255))
    assert len(Policy(f"{logs}quorum none\n".encode()).logs) == 255
    assert Policy(b"quorum none\n#" + b"x" * (65_536 - 14) + b"\n").quorum == b"none"


@pytest.mark.parametrize("text", [b"[]", b"null", b"1", b'"x"', b"{}", b""])
def test_what_is_not_an_object_is_no_record(text: bytes) -> None:
    assert [finding.kind for finding in judge_record(text)] == ["not-canonical"]


def test_a_proof_of_its_greatest_length_is_taken() -> None:
    room = 131_072 - len(PROOF) - len("extra \n")
    extra = b"extra " + b"A" * (room - room % 4) + b"\n"
    proof = PROOF.replace(b"index", extra + b"index")
    longer = PROOF.replace(b"index", extra.replace(b"A\n", b"AAAAA\n") + b"index")
    assert kinds_of_proof(proof, MADE.lines[4]) == []
    assert kinds_of_proof(longer, MADE.lines[4]) == ["checkpoint"]


def test_a_fold_tells_the_root_of_each_size_that_it_passes() -> None:
    leaves = MADE.leaves()
    fold = Fold([], cuts=[], watched=range(19))
    for position, line in enumerate(MADE.lines):
        fold.place(position, line)
    assert fold.roots == {size: maker.tree(leaves[:size]) for size in range(19)}


def test_a_fold_keeps_no_other_roots_and_tells_the_first_hash_that_it_misses() -> None:
    fold = Fold([], cuts=[], watched=[6])
    fold.place(0, b"")
    with pytest.raises(RefusedError, match="no hash for the subtree of 1 records at 1"):
        fold.finish(6)
    assert fold.roots.keys() == {0, 6}


def test_a_cosignature_that_does_not_hold_is_told_and_does_not_count() -> None:
    one = b"witness w %s\n" % maker.vkey("w.example/1", 4, maker.WITNESS).encode()
    two = one + b"witness v %s\n" % maker.vkey("w.example/2", 4, maker.STRANGER).encode()
    note = parse_checkpoint(MADE.checkpoint(more=[maker.cosignature(MADE.text(7), "w.example/1", maker.WITNESS)]))
    for trust, told, found in (
        (b"quorum none\n", "", 0),
        (one + b"quorum w\n", "0 of 1 witness cosigned", 2),
        (two + b"quorum none\n", "0 of 2 witnesses cosigned", 1),
    ):
        report = Report()
        Policy(trust).judge(note, report)
        assert (report.told[19], len(report.findings)) == (told, found)


MEMBERS: dict[str, list[object]] = {
    "actor": [
        {},
        {"id": ""},
        {"id": 1},
        {"id": "x", "kind": "y"},
        {"id": "x" * 513},
        {"id": "x", "type": "\x7f"},
        [],
        "x",
    ],
    "context": [None, [], "x"],
    "entity_id": ["", "x" * 513, "\x00", "\x1f", 1, None],
    "entity_version": [0, -1, "1", 1.5, True, None],
    "epoch": [-1, "0", None, False],
    "event_type": ["", ".", "a.", "a..b", "a b", "x" * 201, "é", 1, "a\n"],
    "event_version": [0, None, True],
    "id": ["", "x" * 129, "a\nb", 1],
    "labels": [None, {}, ["x", "x"], [""], [1], ["x" * 101], [[]], [str(n) for n in range(65)], ["\x7f"]],
    "ledger": ["", "/a", "a/", "a//b", "a b", ".a", "a/.b", "x" * 201, 1, "a\n"],
    "occurred_at": ["", "x", 1, "2026-03-03"],
    "payload": [None, [], 1],
    "position": [-1, "1", None, 1.5],
    "prev_hash": ["", "A" * 64, "0" * 63, "0" * 65, 0],
    "recorded_at": [None, "2026-03-03T09:30:00Z", "2026-03-03T09:30:00.000000+00:00"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in MEMBERS.items() for value in values])
def test_a_member_of_another_form_is_not_of_a_record(name: str, value: object) -> None:
    said = {**json.loads(MADE.lines[4]), name: value}
    assert [finding.kind for finding in judge_record(rfc8785.dumps(said))] == ["not-canonical"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("actor", None),
        ("actor", {"id": "x" * 512, "type": "t", "name": "n", "identity_provider": "p"}),
        ("entity_id", "\U0001f600" * 512),
        ("event_type", "a-b_C.9" + "x" * 193),
        ("id", "x" * 128),
        ("labels", [str(n) for n in range(64)]),
        ("labels", ["x" * 100]),
        ("ledger", "a/B.c_d-9" + "x" * 191),
        ("occurred_at", "2026-03-03t09:30:59.1-23:59"),
        ("entity_version", 2**53 - 1),
        ("payload", {"\u2028": "\x7f\u0085"}),
    ],
)
def test_members_at_their_bounds_are_of_a_record(name: str, value: object) -> None:
    said = {**json.loads(MADE.lines[4]), name: value}
    assert judge_record(rfc8785.dumps(said)) == []


def test_a_signature_is_as_long_as_its_position_says() -> None:
    genesis, event = MADE.lines[0], MADE.lines[4]
    long, short = genesis[:-130] + genesis[-66:], event[:-66] + b"0" * 64 + event[-66:]
    assert judge_record(genesis) == judge_record(event) == []
    assert [finding.kind for finding in judge_record(long) + judge_record(short)] == ["not-canonical"] * 2
