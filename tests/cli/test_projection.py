"""`projection` runs the projections of a Python file, and says how far each is."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.conftest import Run, start

GOOD: Final = """\
from __future__ import annotations
from dataclasses import dataclass
import tallystick

@dataclass
class Helper:
    n: int

@tallystick.projection("roles", initial={}, event_type="user.*")
def roles(state, record):
    return {**state, record.entity_id: record.payload.get("new_value", record.payload.get("role"))}

class Count:
    version = 2
    initial = 0

    def evolve(self, state, record):
        return state + 1
"""

BAD: Final = """
@tallystick.projection("bad", initial=0)
def bad(state, record):
    return state + 1 / (4 - record.position)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    return path


def listed(run: Run, *arguments: str, code: int = 0) -> list[tuple[Any, ...]]:
    rows = json.loads(run("projection", *(arguments or ("list",)), "--json", code=code).stdout)["projections"]
    return [tuple(row.values()) for row in rows]


@pytest.mark.usefixtures("ledger", "file")
def test_a_file_is_run_to_the_head_and_its_states_can_be_seen(run: Run, tmp_path: Path) -> None:
    assert run("projection", "list").stderr == "no projection was ever run over this ledger\n"

    assert "current" in run("projection", "run", "mine.py").stdout
    run("append", "--type", "user.created", "--entity", "user-9", "-p", "role=admin")

    assert listed(run) == [("Count", 2, 7, 1, "behind", None), ("roles", 1, 7, 1, "behind", None)]
    assert listed(run, "run", "mine.py") == [("roles", 1, 8, 0, "current", None), ("Count", 2, 8, 0, "current", None)]
    shown = run("projection", "show", "roles")
    assert json.loads(shown.stdout) == {"user-1": "editor", "user-2": None, "user-9": "admin"}
    assert shown.stderr == "roles, version 1, current at 8 of 8\n"
    assert [*json.loads(run("projection", "show", "Count", "--json").stdout)] == [
        *("name", "version", "cursor", "behind", "status", "problem", "state"),
    ]
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.usefixtures("ledger")
def test_a_projection_that_fails_stands_where_it_failed_and_the_others_go_on(run: Run, file: Path) -> None:
    file.write_text(GOOD + BAD)

    result = run("projection", "run", "mine.py", code=1)

    assert "at position 4: ZeroDivisionError" in result.stdout
    assert "Traceback" not in result.stderr
    assert [row[:5] for row in listed(run)] == [
        ("Count", 2, 7, 0, "current"),
        ("bad", 1, 4, 3, "failed"),
        ("roles", 1, 7, 0, "current"),
    ]
    file.write_text(GOOD + BAD.replace("4 -", "99 -"))  # as good as of the same time: it is read anew
    assert listed(run, "run", "mine.py")[2][:5] == ("bad", 1, 7, 0, "current")


@pytest.mark.usefixtures("ledger", "file")
def test_a_paused_one_stands_still_and_a_reset_one_begins_anew(run: Run) -> None:
    run("projection", "run", "mine.py")
    run("append", "--type", "a.b", "--entity", "e")

    assert run("projection", "pause", "Count").stdout.startswith("Count is paused")
    assert listed(run, "run", "mine.py")[1] == ("Count", 2, 7, 1, "paused", None)
    run("projection", "resume", "Count")
    assert listed(run, "run", "mine.py")[1] == ("Count", 2, 8, 0, "current", None)
    assert json.loads(run("projection", "reset", "Count", "--json").stdout) == {"name": "Count", "done": "reset"}
    assert [row[0] for row in listed(run)] == ["roles"]
    run("projection", "run", "mine.py")
    assert json.loads(run("projection", "show", "Count").stdout) == 8


@pytest.mark.usefixtures("ledger", "file")
def test_following_goes_on_with_what_comes_until_interrupted(run: Run) -> None:
    process = start("projection", "run", "mine.py", "--follow", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"following audit; interrupt to end\n"
        run("append", "--type", "a.b", "--entity", "e")
        deadline = time.monotonic() + 20
        while listed(run)[0][2] < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [row[2] for row in listed(run)] == [8, 8]

        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err.strip()) == (130, b"")
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("ledger")
def test_following_ends_when_nothing_can_go_on(run: Run, file: Path) -> None:
    file.write_text("import tallystick\n" + BAD)

    assert "none of them can go on" in run("projection", "run", "mine.py", "--follow", code=1).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "mine.py: there is no projection in it"),
        ("x = 1\ny = 1 / 0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("def x(:\n", "mine.py, line 1: SyntaxError"),
        ("raise SystemExit(0)\n", "mine.py, line 1: SystemExit: 0"),
        ("\0", "mine.py"),
        ("class X:\n    def __init__(self, n): pass\n    def evolve(self, s, r): pass\n", "X is no projection"),
        ("class X:\n    query = {'colour': 'red'}\n    def evolve(self, s, r): pass\n", "X is no projection"),
        (GOOD + GOOD.partition("\n")[2].replace("def roles", "def others"), "two projections are named 'roles'"),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_a_file_that_cannot_be_run_is_one_clear_error(run: Run, file: Path, text: str, said: str) -> None:
    file.write_text(text)

    result = run("projection", "run", "mine.py", code=2)

    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("ledger")
def test_a_state_that_is_no_json_is_the_problem_of_its_projection(run: Run, file: Path) -> None:
    file.write_text(GOOD.replace("return state + 1", "return {1, 2}"))

    result = run("projection", "run", "mine.py", code=1)

    assert "the state is no JSON document" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("order", ["show", "pause", "resume", "reset"])
@pytest.mark.usefixtures("ledger")
def test_a_projection_that_was_never_run_is_said_to_be_missing(run: Run, order: str) -> None:
    assert "there is no projection 'nobody'" in run("projection", order, "nobody", code=2).stderr
