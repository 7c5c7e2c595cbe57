"""Queries against a scan of the log (I5): whatever happened to the index, they say what the scan says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.core.record import Record
from tallystick.errors import NotFoundError, RejectedError
from tallystick.govern.access import Scope
from tallystick.read import follower, search, sqlite_questions
from tallystick.read.query import EVERYTHING, Query, Within, parse_terms
from tests.read.ledgers import all_of, events, positions, terms_like

EVENTS: Final = st.lists(events(), max_size=25)
QUERIES: Final = st.lists(terms_like(), min_size=1, max_size=4)
BOUNDS: Final = st.builds(
    Within,
    st.lists(st.sampled_from(["user.*", "t", "a.*", "user.created", "nothing"]), max_size=2).map(tuple),
    st.lists(st.sampled_from(["e", "user-", "user-1", "\ud7ff", "x", "\U0010ffff"]), max_size=2).map(tuple),
)


def scan(ledger: tallystick.Ledger, query: Query) -> list[int]:
    """What a look at every record says."""
    return positions([record for record in all_of(ledger) if query.takes(record)])


def check(ledger: tallystick.Ledger, terms: list[str], within: Within = EVERYTHING) -> None:
    """Fails unless records, counts and pages in both orders are those of the scan."""
    query = replace(parse_terms(terms), within=within)
    expected = scan(ledger, query)
    assert positions([*ledger.records(query)]) == expected, terms
    assert positions([*ledger.records(query, newest_first=True)]) == expected[::-1], terms
    assert ledger.count(query) == len(expected), terms
    assert pages(ledger, query, newest_first=True) == expected[::-1], terms
    assert pages(ledger, query, newest_first=False) == expected, terms


def pages(ledger: tallystick.Ledger, query: Query, *, newest_first: bool, limit: int = 3) -> list[int]:
    found: list[Record] = []
    cursor = None
    while True:
        page = ledger.query(query, newest_first=newest_first, limit=limit, cursor=cursor)
        found += page.records
        cursor = page.cursor
        assert len(page.records) == limit or cursor is None
        if cursor is None:
            return positions(found)


# ------------------------------------------------------------------------------------------- any ledger, any query


@pytest.mark.slow
@given(EVENTS, EVENTS, QUERIES, st.sampled_from([1, 4, 100]), st.sampled_from([1, 3, 128]))
def test_queries_over_any_ledger_say_what_a_scan_says(
    first: list[dict[str, Any]], second: list[dict[str, Any]], queries: list[list[str]], flush: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, tallystick.open("memory:") as ledger:
        patch.setattr(follower, "FLUSH_RECORDS", flush)
        patch.setattr(search, "_CANDIDATES_FIRST", chunk)
        patch.setattr(search, "_CANDIDATES_MAX", 2 * chunk)
        for batch in (first, second):
            if batch:
                ledger.append_many(batch)
            for terms in queries:
                check(ledger, terms)


@pytest.mark.slow
@given(EVENTS, QUERIES, st.lists(BOUNDS, min_size=1, max_size=4), st.sampled_from([1, 200]))
def test_what_a_query_is_within_bounds_it_whatever_it_asks(
    events: list[dict[str, Any]], queries: list[list[str]], bounds: list[Within], looked_up: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, tallystick.open("memory:") as ledger:
        patch.setattr(sqlite_questions, "_TERMS_IN_MATCH_MAX", looked_up)
        ledger.append_many([*events, {"event_type": "t", "entity_id": "e"}])
        for within in bounds:
            allowed = positions(
                [one for one in all_of(ledger) if scope_of(within).takes(one.event_type, one.entity_id)]
            )
            assert scan(ledger, Query(within=within)) == allowed
            for terms in ([], *queries):
                check(ledger, terms, within)


@given(st.text(min_size=1, max_size=4), st.lists(st.text(min_size=1, max_size=6), max_size=8))
def test_the_end_of_a_beginning_is_behind_all_that_begin_so(prefix: str, texts: list[str]) -> None:
    end = sqlite_questions._end_of(prefix)
    for text in (*texts, prefix, prefix + chr(sys.maxunicode), *(prefix + text for text in texts)):
        assert (prefix <= text and (end is None or text < end)) == text.startswith(prefix)


def scope_of(within: Within) -> Scope:
    return Scope(event_types=within.event_types, entity_prefixes=within.entity_prefixes)


def test_queries_are_the_same_after_the_index_was_deleted_midway(tmp_path: Path) -> None:
    folders = iter(tmp_path / str(number) for number in range(10_000))

    @given(EVENTS, EVENTS, QUERIES)
    def property_holds(first: list[dict[str, Any]], second: list[dict[str, Any]], queries: list[list[str]]) -> None:
        folder = next(folders)
        with tallystick.open(folder, name="l") as ledger:
            ledger.append_many([*first, {"event_type": "t", "entity_id": "e"}])
            for terms in queries:
                check(ledger, terms)
        (folder / "index.db").unlink()
        with tallystick.open(folder) as ledger:
            ledger.append_many(second)
            for terms in queries:
                check(ledger, terms)
        shutil.rmtree(folder)

    property_holds()


@given(st.text(max_size=6), st.text(max_size=12))
def test_any_word_of_any_script_is_found_wherever_it_stands(word: str, around: str) -> None:
    with tallystick.open("memory:") as ledger:
        try:
            ledger.append(event_type="t", entity_id="e", payload={"a": f"{around} {word} {around}", word: 1})
            ledger.append(event_type="t", entity_id="e", payload={"a": [f"{around}{word}".swapcase()]})
            query = Query.of(text=word or "x")
        except RejectedError:
            return  # a lone surrogate; a text without a word

        assert positions([*ledger.records(query)]) == scan(ledger, query)


# ----------------------------------------------------------------------------------------------- pages and cursors


@pytest.fixture
def ledger() -> Any:
    """Sixty records, by three entities in turn."""
    with tallystick.open("memory:") as ledger:
        ledger.append_many([event(number) for number in range(58)])
        yield ledger


def event(number: int) -> dict[str, Any]:
    return {"event_type": "t.happened", "entity_id": f"e-{number % 3}", "payload": {"n": number}}


def test_pages_stay_what_they_were_while_events_arrive(ledger: tallystick.Ledger) -> None:
    for newest_first in (True, False):
        expected = scan(ledger, parse_terms(["entity_id=e-1"]))
        page = ledger.query(entity_id="e-1", limit=5, newest_first=newest_first)
        size, found = page.size, [*page.records]

        while page.cursor:
            ledger.append_many([event(number) for number in range(9)])
            page = ledger.query(entity_id="e-1", limit=5, newest_first=newest_first, cursor=page.cursor)
            assert page.size == size
            found += page.records

        assert positions(found) == (expected[::-1] if newest_first else expected)


def test_whoever_appended_sees_it_in_the_next_answer(ledger: tallystick.Ledger) -> None:
    for number in range(20):
        sealed = ledger.append(event(number))
        page = ledger.query(limit=1)
        assert (page.records[0].position, page.size) == (sealed.position, sealed.position + 1)


@pytest.mark.parametrize(
    "cursor", ["", "5", "-5", "+3.9", "-5.100000", "-9.3", "-\u0665.60", "-05.60", "- 5.60", "-5.60\n"]
)
def test_a_cursor_that_no_page_gave_is_refused(ledger: tallystick.Ledger, cursor: str) -> None:
    with pytest.raises(RejectedError, match=r"cursor|decimal"):
        ledger.query(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1_001, 2.5, True, "5"])
def test_a_page_has_one_to_a_thousand_records(ledger: tallystick.Ledger, limit: Any) -> None:
    with pytest.raises(RejectedError, match="limit"):
        ledger.query(limit=limit)


def test_a_query_is_given_whole_or_as_members(ledger: tallystick.Ledger) -> None:
    query = Query.of(entity_id="e-1")

    assert ledger.count(query) == ledger.count(entity_id="e-1") == 19
    with pytest.raises(RejectedError, match="both"):
        ledger.count(query, actor="jane")


def test_an_empty_list_is_not_everything(ledger: tallystick.Ledger) -> None:
    for name in ("entity_id", "event_type", "actor", "label", "where"):
        with pytest.raises(RejectedError, match="nothing fits"):
            ledger.count(**{name: []})


def test_a_letter_whose_lower_case_is_two_is_found(ledger: tallystick.Ledger) -> None:
    ledger.append(event_type="t", entity_id="e", payload={"city": "\u0130stanbul", "\u0130": 1})

    for text in ("\u0130stanbul", "i\u0307stanbul", "\u0130*", "i*", "istanbul"):
        query = Query.of(text=text)
        assert positions([*ledger.records(query)]) == scan(ledger, query), text
    assert ledger.count(text="\u0130STANBUL") == 1


def test_an_answer_says_how_dates_were_taken(ledger: tallystick.Ledger) -> None:
    page = ledger.query(after="2026-03-15", before="2126-03-16T00:00:00Z")

    assert page.assumptions == ("after: 2026-03-15 is taken as midnight UTC",)


def test_types_past_those_that_are_looked_up_one_by_one_are_found_too() -> None:
    with tallystick.open("memory:") as ledger:
        ledger.append_many([{"event_type": f"many.t{n}", "entity_id": f"e{n % 7}"} for n in range(700)])
        ledger.append(event_type="few.t", entity_id="e1")

        for terms in (["event_type=many.*"], ["event_type=many.*", "entity_id=e1"]):
            check(ledger, terms)


# ------------------------------------------------------------------------------------------------ the index in use


def test_a_ledger_that_is_only_read_is_asked_through_a_private_index(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        ledger.append_many([event(number) for number in range(30)])
    for lost in (False, True):
        if lost:
            (tmp_path / "l" / "index.db").unlink()
        before = {path: path.read_bytes() for path in (tmp_path / "l").glob("index.db")}

        with tallystick.open(tmp_path / "l", readonly=True) as ledger:
            assert ledger.count(entity_id="e-2") == 10
            check(ledger, ["entity_id=e-1", "payload.n>3"])

        assert {path: path.read_bytes() for path in (tmp_path / "l").glob("index.db")} == before


def test_questions_beside_busy_writers_are_answered_for_a_size_of_the_ledger(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger, tallystick.open(tmp_path / "l") as other:
        stop = threading.Event()
        failures: list[BaseException] = []

        def write() -> None:
            number = 0
            while not stop.is_set():
                ledger.append_many([event(number + n) for n in range(50)])
                number += 50

        def ask(of: tallystick.Ledger) -> None:
            try:
                for _ in range(10):
                    page = of.query(entity_id="e-1", limit=1_000, newest_first=False)
                    records = [*of.read(0, page.size)]
                    expected = [record.position for record in records if record.entity_id == "e-1"]
                    assert positions([*page.records]) == expected[:1_000]
            except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
                failures.append(error)

        writer = threading.Thread(target=write)
        askers = [threading.Thread(target=ask, args=(of,)) for of in (ledger, other, ledger)]
        for thread in (writer, *askers):
            thread.start()
        for thread in askers:
            thread.join()
        stop.set()
        writer.join()

        assert not failures, failures
        check(ledger, ["entity_id=e-1"])


WRITER: Final = """
import sys
import tallystick, tallystick.read.follower
tallystick.read.follower.FLUSH_RECORDS = 40
ledger = tallystick.open(sys.argv[1])
number = 0
while True:
    ledger.append_many([
        {"event_type": f"t.x{n % 3}", "entity_id": f"e-{n % 7}", "labels": ["phi"] if n % 5 == 0 else [],
         "payload": {"n": n, "role": ["admin", "viewer"][n % 2]}} for n in range(number, number + 37)])
    ledger.query(limit=1)
    number += 37
    print(number, flush=True)
