"""`verify` says what was checked, or what does not hold and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_append import GOOD
from tests.cli.test_log import damage


@pytest.mark.usefixtures("ledger")
def test_a_good_ledger_passes(run: Run) -> None:
    out = run("verify").stdout

    assert out.startswith("PASS  the ledger audit holds\n")
    assert "all 7 of 7, positions 0 to 6" in out
    assert "6 hold; 6 in the epoch still open" in out
    assert "local/audit, 7 records" in out


@pytest.mark.usefixtures("ledger")
def test_the_report_in_json_has_the_documented_keys(run: Run) -> None:
    report = json.loads(run("verify", "--json").stdout)

    assert [*report] == [
        *("holds", "ledger", "origin", "size", "first", "end", "findings", "signatures", "unclosed", "keys"),
        *("proven", "pruned", "absent", "checkpoint", "index", "since", "mark", "notes", "warnings", "seconds"),
    ]
    assert report["holds"] is True


@pytest.mark.usefixtures("ledger")
def test_findings_are_listed_with_their_place_and_meaning(run: Run) -> None:
    damage(b'"id":"raj"', b'"id":"jar"')

    result = run("verify", code=1)
    report = json.loads(run("verify", "--json", code=1).stdout)

    assert result.stdout.startswith("FAIL  ")
    assert "position 4  checksum" in result.stdout
    assert "What it means:" in result.stdout
    assert "proven        nothing" in result.stdout  # only full tiles say which of their records are good
    assert {found["position"] for found in report["findings"]} >= {4}
    assert [*report["findings"][0]] == ["kind", "position", "end", "seen", "meaning"]


def test_many_findings_are_cut_off_on_the_screen_only(run: Run) -> None:
    run("init")
    run("append", input=GOOD * 100)
    damage(b'"entity_id":"e"', b'"entity_id":"f"', count=100)

    report = json.loads(run("verify", "--json", code=1).stdout)
    out = run("verify", code=1).stdout

    assert len(report["findings"]) >= 100
    assert f"and {len(report['findings']) - 50} more; --json lists them all" in out
    assert out.count("\nposition ") <= 50


@pytest.mark.usefixtures("ledger")
def test_a_checkpoint_from_before_must_still_be_covered(run: Run) -> None:
    shutil.copytree("audit", "old")
    run("append", "--type", "a.b", "--entity", "e")
    run("checkpoint", "-o", "kept")

    good = run("verify", "--since", "kept").stdout
    bad = run("verify", "-l", "old", "--since", "kept", code=1).stdout

    assert "your checkpoint of 8 records" in good
    assert "rollback" in bad


@pytest.mark.usefixtures("ledger")
def test_another_key_than_the_trusted_one_is_a_finding(run: Run, tmp_path: Path) -> None:
    own = json.loads(run("keys", "export", "--json").stdout)["verifier_key"]
    run("init", "-l", "other/audit")
    other = json.loads(run("keys", "export", "-l", "other/audit", "--json").stdout)["verifier_key"]
    (tmp_path / "vkey").write_text(own + "\n")

    assert "PASS" in run("verify", "--trust", own).stdout
    assert "PASS" in run("verify", "--trust", "@vkey").stdout
    assert "FAIL" in run("verify", "--trust", other, code=1).stdout
    assert "not a verifier key" in run("verify", "--trust", "nonsense", code=2).stderr


@pytest.mark.usefixtures("ledger")
def test_without_keys_all_but_the_signatures_is_checked(run: Run) -> None:
    shutil.move("audit/keys", "elsewhere")

    assert "not checked, nor is the queue: the keys are not here" in run("verify").stdout
    assert "6 hold" in run("verify", "--keys", "elsewhere").stdout
    assert run("verify", "--keys", "nowhere", code=2).stderr.startswith("error: there are no keys in nowhere")


def test_a_part_can_be_verified(run: Run) -> None:
    run("init")
    run("append", input=GOOD * 700)

    report = json.loads(run("verify", "--first", "256", "--end", "512", "--processes", "1", "--json").stdout)

    assert (report["first"], report["end"], report["size"]) == (256, 512, 702)
    assert "only 256 of 702, positions 256 to 511" in run("verify", "--first", "256", "--end", "512").stdout


@pytest.mark.usefixtures("ledger")
def test_wrong_input_is_told_from_a_finding(run: Run, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\x00\xff junk")

    assert run("verify", "-l", "nowhere", code=2).stderr.startswith("error: there is no ledger at nowhere")
    assert "does not exist" in run("verify", "--since", "missing", code=2).stderr
    assert run("verify", "--since", "junk", code=2).stderr.startswith("error: ")
    assert run("verify", "--first", "99", code=2).stderr.startswith("error: there are no positions")
