"""A log that is put back in place while it is open, and goes on elsewhere: nothing of the lost history is sealed upon.

The files are written through SQLite, as a restore beneath a running process does it, so that none loses its name and
no look at the files notices. What is gone by then was read before, and is in memory, in `sealing.db`, or in the mark.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import apsw
import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.deployment import Deployment
from tallystick.errors import DamagedError, DeniedError, TallystickError, TamperError
from tallystick.store.contradiction import HaltedError

FILES: Final = ("ledger.db", "index.db", "sealing.db")
DAY: Final = 86_400_000_000
NOW: Final = 1_780_000_000_000_000


class Scene:
    """A ledger of 12 records, a copy of it, and several who have it open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.days = 0.0
        with self.opened() as ledger:
            ledger.append_many(events(10))
        self.copy()

    def opened(self, *, marks: bool = True) -> tallystick.Ledger:
        return tallystick.open(
            self.folder / "ledger",
            keys=self.folder / "keys",
            marks=None if marks else self.folder / "elsewhere",
            clock=lambda: NOW + int(self.days * DAY),
        )

    def copy(self, to: str = "old", files: Iterable[str] = FILES) -> None:
        (self.folder / to).mkdir(exist_ok=True)
        for name in files:
            copied(self.folder / "ledger" / name, self.folder / to / name)

    def put_back(self, of: str = "old", files: Iterable[str] = FILES) -> None:
        for name in files:
            copied(self.folder / of / name, self.folder / "ledger" / name)

    def forget_mark(self) -> None:
        """As after a crash within the time in which the mark may be behind."""
        for path in (self.folder / "keys" / "heads").iterdir():
            path.unlink()


def copied(source: Path, target: Path) -> None:
    with (
        closing(apsw.Connection(str(source))) as given,
        closing(apsw.Connection(str(target))) as taken,
        taken.backup("main", given, "main") as backup,
    ):
        while not backup.done:
            backup.step(1_000)


def events(count: int, entity: str = "door") -> list[dict[str, Any]]:
    return [{"event_type": "door.opened", "entity_id": entity, "actor": "jane"} for _ in range(count)]


def event(entity: str = "door", **more: Any) -> dict[str, Any]:
    return {"event_type": "door.opened", "entity_id": entity, **more}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("committed", [False, True])
def test_who_knew_the_lost_part_seals_nothing_after_the_loss_was_accepted(scene: Scene, committed: bool) -> None:
    with scene.opened() as first, scene.opened() as idle:
        first.append_many(events(20))
        assert idle.get(first.append(event(id="mine")).id).position
        if committed:
            idle.append(event())
        first.close()
        idle.checkpoint()
        scene.put_back()
        with scene.opened() as other:
            other.accept_loss("the disk died")
            other.append_many(events(60, "other"))
            size = other.size

        for _ in range(2):
            with pytest.raises(DamagedError, match="put back while it was open"):
                idle.append(event())
            with pytest.raises(DamagedError, match="put back while it was open"):
                idle.get("mine")

    with scene.opened() as after:
        assert after.size == size, "and nothing is halted"
        assert after.append(event()).entity_version == 11
        assert after.verify().holds


def test_who_knew_what_no_mark_told_of_finds_the_fork(scene: Scene) -> None:
    with scene.opened() as idle:
        with scene.opened() as first:
            first.append_many(events(20))
        idle.prove(0)
        with pytest.raises(tallystick.NotFoundError):
            idle.get("nothing")  # the sealer reads the log
        scene.put_back()
        scene.forget_mark()
        with scene.opened() as other:
            other.append_many(events(60, "other"))

        with pytest.raises(HaltedError, match="history was rewritten, or split"):
            idle.append(event())
    with scene.opened() as after, pytest.raises(HaltedError, match="history was rewritten, or split"):
        after.append(event())