"""
KILLED: Final[tuple[list[str], ...]] = (
    ["entity_id=e-3"],
    ["label=phi", "event_type=t.x1"],
    ["payload.role=admin", "entity_id=e-2"],
    [],
)


@pytest.mark.slow
def test_after_a_kill_at_any_moment_the_index_answers_as_the_scan_does(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    with tallystick.open(folder):
        pass
    for run in range(12):
        # Given a process that appends and indexes, killed while it does.
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, folder],
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.004 * run)
        process.send_signal(signal.SIGKILL)
        process.communicate()

        with tallystick.open(folder) as ledger:
            for terms in KILLED:
                check(ledger, terms)


STEPS: Final = ("clear", "stage", "entities", "terms", "events", "labels", "postings", "tallies", "cursor")
KILLED_AT_STEP: Final = """
import os, sys
import tallystick
from tallystick.read import sqlite_saving
ledger = tallystick.open(sys.argv[1])
ledger.append_many([{"event_type": "t.new", "entity_id": f"e-{n % 5}", "id": f"new-{n}"} for n in range(50)])
statements = dict(sqlite_saving.save_statements())
values = "".join(f", ?{n}" for n in range(1, 4) if f"?{n}" in statements[sys.argv[2]])
statements[sys.argv[2]] = f"SELECT die(){values}"
sqlite_saving.save_statements = lambda: statements
writer = ledger._open_reader().follower.file._writer
writer.create_scalar_function("die", lambda *_: os.kill(os.getpid(), 9), 0)
ledger.query()
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_write_of_the_index_leaves_all_of_a_batch_or_none(tmp_path: Path, step: str) -> None:
    folder = tmp_path / "l"
    with tallystick.open(folder) as ledger:
        ledger.append_many([event(number) for number in range(40)])

    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_STEP, folder, step],
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )

    assert killed.returncode == -signal.SIGKILL
    assert apsw.Connection(str(folder / "index.db")).execute("SELECT position FROM cursor").fetchall() == [(42,)]
    with tallystick.open(folder) as ledger:
        assert ledger.size == 92
        for terms in ([], ["entity_id=e-1"], ["event_type=t.new", "entity_id=e-2"], ["id=new-7"]):
            check(ledger, terms)
        assert ledger.append(event_type="t", entity_id="e-1").entity_version == 13 + 10 + 1


