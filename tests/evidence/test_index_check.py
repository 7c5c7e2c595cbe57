"""Verification compares what is derived from the log with the log: every edit of it is found, and a rebuild heals."""

from __future__ import annotations

import hmac
import shutil
import tempfile
from pathlib import Path
from typing import Final

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.config import Location
from tallystick.core import timestamp
from tallystick.core.custody import RetentionPolicy
from tallystick.core.record import record_hash
from tallystick.errors import DamagedIndexError
from tallystick.evidence.findings import Finding, Kind
from tallystick.opening import rebuild_index
from tallystick.read import sqlite_check
from tallystick.read.compared import Compared, read_compared
from tallystick.read.query import Query
from tallystick.store.reading import absent_ranges
from tallystick.store.sqlite import SqliteStore
from tests.govern.scene import Scene

RECORDS: Final = 900
NOW: Final = timestamp.parse("2126-06-01T00:00:00.000000Z")

EDITED: Final[dict[str, tuple[str, int | None]]] = {
    "a type renamed": ("UPDATE term SET name = 'x.hidden' WHERE name = 'user.t1'", 3),
    "a type made an actor": ("UPDATE term SET kind = 'actor' WHERE name = 'user.t1'", 3),
    "two types swapped": (
        "UPDATE term SET name = CASE name WHEN 'user.t1' THEN '_' ELSE name END;"
        "UPDATE term SET name = 'user.t1' WHERE name = 'user.t2'; UPDATE term SET name = 'user.t2' WHERE name = '_'",
        3,
    ),
    "an entity renamed": ("UPDATE entity SET name = 'nobody' WHERE name = 'e3'", 5),
    "an entity removed": ("DELETE FROM entity WHERE name = 'e3'", 5),
    "an entity nobody has": ("INSERT INTO entity (name) VALUES ('ghost')", None),
    "an actor nobody is": ("INSERT INTO term (kind, name) VALUES ('actor', 'ghost')", None),
    "a type nobody has": ("INSERT INTO term (kind, name) VALUES ('type', 'ghost.type')", None),
    "a label nobody has": ("INSERT INTO term (kind, name) VALUES ('label', 'ghost')", None),
    "a term of no kind": ("INSERT INTO term (kind, name) VALUES ('ghost', 'ghost')", None),
    "a row removed": ("DELETE FROM event WHERE position = 77", 77),
    "the first row removed": ("DELETE FROM event WHERE position = 0", 0),
    "the last row removed": ("DELETE FROM event WHERE position = (SELECT max(position) FROM event)", RECORDS + 1),
    "a row without its actor": ("UPDATE event SET actor = NULL WHERE position = 9", 9),
    "a row of another entity": ("UPDATE event SET entity = entity + 1 WHERE position = 53", 53),
    "a row of another type": ("UPDATE event SET type = type + 1 WHERE position = 53", 53),
    "a row recorded later": ("UPDATE event SET recorded = recorded + 1 WHERE position = 50", 50),
    "a row that occurred earlier": ("UPDATE event SET occurred = occurred - 1 WHERE position = 51", 51),
    "a row past the end": ("INSERT INTO event VALUES (9000, 1, 1, 1, 1, 1)", 9000),
    "a row before the beginning": ("INSERT INTO event VALUES (-1, 1, 1, 1, 1, 1)", -1),
    "a row moved": ("UPDATE event SET position = 9001 WHERE position = 60", 60),
    "an actor where there is none": (
        "UPDATE event SET actor = (SELECT id FROM term WHERE kind = 'type' LIMIT 1) WHERE position = 1",
        1,
    ),
    "a lookup key lowered": (
        "UPDATE posting_idx SET term = x'30' WHERE pgno = (SELECT max(pgno) FROM posting_idx)",
        None,
    ),
    "a label removed": ("DELETE FROM label WHERE position = 12", 12),
    "all labels removed": ("DELETE FROM label", 2),
    "a label added": ("INSERT INTO label SELECT min(label), 14 FROM label", 14),
    "a label of no term": ("INSERT INTO label VALUES (999, 5)", 5),
    "words removed": ("DELETE FROM posting WHERE rowid = 44", 44),
    "words added": ("INSERT INTO posting (rowid, words) VALUES (5001, 'ghost')", 5001),
    "words replaced": ("REPLACE INTO posting (rowid, words) VALUES (45, 'ghost')", 45),
    "all words removed": ("INSERT INTO posting (posting) VALUES ('delete-all')", 0),
    "a page of words zeroed": (
        "UPDATE posting_data SET block = zeroblob(length(block)) WHERE id = (SELECT max(id) FROM posting_data)",
        None,
    ),
    "a page of words removed": ("DELETE FROM posting_data WHERE id = (SELECT max(id) FROM posting_data)", None),
    "which rows have words removed": ("DELETE FROM posting_docsize WHERE id = 8", 8),
    "counts lowered": ("UPDATE tally SET count = count - 1", None),
    "counts raised": ("UPDATE tally SET count = count + 1", None),
    "counts removed": ("DELETE FROM tally", None),
    "counts of another hour": ("INSERT INTO tally SELECT hour + 1, type, quarter + 4, count FROM tally", None),
    "counts of no quarter that ever was": ("INSERT INTO tally SELECT hour + 1, type, -5, 0 FROM tally", None),
    "counts of a quarter in another hour": ("UPDATE tally SET hour = hour + 1", None),
    "counts of no type": ("INSERT INTO tally SELECT hour, 999, quarter, count FROM tally LIMIT 1", None),
    "the cursor put back": ("UPDATE cursor SET position = 700", 699),
    "the cursor put forward": ("UPDATE cursor SET position = 70000", None),
    "the cursor removed": ("DELETE FROM cursor", None),
    "a second cursor": (
        "PRAGMA ignore_check_constraints = ON;"
        " INSERT INTO cursor SELECT -1, position, last_hash, ledger_id FROM cursor",
        None,
    ),
    "the cursor under another number": ("PRAGMA ignore_check_constraints = ON; UPDATE cursor SET id = -5", None),
    "the cursor's hash altered": ("UPDATE cursor SET last_hash = x'00'", RECORDS + 1),
    "the cursor's ledger altered": ("UPDATE cursor SET ledger_id = x'00'", None),
    "a trigger": ("CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM event; END", None),
    "an index dropped": ("DROP INDEX event_occurred", None),
    "a table dropped": ("DROP TABLE tally", None),
    "a view in the place of a table": ("DROP TABLE label; CREATE VIEW label AS SELECT 1 AS label, 2 AS position", None),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed") / "audit"
    with tallystick.open(folder) as ledger:
        ledger.append_many(
            {
                "event_type": f"user.t{n % 3}",
                "entity_id": f"e{n % 40}",
                "actor": f"a{n % 7}",
                "labels": ["phi"] if n % 5 == 0 else [],
                "payload": {"x": f"word{n} ünï \\ {n % 11}"},
                "context": {"ip": "10.0.0.1"},
                "occurred_at": "2026-03-15T09:30:00.5+02:00" if n % 4 else None,
            }
            for n in range(RECORDS)
        )
        ledger.catch_up()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sqlite_check, "RANGE_RECORDS", 250)
    return Path(shutil.copytree(made, tmp_path / "audit"))


