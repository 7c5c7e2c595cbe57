"""`log` and `show` print records so that people can read them and no terminal can be fooled."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start
from tests.cli.test_append import GOOD, logged


def positions(out: str) -> list[int]:
    return [int(line.split()[0]) for line in out.split("\n") if line]


@pytest.mark.usefixtures("ledger")
def test_the_newest_come_first(run: Run) -> None:
    assert positions(run("log").stdout) == [6, 5, 4, 3, 2, 1, 0]
    assert positions(run("log", "-n", "2").stdout) == [6, 5]
    assert positions(run("log", "--reverse", "-n", "2").stdout) == [0, 1]
    assert positions(run("log", "--no-system").stdout) == [6, 5, 4, 3, 2]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (("--entity", "user-1"), [3, 2]),
        (("--type", "user.created"), [4, 2]),
        (("--type", "user.*"), [4, 3, 2]),
        (("--type", "user"), []),
        (("--actor", "jane"), [3, 2]),
        (("--actor", "jane", "--type", "user.created"), [2]),
        (("--since", "2000-01-01T00:00:00Z", "-n", "1"), [6]),
        (("--since", "2100-01-01T00:00:00+02:00"), []),
        (("--until", "2000-01-01T00:00:00Z"), []),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_filters_narrow_the_log(filters: tuple[str, ...], found: list[int], run: Run) -> None:
    result = run("log", *filters)

    assert positions(result.stdout) == found
    assert result.stderr == ("" if found else "no record fits\n")


@pytest.mark.usefixtures("ledger")
def test_a_time_between_two_records_divides_them(run: Run) -> None:
    run("append", "--type", "a.b", "--entity", "late")
    late = logged(run)[-1]["recorded_at"]

    assert positions(run("log", "--since", late).stdout) == [7]
    assert positions(run("log", "--until", late, "-n", "1").stdout) == [6]


@pytest.mark.usefixtures("ledger")
def test_a_record_is_one_line_in_a_pipe(run: Run) -> None:
    line = run("log", "--entity", "user-1", "-n", "1").stdout

    assert line.endswith("user.permission_changed  user-1  jane  "
                         "occurred 2026-03-01T10:00:00Z  role: viewer → editor\n")  # fmt: skip


@pytest.mark.usefixtures("ledger")
def test_json_lines_are_the_sealed_members_and_the_hash(run: Run) -> None:
    (line,) = run("log", "-n", "1", "--json").stdout.splitlines()
    record = json.loads(line)

    assert len(record) == 17
    assert record["payload"] == {"pages": 3}
    assert len(bytes.fromhex(record["hash"])) == 32
    assert json.loads(run("show", "6", "--json").stdout) == record


def test_long_logs_are_read_in_blocks(run: Run) -> None:
    run("init")
    run("append", input=GOOD * 1_200)

    assert positions(run("log", "--all").stdout) == [*range(1_201, -1, -1)]


@pytest.mark.usefixtures("ledger")
def test_what_is_damaged_ends_the_log_at_its_place(run: Run) -> None:
    damage(b'"id":"raj"', b'"id":"jar"')

    newest = run("log", code=1)
    oldest = run("log", "--oldest-first", code=1)

    assert positions(newest.stdout) == [6, 5]
    assert positions(oldest.stdout) == [0, 1, 2, 3]
    assert "the record at position 4 is damaged" in newest.stderr


def damage(old: bytes, new: bytes, *, count: int = 1) -> None:
    """Change records behind the ledger's back, in its file; their CRC32 stays as it was."""
    file = Path("audit/ledger.db")
    data = file.read_bytes()
    assert data.count(old) >= count  # a page that SQLite let go of may hold one more
    file.write_bytes(data.replace(old, new))


HOSTILE = "\x1b[31m\x1b]0;owned\x07 \x9b2J \u202etxt.exe \u2028 \x7f \U0001f600 \U000e0001"


