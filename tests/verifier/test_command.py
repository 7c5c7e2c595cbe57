"""The command: what it prints, what it writes, and what it ends with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import Final

import pytest
from tallystick_verify.cli import main
from tallystick_verify.report import STEPS

from tests.verifier import cases, maker

VERIFIER: Final = Path(__file__).parents[2] / "verifier"
NOW: Final = ["--now", "2026-03-04T00:00:00Z"]


@pytest.fixture
def trust(tmp_path: Path) -> str:
    (tmp_path / "trust.policy").write_bytes(maker.TRUST)
    return str(tmp_path / "trust.policy")


def bundle(folder: Path, **given: object) -> str:
    return str(maker.write(folder, cases.ledger().bundle(0, 14, **given).files()))  # type: ignore[arg-type]


def test_a_complete_bundle_holds_and_says_what_that_proves(
    tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([bundle(tmp_path / "b"), "--trust", trust, *NOW]) == 0

    shown = capsys.readouterr().out
    assert all(f"{number:3} {name}" in shown for number, name in enumerate(STEPS, 1))
    assert "PASS: complete. Every record of [0, 14) is there, as it was sealed." in shown
    assert "14 records" in shown
    assert "not taken" in shown
    assert "FINDING" not in shown


def test_a_filtered_and_a_pruned_bundle_say_what_they_do_not_prove(
    tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, absent = cases.pruned()
    pruned = str(maker.write(tmp_path / "p", gone.bundle(0, 11, absent=absent).files()))

    assert main([bundle(tmp_path / "f", keep=lambda at: at == 3), "--trust", trust, *NOW]) == 0
    assert "Of what is not here, this says nothing." in capsys.readouterr().out
    assert main([pruned, "--trust", trust, *NOW]) == 0
    assert (
        "is there, as it was sealed, but for 2 records that were pruned, as position 9 says." in capsys.readouterr().out
    )


def test_findings_are_shown_under_their_step_with_line_and_position(
    tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(bundle(tmp_path / "b"))
    events = (path / "events.jsonl").read_bytes()
    (path / "events.jsonl").write_bytes(events.replace(b'"n":4', b'"n":5', 1))

    assert main([str(path), "--trust", trust, *NOW]) == 1

    shown = capsys.readouterr().out
    assert "    signature, line 5, position 4: " in shown
    assert "FAIL: " in shown
    assert "PASS" not in shown


def test_json_says_the_same(tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = bundle(tmp_path / "good"), Path(bundle(tmp_path / "bad"))
    (bad / "manifest.json").write_bytes(b"{}")

    assert main([good, "--trust", trust, "--json", *NOW]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["holds"]
    assert [step["step"] for step in said["bundles"][0]["steps"]] == list(range(1, 22))
    assert main([str(bad), "--trust", trust, "--json", *NOW]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [finding["kind"] for finding in said["bundles"][0]["findings"]] == ["manifest"]
    assert not said["holds"]


def test_two_bundles_are_held_together(tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]) -> None:
    fork = str(maker.write(tmp_path / "fork", cases.ledger(other=4).bundle(0, 14).files()))

    assert main([bundle(tmp_path / "a"), bundle(tmp_path / "b"), "--trust", trust, *NOW]) == 0
    assert "PASS: the two bundles are of one history." in capsys.readouterr().out
    assert main([bundle(tmp_path / "a"), fork, "--trust", trust, *NOW]) == 1
    shown = capsys.readouterr().out
    assert "    fork, position 4: two different records, with the leaf hashes " in shown
    assert "    fork: two different records at 10 positions" in shown
    assert shown.count("fork, position ") == 1
    assert main([bundle(tmp_path / "a"), fork, "--trust", trust, "--json", *NOW]) == 1
    assert {finding["kind"] for finding in json.loads(capsys.readouterr().out)["findings"]} == {"fork"}


def test_what_cannot_begin_ends_with_2(tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]) -> None:
    good = bundle(tmp_path / "b")
    other = maker.Ledger("other", "audit.example/other")
    other.open()
    other.close()
    elsewhere = str(maker.write(tmp_path / "o", other.bundle(0, 3).files()))
    (tmp_path / "bad.policy").write_bytes(b"log x\n")

    assert main([good, "--trust", str(tmp_path / "none")]) == 2
    assert main([good, "--trust", str(tmp_path / "bad.policy")]) == 2
    assert main([str(tmp_path / "none"), "--trust", trust]) == 2
    assert main([good, str(tmp_path / "none"), "--trust", trust]) == 2
    assert main([good, "--trust", trust, "--known-checkpoint", str(tmp_path / "none")]) == 2
    assert main([good, elsewhere, "--trust", trust]) == 2
    told = capsys.readouterr()
    assert "two origins" in told.err
    assert told.out == ""
    (tmp_path / "junk").write_bytes(b"junk")
    assert main([good, "--trust", trust, "--known-checkpoint", str(tmp_path / "junk")]) == 2
    for arguments in (
        [],
        [good, "--trust", trust, "--now", "9999-12-31T23:58:00Z"],
        [good],
        [good, "--trust", trust, "--now", "yesterday"],
        ["proof", good, "--trust", trust],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_a_known_checkpoint_and_the_time_are_heeded(
    tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "known").write_bytes(cases.ledger(other=4).checkpoint(9))
    (tmp_path / "mine").write_bytes(cases.ledger().checkpoint(9))
    good = bundle(tmp_path / "b")

    assert main([good, "--trust", trust, "--known-checkpoint", str(tmp_path / "mine"), *NOW]) == 0
    assert main([good, "--trust", trust, "--known-checkpoint", str(tmp_path / "known"), *NOW]) == 1
    assert main([good, "--trust", trust, "--now", "2026-03-02t23:59:59z"]) == 1
    capsys.readouterr()
    assert main([good, "--trust", trust, "--now", "2026-03-03t23:54:59z"]) == 0
    assert "ahead of this machine's clock" in capsys.readouterr().out


def test_a_proof_is_verified_with_its_record(tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = cases.ledger()
    (tmp_path / "proof").write_bytes(made.proof(4))
    (tmp_path / "record").write_bytes(made.lines[4])
    (tmp_path / "other").write_bytes(made.lines[5])
    proof = ["proof", str(tmp_path / "proof")]

    assert main([*proof, str(tmp_path / "record"), "--trust", trust]) == 0
    assert "PASS: this record is in the ledger" in capsys.readouterr().out
    assert main([*proof, str(tmp_path / "other"), "--trust", trust]) == 1
    assert "    misplaced: " in capsys.readouterr().out
    assert main([*proof, str(tmp_path / "other"), "--trust", trust, "--json"]) == 1
    assert [finding["kind"] for finding in json.loads(capsys.readouterr().out)["findings"]] == ["misplaced", "root"]


def test_what_is_told_is_counted_in_words(tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle(tmp_path / "b", timestamps=[b"\x30\x00", b"\x30\x01"])
    assert main([path, "--trust", trust, *NOW]) == 0
    shown = capsys.readouterr().out
    assert "2 timestamps: README says how openssl checks them" in shown
    assert "as it was sealed. Timestamps are listed, not verified." in shown

    (Path(path) / "manifest.json").write_bytes(b"{}")
    assert main([path, "--trust", trust, *NOW]) == 1
    assert "FAIL: 1 finding. Nothing" in capsys.readouterr().out


def test_no_byte_of_a_bundle_reaches_the_terminal_unescaped(
    tmp_path: Path, trust: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cases.ledger().bundle(0, 14)
    made.lines[3] = maker.changed(made.lines[3], ledger="\x1b]0;owned\x07\u202e\x9b")
    path = maker.write(tmp_path / "b", made.files())

    assert main([str(path), "--trust", trust, *NOW]) == 1

    shown = capsys.readouterr().out
    assert not {character for character in shown if not character.isprintable()} - {"\n"}
    assert "not-canonical, line 4" in shown


def test_output_that_cannot_be_written_is_told(tmp_path: Path, trust: str) -> None:
    command = [sys.executable, "-m", "tallystick_verify.cli", bundle(tmp_path / "b"), "--trust", trust, *NOW]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "tallystick-verify: output: No space left on device\n")


def test_what_a_terminal_cannot_show_is_escaped(tmp_path: Path, trust: str) -> None:
    path = bundle(tmp_path / "\u00e9")
    command = [sys.executable, "-m", "tallystick_verify.cli", path, "--trust", trust, *NOW]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"\\xe9\n" in done.stdout


@pytest.mark.ssh_keygen
def test_ssh_keygen_checks_the_seal_as_the_readme_says(tmp_path: Path) -> None:
    folder = maker.write(tmp_path / "b", cases.ledger().bundle(0, 14).files())
    readme = (VERIFIER / "README.md").read_text("utf-8")
    commands = next(block for block in readme.split("```") if "ssh-keygen" in block)
    commands = commands.replace("EVIDENCE_KEY", maker.b64(maker.public(maker.EVIDENCE)))

    done = subprocess.run(["sh", "-euc", commands], cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Good" in done.stdout


def test_one_file_holds_it_all_and_says_what_it_misses(tmp_path: Path, trust: str) -> None:
    source = tmp_path / "source"
    shutil.copytree(VERIFIER / "src" / "tallystick_verify", source / "tallystick_verify")
    shutil.copy(VERIFIER / "pyz_main.py", source / "__main__.py")
    zipapp.create_archive(source, tmp_path / "verify.pyz")
    arguments = [str(tmp_path / "verify.pyz"), bundle(tmp_path / "b"), "--trust", trust, *NOW]

    holds = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    bare = subprocess.run([sys.executable, "-S", *arguments], capture_output=True, text=True, check=False)

    assert (holds.returncode, bare.returncode) == (0, 2)
    assert "PASS: complete." in holds.stdout
    assert bare.stderr.count("\n") == 1
    assert "cryptography" in bare.stderr
