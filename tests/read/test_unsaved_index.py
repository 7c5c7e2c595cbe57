"""An index that cannot be written answers from a bounded memory, and by the file again when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.errors import StoreError
from tallystick.read import follower as following
from tallystick.read import sqlite_saving
from tallystick.read.follower import Follower
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.store.contract import Store
from tallystick.store.sqlite import SqliteStore
from tests.full_disk import small
from tests.read.test_index import check, scan
from tests.test_crash import environment, may_mount
from tests.test_head_mark import until
from tests.threads import in_threads


class FullFile(SqliteIndexFile):
    """Fails to write while the disk is `full`, after it has begun to."""

    full = True
    attempts = 0

    def save(self, first: int, end: int, lines: Sequence[bytes]) -> None:
        if not self.full:
            super().save(first, end, lines)
            return
        self.attempts += 1
        with self._writing:
            writer = self._open_writer()
            with self._unsaved.aside(writer):
                raise StoreError("could not write the index: database or disk is full")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(sqlite_saving, "TURN_SECONDS", 0.001)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[tallystick.Ledger]:
    with tallystick.open(tmp_path / "ledger") as ledger:
        append(ledger, 10)
        yield ledger


def append(ledger: tallystick.Ledger, count: int, *, begin: int = 0) -> None:
    ledger.append_many(
        [
            {"event_type": "a.b", "entity_id": f"e-{n % 3}", "id": f"id-{n}", "payload": {"n": n, "x": "some words"}}
            for n in range(begin, begin + count)
        ]
    )


def followed(tmp_path: Path) -> tuple[Store, FullFile, Follower]:
    """An index of its own, of which the first records are written."""
    (tmp_path / "index").mkdir(exist_ok=True)
    store = SqliteStore(tmp_path / "ledger", readonly=True)
    file = FullFile(tmp_path / "index", store)
    file.full = False
    follower = Follower(store, file)
    check(follower, store)
    file.full = True
    return store, file, follower


def test_it_answers_as_a_scan_does_whatever_comes_meanwhile(ledger: tallystick.Ledger, tmp_path: Path) -> None:
    store, file, follower = followed(tmp_path)

    for step in range(5):
        append(ledger, 20, begin=100 + 20 * step)
        check(follower, store)
        assert (file.kept_to, file.cursor()) == (ledger.size, 12)
    attempts = file.attempts
    time.sleep(0.2)
    assert file.attempts > attempts  # also when nobody asks
    file.full = False
    until(lambda: file.cursor() == ledger.size)
    check(follower, store)

    assert file.kept_to == 0
    append(ledger, 20, begin=1_000)
    check(follower, store)
    follower.close()
    assert [*apsw.Connection(str(file.path)).execute("SELECT position FROM cursor")] == [(ledger.size,)]


def test_what_is_kept_is_bounded_and_more_is_one_clear_error(
    ledger: tallystick.Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file, follower = followed(tmp_path)
    monkeypatch.setattr(following, "UNSAVED_RECORDS_MAX", 30)
    append(ledger, 30, begin=100)
    check(follower, store)

    append(ledger, 1, begin=200)
    with pytest.raises(StoreError, match=r"lacks the newest 31 records: more than .* from memory\. Free room"):
        check(follower, store)

    monkeypatch.setattr(following, "UNSAVED_RECORDS_MAX", 1_000)
    monkeypatch.setattr(following, "UNSAVED_BYTES_MAX", 1_000)
    with pytest.raises(StoreError, match="lacks the newest 31 records"):
        check(follower, store)
    file.full = False
    until(lambda: file.cursor() == ledger.size)
    check(follower, store)
    follower.close()


def test_the_memory_of_changed_pages_is_bounded(
    ledger: tallystick.Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file, follower = followed(tmp_path)
    monkeypatch.setattr(sqlite_saving, "UNSAVED_MEMORY_BYTES_MAX", 200_000)
    monkeypatch.setattr(sqlite_saving, "_LOOK_STEPS", 10)
    append(ledger, 5_000, begin=100)

    with pytest.raises(StoreError, match="lacks the newest 5,000 records"):
        check(follower, store)

    assert file.kept_to == 0
    file.full = False
    check_soon(follower, store)
    follower.close()


def check_soon(follower: Follower, store: Store) -> None:
    """Until the thread that writes has tried again."""

    def holds() -> bool:
        try:
            check(follower, store)
        except StoreError:
            return False
        return True

    until(holds)


def test_nothing_is_left_out_of_answers_while_writing_is_tried_again(ledger: tallystick.Ledger, tmp_path: Path) -> None:
    store, file, follower = followed(tmp_path)
    append(ledger, 50, begin=100)
    check(follower, store)
    expected, end = {name: len(found) for name, found in scan(store).items()}, time.monotonic() + 1.5

    def ask(number: int) -> None:
        while time.monotonic() < end:
            if number == 0:
                file.full = not file.full  # the last records are written in the midst of it
                time.sleep(0.05)
                continue
            follower.wait(ledger.size)
            counted = file.query("SELECT count(*) FROM event")
            assert counted == [(sum(expected.values()),)]

    in_threads(4, ask)
    file.full = False
    follower.close()


def test_two_processes_answer_from_their_memories(
    ledger: tallystick.Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_saving, "TURN_SECONDS", 0.12)
    store, one, first = followed(tmp_path)
    append(ledger, 50, begin=100)
    check(first, store)
    other = FullFile(tmp_path / "index", store)
    second = Follower(store, other)

    began = time.monotonic()
    for _ in range(3):
        check(second, store)
        check(first, store)
    assert time.monotonic() - began < 15

    one.full = other.full = False
    until(lambda: one.cursor() == other.cursor() == ledger.size)
    first.close()
    second.close()


@pytest.mark.slow
def test_memory_stays_bounded_with_a_large_index(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        for part in range(4):
            ledger.append_many(
                [
                    {"event_type": f"a.t{n % 50}", "entity_id": f"e-{n * 7919 % 100_003}", "payload": {"n": n}}
                    for n in range(part * 5_000, part * 5_000 + 5_000)
                ]
            )
        store, file, follower = followed(tmp_path)
        ledger.append_many(
            [{"event_type": f"a.t{n % 50}", "entity_id": f"e-{n * 104_729 % 100_003}"} for n in range(10_000)]
        )
        follower.catch_up(ledger.size)
        follower.flush()
        follower.wait(ledger.size)
        assert file.query("SELECT count(*) FROM event") == [(ledger.size,)]
        writer = file._writer
        assert writer is not None
        with file._writing:
            used = writer.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0]
        assert 4 * len([*store.read(file.cursor(), ledger.size)]) < used < sqlite_saving.UNSAVED_MEMORY_BYTES_MAX
        follower.close()


# ----------------------------------------------------------------------------------------------- a full disk


def test_every_question_is_answered_on_a_disk_without_a_byte_left(tmp_path: Path) -> None:
    _answers_all(tmp_path, limited=True)


@pytest.mark.parametrize("file_system", ["tmpfs"] if may_mount() else [])
def test_every_question_is_answered_on_a_file_system_without_a_byte_left(tmp_path: Path, file_system: str) -> None:
    assert file_system == "tmpfs"
    with small(tmp_path / "small", 16) as mounted:
        _answers_all(mounted, limited=False)


ASKS: Final = """
import json, os, resource, signal, sys, time
from pathlib import Path
import tallystick
from tests.full_disk import fill
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, limited = Path(sys.argv[1]), sys.argv[2] == "True"
no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)

