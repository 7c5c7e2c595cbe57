"""`evidence`: a pack for an auditor from one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tallystick_verify.cli import main as verify

from tests.cli.conftest import ROOT, Run

SPRING = ("--from", "2026-02-23", "--to", "2026-04-05", "--occurred")


@pytest.fixture(autouse=True)
def _clinic(run: Run) -> None:
    """The ledger of the examples at ./audit."""
    run("init")
    run("append", str(ROOT / "examples" / "events.jsonl"))


def test_a_pack_is_made_and_its_gaps_are_content(run: Run) -> None:
    result = run("evidence", "CC7.2", "CC9.2", "-o", "pack", *SPRING, "--actor", "grace", "--pdf")

    assert "SOC2/CC9.2  GAP" in result.stdout
    assert result.stdout.startswith(
        "COMPLETE: every record at positions [0, 415). It discloses 415 records: 57 matching"
    )
    assert "To disclose only what matches, and prove less: --filtered" in result.stdout
    assert "415 records in pack/bundle; tallystick-verify lists for each selector those that match" in result.stdout
    assert "wrote bundle, report.html, report.pdf, assessment.json to pack" in result.stdout
    assert json.loads(Path("pack/assessment.json").read_text("utf-8"))["gaps"] == 1


def test_a_gap_can_be_made_to_fail(run: Run) -> None:
    run("evidence", "CC7.2", "-o", "one", *SPRING, "--fail-on-gap")
    run("evidence", "CC7.2", "CC9.2", "-o", "two", *SPRING, "--fail-on-gap", code=1)

    assert Path("two/report.html").exists()


def test_what_machines_read_is_what_was_written(run: Run) -> None:
    found = json.loads(run("evidence", "--framework", "SOC2", "-o", "pack", *SPRING, "--json").stdout)

    assert found == json.loads(Path("pack/assessment.json").read_text("utf-8"))
    assert (found["evidenced"], found["gaps"], found["size"]) == (10, 2, 415)


def test_a_filtered_pack_says_so_first(run: Run) -> None:
    result = run("evidence", "CC7.2", "-o", "pack", *SPRING, "--filtered")

    assert result.stdout.startswith("FILTERED: it discloses 57 records matching the controls, and no other.")
    assert "--filtered" not in result.stdout
    assert len(Path("pack/bundle/events.jsonl").read_bytes().split(b"\n")) == 58


def test_a_dry_run_says_what_would_be_disclosed_and_writes_nothing(run: Run) -> None:
    result = run("evidence", "CC7.2", *SPRING, "--dry-run")
    facts = json.loads(run("evidence", "CC7.2", "-o", "pack", *SPRING, "--dry-run", "--json").stdout)

    assert result.stdout.startswith("COMPLETE: every record at positions [0, 415).")
    assert "nothing was written: this was a dry run" in result.stdout
    assert facts["discloses"] == {"records": 415, "fitting": 57, "unrelated": 358}
    assert not Path("pack").exists()
    assert run("evidence", "CC7.2", *SPRING, code=2).stderr.count("--dry-run") == 1


def test_the_auditors_command_shows_the_figures_of_the_report(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("evidence", "CC7.2", "-o", "pack", *SPRING)
    Path("trust.policy").write_bytes(run("keys", "export", "--trust-file").stdout_bytes)

    assert verify(["pack/bundle", "--trust", "trust.policy"]) == 0
    shown = capsys.readouterr().out
    assert "  complete: every matching record of the range is here\n" in shown
    assert "        3  incidents                               255, 283, 378\n" in shown
    assert verify(["pack/bundle", "--trust", "trust.policy", "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["bundles"][0]["selectors"]}
    assert {name: found["incidents"][name] for name in ("count", "positions")} == {
        "count": 3,
        "positions": [255, 283, 378],
    }
    assert found["incidents"]["any_of"][0][0] == "event_type=incident.*"
    period = ["occurred_after=2026-02-23T00:00:00.000000Z", "occurred_before=2026-04-06T00:00:00.000000Z", "end=415"]
    assert found["incidents"]["within"] == period
    assert f"  of records with {' '.join(period)}:\n" in shown
    assert len(found["denials"]["positions"]) == 54
    checked = run("check-bundle", "pack/bundle", "--trust", "trust.policy", "--json").stdout
    for each in json.loads(checked)["selectors"]:
        assert each.items() <= found[each["name"]].items()


def test_without_any_matching_event_a_filtered_pack_has_no_bundle(run: Run) -> None:
    result = run("evidence", "CC9.2", "-o", "pack", *SPRING, "--filtered")

    assert "no bundle was made: no record fits" in result.stdout
    assert not Path("pack/bundle").exists()
    assert Path("pack/report.html").exists()


def test_nothing_is_overwritten(run: Run) -> None:
    run("evidence", "CC7.2", "-o", "pack", *SPRING)
    before = Path("pack/report.html").read_bytes()

    assert "pack: something is there already" in run("evidence", "CC7.2", "-o", "pack", *SPRING, code=2).stderr
    assert Path("pack/report.html").read_bytes() == before


def test_controls_must_be_named(run: Run) -> None:
    assert "name controls, or a framework" in run("evidence", "-o", "pack", code=2).stderr
    assert not Path("pack").exists()
