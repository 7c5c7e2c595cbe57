"""The index against a scan of the log (I5): after anything that can happen to it, it says what the scan says."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.errors import StoreError, TamperError
from tallystick.ids import spell
from tallystick.read import follower as following
from tallystick.read import index_files
from tallystick.read.follower import Follower
from tallystick.read.query import Query
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.sqlite_file import query
from tallystick.store.contract import Batch, Head, Store
from tallystick.store.memory import MemoryStore
from tallystick.store.sqlite import SqliteStore
from tests.threads import in_threads

FOREIGN: Final = "01234567-89ab-8def-8123-"
"""The prefix of another maker's ids."""


# ------------------------------------------------------------------------------------------------- the scan


def scan(store: Store) -> dict[str, list[int]]:
    """What the log says: the positions of every entity's records."""
    positions: dict[str, list[int]] = {}
    for stored in store.read(0, 1 << 40):
        positions.setdefault(json.loads(stored.line)["entity_id"], []).append(stored.position)
    return positions


def answered(file: SqliteIndexFile, entities: Iterable[str], *, end: int) -> dict[str, list[int]]:
    """What the index says of them."""
    return {
        entity_id: file.questions.positions(
            Query(entities=(entity_id,)), first=0, end=end, newest_first=False, limit=1 << 40
        )
        for entity_id in entities
    }


def check(follower: Follower, store: Store) -> None:
    """Fails unless the index that is followed answers as the scan does, for what is there and for what is not."""
    head = store.head()
    assert head is not None
    assert isinstance(follower.file, SqliteIndexFile)
    follower.catch_up(head.size)
    follower.flush()
    follower.wait(head.size)
    positions = scan(store)
    assert answered(follower.file, [*positions, "nobody"], end=head.size) == positions | {"nobody": []}
    assert {*follower.file.questions.names("entity")} == positions.keys()


def check_ledger(folder: Path) -> None:
    """The same, of the index that is on disk now."""
    store = SqliteStore(folder)
    follower = Follower(store, SqliteIndexFile(folder, store))
    check(follower, store)
    follower.close()
    file = SqliteIndexFile(folder, store)
    assert file.cursor() == sum(map(len, scan(store).values()))
    file.close()
    store.close()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FLUSH_RECORDS", 7)
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.01)


def event(entity_id: str, event_id: str | None = None) -> dict[str, Any]:
    return {"event_type": "t.t", "entity_id": entity_id, **({"id": event_id} if event_id else {})}


# --------------------------------------------------------------------------------------- rows, made anyhow

IDS: Final = st.one_of(
    st.none(),
    st.none(),
    st.integers(0, 30).map(lambda number: f"brought-{number}"),
    st.integers(0, 30).map(lambda counter: spell(FOREIGN, counter)),
)
ENTITIES: Final = st.sampled_from(["a", "b", "c", "ä"])
BATCHES: Final = st.lists(st.lists(st.tuples(ENTITIES, IDS), min_size=1, max_size=12), min_size=1, max_size=8)


@given(BATCHES, st.sampled_from([1, 3, 7, 100]))
def test_the_index_in_memory_says_what_a_scan_says(batches: list[list[tuple[str, str | None]]], flush: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tallystick.open("memory:") as ledger:
        patch.setattr(following, "FLUSH_RECORDS", flush)
        for batch in batches:
            append_fresh(ledger, batch)
        assert ledger._reader is not None

        check(ledger._reader.follower, ledger._store)
        check(Follower(ledger._store, SqliteIndexFile(None, ledger._store)), ledger._store)


def append_fresh(ledger: tallystick.Ledger, batch: list[tuple[str, str | None]]) -> None:
    """Append a batch; an id that was used for something else is left out."""
    for entity_id, event_id in batch:
        try:
            ledger.append(event(entity_id, event_id))
        except tallystick.ConflictError:
            ledger.append(event(entity_id))


@pytest.mark.slow
def test_the_index_on_disk_says_what_a_scan_says(tmp_path: Path) -> None:
    folders = iter(tmp_path / str(number) for number in range(10_000))

    @given(BATCHES, st.sampled_from([1, 3, 7, 100]), st.booleans())
    def property_holds(batches: list[list[tuple[str, str | None]]], flush: int, reopens: bool) -> None:
        folder = next(folders)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(following, "FLUSH_RECORDS", flush)
            ledger = tallystick.open(folder, name="l")
            for batch in batches:
                append_fresh(ledger, batch)
                if reopens:
                    ledger.close()
                    ledger = tallystick.open(folder)
                    ledger.catch_up()
                assert ledger._reader is not None
                check(ledger._reader.follower, ledger._store)
            ledger.close()
            check_ledger(folder)

    property_holds()


def test_rows_of_several_followers_cut_anywhere_add_up_to_the_same() -> None:
    @given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=4))
    def property_holds(entities: list[str], cuts: list[int]) -> None:
        store = store_of([(f"id-{number}", entity_id) for number, entity_id in enumerate(entities)])
        file = SqliteIndexFile(None, store)

        marks = sorted({0, len(entities), *(cut for cut in cuts if cut < len(entities))})
        for first, end in pairwise(marks):
            file.save(first, end, [stored.line for stored in store.read(first, end)])

        check(Follower(store, file), store)

    property_holds()


