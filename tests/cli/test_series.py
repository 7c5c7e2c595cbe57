"""`series` counts by time, draws it, and has what it counts stored."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tallystick.cli.series import Bars
from tests.cli.conftest import ROOT, Run, command, environment

POINT: Final = ["start", "end", "label", "group", "value", "count"]


@pytest.fixture
def clinic(run: Run, tmp_path: Path) -> Path:
    """The ledger of the examples at ./audit."""
    run("init")
    run("append", str(ROOT / "examples" / "events.jsonl"))
    return tmp_path / "audit"


def asked(run: Run, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("series", *arguments, "--json").stdout)
    return found


def times() -> list[str]:
    """The occurred times of the example events."""
    lines = (ROOT / "examples" / "events.jsonl").read_bytes().split(b"\n")
    return [json.loads(line)["occurred_at"] for line in lines if line]


@pytest.mark.usefixtures("clinic")
def test_buckets_have_as_many_records_as_a_count_by_hand(run: Run) -> None:
    found = asked(run, "event_type=user.*", "--occurred", "--per", "month", "--by", "type")
    days = asked(run, "first=2", "--occurred")

    assert [*found] == [
        *("buckets", "width", "zone", "measure", "group", "time", "size", "source", "pruned_below", "assumptions"),
        "index_verified",
    ]
    assert [*found["buckets"][0]] == POINT
    assert (found["width"], found["group"], found["time"], found["size"]) == ("month", "type", "occurred", 415)
    assert {bucket["label"][:10]: bucket["value"] for bucket in days["buckets"]} == {
        day: sum(time.startswith(day) for time in times()) for day in {time[:10] for time in times()}
    }
    assert asked(run, "first=2", "--occurred", "--by", "none")["buckets"] == days["buckets"]


@pytest.mark.usefixtures("clinic")
def test_a_line_a_bucket_with_its_label_value_and_bar(run: Run) -> None:
    result = run("series", "first=2", "--occurred", "--per", "month", env={"COLUMNS": "60"})

    lines = result.stdout.rstrip("\n").split("\n")
    assert [line.split()[:2] for line in lines] == [["2026-02-01", "56"], ["2026-03-01", "321"], ["2026-04-01", "36"]]
    assert [line.count("█") for line in lines] == [7, 42, 4]
    assert max(map(len, lines)) <= 60
    assert "count per month (UTC), by occurred time" in result.stderr
    assert "of a ledger of 415 records" in result.stderr


@pytest.mark.usefixtures("clinic")
def test_hours_are_those_of_the_zone_and_empty_ones_are_filled_in(run: Run) -> None:
    arguments = ("--occurred", "--per", "hour", "--zone", "Europe/Berlin", "--after", "2026-03-09", "--before")
    found = asked(run, *arguments, "2026-03-10", "--fill")

    assert len(found["buckets"]) == 24
    assert found["buckets"][0]["label"] == "2026-03-09T01:00:00+01:00"
    assert found["buckets"][0]["start"] == "2026-03-09T00:00:00.000000Z"
    assert sum(bucket["value"] for bucket in found["buckets"]) == sum(time[:10] == "2026-03-09" for time in times())
    assert found["assumptions"] == [
        "after: 2026-03-09 is taken as midnight UTC",
        "before: 2026-03-10 is taken as midnight UTC",
    ]


@pytest.mark.usefixtures("clinic")
def test_a_stored_series_is_recorded_and_answers_from_then_on(run: Run) -> None:
    how = ("event_type=user.*", "--per", "week", "--zone", "Europe/Berlin", "--by", "actor", "--occurred")
    before = asked(run, *how)
    saved = run("series", *how, "--save", "weekly", "--actor", "jane").stdout
    after = asked(run, *how)

    assert saved == "stored from now on: weekly, count per week, by actor\n"
    assert (before["source"], after["source"]) == ("index", "rollup:weekly")
    assert after["buckets"] == before["buckets"]
    record = json.loads(run("query", "event_type=tallystick.rollup.defined", "--json").stdout)["records"][0]
    assert record["actor"] == {"id": "jane"}
    several = ("--measure", "sum:payload.rows", "--measure", "count")
    assert asked(run, *several, "--save", "rows")["measures"] == ["sum:payload.rows", "count"]


@pytest.mark.usefixtures("ledger")
def test_hostile_names_are_shown_escaped(run: Run) -> None:
    run("append", "--type", "a.b", "--entity", "\u202eevil" + "x" * 100)

    out = run("series", "event_type=a.b", "--by", "entity").stdout

    assert "\\u202eevil" in out
    assert "\u202e" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--per", "yeer"), "--per: 'yeer'"),
        (("--zone", "Mars/X"), "--zone: there is no time zone"),
        (("--by", "colour"), "--by: "),
        (("--measure", "most"), "--measure: "),
        (("--after", "soon"), "--after: "),
        (("colour=red",), "there is no 'colour' to ask for"),
        (("--measure", "count", "--measure", "count"), "only be given with --save"),
        (("--actor", "jane"), "only be given with --save"),
        (("--save", "x", "--fill"), "--save stores all of time"),
        (("--save", "tallystick.x"), "--save: "),
        (("--fill", "--per", "minute", "--after", "1999-01-01"), "--per: "),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_what_cannot_be_counted_is_one_clear_error(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run("series", *arguments, code=2)

    assert (result.stdout, said in result.stderr) == ("", True), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("ledger")
def test_nothing_that_fits_is_said(run: Run) -> None:
    assert run("series", "entity_id=nobody").stderr.startswith("no record fits\n")


@pytest.mark.usefixtures("ledger")
def test_bars_are_plain_ascii_where_blocks_cannot_be_shown() -> None:
    process = subprocess.run(
        command("series"), env={**environment(), "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )

    assert process.stdout.isascii()
    assert process.stdout.split()[-1].strip(b"#") == b""


def test_the_longest_bar_fills_the_room_and_others_are_in_proportion() -> None:
    bars = Bars([10, 5, 1, 0, None, -10, 0.001], columns=20)

    assert [len(bars.of(value)) for value in (10, 5, 1, 0, None, -10, 0.001)] == [20, 10, 2, 0, 0, 20, 1]
    assert bars.of(-10) != bars.of(10)
    assert Bars([0, None], columns=20).of(0) == ""
    assert len(Bars([1.7e308, -1.7e308], columns=0).of(1.7e308)) == 8