@pytest.mark.parametrize("terminal", [False, True])
def test_no_control_character_reaches_the_screen(terminal: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    event = {
        **{"event_type": "a.b", "entity_id": "e\u202e\x85", "actor": "[bold]\u2066", "labels": ["\u200f"]},
        **{"payload": {HOSTILE: HOSTILE, "field": "x", "new_value": HOSTILE}, "context": {"k": HOSTILE}},
    }
    run("append", input=json.dumps(event))
    monkeypatch.setattr("tallystick.cli.screen.on_terminal", lambda **_: terminal)

    for arguments in (("log",), ("log", "--json"), ("show", "2"), ("show", "2", "--json")):
        out = run(*arguments).stdout
        assert out.replace("\n", "").isprintable(), arguments
    assert json.loads(run("show", "2", "--json").stdout)["payload"][HOSTILE] == HOSTILE
    assert "[bold]" in run("log").stdout
    raw = run("show", "2", "--raw")
    assert raw.stdout.replace("\n", "").isprintable() is terminal
    assert raw.stdout_bytes.endswith(b"}\n")


@pytest.mark.usefixtures("ledger")
def test_show_prints_all_of_a_record(run: Run) -> None:
    by_id = run("show", "e-2").stdout

    assert by_id == run("show", "3").stdout
    for text in ("record 3 of audit", "user.permission_changed, version 1", "user-1, version 2", '"editor"'):
        assert text in by_id
    assert json.loads(run("show", "3", "--json").stdout)["hash"] in by_id


@pytest.mark.usefixtures("ledger")
def test_show_raw_gives_the_exact_bytes(run: Run) -> None:
    raw = run("show", "3", "--raw").stdout_bytes
    shown = json.loads(run("show", "3", "--json").stdout)

    assert hashlib.sha256(raw.removesuffix(b"\n")).hexdigest() == shown["hash"]
    assert raw.count(b"\n") == 1


@pytest.mark.usefixtures("ledger")
def test_a_number_can_be_an_id(run: Run) -> None:
    run("append", "--type", "a.b", "--entity", "e", "--id", "3")

    assert "record 7 of audit" in run("show", "--id", "3").stdout


@pytest.mark.parametrize("key", ["7", "9" * 30, "nobody", "-"])
@pytest.mark.usefixtures("ledger")
def test_what_is_not_there_is_said_to_be_missing(key: str, run: Run) -> None:
    assert run("show", key, code=2).stderr.startswith("error: there is no ")


@pytest.mark.usefixtures("ledger")
def test_follow_prints_what_comes_until_it_is_interrupted(run: Run) -> None:
    process = start("log", "-f", "-n", "2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert positions(process.stdout.readline().decode()) == [5]
    assert positions(process.stdout.readline().decode()) == [6]

    run("append", "--type", "a.b", "--entity", "new", "-p", "n=1")
    assert b"n=1" in process.stdout.readline()
    run("append", input=GOOD * 2)
    assert positions((process.stdout.readline() + process.stdout.readline()).decode()) == [8, 9]

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


@pytest.mark.usefixtures("ledger")
def test_follow_can_filter_and_print_json(run: Run) -> None:
    run("append", "--type", "want.this", "--entity", "before")
    process = start("log", "-f", "-n", "1", "--json", "--type", "want.*", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["entity_id"] == "before"

    run("append", "--type", "other.thing", "--entity", "e")
    run("append", "--type", "want.that", "--entity", "after")

    assert json.loads(process.stdout.readline())["entity_id"] == "after"
    process.terminate()
    process.communicate(timeout=20)


@pytest.mark.usefixtures("ledger")
def test_a_short_row_is_cut_to_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("append", "--type", "a.b", "--entity", "e", "-p", f"text={'long ' * 60}")
    monkeypatch.setattr("tallystick.cli.screen.on_terminal", lambda **_: True)
    monkeypatch.setattr("tallystick.cli.screen.width", lambda: 100)

    out = run("log").stdout

    assert all(len(line) <= 100 for line in out.split("\n"))
    assert "…" in out