def store_of(rows: Sequence[tuple[str, str]]) -> MemoryStore:
    """A log with the given event ids and entities, as far as an index looks at it."""
    store = MemoryStore()
    versions: dict[str, int] = {}
    lines: list[bytes] = []
    for event_id, entity_id in rows:
        versions[entity_id] = versions.get(entity_id, 0) + 1
        members = {
            "id": event_id,
            "entity_id": entity_id,
            "entity_version": versions[entity_id],
            "event_type": "t.t",
            "position": len(lines),
            "recorded_at": "2026-03-15T09:30:00.000000Z",
            "payload": {},
        }
        lines.append(json.dumps(members).encode())
    store.create(Batch(0, lines, []), Head(len(lines), b"", 0, 0, 0))
    return store


OVERLAPPING: Final = (
    # Two processes that follow one log, each with a tail of its own, save what they have read in any order.
    [(0, 30), (0, 50)],
    [(0, 20), (20, 30), (0, 50)],
    [(0, 10), (0, 30), (10, 20), (0, 50), (30, 40)],
    [(0, 50), (0, 30), (20, 40)],
    [(0, 40), (30, 45), (0, 50)],
)


@pytest.mark.parametrize("saves", OVERLAPPING)
def test_what_two_processes_save_of_the_same_records_adds_up(tmp_path: Path, saves: list[tuple[int, int]]) -> None:
    store = store_of([(f"id-{number}", f"entity-{number % 3}") for number in range(50)])
    file = SqliteIndexFile(tmp_path, store)
    lines = [stored.line for stored in store.read(0, 50)]

    for first, end in saves:
        file.save(first, end, lines[first:end])

    assert file.cursor() == 50
    check(Follower(store, file), store)
    file.close()


# --------------------------------------------------------------------------------- what can happen to the file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a ledger of 60 records and its index, closed."""
    folder = tmp_path / "ledger"
    with tallystick.open(folder) as ledger:
        fill(ledger, 58)
    return folder


def fill(ledger: tallystick.Ledger, count: int) -> None:
    start = ledger.size
    for number in range(start, start + count):
        made = number % 3
        ledger.append(event(f"entity-{number % 5}", [None, f"id-{number}", spell(FOREIGN, number)][made]))


def deleted(folder: Path) -> None:
    (folder / "index.db").unlink()


def emptied(folder: Path) -> None:
    (folder / "index.db").write_bytes(b"")


def cut_short(folder: Path) -> None:
    data = (folder / "index.db").read_bytes()
    (folder / "index.db").write_bytes(data[: len(data) // 2 + 100])


def cut_to_a_few_bytes(folder: Path) -> None:
    (folder / "index.db").write_bytes((folder / "index.db").read_bytes()[:50])


def turned_into_text(folder: Path) -> None:
    (folder / "index.db").write_bytes(b"This is a letter.\n" * 1_000)


def another_database(folder: Path) -> None:
    deleted(folder)
    connection = apsw.Connection(str(folder / "index.db"))
    connection.execute("CREATE TABLE customers (name)").fetchall()
    connection.close()


def older_layout(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "index.db"))
    connection.execute("DROP TABLE label; ALTER TABLE entity RENAME TO entities").fetchall()
    connection.pragma("user_version", 0)
    connection.close()


def newer_layout(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "index.db"))
    connection.pragma("user_version", 99)
    connection.close()


