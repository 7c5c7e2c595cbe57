"""The default store: the contract, and what only a database file can get wrong."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.core.merkle import Tile
from tallystick.errors import ConflictError, NotFoundError, StoreError
from tallystick.sqlite_file import connect
from tallystick.store.contract import Batch
from tallystick.store.sqlite import SqliteStore
from tests import naive
from tests.store.contract_suite import Opener, StoreContract, batch_of, head_of, lines_of, stored
from tests.threads import in_threads


class TestSqliteStore(StoreContract):
    def opener(self, folder: Path) -> Opener:
        return lambda: SqliteStore(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a ledger of two records and a tile."""
    store = SqliteStore(tmp_path)
    store.create(Batch(0, lines_of(0, 2), [Tile(0, 0, bytes(8192), bytes(32))]), head_of(2))
    store.close()
    return tmp_path


def raw(folder: Path) -> apsw.Connection:
    """A connection as anyone may open it, without our settings."""
    return apsw.Connection(str(folder / "ledger.db"))


# ------------------------------------------------------------------------------------------------- promise 8


def test_a_copy_is_opened_as_the_store_was_and_has_nothing_beside_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    store = SqliteStore(folder)
    store.commit(2, batch_of(2, 1), head_of(3))  # in the write-ahead log

    store.copy(tmp_path / "copy")

    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["ledger.db"]
    copy = SqliteStore(tmp_path / "copy", readonly=True)
    assert (copy.head(), stored(copy), len(copy.tiles(0, 0, 9))) == (head_of(3), lines_of(0, 3), 1)
    assert copy.inspect() == []
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["ledger.db"]
    again = SqliteStore(tmp_path / "copy")
    again.commit(3, batch_of(3, 1), head_of(4))
    assert stored(again) == lines_of(0, 4)


def test_a_copy_is_of_one_commit_and_holds_no_writer_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a commit after each page that is copied.
    monkeypatch.setattr("tallystick.sqlite_file._COPY_PAGES", 1)
    (tmp_path / "copy").mkdir()
    store = SqliteStore(folder)
    steps: list[int] = []

    def commit(count: int) -> None:
        store.commit(2 + len(steps), batch_of(2 + len(steps), 1), head_of(3 + len(steps)))
        steps.append(count)

    SqliteStore(folder, readonly=True).copy(tmp_path / "copy", progress=commit)

    copy = SqliteStore(tmp_path / "copy")
    assert (copy.head(), stored(copy)) == (head_of(2), lines_of(0, 2))
    assert {*steps} == {8_192}
    assert sum(steps) == (tmp_path / "copy/ledger.db").stat().st_size
    assert store.head() == head_of(2 + len(steps))


def test_what_is_no_ledger_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no ledger"):
        SqliteStore(tmp_path / "nothing").copy(tmp_path)
    foreign_database(tmp_path / "ledger.db")
    with pytest.raises(StoreError, match="not a Tallystick ledger"):
        SqliteStore(tmp_path).copy(tmp_path / "copy")

    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]


def test_a_store_that_is_still_is_read_without_a_trace(folder: Path) -> None:
    assert raw(folder).pragma("journal_mode") == "wal"
    before = sorted(path.name for path in folder.iterdir())

    store = SqliteStore(folder, still=True)

    assert stored(store) == lines_of(0, 2)
    assert sorted(path.name for path in folder.iterdir()) == before