def edit(folder: Path, statements: str) -> None:
    connection = apsw.Connection(str(folder / "index.db"))
    connection.execute(statements).fetchall()
    connection.close()


def found_in(folder: Path) -> list[Finding]:
    report = tallystick.verify(folder)
    assert {finding.kind for finding in report.findings} <= {Kind.INDEX}
    return [*report.findings]


def answers(folder: Path) -> list[list[int]]:
    """What the index says of every entity, type, actor and label there is, and of some words."""
    with tallystick.open(folder, readonly=True) as ledger:
        questions = ledger._open_reader().questions
        queries = [Query(entities=(name,)) for name in questions.names("entity")]
        queries += [Query(event_types=(name,)) for name in questions.names("type")]
        queries += [Query(actors=(name,)) for name in questions.names("actor")]
        queries += [Query(labels=(name,)) for name in questions.names("label")]
        queries += [Query(text=f"word{number}") for number in range(0, RECORDS, 50)]
        return [questions.positions(one, first=0, end=1 << 40, newest_first=False, limit=10**6) for one in queries]


def test_an_index_that_says_what_the_log_says_holds(folder: Path) -> None:
    report = tallystick.verify(folder)

    assert report.holds, report.findings
    assert report.index == RECORDS + 2


@pytest.mark.parametrize("how", EDITED)
def test_an_edit_of_the_index_is_found_where_it_is_and_a_rebuild_heals_it(folder: Path, how: str) -> None:
    statements, position = EDITED[how]
    edit(folder, statements)

    found = found_in(folder)
    assert found, "nothing was found"
    assert all(finding.seen.startswith("index.db: ") for finding in found)
    if position is not None:
        assert any((one.position or 0) <= position < (one.end or (one.position or 0) + 1) for one in found), found

    if how != "the cursor put forward":  # which is the trace of a log that was put back
        rebuild_index(folder)
        assert tallystick.verify(folder).holds


