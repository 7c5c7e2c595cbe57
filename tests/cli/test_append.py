"""`append` seals one event or many, and says of each that it could not take where it stands and why."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallystick.limits import BATCH_EVENTS_MAX, INPUT_BYTES_MAX
from tests.cli.conftest import EVENTS, Run, command, environment, lines, start

GOOD = '{"event_type":"a.b","entity_id":"e"}\n'


def logged(run: Run, *arguments: str) -> list[dict[str, Any]]:
    out = run("log", "--no-system", "--oldest-first", "--all", "--json", *arguments).stdout
    return [json.loads(line) for line in out.split("\n") if line]


# ------------------------------------------------------------------------------------------ one event


def test_one_event_is_given_by_options(run: Run) -> None:
    run("init")

    out = run(
        *("append", "--type", "user.created", "--entity", "user-7", "--actor", '{"id":"jane","type":"user"}'),
        *("-p", "role=viewer", "-p", "level:=3", "--payload", '{"a":[1]}', "--context", '{"ip":"10.0.0.1"}'),
        *("--label", "phi", "--label", "pii", "--id", "x-1", "--occurred-at", "2026-03-01T10:00:00+01:00"),
        *("--event-version", "2", "--expected-version", "none", "--json"),
    ).stdout

    sealed = json.loads(out)
    (record,) = logged(run)
    assert [*sealed] == [
        *("position", "id", "entity_id", "entity_version", "recorded_at", "hash", "replayed", "breach"),
    ]
    assert sealed["hash"] == record["hash"]
    assert record["payload"] == {"a": [1], "role": "viewer", "level": 3}
    assert record["actor"] == {"id": "jane", "type": "user"}
    assert record["context"] == {"ip": "10.0.0.1"}
    assert record["labels"] == ["phi", "pii"]
    assert (record["id"], record["event_version"]) == ("x-1", 2)
    assert record["occurred_at"] == "2026-03-01T10:00:00+01:00"


def test_a_plain_member_is_a_text_whatever_it_looks_like(run: Run) -> None:
    run("init")

    run("append", "--type", "a.b", "--entity", "e", "-p", "zip=01234", "-p", "v=1.0", "-p", "x=a=b")

    assert logged(run)[0]["payload"] == {"zip": "01234", "v": "1.0", "x": "a=b"}


@pytest.mark.usefixtures("ledger")
def test_the_same_id_again_adds_nothing_and_says_so(run: Run) -> None:
    again = run("append", "--type", "a.b", "--entity", "e", "--id", "x")
    replayed = run("append", "--type", "a.b", "--entity", "e", "--id", "x")

    assert "sealed at position 7" in again.stdout
    assert "was there already, at position 7" in replayed.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("--type", "a b", "--entity", "e"), 2, "error: /event_type: 'a b' is not an event type"),
        (("--type", "a.b"), 2, "the event has no --entity"),
        (("--type", "a.b", "--entity", "e", "--payload", "[1"), 2, "error: --payload: not JSON"),
        (("--type", "a.b", "--entity", "e", "--payload", '{"a":1,"a":2}'), 2, "--payload /a: the member"),
        (("--type", "a.b", "--entity", "e", "--payload", "[1]"), 2, "error: /payload: not an object"),
        (("--type", "a.b", "--entity", "e", "-p", "nothing"), 2, "is not a member; give KEY=TEXT"),
        (("--type", "a.b", "--entity", "e", "-p", "a=1", "-p", "a=2"), 2, "'a' is given twice"),
        (("--type", "a.b", "--entity", "e", "--payload", "[" * 5_000), 2, "nested deeper than 32 levels"),
        (("--type", "a.b", "--entity", "e", "--occurred-at", "noon"), 2, "/occurred_at: 'noon' is not"),
        (("--type", "a.b", "--entity", "e", "--expected-version", "4"), 1, "version 0, and 4 was expected"),
        (("--type", "a.b", "--entity", "e", "--id", "e-1"), 1, "was used before, for other content"),
        (("--type", "a.b", "--entity", "e\x1b[31m"), 2, "has a control character"),
        (("--type", "a.b", "--entity", "e\udcff"), 2, "lone surrogate"),
        (("--type", "a.b", "--entity", "e", "-p", "n:=\udcff"), 2, "not UTF-8"),
        (("--type", "a.b", "--entity", "e", "--", "file"), 2, "File 'file' does not exist"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("ledger")
def test_an_event_that_cannot_be_taken_is_one_clear_line(
    arguments: tuple[str, ...], code: int, problem: str, run: Run
) -> None:
    result = run("append", *arguments, code=code)

    assert problem in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert len(logged(run)) == len(EVENTS)


# ---------------------------------------------------------------------------------------------- many


def test_lines_come_from_files_and_standard_input(run: Run, tmp_path: Path) -> None:
    run("init")
    (tmp_path / "a.jsonl").write_bytes(lines(EVENTS[:2]))
    (tmp_path / "b.gz").write_bytes(gzip.compress(lines(EVENTS[2:3])) + gzip.compress(lines(EVENTS[3:4])))

    out = run("append", "a.jsonl", "b.gz", "-", input=EVENTS[4]).stdout

    assert "5 read, 5 new, 0 already there" in out
    assert "2 to 6" in out
    assert [record["id"] for record in logged(run)] == ["e-1", "e-2", "e-3", "e-4", "e-5"]


def test_the_summary_in_json_has_the_documented_keys(run: Run) -> None:
    run("init")

    tally = json.loads(run("append", "--json", input="".join(EVENTS)).stdout)

    assert tally.pop("seconds") >= 0
    assert tally == {
        **{"read": 5, "sealed": 5, "already": 0, "bad": 0, "breaches": 0, "first": 2, "last": 6, "size": 7},
        "through": {"file": "standard input", "line": 5},
    }


def test_only_newlines_end_lines(run: Run) -> None:
    run("init")
    odd = '{"event_type":"a.b","entity_id":"one\u2028two\u2029three"}'
    data = f"\n{odd}\r\n\r\n  \n{odd}".encode()

    run("append", input=data)

    assert [record["entity_id"] for record in logged(run)] == ["one\u2028two\u2029three"] * 2


BAD = {
    "no JSON": (b"{oops\n", "standard input, line 3: not JSON at column 2"),
    "no UTF-8": (b'{"event_type":"\xff"}\n', "standard input, line 3: not UTF-8 at byte 15"),
    "NUL": (b"\0\n", "standard input, line 3: not JSON at column 1"),
    "a member missing": (b'{"event_type":"a.b"}\n', "standard input, line 3, /entity_id: the event has no"),
    "a member too many": (
        b'{"event_type":"a.b","entity_id":"e","x":1}\n',
        "line 3, /x: an event has no such",
    ),
    "nesting": (b'{"payload":' + b"[" * 100_000 + b"\n", "line 3: nested deeper than 32 levels"),
    "a huge line": (b" " * (3 * INPUT_BYTES_MAX) + b"\n", "line 3: the line has more than 262,144 bytes"),
    "a large event": (
        b'{"event_type":"a.b","entity_id":"e","payload":{"x":"' + b"x" * 100_000 + b'"}}\n',
        "line 3: the event has 100",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_line_stops_the_work_with_those_before_it_sealed(bad: str, run: Run) -> None:
    run("init")
    line, problem = BAD[bad]

    result = run("append", input=lines([GOOD, GOOD]) + line + lines([GOOD]), code=2)

    assert problem in result.stderr
    assert "nothing from there on was sealed: mend it, and go on from line 3" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "3 read, 2 new, 0 already there, 1 bad" in result.stdout
    assert "standard input, line 2" in result.stdout
    assert len(logged(run)) == 2


@pytest.mark.parametrize("bad", BAD)
def test_bad_lines_can_be_passed_over(bad: str, run: Run) -> None:
    run("init")
    line, problem = BAD[bad]

    result = run("append", "--skip-bad", input=lines([GOOD, GOOD]) + line + lines([GOOD]) + line, code=2)

    assert problem in result.stderr
    assert result.stderr.count("\n") == 2
    assert "5 read, 3 new, 0 already there, 2 bad" in result.stdout
    assert len(logged(run)) == 3


@pytest.mark.usefixtures("ledger")
def test_a_conflict_in_the_middle_is_found_and_named(run: Run) -> None:
    clash = '{"id":"e-1","event_type":"other.thing","entity_id":"e"}\n'

    stopped = run("append", input=GOOD + clash + GOOD, code=1)
    skipped = run("append", "--skip-bad", input=GOOD + clash + GOOD, code=2)

    assert "standard input, line 2: the event id 'e-1' was used before" in stopped.stderr
    assert "2 read, 1 new, 0 already there, 1 bad" in stopped.stdout
    assert "2 new" in skipped.stdout
    assert len(logged(run)) == len(EVENTS) + 1 + 2


def test_atomic_seals_all_or_none(run: Run) -> None:
    run("init")

    refused = run("append", "--atomic", input=GOOD * 3 + "{}\n" + GOOD, code=2)
    huge = run("append", "--atomic", input=lines([GOOD]) + b"x" * 2 * INPUT_BYTES_MAX, code=2)

    assert "line 4, /event_type" in refused.stderr
    assert "none was sealed" in refused.stderr
    assert "line 2: the line has more than" in huge.stderr
    assert logged(run) == []
    assert "4 read, 4 new" in run("append", "--atomic", input=GOOD * 4).stdout


def test_an_atomic_append_larger_than_a_commit_is_refused(run: Run) -> None:
    run("init")

    result = run("append", "--atomic", input=GOOD * (BATCH_EVENTS_MAX + 1), code=2)

    assert "more than 10,000 events cannot be sealed as one; leave --atomic out" in result.stderr
    assert logged(run) == []


def test_atomic_and_skip_bad_contradict_each_other(run: Run) -> None:
    assert "contradict each other" in run("append", "--atomic", "--skip-bad", input=GOOD, code=2).stderr


@pytest.mark.usefixtures("ledger")
def test_missing_files_and_folders_are_refused_before_anything_is_sealed(run: Run) -> None:
    Path("good.jsonl").write_text(GOOD)

    assert "does not exist" in run("append", "good.jsonl", "missing.jsonl", code=2).stderr
    assert "is a directory" in run("append", "good.jsonl", "audit", code=2).stderr
    assert len(logged(run)) == len(EVENTS)


def test_a_bomb_of_gzip_is_refused_after_one_line(run: Run, tmp_path: Path) -> None:
    run("init")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"a" * 200_000_000, compresslevel=1))

    result = run("append", "bomb.gz", code=2)

    assert "bomb.gz, line 1: the line has more than" in result.stderr


@pytest.mark.parametrize("broken", [lambda data: data[:-10], lambda data: data[:12] + b"\xff" * 9 + data[21:]])
def test_gzip_that_is_not_whole_is_an_error(broken: Callable[[bytes], bytes], run: Run, tmp_path: Path) -> None:
    run("init")
    (tmp_path / "cut.gz").write_bytes(broken(gzip.compress(os.urandom(50).hex().encode() * 20)))

    assert "cut.gz" in run("append", "cut.gz", code=2).stderr


def test_errors_are_json_when_asked_for(run: Run) -> None:
    run("init")

    result = run("append", "--json", input="{}\n", code=2)

    error = json.loads(result.stderr)["error"]
    assert [*error] == ["family", "problem", "place", "cure"]
    assert (error["family"], error["place"]) == ("rejected", "standard input, line 1, /event_type")
    assert json.loads(result.stdout)["bad"] == 1


# --------------------------------------------------------------------------------------------- pipes


def test_what_came_down_a_pipe_is_sealed_when_the_pipe_pauses(run: Run) -> None:
    run("init")
    process = start("append", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None

    process.stdin.write(lines([GOOD, GOOD]))
    process.stdin.flush()

    deadline = time.monotonic() + 20
    while len(logged(run)) < 2:
        assert time.monotonic() < deadline, "the two events were never sealed"
        time.sleep(0.05)
    out, _ = process.communicate(lines([GOOD]), timeout=20)
    assert process.returncode == 0
    assert b"3 read, 3 new" in out


def test_many_lines_go_in_batches(run: Run) -> None:
    run("init")

    done = subprocess.run(
        command("append", "--json"), input=lines([GOOD]) * 2_500, env=environment(), stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip

    tally = json.loads(done.stdout)
    assert (tally["sealed"], tally["first"], tally["last"]) == (2_500, 2, 2_501)