# --------------------------------------------------------------------- what the database refuses by itself


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE record SET bytes = x'00' WHERE position = 1",
        "UPDATE record SET crc32 = 0",
        "UPDATE record SET position = 7 WHERE position = 1",
        "UPDATE OR REPLACE record SET position = 0 WHERE position = 1",
        "DELETE FROM record WHERE position = 1",
        "DELETE FROM record",
        "INSERT INTO record VALUES (1, x'00', 0)",
        "INSERT INTO record VALUES (1, x'00', 0) ON CONFLICT (position) DO UPDATE SET bytes = excluded.bytes",
        "INSERT INTO record VALUES (2, 'text', 0)",
        "UPDATE tile SET hashes = zeroblob(8192)",
        "DELETE FROM tile",
        "INSERT INTO tile VALUES (1, zeroblob(8191), zeroblob(32))",
        "INSERT INTO tile VALUES (1, zeroblob(8192), zeroblob(31))",
        "UPDATE head SET size = 1",
        "UPDATE head SET checkpoint = x'00'",
        "DELETE FROM head",
        "INSERT INTO head VALUES (2, 9, x'', 0, 0, 0)",
        "INSERT INTO pruned VALUES (2, 9)",
        "INSERT INTO leaf VALUES (1, zeroblob(31))",
    ],
)
def test_the_database_refuses_to_change_what_was_committed(folder: Path, statement: str) -> None:
    connection = raw(folder)

    with pytest.raises(apsw.ConstraintError):
        connection.execute(statement).fetchall()
    connection.close()

    store = SqliteStore(folder)
    assert stored(store) == lines_of(0, 2)
    assert store.head() == head_of(2)
    assert len(store.tiles(0, 0, 9)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "REPLACE INTO record VALUES (1, x'00', 0)",
        "REPLACE INTO tile VALUES (0, zeroblob(8192), zeroblob(32))",
        "REPLACE INTO head VALUES (1, 1, x'00', 0, 0, 0)",
    ],
)
def test_a_connection_of_ours_refuses_replace_as_well(folder: Path, statement: str) -> None:
    # Whether REPLACE fires the triggers against deletion is a setting of the connection, not of the file.
    connection = connect(folder / "ledger.db", synchronous="full")

    with pytest.raises(apsw.ConstraintError):
        connection.execute(statement).fetchall()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DROP TRIGGER record_no_delete", "record_no_delete is missing from the schema"),
        ("DROP TABLE tile", "tile is missing from the schema"),
        ("CREATE TABLE more (x)", "more does not belong in the schema"),
        (
            "CREATE TRIGGER more AFTER INSERT ON record BEGIN SELECT 1; END",
            "more does not belong in the schema",
        ),
        (
            "DROP TRIGGER head_only_grows;CREATE TRIGGER head_only_grows BEFORE UPDATE ON head BEGIN SELECT 1; END",
            "head_only_grows was altered in the schema",
        ),
    ],
)
def test_an_inspection_tells_what_was_done_to_the_schema(folder: Path, statement: str, problem: str) -> None:
    connection = raw(folder)
    connection.execute(statement).fetchall()
    connection.close()

    findings = SqliteStore(folder).inspect()

    assert any(problem in finding for finding in findings), findings


def test_a_gap_is_left_out_and_not_papered_over(folder: Path) -> None:
    store = SqliteStore(folder)
    store.commit(2, batch_of(2, 5), head_of(7))
    connection = raw(folder)
    connection.execute("DROP TRIGGER record_no_delete; DELETE FROM record WHERE position IN (3, 4)").fetchall()

    assert [record.position for record in store.read(0, 7)] == [0, 1, 2, 5, 6]


# ------------------------------------------------------------------------------------------------ the prune


@pytest.fixture
def pruned(folder: Path) -> Path:
    """A folder with a ledger from which most of 3,000 records were pruned; the store is still open."""
    store = SqliteStore(folder)
    store.commit(2, Batch(2, [f"secret {at:06} ".encode() * 40 for at in range(2, 3_000)], []), head_of(3_000))
    store.prune(2_900, [0, 1, 1_500])
    return folder


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM record WHERE position = 1",
        "DELETE FROM record WHERE position = 2950",
        "UPDATE leaf SET hash = zeroblob(32)",
        "DELETE FROM leaf",
        "UPDATE pruned SET below = 5",
        "DELETE FROM pruned",
        "INSERT INTO pruned VALUES (2, 3000)",
    ],
)
def test_after_a_prune_the_database_refuses_every_other_deletion_as_before(pruned: Path, statement: str) -> None:
    connection = raw(pruned)

    with pytest.raises(apsw.ConstraintError):
        connection.execute(statement).fetchall()


def test_what_was_pruned_is_readable_nowhere_in_the_files(pruned: Path) -> None:
    there = b"".join(path.read_bytes() for path in pruned.iterdir())

    assert b"secret 002950 " in there
    assert b"secret 001500 " in there
    for position in (2, 700, 1_499, 1_501, 2_899):
        assert b"secret %06d " % position not in there


@pytest.mark.parametrize("seed", range(8))
def test_nothing_that_any_of_several_prunes_removed_is_readable_in_the_files(seed: int) -> None:
    # Rows are moved about as pages empty, and what is moved by one prune may be removed by the next.
    with tempfile.TemporaryDirectory() as name:
        chance = random.Random(seed)
        store, size, end = SqliteStore(Path(name)), 1_500, 0
        longest = chance.choice([20, 120, 1_200])
        lines = [b"<%08d>" % at * chance.randint(1, longest) for at in range(size)]
        store.create(Batch(0, lines[:700], []), head_of(700))
        for first in range(700, size, 20):
            store.commit(first, Batch(first, lines[first : first + 20], []), head_of(first + 20))
        left = {*range(size)}
        for _ in range(5):
            end = min(size, end + chance.randint(50, 500))
            share = chance.choice([0.05, 0.5, 0.9])
            left = {at for at in left if at >= end or chance.random() < share}

            store.prune(end, sorted(at for at in left if at < end))

            there = b"".join(path.read_bytes() for path in Path(name).iterdir())
            assert {int(digits) for digits in re.findall(rb"<([0-9]{8})>", there)} == left
            assert stored(store) == [lines[at] for at in sorted(left)]
        assert store.inspect() == []