def test_a_commit_after_another_log_of_the_same_size_is_not_made(scene: Scene) -> None:
    with scene.opened() as idle:
        idle.append_many(events(5))
        size = idle.size
        scene.put_back()
        scene.forget_mark()
        with scene.opened() as other:
            other.append_many(events(size - other.size, "other"))
            assert other.size == size
            newest = other.checkpoint()
        with pytest.raises(TamperError):
            idle.append(event())
    with scene.opened(marks=False) as after:
        assert after.checkpoint() == newest
        assert after.verify().holds


def test_holds_of_the_new_history_are_obeyed_by_who_knew_the_lost_one(scene: Scene) -> None:
    with scene.opened() as idle:
        with scene.opened() as first:
            first.retention.set(RetentionPolicy(period_days=1), reason="rule 7")
            first.retention.hold("lost", entity="window", reason="a case that is over")
        scene.days = 3
        assert [hold.name for hold in idle.retention.holds()] == ["lost"]
        scene.put_back()
        scene.forget_mark()
        scene.days = 0
        with scene.opened() as other:
            other.retention.set(RetentionPolicy(period_days=1), reason="rule 7")
            other.retention.hold("litigation", entity="door", reason="a case")
        scene.days = 3

        with pytest.raises(TamperError):
            idle.retention.prune()
    with scene.opened(marks=False) as after:
        assert after.count(entity_id="door") == 10
        assert after.verify().holds


def test_what_was_kept_of_the_lost_history_is_not_believed_when_it_is_put_back_alone(scene: Scene) -> None:
    with scene.opened() as first:
        first.append_many(events(3_000))
    scene.copy("lost", ["sealing.db"])
    scene.put_back()
    with scene.opened() as other:
        other.accept_loss("the disk died")
    with scene.opened() as idle:
        with pytest.raises(tallystick.NotFoundError):
            idle.get("nothing")
        with scene.opened() as other:
            other.append(event("window"))
        scene.put_back("lost", ["sealing.db"])

        assert idle.append(event("door")).entity_version == 11
        assert "3012 records" in (idle.sealing_problem or "").replace(",", "")
        assert idle.verify().holds


def test_nobody_sets_the_mark_back(scene: Scene) -> None:
    with scene.opened() as idle:
        idle.append_many(events(10))
        idle.checkpoint()
        scene.put_back()
        with scene.opened() as other:
            other.accept_loss("the disk died")
            other.append_many(events(100, "other"))
            newest = other.checkpoint()
            with pytest.raises(DamagedError):
                idle.append(event())
            other.append(event("other"))
            assert other.checkpoint() != newest
    with scene.opened() as after:
        after.append(event())
        assert after.verify().holds


@tallystick.projection("count", event_type="door.opened")
def counted(state: Any, record: Any) -> Any:
    del record
    return (state or 0) + 1


def taken(ledger: tallystick.Ledger, name: str = "siem", **query: Any) -> list[int]:
    """What a named subscription is given, all of it acknowledged."""
    positions = []
    with ledger.subscribe(name=name, **query) as subscription:
        while (record := subscription.take(timeout=0.05)) is not None:
            positions.append(record.position)
        subscription.acknowledge()
    return positions


@pytest.mark.parametrize("accepted", [True, False])
def test_readers_of_the_lost_history_miss_nothing_of_the_new_one(scene: Scene, accepted: bool) -> None:
    with scene.opened() as ledger:
        assert taken(ledger) == [*range(12)]
        ledger.append_many(events(20))
        assert taken(ledger) == [*range(12, 32)]
        assert taken(ledger, "early", event_type="door.closed") == []
        running = ledger.project(counted)
        running.run()
        assert running.state == 30
    scene.put_back()
    if not accepted:
        scene.forget_mark()  # as after a crash before the mark was written
    with scene.opened() as ledger:
        if accepted:
            ledger.accept_loss("the disk died")
        ledger.append_many(events(60, "other"))
        size = ledger.size

        first = 12 if accepted else 0
        assert taken(ledger) == [*range(first, size)], "what was lost is not counted as seen"
        assert taken(ledger) == []
        running = ledger.project(counted)
        running.run()
        assert (running.state, running.cursor) == (70, size)
        [saved] = ledger.projections()
        assert saved.status(size) == "current"


