"""`retention`, `hold` and `prune`: what is ordered is recorded, and what expired goes only when it is told to."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tests.cli.conftest import Run

LONG_AGO: Final = time.time_ns() // 1_000 - 360 * 86_400_000_000
"""360 days ago, in microseconds: older than most periods here, and no rest of a ledger that nobody believes."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger at ./audit with forty events, a year old, at positions 2 to 41, of four entities; every tenth is phi."""
    with tallystick.open(tmp_path / "audit", clock=lambda: LONG_AGO) as ledger:
        ledger.append_many(
            {"event_type": "t.x", "entity_id": f"e-{n % 4}", "labels": ["phi"] * (n % 10 == 0)} for n in range(40)
        )
    return tmp_path / "audit"


def asked(run: Run, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return found


@pytest.mark.usefixtures("ledger")
def test_a_policy_is_shown_with_who_set_it_and_why(run: Run) -> None:
    assert run("retention", "show").stdout == "no policy was ever set: everything is kept\n"
    assert set(asked(run, "retention", "show").values()) == {None}

    said = run("retention", "set", "90d", "--label", "phi=6y", "--actor", "jane", "--reason", "GDPR").stdout

    assert said == "records are kept 90d, phi 6y, as recorded at position 7\n"
    found = asked(run, "retention", "show")
    assert found.pop("recorded_at")
    assert found == {
        "policy": {"period_days": 90, "labels": {"phi": 2196}},
        "text": "90d, phi 6y",
        "position": 7,
        "actor": {"id": "jane"},
        "reason": "GDPR",
    }
    assert [line.split()[-1] for line in run("retention", "show").stdout.split("\n")[2:4]] == ["jane", "GDPR"]
    assert asked(run, "retention", "set", "forever") == {"text": "forever", "position": 8}


@pytest.mark.usefixtures("ledger")
def test_holds_are_placed_listed_and_released(run: Run) -> None:
    run("hold", "place", "case-7", "--reason", "a lawsuit", "--entity", "user-1", "--actor", "jane")
    run("hold", "place", "case-8", "--reason", "an audit", "--positions", "2-5")
    assert asked(run, "hold", "place", "case-9", "--reason", "phi", "--label", "phi") == {
        "name": "case-9",
        "position": 9,
    }

    holds = asked(run, "hold", "list")["holds"]
    table = run("hold", "list").stdout

    assert [*holds[0]] == ["name", "reason", "entity", "label", "first", "end", "position", "since", "actor"]
    assert [(hold["entity"], hold["label"], hold["first"], hold["end"]) for hold in holds] == [
        ("user-1", None, None, None),
        (None, None, 2, 5),
        (None, "phi", None, None),
    ]
    assert [text in table for text in ("entity user-1", "positions [2, 5)", "label phi", "a lawsuit")] == [True] * 4
    run("hold", "release", "case-8", "--reason", "over")
    assert [hold["name"] for hold in asked(run, "hold", "list")["holds"]] == ["case-7", "case-9"]
    assert "is in force already" in run("hold", "place", "case-7", "--reason", "r", "--label", "x", code=1).stderr


@pytest.mark.usefixtures("old")
def test_a_dry_run_says_what_would_go_and_who_keeps_the_rest_and_touches_nothing(run: Run) -> None:
    run("retention", "set", "90d", "--label", "phi=forever")
    run("hold", "place", "case-7", "--reason", "a lawsuit", "--entity", "e-1")
    before = run("query", "--all", "--json").stdout

    result = run("prune")
    plan = asked(run, "prune")["plan"]

    assert "26 records would be removed" in result.stdout
    assert "a hold wins: case-7 keeps 10 records (entity e-1)" in result.stdout
    assert "keeps 4 records longer" in result.stdout
    assert "this was a dry run: nothing was removed" in result.stderr
    assert (plan["count"], plan["kept_by_hold"], plan["kept_by_label"]) == (26, {"case-7": 10}, {"phi": 4})
    assert asked(run, "prune")["pruned"] is None
    assert run("query", "--all", "--json").stdout == before


@pytest.mark.usefixtures("old")
def test_a_prune_removes_what_expired_and_the_ledger_says_so_and_holds(run: Run) -> None:
    run("retention", "set", "90d", "--label", "phi=forever")
    run("hold", "place", "case-7", "--reason", "a lawsuit", "--entity", "e-1")

    said = run("prune", "--yes", "--actor", "jane").stdout

    kept = [record["position"] for record in asked(run, "query", "label=phi", "--oldest-first")["records"]]
    record = asked(run, "query", "event_type=tallystick.records.pruned")["records"][0]
    report, text = asked(run, "verify"), run("verify").stdout
    assert f"removed 26 records, {_bytes(said)} bytes, as recorded at position {record['position']}\n" in said
    assert record["actor"] == {"id": "jane"}
    assert record["payload"]["count"] == 26
    assert kept == [2, 12, 22, 32]
    assert run("query", "entity_id=e-1", "--count").stdout == "10 records\n"
    assert run("query", "entity_id=e-3", "--count").stdout == "0 records\n"
    assert (report["holds"], report["absent"], report["pruned"][0]["count"]) == (True, 26, 26)
    assert report["pruned"][0]["position"] == record["position"]
    assert "lawfully pruned: 26 records under the policy at position" in text
    assert "26 of them lawfully pruned" in text
    assert "nothing has expired that is not kept" in run("prune", "--yes").stdout


def _bytes(said: str) -> str:
    return said.partition(" records, ")[2].partition(" bytes")[0]


@pytest.mark.usefixtures("old")
def test_a_prune_in_json_says_what_was_planned_and_done(run: Run) -> None:
    run("retention", "set", "90d")
    done = asked(run, "prune", "--yes")

    assert [*done["plan"]] == [
        *("end", "first", "count", "bytes", "kept", "kept_own", "kept_by_hold", "kept_by_label", "oldest_kept"),
        *("policy", "policy_position", "unfinished", "size"),
    ]
    assert [*done["pruned"]] == ["position", "end", "count", "bytes", "finished"]
    assert (done["pruned"]["count"], done["plan"]["bytes"] == done["pruned"]["bytes"]) == (40, True)
    assert "records below position 42 may have been pruned" in run("series").stderr


@pytest.mark.usefixtures("ledger")
def test_what_is_in_force_is_shown_without_keys_and_nothing_is_ordered_without_them(run: Run) -> None:
    run("retention", "set", "90d")
    shutil.move("audit/keys", "elsewhere")

    assert "records are kept 90d" in run("retention", "show").stdout
    assert run("hold", "list").stderr == "no hold is in force\n"
    assert "nothing has expired" in run("prune").stdout
    assert "there is no key" in run("retention", "set", "1d", code=2).stderr
    assert "nothing has expired" in run("prune", "--yes", "--keys", "elsewhere").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retention", "set", "0d"), "'0d' is not a period"),
        (("retention", "set", "90d", "--label", "phi"), "--label: 'phi' has no period"),
        (("retention", "set", "90d", "--label", "a=1d", "--label", "a=2d"), "given twice"),
        (("retention", "set", "90d", "--label", "a=soon"), "label 'a': 'soon' is not a period"),
        (("hold", "place", "x", "--reason", "r"), "a hold has one scope"),
        (("hold", "place", "x", "--reason", "r", "--label", "a", "--entity", "b"), "a hold has one scope"),
        (("hold", "place", "x", "--label", "a"), "--reason"),
        (("hold", "place", "x", "--reason", "r", "--positions", "5"), "--positions: '5' is no range"),
        (("hold", "place", "x", "--reason", "r", "--positions", "5-4"), "is no range of positions"),
        (("hold", "place", "x", "--reason", "r", "--positions", "a-4"), "--positions"),
        (("hold", "release", "x", "--reason", "r"), "there is no hold 'x' in force"),
        (("prune",), "no retention policy was ever set"),
        (("prune", "--actor", "jane"), "give --yes too"),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_an_order_that_cannot_be_meant_is_one_clear_error(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments, code=2)

    assert (result.stdout, said in result.stderr) == ("", True), result.stderr
    assert "Traceback" not in result.stderr
    assert asked(run, "query")["size"] == 7