def test_the_room_of_what_was_pruned_is_given_back(folder: Path) -> None:
    store = SqliteStore(folder)
    store.commit(2, Batch(2, [b"x" * 5_000] * 4_000, []), head_of(4_002))
    before = store.bytes_used()

    store.prune(4_000, [0, 1])

    assert store.bytes_used() < before / 50
    assert not Path(f"{folder}/ledger.db-wal").read_bytes()


def test_a_prune_that_fails_half_way_leaves_no_trace(folder: Path) -> None:
    store = SqliteStore(folder)
    store.commit(2, batch_of(2, 400), head_of(402))
    connection = raw(folder)
    connection.execute(
        "CREATE TRIGGER full AFTER DELETE ON record WHEN old.position = 300 BEGIN SELECT RAISE(ABORT, 'full'); END"
    ).fetchall()

    with pytest.raises(StoreError, match="full"):
        store.prune(350, [0])

    assert stored(store) == lines_of(0, 402)
    assert (store.pruned_below(), store.leaves(0, 402)) == (0, [])
    connection.execute("DROP TRIGGER full").fetchall()
    assert store.inspect() == []
    assert store.prune(350, [0]) == 349


def test_a_protection_that_somebody_took_down_is_not_put_back_silently_by_a_prune(folder: Path) -> None:
    raw(folder).execute("DROP TRIGGER record_no_delete").fetchall()
    store = SqliteStore(folder)

    store.prune(2, [0])

    assert any("record_no_delete is missing" in problem for problem in store.inspect())


def test_a_reader_that_holds_on_to_the_log_does_not_fail_a_prune(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tallystick.sqlite_file.BUSY_TIMEOUT_MS", 50)
    reader = raw(folder)
    reader.execute("BEGIN").fetchall()
    assert reader.execute("SELECT count(*) FROM record").fetchall() == [(2,)]

    assert SqliteStore(folder).prune(2, [0]) == 1

    assert "leave it with a later checkpoint" in caplog.text
    assert reader.execute("SELECT count(*) FROM record").fetchall() == [(2,)]


def test_a_store_opened_for_reading_refuses_a_prune(folder: Path) -> None:
    with pytest.raises(StoreError, match="reading only"):
        SqliteStore(folder, readonly=True).prune(2, [0])


# ----------------------------------------------------------------------------------- files that are not ours


def test_opening_touches_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "none")

    assert store.head() is None
    with pytest.raises(NotFoundError):
        [*store.read(0, 1)]
    store.close()

    assert [*tmp_path.iterdir()] == []


def foreign_database(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE customers (name); INSERT INTO customers VALUES ('Ann')").fetchall()
    connection.close()


def text_file(path: Path) -> None:
    path.write_text("This is a letter, and quite a long one at that.\n" * 100)


def other_application(path: Path) -> None:
    set_pragma(path, "application_id", 1_234)


def other_layout(path: Path) -> None:
    set_pragma(path, "user_version", 1)


def set_pragma(path: Path, name: str, value: int) -> None:
    SqliteStore(path.parent).create(batch_of(0, 1), head_of(1))
    connection = apsw.Connection(str(path))
    connection.pragma(name, value)
    connection.close()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (foreign_database, "not a Tallystick ledger"),
        (other_application, "not a Tallystick ledger"),
        (other_layout, "layout 1"),
        (text_file, "not a database"),
    ],
)
def test_a_file_that_is_no_ledger_of_ours_is_refused_and_left_alone(tmp_path: Path, make: Any, problem: str) -> None:
    make(tmp_path / "ledger.db")
    before = (tmp_path / "ledger.db").read_bytes()

    for attempt in (
        lambda store: store.head(),
        lambda store: [*store.read(0, 1)],
        lambda store: store.create(batch_of(0, 1), head_of(1)),
        lambda store: store.commit(1, batch_of(1, 1), head_of(2)),
    ):
        store = SqliteStore(tmp_path)
        with pytest.raises(StoreError, match=problem):
            attempt(store)
        store.close()

    assert (tmp_path / "ledger.db").read_bytes() == before