def test_what_an_index_hides_for_a_moment_is_not_skipped_for_good(scene: Scene) -> None:
    with scene.opened() as ledger:
        ledger.append_many(events(6_000))
        ledger.append_many([{"event_type": "fraud.seen", "entity_id": "x"} for _ in range(20)])
        ledger.count(event_type="fraud.seen")
    index = scene.folder / "ledger" / "index.db"
    with closing(apsw.Connection(str(index))) as connection:
        connection.execute("UPDATE term SET name = 'fraud.hidden' WHERE name = 'fraud.seen'")
        assert connection.changes()
    with scene.opened() as ledger:
        assert len(taken(ledger, event_type="fraud.seen")) == 20

        @tallystick.projection("frauds", event_type="fraud.seen")
        def frauds(state: Any, record: Any) -> Any:
            del record
            return (state or 0) + 1

        running = ledger.project(frauds)
        running.run()
        assert running.state == 20


def test_a_record_that_is_not_the_one_that_was_sealed_is_not_read_past(scene: Scene) -> None:
    with scene.opened() as ledger:
        ledger.append_many(events(600))
        log = scene.folder / "ledger" / "ledger.db"
        with closing(apsw.Connection(str(log))) as connection:
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            connection.execute("DELETE FROM record WHERE position = 100")
            connection.execute("INSERT INTO pruned VALUES (1, 200)")
        with pytest.raises(TamperError):
            taken(ledger)
        with ledger.subscribe(name="siem") as again:
            assert again.acknowledged == 0


_APPENDS: Final = """
import sys, tallystick
with tallystick.open(sys.argv[1], keys=sys.argv[2]) as ledger:
    for number in range(1_500):
        ledger.append(event_type="door.opened", entity_id=f"door-{number % 50}", id=f"{sys.argv[3]}-{number}")
        ledger.append(event_type="door.opened", entity_id=f"door-{number % 50}", id=f"shared-{number}")
"""


@pytest.mark.slow
def test_what_the_sealer_relies_on_may_be_removed_at_any_time_under_two_processes(scene: Scene) -> None:
    # A new file of the same name would have SQLite cut the shared memory that the other process has mapped: it ends.
    command: list[str | Path] = [sys.executable, "-c", _APPENDS, scene.folder / "ledger", scene.folder / "keys"]
    running = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in ("one", "two")]
    file = scene.folder / "ledger" / "sealing.db"
    while any(each.poll() is None for each in running):
        file.unlink(missing_ok=True)
        with suppress(subprocess.TimeoutExpired):
            running[0].wait(0.2)
    told = [each.communicate()[1].decode() for each in running]
    assert [each.returncode for each in running] == [0, 0], told
    assert not any("Traceback" in one for one in told), told
    with tallystick.open(scene.folder / "ledger", keys=scene.folder / "keys") as ledger:
        assert ledger.verify().holds
        assert ledger.count(event_type="door.opened") == 10 + 3 * 1_500


def test_keys_of_a_lost_history_are_not_obeyed_by_who_knew_them(tmp_path: Path) -> None:
    folder, actor = tmp_path / "data", {"id": "operator"}
    with Deployment(folder) as first:
        first.begin()
        first.create_tenant("acme", actor=actor)
    (tmp_path / "old").mkdir()
    for name in FILES:
        copied(folder / "system" / name, tmp_path / "old" / name)
    with Deployment(folder) as idle:
        _, lost = idle.create_key("acme", role="Admin", name="lost", actor=actor)
        assert idle.authenticate(lost).name == "lost"
        for name in FILES:
            copied(tmp_path / "old" / name, folder / "system" / name)
        with tallystick.open(folder / "system", keys=folder / "keys" / "system", create=False) as system:
            system.accept_loss("the disk died")
        with Deployment(folder) as other:
            for number in range(8):
                other.create_key("acme", role="Admin", name=f"new {number}", actor=actor)

        until_denied = 0
        while until_denied < 100:
            until_denied += 1
            try:
                idle.authenticate(lost)
            except (TallystickError, DeniedError):
                break
            time.sleep(0.02)  # how long what was read may be relied on
        assert until_denied < 100, "a key that the system ledger does not have"
        assert {key.name for key in idle.keys("acme")} >= {f"new {number}" for number in range(8)}


