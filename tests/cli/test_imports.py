"""`import` takes other systems' files, each record whole, and a second time adds nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CLOUDTRAIL, EVENTS, Run, lines
from tests.cli.test_append import logged


def record(number: int, **members: Any) -> dict[str, Any]:
    return {
        "eventID": f"aaaaaaaa-0000-0000-0000-{number:012}",
        "eventName": "StopInstances",
        "eventSource": "ec2.amazonaws.com",
        "eventTime": "2026-03-02T09:15:00Z",
        "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/paula"},
        **members,
    }


def document(*records: dict[str, Any]) -> bytes:
    return json.dumps({"Records": records}).encode()


def test_json_lines_are_taken_as_append_takes_them(run: Run) -> None:
    run("init")
    Path("events.jsonl.gz").write_bytes(gzip.compress(lines(EVENTS)))

    assert "5 read, 5 new, 0 already there" in run("import", "jsonl", "events.jsonl.gz").stdout
    assert "5 read, 0 new, 5 already there" in run("import", "jsonl", "events.jsonl.gz").stdout


def test_every_form_of_cloudtrail_files_is_taken(run: Run) -> None:
    run("init")
    folder = Path("logs/2026/03")
    folder.mkdir(parents=True)
    (folder / "a.json").write_bytes(document(record(1), record(2)))
    (folder / "b.json.gz").write_bytes(gzip.compress(json.dumps({"Records": [record(3)]}, indent=1).encode()))
    (folder / "c.jsonl").write_bytes(b"".join(json.dumps(record(n)).encode() + b"\n" for n in (4, 5)))
    (folder / "d.jsonl").write_bytes(b" " * 5_000 + b"\n" + document(record(6), record(7)) + b"\n")
    (folder / "notes.txt").write_bytes(b"not a log")
    digests = Path("logs/CloudTrail-Digest")
    digests.mkdir()
    (digests / "digest.json.gz").write_bytes(gzip.compress(b'{"awsAccountId":"111122223333"}'))

    first = run("import", "cloudtrail", "logs").stdout
    second = run("import", "cloudtrail", "logs").stdout

    assert "7 read, 7 new, 0 already there" in first
    assert "7 read, 0 new, 7 already there" in second
    sealed = logged(run)
    assert [found["payload"] for found in sealed] == [record(n) for n in range(1, 8)]
    assert sealed[0]["id"] == "cloudtrail:aaaaaaaa-0000-0000-0000-000000000001"
    assert sealed[0]["event_type"] == "aws.ec2.StopInstances"


def test_cloudtrail_comes_from_a_pipe_too(run: Run) -> None:
    run("init")

    assert "1 new" in run("import", "cloudtrail", "-", input=document(record(1))).stdout
    assert "1 new" in run("import", "cloudtrail", "-", input=json.dumps(record(2))).stdout


@pytest.mark.parametrize(
    ("data", "place", "problem"),
    [
        (document(record(1), {"eventID": "x"}), "bad.json, record 2, /eventName", "missing, or not a string"),
        (document(record(1))[:-2], "bad.json, record 2", "the document ends early"),
        (b'{"Records":[' + json.dumps(record(1)).encode() + b",7]}", "bad.json, record 2", "not an object"),
        (b"%b\n[]\n" % json.dumps(record(1)).encode(), "bad.json, line 2", "not an object"),
        (b"%b\n\xff\n" % json.dumps(record(1)).encode(), "bad.json, line 2", "not UTF-8 at byte 0"),
        (document(record(1), record(2, x="y" * 70_000)), "bad.json, record 2", "at most"),
        (document(record(1), record(2, eventTime="noon")), "bad.json, record 2, /eventTime", "not a time"),
    ],
)
def test_a_bad_record_is_named_and_those_before_it_are_sealed(data: bytes, place: str, problem: str, run: Run) -> None:
    run("init")
    Path("bad.json").write_bytes(data)

    result = run("import", "cloudtrail", "bad.json", code=2)

    assert result.stderr.startswith(f"error: {place}: ")
    assert problem in result.stderr
    assert len(logged(run)) == 1


def test_bad_records_can_be_passed_over_or_hold_back_all(run: Run) -> None:
    run("init")
    Path("bad.json").write_bytes(document(record(1), {}, record(2)))

    assert "none was sealed" in run("import", "cloudtrail", "--atomic", "bad.json", code=2).stderr
    assert logged(run) == []
    assert (
        "3 read, 2 new, 0 already there, 1 bad" in run("import", "cloudtrail", "--skip-bad", "bad.json", code=2).stdout
    )


def test_a_folder_without_logs_is_an_error(run: Run) -> None:
    run("init")
    Path("empty").mkdir()

    assert "empty: there are no CloudTrail files" in run("import", "cloudtrail", "empty", code=2).stderr


@pytest.mark.cloudtrail
def test_real_cloudtrail_records_come_back_whole_and_only_once(run: Run) -> None:
    run("init")
    originals = [json.loads(line) for line in CLOUDTRAIL.read_bytes().split(b"\n") if line]

    first = run("import", "cloudtrail", str(CLOUDTRAIL)).stdout
    second = run("import", "cloudtrail", str(CLOUDTRAIL)).stdout

    assert len(originals) == 2_900
    assert "2,900 read, 2,900 new, 0 already there" in first
    assert "2,900 read, 0 new, 2,900 already there" in second
    sealed = logged(run)
    assert [found["payload"] for found in sealed] == originals
    assert [found["id"] for found in sealed] == [f"cloudtrail:{original['eventID']}" for original in originals]
    assert "PASS" in run("verify").stdout
