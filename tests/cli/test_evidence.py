"""`evidence`: a pack for an auditor from one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    assert "57 records in pack/bundle: each is proven to have been in the ledger, unchanged;" in result.stdout
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


def test_without_any_matching_event_there_is_a_report_and_no_bundle(run: Run) -> None:
    result = run("evidence", "CC9.2", "-o", "pack", *SPRING)

    assert "no bundle was made: no event fits" in result.stdout
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