@contextmanager
def without(scene: Scene, *positions: int, altered: bool = False) -> Iterator[None]:
    """While some records are not there, or not what they were; then they are put back."""
    with closing(apsw.Connection(str(scene.folder / "ledger" / "ledger.db"))) as connection:
        connection.set_busy_timeout(5_000)
        found = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        triggers: list[Any] = connection.execute(found).fetchall()
        rows: list[Any] = [
            connection.execute("SELECT * FROM record WHERE position = ?", (at,)).fetchall()[0] for at in positions
        ]
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for row in rows:
            connection.execute("DELETE FROM record WHERE position = ?", (row[0],))
            if altered:
                line = bytes(row[1]).replace(b"jane", b"jans")
                connection.execute("INSERT INTO record VALUES (?, ?, ?)", (row[0], line, crc32(line)))
        for _, sql in triggers:
            connection.execute(sql)
        yield
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for row in rows:
            connection.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", row)
        for _, sql in triggers:
            connection.execute(sql)


@pytest.mark.parametrize("altered", [True, False])
def test_what_cannot_be_told_for_a_moment_sets_no_mark_back(scene: Scene, altered: bool) -> None:
    with scene.opened() as first:
        first.append_many(events(400))
    scene.copy()
    with scene.opened() as idle:
        idle.append_many(events(10))
        idle.checkpoint()
        scene.put_back()
        with scene.opened() as other:
            other.accept_loss("the disk died")
            other.append_many(events(100, "other"))
            other.checkpoint()
        with without(scene, 5, altered=altered), pytest.raises(TallystickError):
            idle.append(event())
        with suppress(TallystickError):
            idle.append(event())
    with scene.opened() as after:
        after.append(event())
        assert after.verify().holds


@pytest.mark.parametrize("altered", [True, False])
def test_a_place_of_the_lost_history_does_not_pass_for_one_that_was_pruned(scene: Scene, altered: bool) -> None:
    with scene.opened() as ledger:
        ledger.append_many(events(300))
        assert len(taken(ledger)) == 312
    scene.copy()
    with scene.opened() as ledger:
        ledger.append_many(events(40))
        assert len(taken(ledger)) == 40
    scene.copy("lost", ["cursors.db"])
    scene.put_back()
    with scene.opened() as ledger:
        ledger.accept_loss("the disk died")
        ledger.append_many(events(60, "other"))
        size = ledger.size
    scene.put_back("lost", ["cursors.db"])
    with scene.opened() as ledger:
        with without(scene, 351, 352, altered=altered), suppress(TamperError), ledger.subscribe(name="siem") as begun:
            assert begun.acknowledged == 0
        assert taken(ledger) == [*range(size)], "all of it once more, as at least once allows"


def test_what_a_projection_made_of_the_lost_history_is_told_of_by_nobody(scene: Scene) -> None:
    @tallystick.projection("count", event_type="door.opened")
    def count(state: int | None, _record: Any) -> int:
        return (state or 0) + 1

    with scene.opened() as ledger:
        ledger.append_many(events(40))
        ledger.project(count).run()
        [kept] = ledger.projections()
        assert kept.state == 50
    scene.copy("lost", ["cursors.db"])
    scene.put_back()
    with scene.opened() as ledger:
        ledger.accept_loss("the disk died")
        ledger.append_many(events(60, "other"))
    scene.put_back("lost", ["cursors.db"])
    with scene.opened() as ledger:
        [kept] = ledger.projections()
        assert (kept.state, kept.cursor) == (None, 0)
        assert "not in the log any more" in (kept.problem or "")
        ledger.project(count).run()
        [kept] = ledger.projections()
        assert (kept.state, kept.problem) == (70, None)