def test_pages_of_an_older_index_among_those_of_a_newer_are_found(folder: Path) -> None:
    older = (folder / "index.db").read_bytes()
    with tallystick.open(folder) as ledger:
        ledger.append_many({"event_type": "user.t9", "entity_id": f"n{n}", "payload": {"n": n}} for n in range(800))
        ledger.catch_up()
    newer, expected = (folder / "index.db").read_bytes(), answers(folder)
    differing = [at for at in range(0, len(older), 4096) if older[at : at + 4096] != newer[at : at + 4096]]
    assert len(differing) > 5

    for at in differing:
        (folder / "index.db").write_bytes(newer[:at] + older[at : at + 4096] + newer[at + 4096 :])
        for suffix in ("-wal", "-shm"):
            Path(f"{folder / 'index.db'}{suffix}").unlink(missing_ok=True)
        # A page of what only speeds things up, or that nothing is on any more, may be older.
        assert found_in(folder) or answers(folder) == expected, at


def test_an_older_index_put_back_whole_is_no_finding_as_it_says_how_far_it_reads(folder: Path) -> None:
    older = (folder / "index.db").read_bytes()
    with tallystick.open(folder) as ledger:
        ledger.append(event_type="user.t1", entity_id="e1")
        ledger.catch_up()
    (folder / "index.db").write_bytes(older)

    report = tallystick.verify(folder)
    assert (report.holds, report.index) == (True, RECORDS + 2)
    with tallystick.open(folder) as ledger:
        assert ledger.count(event_type="user.t1") == RECORDS // 3 + 1


def test_an_index_of_another_layout_or_none_is_no_finding(folder: Path) -> None:
    edit(folder, "PRAGMA user_version = 1")
    assert (tallystick.verify(folder).holds, tallystick.verify(folder).index) == (True, None)

    (folder / "index.db").unlink()
    assert (tallystick.verify(folder).holds, tallystick.verify(folder).index) == (True, None)


@pytest.mark.parametrize("how", ["removed", "put back"])
def test_an_index_that_says_less_than_it_has_is_made_again_by_who_opens_it(folder: Path, how: str) -> None:
    with tallystick.open(folder) as ledger:
        count, line = ledger.count(), ledger.get(700).line
    before = record_hash(line).hex()
    put_back = f"UPDATE cursor SET position = 701, last_hash = x'{before}'"
    edit(folder, "DELETE FROM cursor" if how == "removed" else put_back)

    assert found_in(folder)
    with tallystick.open(folder) as ledger:
        assert ledger.count() == count
        ledger.append(event_type="user.t1", entity_id="e1")
        assert ledger.count() == count + 1
    assert tallystick.verify(folder).holds