def of_another_ledger(folder: Path) -> None:
    other = folder.parent / "other"
    with tallystick.open(other) as ledger:
        fill(ledger, 20)
    shutil.copy(other / "index.db", folder / "index.db")


def without_a_table(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "index.db"))
    connection.execute("DROP TABLE tally").fetchall()
    connection.close()


@pytest.mark.parametrize(
    "happens",
    [
        deleted,
        emptied,
        cut_short,
        cut_to_a_few_bytes,
        turned_into_text,
        another_database,
        older_layout,
        newer_layout,
        of_another_ledger,
        without_a_table,
    ],
)
def test_an_index_that_cannot_be_used_is_made_anew(
    folder: Path, happens: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    happens(folder)

    with caplog.at_level(logging.WARNING, "tallystick.index"), tallystick.open(folder) as ledger:
        fill(ledger, 9)
        assert ledger._reader is not None
        check(ledger._reader.follower, ledger._store)

    check_ledger(folder)
    expected = happens not in (deleted, emptied)
    assert any("made anew" in record.getMessage() for record in caplog.records) is expected


def test_an_index_ahead_of_a_log_that_was_put_back_is_kept_as_the_trace_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with tallystick.open(folder) as ledger:
        fill(ledger, 20)
    shutil.copy(folder / "ledger.db", tmp_path / "older.db")
    with tallystick.open(folder) as ledger:
        fill(ledger, 30)
    kept = (folder / "index.db").read_bytes()
    shutil.copy(tmp_path / "older.db", folder / "ledger.db")

    with tallystick.open(folder) as ledger, pytest.raises(TamperError, match="an older copy was put back"):
        fill(ledger, 31)
    assert (folder / "index.db").exists()

    # On purpose, then; and when the log has grown past the old index, otherwise than before.
    (folder / "index.db").unlink()
    (folder / "sealing.db").unlink()
    with tallystick.open(folder) as ledger:
        ledger.accept_loss("it is lost")
        fill(ledger, 60)
    check_ledger(folder)
    (folder / "index.db").write_bytes(kept)
    with tallystick.open(folder) as ledger, pytest.raises(TamperError, match="has seen another record"):
        fill(ledger, 61)


def test_a_log_put_back_beneath_an_open_ledger_is_not_sealed_over(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with tallystick.open(folder) as ledger:
        fill(ledger, 20)
    older = apsw.Connection(str(folder / "ledger.db"))
    shutil.copytree(folder, tmp_path / "older")
    older.close()
    with tallystick.open(folder) as ledger:
        fill(ledger, 30)
        size = ledger.size
        source = apsw.Connection(str(tmp_path / "older" / "ledger.db"))
        target = apsw.Connection(str(folder / "ledger.db"))
        with target.backup("main", source, "main") as backup:
            backup.step()
        source.close()
        target.close()
        with pytest.raises(TamperError, match=f"had {size} records"):
            ledger.append(event_type="t", entity_id="e")


def test_an_index_that_is_deleted_while_in_use_costs_only_a_rebuild(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        fill(ledger, 10)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{folder / 'index.db'}{suffix}").unlink(missing_ok=True)
        with tallystick.open(folder) as other:
            fill(other, 11)
        fill(ledger, 12)
        assert ledger._reader is not None
        check(ledger._reader.follower, ledger._store)

    check_ledger(folder)


def test_who_reads_an_index_that_was_deleted_meanwhile_reads_what_is_written(folder: Path) -> None:
    """By its name a new connection would find another process's index, and roll-ups would wait for that for ever."""
    ledger = tallystick.open(folder)
    fill(ledger, 10)
    index_files.delete_files(folder)
    with tallystick.open(folder) as other:
        fill(other, 11)
    assert ledger._reader is not None
    follower = ledger._reader.follower
    assert isinstance(follower.file, SqliteIndexFile)
    while follower.file._idle:  # as if other threads were reading
        follower.file._idle.pop().close()
    fill(ledger, 12)
    check(follower, ledger._store)
    closing = threading.Thread(target=ledger.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()

    check_ledger(folder)


def test_an_index_with_pages_of_nonsense_is_found_out_or_made_anew_but_never_believed(folder: Path) -> None:
    sound = (folder / "index.db").read_bytes()
    chance = random.Random(7)
    page_bytes = int.from_bytes(sound[16:18], "big")

    for _ in range(40):
        broken = bytearray(sound)
        start = chance.randrange(len(sound) // page_bytes) * page_bytes
        broken[start : start + page_bytes] = chance.randbytes(page_bytes)
        (folder / "index.db").write_bytes(broken)
        for _ in range(2):  # what is not noticed when it is opened is an error, and gone the next time
            try:
                check_ledger(folder)
                break
            except StoreError:
                continue
        else:
            raise AssertionError(f"the page at byte {start} is an error for ever")

    (folder / "index.db").write_bytes(sound)
    check_ledger(folder)


def test_a_damaged_log_stops_the_index_at_its_cursor_with_the_position(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "ledger.db"))
    connection.execute("DROP TRIGGER record_no_update; UPDATE record SET bytes = x'7b' WHERE position = 40").fetchall()
    connection.close()
    (folder / "index.db").unlink()
    store = SqliteStore(folder)
    follower = Follower(store, SqliteIndexFile(folder, store))

    with pytest.raises(TamperError, match="position 40"):
        follower.catch_up(60)
    follower.close()

    file = SqliteIndexFile(folder, store)
    assert file.cursor() == 40
    file.close()


# -------------------------------------------------------------------------------------------- saving, failing


class FailingFile(SqliteIndexFile):
    """Fails to save as often as it is told to."""

    def __init__(self, store: Store, failures: int) -> None:
        super().__init__(None, store)
        self.failures = failures
        self.saves = 0

    def save(self, first: int, end: int, lines: Sequence[bytes]) -> None:
        self.saves += 1
        if self.failures:
            self.failures -= 1
            raise StoreError("could not write the index: the disk is full (injected)")
        super().save(first, end, lines)


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_a_save_that_failed_is_tried_again(failures: int, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of([(f"id-{n}", f"entity-{n % 4}") for n in range(100)])
    file = FailingFile(store, failures)
    follower = Follower(store, file)

    with caplog.at_level(logging.WARNING, "tallystick.index"):
        for size in range(1, 101):
            follower.catch_up(size)
        while file.cursor() < 100:
            follower.flush()
            with suppress(StoreError):
                follower.wait(100)

    assert file.cursor() == 100
    check(follower, store)
    follower.close()
    # Those that come while answers are given from memory are logged once: there is one a second.
    assert 1 <= sum("could not be written" in record.getMessage() for record in caplog.records) <= failures


def test_an_index_that_cannot_be_written_keeps_a_bounded_part_of_the_log_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = store_of([(f"id-{n}", f"entity-{n % 4}") for n in range(2_000)])
    monkeypatch.setattr(following, "KEPT_BYTES", 20 * len(next(store.read(1_999, 2_000)).line))
    file = FailingFile(store, 1_000_000)
    follower = Follower(store, file)
    most = 0

    for size in range(1, 2_001):
        follower.catch_up(size)
        chunks = [*follower._unwritten, follower._tail]
        most = max(most, sum(len(chunk.lines or ()) for chunk in chunks), len(chunks))
    file.failures = 0
    while file.cursor() < 2_000:  # the last failure may be on its way yet
        follower.flush()
        with suppress(StoreError):
            follower.wait(2_000)
    check(follower, store)
    follower.close()

    assert most <= 20 + 2 * following.FLUSH_RECORDS


@pytest.mark.parametrize("way", ["learned", "read from the log"])
def test_what_is_written_at_once_and_what_waits_is_bounded_in_bytes(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of([(f"id-{n}", f"entity-{n % 4}") for n in range(4_000)])
    lines = [stored.line for stored in store.read(0, 4_000)]
    monkeypatch.setattr(following, "FLUSH_RECORDS", 20_000)
    monkeypatch.setattr(following, "FLUSH_BYTES", 50 * len(lines[-1]))
    monkeypatch.setattr(following, "KEPT_BYTES", 300 * len(lines[-1]))
    monkeypatch.setattr(following, "_LEARNED_AT_ONCE", 10)
    file = FailingFile(store, 1_000_000)
    saved: list[int] = []
    save = file.save

    def recorded(first: int, end: int, records: Sequence[bytes]) -> None:
        save(first, end, records)
        saved.append(len(records))

    monkeypatch.setattr(file, "save", recorded)
    follower = Follower(store, file)
    most = 0
    for size in range(100, 4_001, 100):
        if way == "learned":
            follower.learn(size - 100, lines[size - 100 : size])
        else:
            follower.catch_up(size)
        chunks = [*follower._unwritten, follower._tail]
        most = max(most, sum(len(chunk.lines or ()) for chunk in chunks))
    file.failures = 0
    while file.cursor() < 4_000:
        follower.flush()
        with suppress(StoreError):
            follower.wait(4_000)
    check(follower, store)
    follower.close()

    assert sum(saved) == 4_000
    assert max(saved) <= 62
    assert most <= 362


def test_an_index_that_another_saves_while_it_is_opened_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of([(f"id-{n}", f"entity-{n % 4}") for n in range(40)])
    lines = [stored.line for stored in store.read(0, 40)]
    first = SqliteIndexFile(tmp_path, store)
    asked: list[str] = []

    def between(connection: apsw.Connection, statement: str) -> Any:
        rows = query(connection, statement)
        if not asked:  # it has read that there is no cursor yet
            asked.append(statement)
            first.save(0, 40, lines)
        return rows

    monkeypatch.setattr("tallystick.read.sqlite_reached.query", between)
    second = SqliteIndexFile(tmp_path, store)

    assert asked
    assert not caplog.records
    assert (first.cursor(), second.cursor()) == (40, 40)
    first.close()
    second.close()


def test_a_question_during_a_save_waits_for_it() -> None:
    store = store_of([(f"id-{n}", f"entity-{n % 4}") for n in range(40)])
    held, go_on = threading.Event(), threading.Event()

    class SlowFile(SqliteIndexFile):
        def save(self, first: int, end: int, lines: Sequence[bytes]) -> None:
            held.set()
            assert go_on.wait(60)
            super().save(first, end, lines)

    follower = Follower(store, SlowFile(None, store))
    follower.catch_up(10)
    assert held.wait(60)
    go_on.set()

    check(follower, store)
    follower.close()


def test_progress_is_told_of_long_work() -> None:
    told: list[tuple[int, int]] = []
    store = store_of([(f"id-{n}", "e") for n in range(25_000)])

    follower = Follower(store, SqliteIndexFile(None, store), progress=lambda done, of: told.append((done, of)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "FLUSH_RECORDS", 50_000)
        follower.catch_up(25_000)

    assert told == [(10_000, 25_000), (20_000, 25_000), (25_000, 25_000)]


# ------------------------------------------------------------------------------------------- two processes

APPEND: Final = """
import sys
import tallystick, tallystick.read.follower
tallystick.read.follower.FLUSH_RECORDS = int(sys.argv[2])
for _ in range(3):
    with tallystick.open(sys.argv[1]) as ledger:
        for number in range(120):
            event = {"event_type": "t.t", "entity_id": f"entity-{number % 9}"}
            if number % 4 == 0:
                event["id"] = f"{sys.argv[2]}-{ledger.size}-{number}"
            ledger.append(event)
"""


def test_two_processes_that_share_an_index_leave_it_right(folder: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, folder, flush],
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for flush in ("13", "29")
    ]
    assert [process.wait(120) for process in processes] == [0, 0]

    file = SqliteIndexFile(folder, store := SqliteStore(folder))
    follower = Follower(store, file)
    check(follower, store)
    follower.close()
    store.close()
    check_ledger(folder)


def test_many_threads_ask_while_others_append(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        ids = [record.id for record in ledger.read()]

        def work(number: int) -> None:
            for turn in range(40):
                if number % 2:
                    sealed = ledger.append(event(f"entity-{turn % 5}", f"thread-{number}-{turn}"))
                    assert ledger.get(sealed.id).position == sealed.position
                else:
                    at = (number * 31 + turn * 7) % len(ids)
                    assert ledger.get(ids[at]).position == at

        in_threads(6, work)
        assert ledger._reader is not None
        check(ledger._reader.follower, ledger._store)