def test_two_ledgers_never_answer_for_each_other() -> None:
    with tallystick.open("memory:", name="a") as one, tallystick.open("memory:", name="b") as other:
        one.append(event_type="t", entity_id="only here")

        assert one.count(entity_id="only here") == 1
        assert other.count(entity_id="only here") == 0
        with pytest.raises(NotFoundError):
            other.state("only here")


# -------------------------------------------------------------------------------------------------- real records


def cloudtrail_line(number: int) -> dict[str, Any]:
    """A record such as CloudTrail writes, as a payload."""
    minute, second = divmod(number, 60)
    record: dict[str, Any] = {
        "eventVersion": "1.08",
        "userIdentity": {"type": "IAMUser", "userName": ["benjamin", "alice"][number % 2]},
        "eventTime": f"2023-07-10T11:{minute % 60:02}:{second:02}Z",
        "eventName": ["GetObject", "PutObject", "DeleteBucket"][number % 3],
        "sourceIPAddress": "10.248.16.43",
    }
    if number % 7 == 0:
        record["errorCode"] = "AccessDenied"
    return record


def test_records_such_as_cloudtrail_writes_answer_what_an_auditor_asks() -> None:
    with tallystick.open("memory:") as ledger:
        lines = [cloudtrail_line(number) for number in range(900)]
        ledger.append_many(
            [
                {
                    "event_type": f"aws.s3.{line['eventName']}",
                    "entity_id": "arn:aws:s3:::bucket",
                    "actor": line["userIdentity"]["userName"],
                    "occurred_at": line["eventTime"],
                    "payload": line,
                }
                for line in lines
            ]
        )

        denied = ledger.count(where=["payload.errorCode"])
        window = ledger.count(
            actor="alice", occurred_after="2023-07-10T11:02:00Z", occurred_before="2023-07-10T11:12:00Z"
        )

        assert denied == sum("errorCode" in line for line in lines) == 129
        assert window == 300
        newest = ledger.query(where=["payload.errorCode=AccessDenied"]).records[0]
        assert newest.payload["eventTime"] == lines[896]["eventTime"]


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_page_is_bounded_in_bytes_and_goes_on_with_its_cursor(
    ledger: tallystick.Ledger, newest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append_many([{**event(0), "entity_id": "large", "payload": {"text": "x" * 3_000 * n}} for n in range(12)])
    monkeypatch.setattr("tallystick.read.search.PAGE_BYTES_MAX", 50_000)
    monkeypatch.setattr("tallystick.store.reading.READ_RECORDS_MAX", 5)

    page = ledger.query(entity_id="large", newest_first=newest_first)
    pages = [page.records]
    while page.cursor:
        page = ledger.query(entity_id="large", newest_first=newest_first, cursor=page.cursor)
        pages.append(page.records)

    found = [record for records in pages for record in records]
    assert len(found) == 12
    assert positions(found) == sorted(positions(found), reverse=newest_first)
    sizes = [sum(len(record.line) for record in records) for records in pages]
    assert all(size <= 50_000 or len(records) == 1 for size, records in zip(sizes, pages, strict=True))
    assert len(pages) > 3
