"""What is sealed is built on what is proven: records that are swapped for a moment, and put back, leave nothing behind.

The triggers of the log are kept as they are, so that the schema tells of nothing.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import apsw
import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.errors import StoreError, TallystickError, TamperError
from tallystick.govern.selection import Selection
from tallystick.opening import rebuild_index
from tests.tampering import line_at

DAY: Final = 86_400_000_000
NOW: Final = 1_780_000_000_000_000


def opened(folder: Path, *, days_ago: float = 0) -> tallystick.Ledger:
    return tallystick.open(folder / "ledger", keys=folder / "keys", clock=lambda: NOW - int(days_ago * DAY))


def events(count: int, entity: str = "door") -> list[dict[str, Any]]:
    return [{"event_type": "door.opened", "entity_id": f"{entity}-{n % 5}", "actor": "jane"} for n in range(count)]


@contextmanager
def log(folder: Path) -> Iterator[apsw.Connection]:
    """The log, open for writing without its triggers, which are there again at the end."""
    connection = apsw.Connection(str(folder / "ledger/ledger.db"))
    connection.set_busy_timeout(5_000)
    triggers: list[Any] = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    yield connection
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.close()


def put(folder: Path, position: int, line: bytes) -> bytes:
    """Put other bytes in the place of a record, and fit the checksum; what was there."""
    old = line_at(folder / "ledger/ledger.db", position)
    with log(folder) as connection:
        connection.execute("UPDATE record SET bytes = ?, crc32 = ? WHERE position = ?", (line, crc32(line), position))
    return old


def check_holds(folder: Path) -> None:
    report = tallystick.verify(folder / "ledger", keys=folder / "keys", clock=lambda: NOW)
    assert report.holds, report.findings


def test_a_held_record_that_was_deleted_is_not_sealed_as_pruned(tmp_path: Path) -> None:
    with opened(tmp_path, days_ago=20) as ledger:
        ledger.append_many([*events(30), {"event_type": "door.opened", "entity_id": "suspect"}, *events(29)])
        ledger.retention.set(RetentionPolicy.of("5d"))
        ledger.retention.hold("case-1", reason="court", entity="suspect")
    with opened(tmp_path, days_ago=10) as ledger:
        ledger.append_many(events(60))
        [held] = [record.position for record in ledger.records(entity_id="suspect")]
        pruned = line_at(tmp_path / "ledger/ledger.db", 20)
        assert ledger.retention.prune().count
    with opened(tmp_path, days_ago=3) as ledger:
        ledger.append_many(events(5))
    line = line_at(tmp_path / "ledger/ledger.db", held)

    for balanced in (False, True):
        with log(tmp_path) as connection:
            connection.execute("INSERT OR REPLACE INTO leaf VALUES (?, ?)", (held, leaf_hash(line)))
            connection.execute("DELETE FROM record WHERE position = ?", (held,))
            if balanced:  # so that as many are missing as the prune before says
                connection.execute("INSERT INTO record VALUES (20, ?, ?)", (pruned, crc32(pruned)))
        with opened(tmp_path) as ledger:
            size = ledger.size
            with pytest.raises(TamperError, match="is missing"):
                ledger.retention.prune()
            assert ledger.size == size
        with log(tmp_path) as connection:
            connection.execute("INSERT INTO record VALUES (?, ?, ?)", (held, line, crc32(line)))
            connection.execute("DELETE FROM leaf WHERE position = ?", (held,))
            connection.execute("DELETE FROM record WHERE position = 20")
    rebuild_index(tmp_path / "ledger")
    with opened(tmp_path) as ledger:
        assert ledger.retention.prune().count
    check_holds(tmp_path)


def test_a_record_that_is_missing_for_a_moment_is_not_sealed_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, days_ago=20) as ledger:
        ledger.append_many([*events(30), {"event_type": "door.opened", "entity_id": "suspect"}, *events(300)])
        ledger.retention.set(RetentionPolicy.of("5d"))
        ledger.retention.hold("case-1", reason="court", entity="suspect")
    with opened(tmp_path, days_ago=3) as ledger:
        ledger.append_many(events(20))
        [held] = [record.position for record in ledger.records(entity_id="suspect")]
    line = line_at(tmp_path / "ledger/ledger.db", held)

    with opened(tmp_path) as ledger:
        retention, size = ledger.retention, ledger.size
        assert retention.plan().count, "somebody looked at it, and what the head needs is in memory"
        with log(tmp_path) as connection:
            connection.execute("DELETE FROM record WHERE position = ?", (held,))
            connection.execute("INSERT OR REPLACE INTO pruned VALUES (1, ?)", (held + 1,))

        def put_back() -> None:
            with log(tmp_path) as connection:
                connection.execute("INSERT OR IGNORE INTO record VALUES (?, ?, ?)", (held, line, crc32(line)))
                connection.execute("DELETE FROM pruned")

        class WhenAllIsThereAgain(Selection):
            """It is made after the look at what is missing, and before all records are read."""

            def __init__(self, *arguments: Any) -> None:
                put_back()
                super().__init__(*arguments)

        monkeypatch.setattr("tallystick.govern.retention.Selection", WhenAllIsThereAgain)
        with pytest.raises(TamperError, match="a record is missing"):
            retention.prune()
        put_back()
        assert ledger.size == size
        assert retention.prune().count
    check_holds(tmp_path)


@pytest.mark.parametrize("what", ["said to be held", "said to be its own"])
def test_what_the_index_says_of_records_that_stay_is_held_against_the_log(tmp_path: Path, what: str) -> None:
    with opened(tmp_path, days_ago=20) as ledger:
        ledger.append_many([*events(59), {"event_type": "door.opened", "entity_id": "suspect"}])
        ledger.retention.set(RetentionPolicy.of("5d"))
        ledger.retention.hold("case-1", reason="court", entity="suspect")
    with opened(tmp_path, days_ago=3) as ledger:
        ledger.append_many(events(20))
    with opened(tmp_path) as ledger:
        ledger.count()
    index = apsw.Connection(str(tmp_path / "ledger/index.db"))
    own: Any = index.execute(
        "SELECT id FROM term WHERE kind = 'type' AND name = 'tallystick.ledger.created'"
    ).fetchall()
    held: Any = index.execute("SELECT id FROM entity WHERE name = 'suspect'").fetchall()
    word = f"\x01e{held[0][0]}" if what == "said to be held" else f"\x01t{own[0][0]}"
    for position in (20, 21):
        if index.execute("SELECT 1 FROM event WHERE position = ?", (position,)).fetchall():
            index.execute("INSERT INTO posting (rowid, words) VALUES (?, ?)", (position, word))
    index.close()

    with opened(tmp_path) as ledger:
        size = ledger.size
        with pytest.raises(StoreError, match="the index does not say of position"):
            ledger.retention.prune()
        assert ledger.size == size
    rebuild_index(tmp_path / "ledger")
    with opened(tmp_path) as ledger:
        assert ledger.retention.prune().end < 70
    check_holds(tmp_path)


def test_what_has_expired_the_log_says_and_not_the_index(tmp_path: Path) -> None:
    with opened(tmp_path, days_ago=20) as ledger:
        ledger.append_many(events(60))
        ledger.retention.set(RetentionPolicy.of("5d"))
    with opened(tmp_path, days_ago=3) as ledger:
        ledger.append_many(events(20))
    with opened(tmp_path) as ledger:
        ledger.count()
        expected = ledger.retention.plan()
    index = apsw.Connection(str(tmp_path / "ledger/index.db"))
    index.execute("UPDATE event SET recorded = (SELECT recorded FROM event WHERE position = 10) WHERE position >= 60")
    index.close()

    with opened(tmp_path) as ledger:
        pruned = ledger.retention.prune()
        assert (pruned.end, pruned.count) == (expected.end, expected.count)
        assert len([*ledger.records(event_type="door.opened")]) == 20, "what was recorded three days ago stays"
    rebuild_index(tmp_path / "ledger")
    check_holds(tmp_path)


@pytest.mark.parametrize("which", ["first", "end"])
def test_the_hashes_that_a_prune_seals_are_of_proven_records(tmp_path: Path, which: str) -> None:
    with opened(tmp_path, days_ago=5.3) as ledger:
        ledger.append_many(events(300))
        ledger.retention.set(RetentionPolicy.of("5d"))
    with opened(tmp_path, days_ago=4.8) as ledger:
        ledger.append_many(events(400))
    with opened(tmp_path) as ledger:
        plan = ledger.retention.plan()
        position = plan.end if which == "end" else plan.first
        assert position is not None
        old = line_at(tmp_path / "ledger/ledger.db", position)
        put(tmp_path, position, re.sub(rb'"prev_hash":"[0-9a-f]{64}"', b'"prev_hash":"' + b"0" * 64 + b'"', old))
        with pytest.raises(TamperError, match=f"position {position} is not the one in the signed tree"):
            ledger.retention.prune(plan)
        put(tmp_path, position, old)
        assert ledger.retention.prune(plan).count
    check_holds(tmp_path)


def test_an_epoch_is_not_closed_from_where_the_head_says_that_it_began(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append_many(events(600))
    opening = line_at(tmp_path / "ledger/ledger.db", 1)
    old = put(tmp_path, 100, opening.replace(b'"position":1,', b'"position":100,'))
    with log(tmp_path) as connection:
        connection.execute("UPDATE head SET epoch_at = 100")

    with opened(tmp_path) as ledger, pytest.raises(TamperError, match="position 100 is not the one in the signed tree"):
        ledger.append(events(1)[0])
    put(tmp_path, 100, old)
    with opened(tmp_path) as ledger, pytest.raises(TallystickError):
        ledger.change_epoch()
    with log(tmp_path) as connection:
        connection.execute("UPDATE head SET epoch_at = 1")
    with opened(tmp_path) as ledger:
        ledger.change_epoch()
    check_holds(tmp_path)


def test_what_a_writer_reads_back_is_proven_at_any_size(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.append_many(events(510))
        size = ledger.size
        assert size % 256 == 0, "the last record is in a tile of its own"
        old = line_at(tmp_path / "ledger/ledger.db", size - 1)
        ledger._open_sealer().forget()  # as after a commit that failed, or lost its race
        put(tmp_path, size - 1, re.sub(rb'"recorded_at":"\d{4}', b'"recorded_at":"2099', old))

        with pytest.raises(TamperError, match=f"position {size - 1} is not the one in the signed tree"):
            ledger.append(events(1)[0])
        put(tmp_path, size - 1, old)
        assert ledger.append(events(1)[0]).position == size
    check_holds(tmp_path)


@pytest.mark.parametrize("way", ["checkpoint", "proof", "backup"])
def test_a_made_up_head_does_not_reach_the_head_mark(tmp_path: Path, way: str) -> None:
    with opened(tmp_path) as ledger:
        ledger.append_many(events(50))
    shutil.copytree(tmp_path / "ledger", tmp_path / "good")
    with log(tmp_path) as connection:
        lines: Any = [line for (line,) in connection.execute("SELECT bytes FROM record ORDER BY position")]
        size = len(lines)
        made = lines[-1].replace(b'"position":%d' % (size - 1), b'"position":%d' % size)
        tree, _ = Tree.empty().extend([leaf_hash(line) for line in (*lines, made)])
        found: Any = connection.execute("SELECT checkpoint FROM head").fetchall()
        origin, signature = found[0][0].split(b"\n")[0], found[0][0].split(b"\n\n")[1]
        note = b"%b\n%d\n%b\n\n%b" % (origin, size + 1, base64.b64encode(tree.root), signature)
        connection.execute("INSERT INTO record VALUES (?, ?, ?)", (size, made, crc32(made)))
        connection.execute("UPDATE head SET size = ?, checkpoint = ?", (size + 1, note))

    def hand_out() -> None:
        if way == "backup":
            tallystick.backup(tmp_path / "ledger", tmp_path / "kept", keys=tmp_path / "keys", signed=False)
            return
        with opened(tmp_path) as ledger:
            if way == "checkpoint":
                ledger.checkpoint()
            else:
                ledger.prove(3)

    if way == "backup":
        hand_out()
    else:
        with pytest.raises(TamperError):
            hand_out()
    shutil.rmtree(tmp_path / "ledger")
    (tmp_path / "good").rename(tmp_path / "ledger")
    check_holds(tmp_path)
    with opened(tmp_path) as ledger:
        assert ledger.append(events(1)[0]).position == size