def events(begin, end):
    return [
        {"event_type": "a.b", "entity_id": f"e-{n % 3}", "actor": f"u-{n % 2}", "labels": [f"l-{n % 2}"],
         "payload": {"n": n, "x": "early words" if n < 20 else "fresh words"}}
        for n in range(begin, end)
    ]

def ask(ledger):
    return {
        "count": ledger.count(event_type="a.b"),
        "all": [record.id for record in ledger.records()],
        "page": [record.id for record in ledger.query(actor="u-1", limit=7).records],
        "text": ledger.count(text="fresh"),
        "label": ledger.count(label="l-1"),
        "state": [ledger.state("e-1").version, ledger.state("e-1").value],
        "history": [record.id for record in ledger.history("e-2")],
        "types": ledger.stats()["types"],
        "saved": [point.count for point in ledger.series(event_type="a.b", width="day").buckets],
        "series": [[point.group, point.count] for point in ledger.series(width="year", group="entity").buckets],
        "holds": ledger.verify(processes=1).holds,
    }

with tallystick.open(folder / "ledger", keys=folder / "keys") as ledger:
    ledger.append_many(events(0, 20))
    ledger.downsample("daily", event_type="a.b", width="day")
    ask(ledger)
    ledger.append_many(events(20, 60))
    if limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, no_limit[1]))
    else:
        fill(folder / "filler")
    file = ledger._open_reader().follower.file
    answers = [ask(ledger), ask(ledger)]
    kept = file.kept_to
    try:
        ledger.append(event_type="a.b", entity_id="e-9")
        refused = ""
    except tallystick.StoreError as error:
        refused = type(error).__name__
    answers.append(ask(ledger))
    if limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    else:
        os.unlink(folder / "filler")
    end = time.monotonic() + 20
    while file.kept_to and time.monotonic() < end:
        time.sleep(0.05)
    answers.append(ask(ledger))
    after = [file.kept_to, file.cursor() == ledger.size]
    ledger.append(event_type="a.c", entity_id="e-9")
    after.append(ledger.count(entity_id="e-9"))
print(json.dumps({"answers": answers, "kept": kept, "refused": refused, "after": after}))
"""


def _answers_all(folder: Path, *, limited: bool) -> None:
    """What a process answers before, during and after a full disk, and what a new one answers then."""
    done = subprocess.run(
        [sys.executable, "-c", ASKS, folder, str(limited)],
        env={**environment(), "PYTHONPATH": os.pathsep.join([*sys.path, str(Path.cwd())])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)

    first = found["answers"][0]
    assert (first["count"], first["text"], first["label"]) == (60, 40, 30)
    assert (first["state"][0], sum(first["saved"]), first["holds"]) == (20, 60, True)
    assert all(answer == first for answer in found["answers"])
    assert found["kept"] > 60
    assert found["refused"] == "StoreError"
    assert found["after"] == [0, True, 1]