def test_an_empty_file_is_a_ledger_that_was_not_begun(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    store = SqliteStore(tmp_path)
    assert store.head() is None

    store.create(batch_of(0, 1), head_of(1))

    assert store.head() == head_of(1)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError, match="create the ledger"):
        SqliteStore(tmp_path / "file" / "ledger").create(batch_of(0, 1), head_of(1))


# ---------------------------------------------------------------------------------------- reading only


def test_a_store_opened_for_reading_refuses_every_write(folder: Path) -> None:
    store = SqliteStore(folder, readonly=True)

    with pytest.raises(StoreError, match="reading only"):
        store.commit(2, batch_of(2, 1), head_of(3))
    with pytest.raises(StoreError, match="reading only"):
        store.create(batch_of(0, 1), head_of(1))

    assert stored(store) == lines_of(0, 2)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def in_another_process(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


AS_SOMEONE_ELSE: Final = """
import os, sys
from pathlib import Path
import tallystick
from tallystick.errors import StoreError
from tallystick.store.contract import Batch, Head
from tallystick.store.sqlite import SqliteStore, _schema
_schema()  # of which the file may be where somebody else may not read
if os.geteuid() == 0:  # root has every right, whatever the modes of files say
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""

READ_ALL: Final = f"""{AS_SOMEONE_ELSE}
store = SqliteStore(Path(sys.argv[1]), readonly=True)
print(store.head().size, len([*store.read(0, 99)]))
"""

WRITE_ONE: Final = f"""{AS_SOMEONE_ELSE}
try:
    SqliteStore(Path(sys.argv[1])).commit(2, Batch(2, [b"x"], []), Head(3, b"", 0, 0, 0))
except StoreError as error:
    print(type(error).__name__, error)
"""


def test_a_folder_without_write_access_can_be_read(open_folder: Path) -> None:
    store = SqliteStore(open_folder)
    store.create(batch_of(0, 2), head_of(2))
    store.close()
    (open_folder / "ledger.db").chmod(0o444)
    open_folder.chmod(0o555)

    done = in_another_process(READ_ALL, str(open_folder))
    open_folder.chmod(0o755)

    assert (done.stdout, done.stderr) == ("2 2\n", "")


def test_a_folder_without_write_access_can_be_read_while_another_writes(open_folder: Path) -> None:
    store = SqliteStore(open_folder)
    store.create(batch_of(0, 2), head_of(2))
    store.commit(2, batch_of(2, 1), head_of(3))
    for path in open_folder.iterdir():
        path.chmod(0o644)  # they are the owner's alone until somebody lets others read them
    open_folder.chmod(0o555)

    done = in_another_process(READ_ALL, str(open_folder))
    open_folder.chmod(0o755)
    store.close()

    assert (done.stdout, done.stderr) == ("3 3\n", "")


def test_a_file_without_write_access_refuses_a_commit_with_a_clear_error(open_folder: Path) -> None:
    store = SqliteStore(open_folder)
    store.create(batch_of(0, 2), head_of(2))
    store.close()
    (open_folder / "ledger.db").chmod(0o444)
    open_folder.chmod(0o555)

    done = in_another_process(WRITE_ONE, str(open_folder))
    open_folder.chmod(0o755)

    assert done.stdout.startswith("StoreError could not commit")
    assert done.stderr == ""
    assert stored(SqliteStore(open_folder)) == lines_of(0, 2)


def test_a_file_without_read_access_is_one_clear_error(open_folder: Path) -> None:
    store = SqliteStore(open_folder)
    store.create(batch_of(0, 2), head_of(2))
    store.close()
    (open_folder / "ledger.db").chmod(0o000)

    done = in_another_process(WRITE_ONE, str(open_folder))

    assert done.stdout.startswith("StoreError could not commit: ")
    assert done.stderr == ""


# ----------------------------------------------------------------------------------- forks and processes


def test_a_store_does_not_cross_a_fork(folder: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from tallystick.errors import StoreError
from tallystick.store.contract import Batch, Head
from tallystick.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
store.commit(2, Batch(2, [b"parent"], []), Head(3, b"", 0, 0, 0))
child = os.fork()
if not child:
    refused = 0
    for call in (
        store.head,
        lambda: [*store.read(0, 1)],
        lambda: store.commit(3, Batch(3, [b"x"], []), Head(4, b"", 0, 0, 0)),
    ):
        try:
            call()
        except StoreError as error:
            refused += "fork" in str(error)
    store.close()
    os._exit(refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
store.commit(3, Batch(3, [b"parent again"], []), Head(4, b"", 0, 0, 0))
print(len([*store.read(0, 99)]))
"""

    done = in_another_process(program, str(folder))

    assert (done.stdout, done.stderr) == ("3\n4\n", "")


def test_a_reader_sees_nothing_of_a_commit_that_is_under_way(folder: Path) -> None:
    writer = connect(folder / "ledger.db", synchronous="full")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO record VALUES (2, x'00', 0)")
    writer.execute("UPDATE head SET size = 3")

    store = SqliteStore(folder)
    during = (store.head(), stored(store))
    writer.execute("COMMIT")

    assert during == (head_of(2), lines_of(0, 2))
    assert len(stored(store)) == 3


def test_a_commit_that_fails_half_way_leaves_no_trace(folder: Path) -> None:
    store = SqliteStore(folder)
    store.commit(2, batch_of(2, 1), head_of(3))
    connection = raw(folder)
    connection.execute(
        "CREATE TRIGGER full AFTER INSERT ON record WHEN new.position = 300 BEGIN SELECT RAISE(ABORT, 'full'); END"
    ).fetchall()

    with pytest.raises(StoreError, match="full"):
        store.commit(3, batch_of(3, 400), head_of(403))
    assert store.head() == head_of(3)
    assert stored(store) == lines_of(0, 3)

    connection.execute("DROP TRIGGER full").fetchall()
    store.commit(3, batch_of(3, 400), head_of(403))
    assert stored(store) == lines_of(0, 403)


@pytest.mark.parametrize("turn", range(12))
def test_of_several_stores_that_create_at_once_one_wins(tmp_path: Path, turn: int) -> None:
    folder = tmp_path / f"{turn}"
    won: list[int] = []

    def create(number: int) -> None:
        store = SqliteStore(folder)
        try:
            store.create(batch_of(0, 2, mark=f"{number}"), head_of(2, mark=f"{number}"))
        except ConflictError:
            assert store.head() is not None
            return
        won.append(number)

    in_threads(8, create)

    assert len(won) == 1
    assert stored(SqliteStore(folder)) == lines_of(0, 2, mark=f"{won[0]}")


APPEND_MANY_TIMES: Final = """
import json, sys, threading
import tallystick
folder, name, singles, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
acknowledged = []
with tallystick.open(folder) as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    def work(thread):
        for number in range(singles):
            who = f"{name}-{thread}-{number}"
            event = {"event_type": "test.done", "entity_id": f"shared-{number % 7}", "payload": {"who": who}}
            sealed = ledger.append(event)
            acknowledged.append([who, sealed.position, sealed.id, sealed.entity_version, sealed.hash.hex()])
    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
print(json.dumps(acknowledged))
"""


def test_two_processes_with_threads_append_to_one_linear_chain(tmp_path: Path) -> None:
    tallystick.open(tmp_path / "ledger").close()
    singles, threads = 500, 4
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND_MANY_TIMES, tmp_path / "ledger", name, f"{singles}", f"{threads}"],
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0

    acknowledged = [receipt for output in outputs for receipt in json.loads(output)]
    store = SqliteStore(tmp_path / "ledger")
    lines = stored(store)
    records = naive.read_chain(lines)
    head = store.head()
    assert head is not None
    naive.check_tree(lines, [head.checkpoint])
    assert len(acknowledged) == 2 * threads * singles
    assert len(records) == 2 + len(acknowledged)
    for who, position, event_id, entity_version, digest in acknowledged:
        record = records[position]
        assert record["payload"] == {"who": who}
        assert (record["id"], record["entity_version"]) == (event_id, entity_version)
        assert naive.sha256(lines[position]).hex() == digest
    assert len({receipt[1] for receipt in acknowledged}) == len(acknowledged)


def test_a_hot_journal_that_a_crash_left_is_rolled_back_by_the_first_reader(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    tallystick.open(folder).close()
    path = folder / "ledger.db"
    database = apsw.Connection(str(path))
    database.pragma("journal_mode", "delete")
    sound = path.read_bytes()
    # A writer that dies within a transaction: its journal has the page as it was, the file the page as it should be.
    database.pragma("cache_size", 1)
    database.pragma("cache_spill", 1)
    database.execute("BEGIN IMMEDIATE")
    database.execute("CREATE TABLE scratch (bytes)")
    database.executemany("INSERT INTO scratch VALUES (randomblob(?))", [(8_000,)] * 200)
    torn, journal = path.read_bytes(), Path(f"{path}-journal").read_bytes()
    database.execute("ROLLBACK")
    database.close()
    assert torn != sound
    path.write_bytes(torn)
    Path(f"{path}-journal").write_bytes(journal)

    head = SqliteStore(folder, readonly=True).head()

    assert head is not None
    assert head.size == 2
    assert tallystick.verify(folder).holds