def test_rows_that_appear_past_the_end_of_an_index_in_use_do_not_keep_it_from_being_made_again(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        size = ledger.size
        assert ledger.count()
        edit(folder, f"INSERT INTO event VALUES ({size}, 1, 1, 1, 1, 1)")
        ledger.append(event_type="user.t1", entity_id="e1")
        with pytest.raises(DamagedIndexError):
            ledger.count()
    with tallystick.open(folder) as ledger:
        assert ledger.count(event_type="user.t1") == RECORDS // 3 + 1
    assert tallystick.verify(folder).holds


def test_the_comparison_can_be_left_out(folder: Path) -> None:
    edit(folder, "DELETE FROM event")

    assert tallystick.verify(folder, index=False).holds


def test_another_process_compares_when_others_scan(folder: Path) -> None:
    edit(folder, "DELETE FROM event WHERE position = 77")

    with tallystick.open(folder) as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tallystick.evidence.verification.plan.RANGE_RECORDS", 256)
        done: list[tuple[int, int | None]] = []
        report = ledger.verify(processes=2, progress=lambda at, of: done.append((at, of)))

    assert {finding.position for finding in report.findings if finding.position is not None} == {77}
    assert done[-1] == (2 * (RECORDS + 2), 2 * (RECORDS + 2))


SEALING: Final[dict[str, str]] = {
    "a page removed": "DELETE FROM page WHERE id = (SELECT min(id) FROM page)",
    "a page emptied": "UPDATE page SET content = substr(content, 1, 16)",
    "a filter altered": "UPDATE page SET content = zeroblob(length(content)) WHERE id = (SELECT max(id) FROM page)",
    "the manifest altered": "UPDATE manifest SET content = CAST(content || x'00' AS BLOB)",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON page BEGIN DELETE FROM page; END",
}


@pytest.mark.parametrize("how", SEALING)
def test_an_edit_of_what_the_sealer_knows_is_found_and_a_rebuild_heals_it(folder: Path, how: str) -> None:
    connection = apsw.Connection(str(folder / "sealing.db"))
    connection.execute(SEALING[how]).fetchall()
    connection.close()

    [finding] = found_in(folder)
    assert finding.seen.startswith("sealing.db: ")
    rebuild_index(folder)
    assert tallystick.verify(folder).holds


def test_what_was_pruned_is_no_finding_before_and_after_the_index_forgets_it(tmp_path: Path) -> None:
    scene = Scene(SqliteStore(tmp_path), index_folder=tmp_path)
    scene.keep("30d", phi="1y")
    for _ in range(3):
        for number in range(40):
            scene.append(f"user-{number}", count=5, labels=["phi"] if number == 7 else [])
        scene.pass_days(20)
    scene.retention.prune()
    scene.catch_up()

    def found() -> list[Finding]:
        return [*scene.verify(location=Location(tmp_path)).findings]

    assert not found()
    below = scene.store.pruned_below()
    scene.index.forget(absent_ranges(scene.store, 0, below), prune_at=scene.size - 1)
    assert not found()

    edit(tmp_path, f"DELETE FROM event WHERE position = {scene.size - 2}")
    assert found()


def test_a_word_added_to_what_was_kept_is_found_where_the_index_has_not_forgotten_the_prune(tmp_path: Path) -> None:
    scene = Scene(SqliteStore(tmp_path), index_folder=tmp_path)
    scene.keep("30d", phi="1y")
    for label in ("", "phi", ""):
        scene.append("user-1", count=5, labels=[label] if label else [])
    scene.pass_days(40)
    scene.append("user-2", count=5)
    scene.retention.prune()
    scene.catch_up()
    [kept, *_] = [stored.position for stored in scene.store.read(0, scene.size) if b"phi" in stored.line][1:]
    assert kept < scene.store.pruned_below()
    assert scene.verify(location=Location(tmp_path)).holds

    edit(tmp_path, f"INSERT INTO posting (rowid, words) VALUES ({kept}, 'ghost')")
    [finding] = scene.verify(location=Location(tmp_path)).findings
    assert finding.kind == Kind.INDEX


@pytest.mark.parametrize(
    "statements",
    [
        "UPDATE posting_docsize SET origin = 10000",
        "UPDATE posting_docsize SET origin = 0",
        "DELETE FROM event WHERE position = 5; DELETE FROM posting_docsize WHERE id = 5",
    ],
)
def test_words_of_what_was_pruned_do_not_stay_where_the_index_cannot_find_them(tmp_path: Path, statements: str) -> None:
    folder, now = tmp_path / "audit", [NOW]
    with tallystick.open(folder, clock=lambda: now[0]) as ledger:
        ledger.append_many({"event_type": "a.b", "entity_id": "e", "payload": {"x": f"secret{n}"}} for n in range(50))
        ledger.retention.set(RetentionPolicy.of("5d", {}))
        ledger.catch_up()
    edit(folder, statements)

    now[0] += 10 * 86_400_000_000
    with tallystick.open(folder, clock=lambda: now[0]) as ledger:
        ledger.append(event_type="a.b", entity_id="e")
        with pytest.raises(DamagedIndexError, match="pruned"):
            ledger.retention.prune()
    assert not (folder / "index.db").exists()
    with tallystick.open(folder, clock=lambda: now[0]) as ledger:
        assert ledger.count(event_type="a.b") == 1
        assert ledger.verify().holds
    assert b"secret" not in (folder / "index.db").read_bytes()


def test_answers_say_up_to_where_the_index_was_compared_and_when(folder: Path) -> None:
    def said() -> list[Compared | None]:
        with tallystick.open(folder) as ledger:
            return [
                ledger.query(event_type="user.t1").index_verified,
                ledger.state("e3").index_verified,
                ledger.series(width="day").index_verified,
            ]

    assert said() == [None, None, None]

    tallystick.verify(folder, clock=lambda: NOW)
    compared = Compared(RECORDS + 2, timestamp.render(NOW))
    assert said() == [compared] * 3
    with tallystick.open(folder) as ledger:
        ledger.append(event_type="user.t1", entity_id="e1")
        assert ledger.query(event_type="user.t1").index_verified == compared, "what came since was not compared"

    # A verification that finds something does not say that all is well, and the last good word stands.
    edit(folder, "DELETE FROM event WHERE position = 77")
    tallystick.verify(folder, clock=lambda: NOW + 1_000_000)
    assert said() == [compared] * 3


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"x" * 2_000])
def test_a_statement_that_nobody_with_the_keys_made_is_not_believed(folder: Path, content: bytes) -> None:
    tallystick.verify(folder)
    (folder / "index.compared").write_bytes(content)

    with tallystick.open(folder) as ledger:
        assert ledger.query().index_verified is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_statement_of_ours_or_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "index.compared").write_bytes(data)
        assert read_compared(Path(folder), key=bytes(32), ledger_id=b"id") is None
        content = hmac.digest(bytes(32), b"tallystick/v1/index-compared\0id" + data, "sha256") + data
        (Path(folder) / "index.compared").write_bytes(content)
        found = read_compared(Path(folder), key=bytes(32), ledger_id=b"id")
        assert found is None or found.position > 0


