"""`schema`: registered from a file, shown, dry-run, inferred, and what `append` says of an event that breaks one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.conftest import Run

ROLE: Final = {"type": "object", "properties": {"role": {"enum": ["viewer"]}}, "required": ["role"]}
LINES: Final = (
    '{"event_type":"user.created","entity_id":"u-1","payload":{"role":"viewer"}}\n'
    "\n"
    '{"event_type":"user.created","entity_id":"u-2","payload":{"role":"\\u001b[31mboss"}}\n'
    '{"entity_id":"u-2"}\n'
)

pytestmark = pytest.mark.usefixtures("ledger")


def asked(run: Run, *arguments: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json", code=code).stdout)
    return found


@pytest.fixture(autouse=True)
def role(tmp_path: Path) -> Path:
    path = tmp_path / "role.json"
    path.write_text(json.dumps(ROLE), "utf-8")
    (tmp_path / "wider.json").write_text("{}", "utf-8")
    (tmp_path / "lines.jsonl").write_text(LINES, "utf-8")
    return path


def test_a_schema_is_registered_shown_and_listed_with_who_said_so(run: Run) -> None:
    said = run("schema", "register", "user.created", "role.json", "--actor", "jane", "--reason", "ticket 7").stdout

    assert said == "user.created version 1 is registered, as recorded at position 7\n"
    again = asked(run, "schema", "register", "user.created", "role.json", "--version", "1")
    assert again == {
        "name": "user.created",
        "version": 1,
        "target": "payload",
        "compatibility": "backward",
        "position": 7,
    }
    shown = asked(run, "schema", "show", "user.created")
    assert (shown["schema"], shown["actor"], shown["reason"]) == (ROLE, {"id": "jane"}, "ticket 7")
    assert json.loads(run("schema", "show", "user.created").stdout) == ROLE
    listed = asked(run, "schema", "list")
    assert listed["enforcement"] == "registered"
    assert [(one["name"], one["version"]) for one in listed["schemas"]] == [("user.created", 1)]
    assert asked(run, "schema", "list", "--as-of", "2020-01-01")["schemas"] == []
    assert "jane" in run("schema", "list").stdout


def test_history_has_every_version(run: Run) -> None:
    run("schema", "register", "user.created", "role.json")
    run("schema", "register", "user.created", "wider.json", "--compatibility", "full", code=2)
    run("schema", "register", "user.created", "wider.json")

    found = asked(run, "schema", "history", "user.created")

    assert [one["version"] for one in found["versions"]] == [1, 2]
    assert len(run("schema", "history", "user.created").stdout.splitlines()) == 3
    assert "there is no schema" in run("schema", "history", "t.none", code=2).stderr
    assert "no version 3" in run("schema", "show", "user.created", "--version", "3", code=2).stderr


def test_a_breaking_version_is_refused_and_a_dry_run_says_by_what(run: Run, role: Path) -> None:
    run("schema", "register", "user.created", "role.json")
    role.write_text(json.dumps({**ROLE, "required": ["role", "mail"]}), "utf-8")

    refused = run("schema", "register", "user.created", "role.json", code=2).stderr
    dry = asked(run, "schema", "register", "user.created", "role.json", "--dry-run", code=1)

    assert "version 2 of user.created breaks version 1 (backward): /properties/mail: became required" in refused
    assert dry == {
        "name": "user.created",
        "breaks": [{"place": "/properties/mail", "change": "became required"}],
    }
    assert "became required" in run("schema", "register", "user.created", "role.json", "--dry-run", code=1).stdout
    assert run("schema", "register", "user.created", "wider.json", "--dry-run").stdout == "it breaks nothing\n"
    forced = ("schema", "register", "user.created", "role.json", "--compatibility", "none")
    assert asked(run, *forced)["version"] == 2


def test_an_append_that_breaks_a_schema_is_refused_with_the_line_and_the_field(run: Run) -> None:
    run("schema", "register", "user.created", "role.json")

    refused = run("append", "lines.jsonl", code=2).stderr

    assert "lines.jsonl, line 3, /payload/role: the value is not" in refused
    whole = ("append", "--type", "user.created", "--entity", "u", "-p", "role=boss")
    assert "/payload/role" in run(*whole, code=2).stderr
    run("schema", "enforce", "warn", "--actor", "jane")
    taken = run(*whole)
    assert "it breaks its schema, which only warns here: /payload/role" in taken.stderr
    assert asked(run, *whole)["breach"].startswith("/payload/role")
    assert asked(run, "append", "lines.jsonl", "--skip-bad", code=2)["breaches"] == 1
    assert "1 of the new breaking their schema" in run("append", "lines.jsonl", "--skip-bad", code=2).stdout


def test_validate_says_what_would_become_of_each_line_and_seals_nothing(run: Run) -> None:
    run("schema", "register", "user.created", "role.json")
    size = asked(run, "stats")["size"]

    said = run("schema", "validate", "lines.jsonl", code=2).stdout

    assert said.splitlines() == [
        'lines.jsonl, line 3: refused /payload/role: the value is not one of "viewer" (schema user.created, version 1)',
        "lines.jsonl, line 4: refused /event_type: the event has no event_type",
        "3 read, 1 would be taken, 2 refused",
    ]
    found = asked(run, "schema", "validate", "lines.jsonl", code=2)
    assert (found["read"], found["refused"], found["breaches"]) == (3, 2, 0)
    assert [(one["line"], one["taken"], one["place"]) for one in found["verdicts"]] == [
        (3, False, "/payload/role"),
        (4, False, "/event_type"),
    ]
    run("schema", "enforce", "warn")
    assert asked(run, "schema", "validate", "lines.jsonl", code=2)["breaches"] == 1
    assert "taken, but" in run("schema", "validate", "lines.jsonl", code=2).stdout
    assert asked(run, "stats")["size"] == size + 1


def test_what_is_inferred_can_be_registered(run: Run, tmp_path: Path) -> None:
    for role in ("viewer", "viewer", "editor", "editor", "viewer", "editor"):
        run("append", "--type", "user.changed", "--entity", "u", "-p", f"role={role}")

    found = asked(run, "schema", "infer", "user.changed", "--enums")

    assert found["events"] == 6
    assert found["schema"]["properties"]["role"]["enum"] == ["editor", "viewer"]
    (tmp_path / "made.json").write_text(run("schema", "infer", "user.changed").stdout, "utf-8")
    run("schema", "register", "user.changed", "made.json")
    assert "there is no event" in run("schema", "infer", "t.none", code=2).stderr


def test_enforcement_is_set_and_recorded(run: Run) -> None:
    assert asked(run, "schema", "enforce", "strict", "--actor", "jane") == {"enforcement": "strict", "position": 7}

    assert "has no schema" in run("append", "--type", "t.x", "--entity", "e", code=2).stderr
    assert run("schema", "enforce", "strict").stdout == "schemas are enforced: strict, as recorded at position 7\n"
    assert run("schema", "list").stderr == "no schema is registered\nenforced: strict\n"


def test_a_file_that_is_no_schema_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"type": "strin"}', "utf-8")
    (tmp_path / "large.json").write_text(" " * 300_000 + "{}", "utf-8")

    assert "/schema/type: not JSON Schema" in run("schema", "register", "t.x", "bad.json", code=2).stderr
    assert "bytes" in run("schema", "register", "t.x", "large.json", code=2).stderr
    assert "does not exist" in run("schema", "register", "t.x", "none.json", code=2).stderr
