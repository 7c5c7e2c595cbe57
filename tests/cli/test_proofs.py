"""`checkpoint`, `prove` and `check-proof` give others what they need, and say when a proof does not hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def vkey(ledger: Path, run: Run) -> str:  # noqa: ARG001 - it must be there
    key: str = json.loads(run("keys", "export", "--json").stdout)["verifier_key"]
    return key


@pytest.mark.usefixtures("ledger")
def test_a_checkpoint_is_printed_or_written_as_it_was_signed(run: Run) -> None:
    printed = run("checkpoint").stdout_bytes

    assert printed.startswith(b"local/audit\n7\n")
    assert run("checkpoint", "-o", "kept").stdout == "wrote the checkpoint of 7 records to kept\n"
    assert Path("kept").read_bytes() == printed
    facts = json.loads(run("checkpoint", "--json").stdout)
    assert [*facts] == ["origin", "size", "root", "checkpoint"]
    assert facts["checkpoint"].encode() == printed


@pytest.mark.usefixtures("ledger")
def test_what_is_written_is_written_wholly_and_a_pipe_stays_a_pipe(run: Run) -> None:
    Path("kept").write_bytes(b"old")
    inode = Path("kept").stat().st_ino
    run("checkpoint", "-o", "kept")
    assert Path("kept").stat().st_ino != inode
    assert sorted(Path().iterdir()) == [Path("audit"), Path("kept")]

    Path("out").symlink_to("kept")
    Path("kept").write_bytes(b"old")
    run("checkpoint", "-o", "out")
    assert Path("kept").read_bytes().startswith(b"local/audit\n")
    assert Path("out").is_symlink()
    assert "/dev/full: cannot be written: No space left" in run("checkpoint", "-o", "/dev/full", code=2).stderr


def test_a_proof_holds_offline(vkey: str, run: Run) -> None:
    made = run("prove", "e-2", "-o", "it.tlog-proof", "--record", "it.record").stdout
    facts = json.loads(run("prove", "3", "--json").stdout)
    Path("audit").rename("gone")

    checked = run("check-proof", "it.tlog-proof", "--record", "it.record", "--vkey", vkey).stdout
    result = json.loads(run("check-proof", "it.tlog-proof", "--record", "it.record", "--vkey", vkey, "--json").stdout)

    assert made == "wrote the proof of record 3 to it.tlog-proof, and the record to it.record\n"
    assert checked.startswith("HOLDS  this record is at position 3 of local/audit\n")
    assert [*facts] == ["position", "record", "proof"]
    assert facts["proof"].encode() == Path("it.tlog-proof").read_bytes()
    assert facts["record"].encode() == Path("it.record").read_bytes()
    names = ["holds", "findings", "origin", "position", "size", "root", "record_hash", "cosigned"]
    assert [*result] == names
    assert result["record_hash"] == hashlib.sha256(Path("it.record").read_bytes()).hexdigest()


def test_the_record_may_come_from_show_or_from_the_ledger(vkey: str, run: Run) -> None:
    Path("proof").write_bytes(run("prove", "3").stdout_bytes)
    Path("shown").write_bytes(run("show", "3", "--raw").stdout_bytes)

    assert "HOLDS" in run("check-proof", "proof", "--record", "shown", "--vkey", vkey).stdout
    assert "HOLDS" in run("check-proof", "proof", "-l", "audit", "--vkey", vkey).stdout


def test_a_proof_that_does_not_hold_exits_with_1(vkey: str, run: Run) -> None:
    Path("proof").write_bytes(run("prove", "3").stdout_bytes)
    record = run("show", "3", "--raw").stdout_bytes
    Path("changed").write_bytes(record.replace(b"editor", b"Editor"))
    Path("another").write_bytes(run("show", "2", "--raw").stdout_bytes)
    Path("none").write_bytes(b"{}")
    run("init", "-l", "other/audit")
    other = json.loads(run("keys", "export", "-l", "other/audit", "--json").stdout)["verifier_key"]

    changed = run("check-proof", "proof", "--record", "changed", "--vkey", vkey, code=1)
    assert changed.stdout.startswith("DOES NOT HOLD  do not rely on this record\n")
    assert "root" in changed.stdout
    for name, found in (("another", ["misplaced", "root"]), ("none", ["not-canonical"])):
        told = json.loads(run("check-proof", "proof", "--record", name, "--vkey", vkey, "--json", code=1).stdout)
        assert (told["holds"], [one["kind"] for one in told["findings"]]) == (False, found)
    told = json.loads(run("check-proof", "proof", "--vkey", other, "--json", code=1).stdout)
    assert [one["kind"] for one in told["findings"]] == ["checkpoint"]


def test_a_trust_file_may_say_whom_to_believe(vkey: str, run: Run) -> None:
    assert vkey
    Path("proof").write_bytes(run("prove", "3").stdout_bytes)
    Path("trust").write_bytes(run("keys", "export", "--trust-file").stdout_bytes)
    Path("asked").write_text(Path("trust").read_text("utf-8").replace("quorum none", "quorum somebody"), "utf-8")

    assert "HOLDS" in run("check-proof", "proof", "--trust", "trust").stdout
    assert "is not defined above" in run("check-proof", "proof", "--trust", "asked", code=2).stderr
    assert "give --trust, or --vkey" in run("check-proof", "proof", code=2).stderr


def test_what_is_no_proof_or_no_key_is_wrong_input(vkey: str, run: Run) -> None:
    Path("junk").write_bytes(b"\x00junk")
    Path("huge").write_bytes(b"x" * 1_000_000)

    assert "this is not a proof file" in run("check-proof", "junk", "--vkey", vkey, code=2).stderr
    assert "is it the right file?" in run("check-proof", "huge", "--vkey", vkey, code=2).stderr
    assert "not a verifier key" in run("check-proof", "junk", "--vkey", "x", code=2).stderr
    assert "cannot be written" in run("prove", "3", "-o", "no/such/folder", code=2).stderr