def test_words_about_a_prune_do_not_keep_words_from_being_compared(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        payload = {"note": "see tallystick.records.pruned", "event_type": "tallystick.records.pruned"}
        ledger.append(event_type="user.t1", entity_id="e1", payload=payload)
        ledger.catch_up()
    edit(folder, "DELETE FROM posting WHERE rowid BETWEEN 40 AND 60")

    assert any((one.position, one.end) == (40, 61) for one in found_in(folder))


def test_a_cursor_past_all_records_costs_nothing(folder: Path) -> None:
    edit(folder, "UPDATE cursor SET position = 36028797018963968, last_hash = x''")
    connection = apsw.Connection(str(folder / "ledger.db"))
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')
    connection.execute("UPDATE head SET size = 36028797018963968")
    connection.close()

    assert not tallystick.verify(folder).holds


def test_a_rebuild_makes_all_of_the_sealing_index_again_whether_or_not_anything_relied_on_it(folder: Path) -> None:
    def pages() -> list[object]:
        connection = apsw.Connection(str(folder / "sealing.db"))
        found = connection.execute("SELECT content FROM page").fetchall()
        connection.close()
        return [content for (content,) in found]

    before = pages()
    rebuild_index(folder)

    assert not {*before} & {*pages()}, "each run has a nonce of its own"


@pytest.mark.parametrize("how", ["replaced by a good copy", "removed", "given another layout"])
def test_an_index_that_is_edited_and_then_parted_from_its_name_is_found_by_who_has_it_open(
    folder: Path, how: str
) -> None:
    index = folder / "index.db"
    with tallystick.open(folder) as ledger:
        count = ledger.count()
        good = folder.parent / "good.db"
        connection = apsw.Connection(str(index))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shutil.copy(index, good)
        connection.execute("DELETE FROM event WHERE position > 10").fetchall()
        if how == "given another layout":
            connection.execute("PRAGMA user_version = 1").fetchall()
        connection.close()
        if how == "replaced by a good copy":
            good.rename(index)
        elif how == "removed":
            index.unlink()

        assert Kind.INDEX in {one.kind for one in ledger.verify().findings}
    with tallystick.open(folder) as ledger:
        if how != "replaced by a good copy":
            assert ledger.count() == count, "it was made again"
