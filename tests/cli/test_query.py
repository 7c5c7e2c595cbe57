"""`query`, `state`, `history`, `diff` and `index`: questions as people type them, and answers they can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tests.cli.conftest import CLOUDTRAIL, ROOT, Run


@pytest.fixture
def clinic(run: Run, tmp_path: Path) -> Path:
    """The ledger of the examples at ./audit."""
    run("init")
    run("append", str(ROOT / "examples" / "events.jsonl"))
    return tmp_path / "audit"


def positions(out: str) -> list[int]:
    return [int(line.split()[0]) for line in out.split("\n") if line]


@pytest.mark.usefixtures("ledger")
def test_terms_narrow_what_is_found(run: Run) -> None:
    for terms, expected in (
        ((), [6, 5, 4, 3, 2, 1, 0]),
        (("entity_id=user-1",), [3, 2]),
        (("event_type=user.*", "--oldest-first"), [2, 3, 4]),
        (("actor=jane", "payload.role=viewer"), [2]),
        (("id=e-1",), [2]),
        (("first=2", "end=4"), [3, 2]),
    ):
        assert positions(run("query", *terms).stdout) == expected, terms


@pytest.mark.usefixtures("ledger")
def test_pages_follow_one_another_by_their_cursors(run: Run) -> None:
    first = json.loads(run("query", "-n", "3", "--json").stdout)
    run("append", "--type", "a.b", "--entity", "late")
    second = json.loads(run("query", "-n", "3", "--cursor", first["cursor"], "--json").stdout)
    third = json.loads(run("query", "-n", "3", f"--cursor={second['cursor']}", "--json").stdout)

    pages = [[record["position"] for record in page["records"]] for page in (first, second, third)]
    assert pages == [[6, 5, 4], [3, 2, 1], [0]]
    assert {page["size"] for page in (first, second, third)} == {7}
    assert third["cursor"] is None
    assert "--cursor=-4.8" in run("query", "-n", "3", "end=7").stderr


@pytest.mark.usefixtures("ledger")
def test_all_prints_a_line_a_record_and_count_only_how_many(run: Run) -> None:
    lines = run("query", "entity_id=user-1", "--all", "--json").stdout.strip().split("\n")
    assert [json.loads(line)["position"] for line in lines] == [3, 2]
    assert run("query", "entity_id=user-1", "--count").stdout == "2 records\n"
    assert json.loads(run("query", "entity_id=user-1", "--count", "--json").stdout) == {"count": 2}


@pytest.mark.usefixtures("ledger")
def test_what_was_taken_for_granted_is_said(run: Run) -> None:
    result = run("query", "before=2000-01-01")

    assert result.stdout == ""
    assert result.stderr.split("\n")[:2] == ["no record fits", "before: 2000-01-01 is taken as midnight UTC"]


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (("colour=red",), "there is no 'colour' to ask for"),
        (("after=yesterday",), "after=yesterday"),
        (("payload.a=\x00", "--cursor=x"), "cursor"),
        (("-n", "1001"), "1001"),
        (("entity_id=",), "entity_id="),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_a_question_that_cannot_be_meant_is_one_clear_error(run: Run, terms: tuple[str, ...], said: str) -> None:
    result = run("query", *terms, code=2)

    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr


# -------------------------------------------------------------------------------------------------- time travel


@pytest.mark.usefixtures("clinic")
def test_what_could_user_456_do_on_march_15th(run: Run) -> None:
    answer = run("state", "user-456", "--as-of", "2026-03-15", "--occurred")

    lines = answer.stdout.split("\n")
    assert lines[0] == "user-456 to the end of 2026-03-15 (UTC), by occurred time"
    assert [line.split() for line in lines if line.startswith("role")] == [
        ["role", "admin", "2026-03-12", "17:51:00", "admin-jane", "user.permission_changed", "160"]
    ]
    found = json.loads(run("state", "user-456", "--as-of", "2026-03-15", "--occurred", "--json").stdout)
    assert (found["state"]["role"], found["version"], found["made_by"]["role"]) == ("admin", 3, 160)
    assert [event["position"] for event in found["events"]] == [11, 160]


@pytest.mark.usefixtures("clinic")
def test_states_are_asked_for_by_version_and_by_position_too(run: Run) -> None:
    def role(point: str) -> Any:
        return json.loads(run("state", "user-456", "--as-of", point, "--json").stdout)["state"].get("role")

    roles = [role(point) for point in ("v1", "v2", "v3", "v4", "@79", "@80", "@10")]
    assert roles == ["viewer", "editor", "admin", "none", "viewer", "editor", None]


@pytest.mark.usefixtures("clinic")
def test_nothing_was_known_yet_is_an_answer_with_a_hint(run: Run) -> None:
    answer = run("state", "user-456", "--as-of", "2026-03-15")

    assert "nothing was known of it then" in answer.stdout
    assert "--occurred" in answer.stderr


@pytest.mark.usefixtures("clinic")
def test_a_history_tells_what_changed_event_by_event(run: Run) -> None:
    text = run("history", "user-456", "--member", "role").stdout
    lines = [json.loads(line) for line in run("history", "user-456", "--json").stdout.strip().split("\n")]

    changes = [line.strip() for line in text.split("\n") if line.startswith("      ")]
    assert changes == [
        "role: viewer",
        "role: viewer → editor",
        "role: editor → admin",
        "role: admin → none",
        "role: none → viewer",
    ]
    assert [line["position"] for line in lines] == [11, 80, 160, 256, 257, 311, 312]
    assert lines[1]["changes"] == [
        {"member": "role", "kind": "changed", "old": "viewer", "new": "editor", "position": 80}
    ]


@pytest.mark.usefixtures("clinic")
def test_a_difference_names_what_came_to_be_otherwise_and_by_whom(run: Run) -> None:
    found = json.loads(run("diff", "user-456", "2026-03-10", "2026-03-20", "--occurred", "--json").stdout)

    assert [(change["member"], change["old"], change["new"]) for change in found["changes"]] == [
        ("role", "editor", "none"),
        ("status", "active", "suspended"),
    ]
    assert [record["position"] for record in found["records"]] == [160, 256, 257]
    assert "editor  none" in run("diff", "user-456", "v2", "v4").stdout
    assert "nothing changed" in run("diff", "user-456", "v2", "v2").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("state", "nobody"), "no events of the entity 'nobody'"),
        (("state", "user-456", "--as-of", "soon"), "--as-of"),
        (("state", "user-456", "--as-of", "v-1"), "--as-of"),
        (("diff", "user-456", "v3", "v1"), "backwards"),
        (("diff", "user-456", "x"), "FROM"),
        (("history", "a\x01b"), "entity"),
    ],
)
@pytest.mark.usefixtures("clinic")
def test_a_wrong_question_about_time_is_one_clear_error(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments, code=2)

    assert said in result.stderr
    assert "Traceback" not in result.stderr


# ------------------------------------------------------------------------------------------------------ the index


def test_the_index_is_made_anew_on_request_and_by_itself(run: Run, ledger: Path) -> None:
    before = run("query", "entity_id=user-1").stdout

    assert "the index answers for 7 records" in run("index", "rebuild").stdout
    assert run("query", "entity_id=user-1").stdout == before
    (ledger / "index.db").write_bytes(b"damaged" * 1_000)
    assert json.loads(run("index", "rebuild", "--json").stdout)["size"] == 7
    (ledger / "index.db").unlink()
    assert run("query", "entity_id=user-1").stdout == before


def test_a_ledger_that_cannot_be_written_is_asked_all_the_same(run: Run, ledger: Path) -> None:
    before = run("query", "entity_id=user-1").stdout
    (ledger / "index.db").unlink()
    ledger.chmod(0o500)
    try:
        assert run("query", "entity_id=user-1").stdout == before
    finally:
        ledger.chmod(0o700)


# ---------------------------------------------------------------------------------------- real CloudTrail records


@pytest.fixture
def trail(run: Run) -> list[dict[str, Any]]:
    """Real CloudTrail records, imported into ./audit; and as they are in their file."""
    run("init")
    run("import", "cloudtrail", str(CLOUDTRAIL))
    return [json.loads(line) for line in CLOUDTRAIL.read_bytes().split(b"\n") if line]


def found(run: Run, *terms: str) -> list[str]:
    lines = run("query", *terms, "--all", "--json").stdout.split("\n")
    return sorted(json.loads(line)["payload"]["eventID"] for line in lines if line)


FROM: Final = "2023-07-10T11:50:00Z"
TO: Final = "2023-07-10T12:00:00Z"


@pytest.mark.cloudtrail
def test_every_action_of_one_user_in_ten_minutes(run: Run, trail: list[dict[str, Any]]) -> None:
    asked = found(run, "payload.userIdentity.userName=bert-jan", f"occurred_after={FROM}", f"occurred_before={TO}")

    assert asked == sorted(
        record["eventID"]
        for record in trail
        if record["userIdentity"].get("userName") == "bert-jan" and FROM <= record["eventTime"] < TO
    )
    assert len(asked) > 500


@pytest.mark.cloudtrail
def test_all_denied_calls(run: Run, trail: list[dict[str, Any]]) -> None:
    failed = found(run, "payload.errorCode")
    denied = found(run, "payload.errorCode=AccessDenied")

    assert failed == sorted(record["eventID"] for record in trail if "errorCode" in record)
    assert denied == sorted(record["eventID"] for record in trail if record.get("errorCode") == "AccessDenied")
    assert len(failed) > len(denied) > 0


@pytest.mark.cloudtrail
def test_the_state_of_one_entity_at_a_minute(run: Run, trail: list[dict[str, Any]]) -> None:
    lines = run("query", "--all", "--json", "--oldest-first").stdout.split("\n")
    records = [json.loads(line) for line in lines if line]
    entity = max(
        {record["entity_id"] for record in records if not record["event_type"].startswith("tallystick.")},
        key=lambda name: sum(record["entity_id"] == name for record in records),
    )
    stream = [record for record in records if record["entity_id"] == entity]
    minute = stream[len(stream) // 2]["occurred_at"][:16]
    known = [record for record in stream if record["occurred_at"] < f"{minute}:59.9Z"]
    assert trail

    answer = json.loads(run("state", entity, "--as-of", f"{minute}:59Z", "--occurred", "--json").stdout)

    assert answer["version"] == max(record["entity_version"] for record in known)
    assert answer["state"]["eventID"] == known[-1]["payload"]["eventID"]


@pytest.mark.cloudtrail
def test_calls_per_minute_by_event_name(run: Run, trail: list[dict[str, Any]]) -> None:
    with tallystick.open("audit") as ledger:
        series = ledger.series(first=2, width="minute", group="type", time="occurred")
        names = {record.event_type: record.payload["eventName"] for record in ledger.read(2)}

    asked: dict[tuple[str, str], int] = {}
    for point in series.buckets:
        key = (point.label[:16], names[point.group or ""])
        asked[key] = asked.get(key, 0) + point.count
    scanned: dict[tuple[str, str], int] = {}
    for record in trail:
        key = (record["eventTime"][:16], record["eventName"])
        scanned[key] = scanned.get(key, 0) + 1
    assert asked == scanned
    assert len(asked) > 100
    assert run("query", "--count", "first=2").stdout == f"{len(trail):,} records\n"
