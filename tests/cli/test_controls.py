"""`controls`: the catalogue on the screen, and evidence for it found in the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CLOUDTRAIL, ROOT, Run


@pytest.fixture
def clinic(run: Run, tmp_path: Path) -> Path:
    """The ledger of the examples at ./audit."""
    run("init")
    run("append", str(ROOT / "examples" / "events.jsonl"))
    return tmp_path / "audit"


def checked(run: Run, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("controls", "check", *arguments, "--json").stdout)
    return found


def test_the_catalogue_needs_no_ledger(run: Run) -> None:
    table = run("controls", "list", "--framework", "soc 2").stdout
    found = json.loads(run("controls", "list", "--json").stdout)

    assert "SOC2       CC7.2" in table
    assert "ISO27001" not in table
    assert (len(found["controls"]), len(found["frameworks"])) == (56, 7)


def test_a_control_is_explained_in_words(run: Run) -> None:
    shown = run("controls", "explain", "cc6.3").stdout
    found = json.loads(run("controls", "explain", "SOC2/CC6.3", "--json").stdout)

    assert "access-reviews, at least every 90 days" in shown
    assert "events of type access_review.completed" in shown
    assert found["cadence"] == {"access-reviews": 90}
    assert found["selectors"][1]["terms"][0][0] == "event_type=access_review.completed"


def test_an_unknown_control_is_one_error_with_what_comes_near(run: Run) -> None:
    assert "did you mean CC7.2" in run("controls", "explain", "CC72x", code=2).stderr
    assert json.loads(run("controls", "explain", "x", "--json", code=2).stderr)["error"]["family"] == "not-found"


def test_a_question_in_plain_words_finds_controls(run: Run) -> None:
    found = json.loads(run("controls", "search", "who approved production changes", "--json").stdout)

    assert found["controls"][0]["control"] == "SOC2/CC8.1"
    assert "CC8.1" in run("controls", "search", "who", "approved", "production", "changes").stdout
    assert "no control is about that" in run("controls", "search", "zebra").stderr


@pytest.mark.usefixtures("clinic")
def test_a_check_prints_what_was_found_and_what_was_not(run: Run) -> None:
    period = ("--occurred", "--from", "2026-02-23", "--to", "2026-04-05")
    result = run("controls", "check", "--framework", "SOC2", *period)
    found = checked(run, "--framework", "SOC2", *period)

    assert "SOC2/CC7.2  found" in result.stdout
    assert "SOC2/CC9.2  GAP" in result.stdout
    assert "evidence was found for 10 of 12 controls; that events were recorded does not say" in result.stderr
    assert (found["evidenced"], found["gaps"]) == (10, 2)
    assert found["controls"][7]["before"] == "2026-04-06T00:00:00.000000Z"


@pytest.mark.usefixtures("clinic")
def test_controls_are_named_by_one_of_three_ways(run: Run) -> None:
    assert len(checked(run, "cc7.2", "CC7.2", "AU-9")["controls"]) == 2
    assert len(checked(run, "--all")["controls"]) == 56
    for wrong in ([], ["CC7.2", "--all"], ["--all", "--framework", "SOC2"]):
        assert "name controls, or a framework" in run("controls", "check", *wrong, code=2).stderr


@pytest.mark.usefixtures("clinic")
def test_controls_of_ones_own_are_checked_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "framework: HOUSE\ntitle: House\nselectors:\n  exports: {shows: Out., any_of: [[event_type=data.exported]]}\n"
        "controls:\n  - {id: H-1, title: T, requirement: R., selectors: [exports], gap: G., window: 90}\n"
    )

    assert checked(run, "h-1", "--catalogue", "own.yaml")["controls"][0]["count"] == 7
    assert "there is no control 'h-1'" in run("controls", "check", "h-1", code=2).stderr


@pytest.mark.cloudtrail
def test_real_cloudtrail_records_are_evidence_and_leave_the_gaps_that_one_day_leaves(run: Run) -> None:
    run("init")
    run("import", "cloudtrail", str(CLOUDTRAIL))

    period = ("--occurred", "--from", "2023-07-10", "--to", "2023-07-10")
    found = {each["control"]: each for each in checked(run, "--all", *period)["controls"]}

    assert found["SOC2/CC6.1"]["status"] == "evidenced"
    beside = {each["name"]: each["count"] for each in found["NIST800-53/AU-9"]["related"]}
    assert (found["NIST800-53/AU-9"]["count"], beside["logging-settings"], beside["logging-stops"]) == (0, 11, 8)
    missing = ("PCI-DSS/10.6", "ISO27001/A.8.17", "SOC2/CC7.2", "SOC2/CC9.2", "NIST800-53/AU-5")
    assert {found[name]["status"] for name in missing} == {"gap"}
    assert all(each["gaps"] for each in found.values() if each["count"] == 0)
