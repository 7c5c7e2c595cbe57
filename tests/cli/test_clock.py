"""`correct-clock`, and prunes by a clock that nobody looked at."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tests.cli.conftest import Run

TEN_YEARS = 3_653 * 86_400_000_000


def ahead(folder: Path) -> None:
    """Have one event recorded ten years ahead."""
    with tallystick.open(folder, clock=lambda: time.time_ns() // 1_000 + TEN_YEARS) as ledger:
        ledger.append(event_type="door.opened", entity_id="door-1", actor="jane")


def test_one_command_has_a_ledger_go_on_at_the_true_time(ledger: Path, run: Run) -> None:
    ahead(ledger)
    assert "ahead of this machine's clock by more than a day" in run("verify", code=1).stdout

    told = run("correct-clock", "the time server was wrong", "--actor", "ops-jane").stdout

    assert told.startswith("times count on from 20")
    assert "and not from 20" in told
    run("append", input='{"event_type":"a.b","entity_id":"c"}\n')
    passed = run("verify").stdout
    assert passed.startswith("PASS")
    assert "the clock was corrected at position" in passed
    story = json.loads(run("query", "event_type=tallystick.clock.corrected", "--json").stdout)["records"][0]
    assert (story["actor"]["id"], story["payload"]["reason"]) == ("ops-jane", "the time server was wrong")


@pytest.mark.usefixtures("ledger")
def test_where_nothing_contradicts_the_clock_nothing_is_recorded(run: Run) -> None:
    assert "there is nothing to correct" in run("correct-clock", "to be sure", code=1).stderr
    assert run("verify").stdout.startswith("PASS")


@pytest.mark.parametrize("order", [(), ("--oldest-first",)])
def test_the_log_of_a_time_has_what_was_recorded_ahead(ledger: Path, run: Run, order: tuple[str, ...]) -> None:
    ahead(ledger)
    run("correct-clock", "why")
    tomorrow = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
    for arguments, there in (
        (("--until", tomorrow), True),
        (("--since", tomorrow), False),
        (("--since", "2020-01-01T00:00:00Z"), True),
    ):
        shown = run("log", "--all", "--type", "door.opened", "--json", *arguments, *order).stdout
        assert ("door-1" in shown) == there, arguments


def test_it_is_told_to_machines(ledger: Path, run: Run) -> None:
    ahead(ledger)
    facts = json.loads(run("correct-clock", "why", "--json").stdout)
    assert facts.keys() == {"position", "recorded_at", "last_recorded_at"}
    assert facts["recorded_at"] < facts["last_recorded_at"]


def test_without_a_reason_nothing_is_done(ledger: Path, run: Run) -> None:
    ahead(ledger)
    assert "reason" in run("correct-clock", "", code=2).stderr.lower()


def test_a_prune_by_a_clock_that_is_far_from_the_newest_record_has_to_be_confirmed(run: Run, tmp_path: Path) -> None:
    run("init")
    long_ago = time.time_ns() // 1_000 - 60 * 86_400_000_000
    with tallystick.open(tmp_path / "old", clock=lambda: long_ago) as ledger:
        ledger.append(event_type="door.opened", entity_id="door-1", actor="jane")
        ledger.retention.set(RetentionPolicy.of("30d"))

    assert "1 record would be removed" in run("-l", "old", "prune").stdout
    refused = run("-l", "old", "prune", "--yes", code=2).stderr
    assert "60 days before what the clock says" in refused
    assert "removed 1 record" in run("-l", "old", "prune", "--yes", "--clock-is-right").stdout
