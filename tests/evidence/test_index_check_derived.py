"""Verification makes snapshots and roll-ups again from the log: what was edited is found and named, or is harmless."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.evidence.findings import Finding, Kind
from tallystick.ledger import Ledger
from tallystick.opening import rebuild_index
from tallystick.read import sqlite_check, state
from tallystick.read.fold import Snapshot
from tallystick.read.index_files import delete_files
from tallystick.read.rollup import Rollups
from tallystick.read.search import Search
from tallystick.read.sqlite_check import IndexCheck
from tallystick.read.sqlite_index import LAYOUT, SqliteIndexFile
from tallystick.store.reading import absent_ranges
from tests.read.ledgers import all_of
from tests.read.series_twin import BATCHES, Question
from tests.read.test_rollup import DEFINITIONS, World, prunes
from tests.read.test_timeseries import Clock as EarlyClock

DAY: Final = 86_400_000_000
BEGIN: Final = 1_772_323_200_000_000
FIRST_DAY: Final = "2026-03-01T00:00:00.000000Z"
LAST_DAY: Final = "2026-04-09T00:00:00.000000Z"
TYPES: Final = "tallystick.types"


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> int:
        return self.now


def declare(ledger: Ledger) -> None:
    """As the application does whenever it opens the ledger."""
    ledger.folds.declare("note.*", {"fold": "append", "member": "notes", "from": "payload.text"})
    ledger.upcasters.declare("user.changed", 1, [{"op": "rename", "member": "x", "to": "amount"}])


def fill(ledger: Ledger, clock: Clock, days: range) -> None:
    for day in days:
        clock.now = BEGIN + day * DAY
        ledger.append_many(
            {
                "event_type": "note.written" if n % 7 == 0 else "user.changed",
                "event_version": 1 if n % 2 else 2,
                "entity_id": f"e-{n % 2}" if n % 3 else "once" if day else "gone",
                "actor": f"a{n % 3}",
                "labels": ["phi"] if n % 11 == 0 else [],
                "payload": {"text": f"n{n}", "x" if n % 2 else "amount": n if n % 5 else n + 0.5},
            }
            for n in range(day * 6, day * 6 + 6)
        )


@pytest.fixture(scope="module", params=["kept up", "rebuilt since"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with snapshots under two sets of declarations, roll-ups, and two prunes behind it. Its index has counted
    what was pruned, or has taken it over."""
    folder, clock = tmp_path_factory.mktemp("derived") / "audit", Clock()
    with pytest.MonkeyPatch.context() as patch, tallystick.open(folder, clock=clock) as ledger:
        patch.setattr(state, "SNAPSHOT_EVENTS", 20)
        declare(ledger)
        ledger.downsample(
            "sums",
            width="day",
            event_type="user.*",
            measure=["sum:payload.amount", "max:payload.amount"],
            group="actor",
        )
        ledger.downsample("replaced", width="hour")
        fill(ledger, clock, range(20))
        ledger.retention.set(RetentionPolicy.of("10d", {"phi": "forever"}))
        ledger.state("e-0")
        assert ledger.retention.prune().count
        ledger.downsample("replaced", width="week", zone="Europe/Berlin", group="label", time="occurred")
        fill(ledger, clock, range(20, 40))
        assert ledger.retention.prune().count
        if request.param == "rebuilt since":
            ledger.close()
            rebuild_index(folder)
        else:
            ledger.state("e-0")
            ledger.state("e-1", version=45)
    with pytest.MonkeyPatch.context() as patch, tallystick.open(folder, clock=clock) as ledger:
        patch.setattr(state, "SNAPSHOT_EVENTS", 20)
        ledger.state("e-1")
        if request.param == "rebuilt since":
            declare(ledger)
            ledger.state("e-0")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sqlite_check, "RANGE_RECORDS", 64)
    return Path(shutil.copytree(made, tmp_path / "audit"))


def edit(folder: Path, statements: str, values: tuple[Any, ...] = ()) -> list[Any]:
    connection = apsw.Connection(str(folder / "index.db"))
    found: list[Any] = connection.execute(statements, values).fetchall()
    connection.close()
    return found


def found_in(folder: Path) -> list[Finding]:
    report = tallystick.verify(folder)
    assert {finding.kind for finding in report.findings} <= {Kind.INDEX}
    return [*report.findings]


def falsify(folder: Path, change: Callable[[dict[str, Any]], None], where: str = "entity = 'e-0'") -> None:
    """Make snapshots say something else, in their own form, so that whoever loads them believes it."""
    for entity, version, content in edit(folder, f"SELECT entity, version, content FROM snapshot WHERE {where}"):
        snapshot = Snapshot.of_bytes(content)
        assert snapshot is not None
        members = {name: getattr(snapshot, name) for name in Snapshot.__slots__}
        change(members)
        values = (Snapshot(**members).to_bytes(), entity, version)
        edit(folder, "UPDATE snapshot SET content = ? WHERE entity = ? AND version = ?", values)


def test_snapshots_and_roll_ups_that_say_what_the_log_says_hold(folder: Path) -> None:
    assert edit(folder, "SELECT count(*) FROM snapshot")[0][0] >= 2
    assert {name for (name,) in edit(folder, "SELECT DISTINCT rollup FROM cell")} >= {"sums", "replaced"}

    assert not found_in(folder)


MEMBERS: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "state": lambda members: members["folded"].state.update(ghost=True),
    "made by": lambda members: members["folded"].made_by.update(amount=1),
    "version": lambda members: members.update(version=members["version"] - 1),
    "position": lambda members: members.update(position=members["position"] - 1),
    "entity": lambda members: members.update(entity_id="e-1"),
    "beginning": lambda members: members.update(begins_at_version=1),
    "events": lambda members: members.update(events=members["events"] + 1),
    "fingerprint": lambda members: members.update(fingerprint="0/0"),
}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_snapshot_that_was_falsified_is_found_and_a_rebuild_heals_it(folder: Path, member: str) -> None:
    falsify(folder, MEMBERS[member])

    found = found_in(folder)
    versions = edit(folder, "SELECT version FROM snapshot WHERE entity = 'e-0'")
    assert {one.seen for one in found} == {
        f"index.db: the snapshot of 'e-0' at version {version} is not what its records come to"
        for (version,) in versions
    }
    rebuild_index(folder)
    assert not found_in(folder)


ROWS: Final[dict[str, tuple[str, str]]] = {
    "content that is none": ("UPDATE snapshot SET content = x'00' WHERE entity = 'e-0'", "'e-0' at version"),
    "an older content": ("UPDATE snapshot SET version = version + 1 WHERE entity = 'e-0'", "'e-0' at version"),
    "a version to come": ("UPDATE snapshot SET version = version + 9000 WHERE entity = 'e-0'", "entity has not"),
    "another position": ("UPDATE snapshot SET position = position + 1 WHERE entity = 'e-0'", "'e-0' at version"),
    "an entity renamed": ("UPDATE snapshot SET entity = 'once' WHERE entity = 'e-0'", "'once' at version"),
    "an entity nobody has": ("UPDATE snapshot SET entity = 'nobody' WHERE entity = 'e-0'", "'nobody' at version"),
    "a content of another entity": (
        "UPDATE snapshot SET content = (SELECT content FROM snapshot WHERE entity = 'e-1') WHERE entity = 'e-0'",
        "'e-0' at version",
    ),
    "another fingerprint": ("UPDATE snapshot SET fingerprint = 'x/y' WHERE entity = 'e-0'", "declarations"),
    "no declarations": ("DELETE FROM declared", "declarations"),
    "other declarations": ("UPDATE declared SET folds = CAST('{}' AS BLOB) WHERE folds <> '{}'", "declarations"),
    "declarations that are none": ("UPDATE declared SET upcasters = x'5B5D'", "declarations"),
}


@pytest.mark.parametrize("how", ROWS)
def test_a_snapshots_row_that_was_edited_is_found(folder: Path, how: str) -> None:
    statements, named = ROWS[how]
    edit(folder, statements)

    assert any(named in one.seen for one in found_in(folder)), found_in(folder)


def test_a_snapshot_that_was_deleted_only_costs_time(folder: Path) -> None:
    def value() -> dict[str, Any]:
        with tallystick.open(folder) as ledger:
            declare(ledger)
            return ledger.state("e-0").value

    before = value()
    edit(folder, "DELETE FROM snapshot")

    assert not found_in(folder)
    assert value() == before


def test_a_snapshot_of_what_was_pruned_since_is_found(folder: Path) -> None:
    # As one would be that was put back from an older copy of the file.
    falsify(folder, lambda members: members.update(begins_at_version=1, events=members["version"]))

    assert found_in(folder)


CELLS: Final[dict[str, tuple[str, str]]] = {
    "a count": ("UPDATE cell SET count = count + 1 WHERE (rollup, bucket) = ('sums', ?1)", "'sums' has other figures"),
    "how many numbers": ("UPDATE cell SET numbers = numbers + 1 WHERE (rollup, bucket) = ('sums', ?1)", "'sums'"),
    "a total": ("UPDATE cell SET total = '1' WHERE (rollup, bucket) = ('sums', ?1)", "'sums' has other figures"),
    "a total that is none": ("UPDATE cell SET total = 'x' WHERE (rollup, bucket) = ('sums', ?1)", "'sums'"),
    "the least": ("UPDATE cell SET least = least - 1 WHERE (rollup, bucket) = ('sums', ?1)", "'sums'"),
    "the most": ("UPDATE cell SET most = most + 1 WHERE (rollup, bucket) = ('sums', ?1)", "'sums'"),
    "a bucket": ("UPDATE cell SET bucket = bucket + 1 WHERE (rollup, bucket) = ('sums', ?1)", "'sums'"),
    "a group": ("UPDATE cell SET cell_group = 'x' || cell_group WHERE (rollup, bucket) = ('sums', ?1)", "'xa0'"),
    "a cell deleted": ("DELETE FROM cell WHERE (rollup, bucket) = ('sums', ?1)", "'sums' has other figures of 'a"),
    "a cell added": ("INSERT INTO cell VALUES ('sums', ?1, 'ghost', 1, 0, '0', NULL, NULL)", "of 'ghost' for the time"),
    "a cell of no roll-up": (
        "INSERT INTO cell VALUES ('ghost', ?1, '', 1, 0, '0', NULL, NULL)",
        "'ghost', which there",
    ),
    "a cell past all time": ("INSERT INTO cell VALUES ('sums', ?1 << 14, '', 1, 0, '0', NULL, NULL)", "µs on"),
    "all cells deleted": ("DELETE FROM cell WHERE bucket <> 1 + ?1", "'replaced' has other figures"),
}


@pytest.mark.parametrize("day", [FIRST_DAY, LAST_DAY])
@pytest.mark.parametrize("how", CELLS)
def test_a_cell_that_was_edited_is_found_of_what_is_there_and_of_what_was_pruned(
    folder: Path, how: str, day: str
) -> None:
    statements, named = CELLS[how]
    bucket = BEGIN if day == FIRST_DAY else BEGIN + 39 * DAY
    edit(folder, statements, (bucket,))

    found = found_in(folder)
    assert any(named in one.seen for one in found), found
    if "bucket) =" in statements:
        assert any(f"for the time from {day} on" in one.seen for one in found)
    rebuild_index(folder)
    assert not found_in(folder)


PROGRESS: Final[dict[str, tuple[str, str]]] = {
    "put back": ("UPDATE rollup SET position = position - 30 WHERE name = 'sums'", "'sums' has other figures"),
    "put back to the beginning": ("UPDATE rollup SET position = 0 WHERE name = 'sums'", "'sums' has"),
    "put forward": ("UPDATE rollup SET position = position + 1 WHERE name = 'sums'", "records, the index"),
    "before all": ("UPDATE rollup SET position = -1 WHERE name = 'sums'", "has counted -1 records"),
    "another definition": ("UPDATE rollup SET definition = 'x' WHERE name = 'sums'", "by another definition"),
    "defined elsewhere": ("UPDATE rollup SET defined_at = defined_at + 1 WHERE name = 'sums'", "by another definition"),
    "defined in the future": ("UPDATE rollup SET defined_at = 1 << 50 WHERE name = 'sums'", "by another definition"),
    "defined before all": ("UPDATE rollup SET defined_at = -1 WHERE name = 'sums'", "by another definition"),
    "of another name": ("UPDATE rollup SET name = 'mine' WHERE name = 'sums'", "'mine' counts by another definition"),
    "types defined elsewhere": (f"UPDATE rollup SET defined_at = 1 WHERE name = '{TYPES}'", "by another definition"),
    "begun at another prune": (
        "UPDATE rollup SET sealed_below = sealed_below + 1 WHERE name = 'sums'",
        "another prune",
    ),
    "types begun at another": (f"UPDATE rollup SET sealed_below = 1 WHERE name = '{TYPES}'", ""),
    "types begun at the other": (f"UPDATE rollup SET sealed_below = 90000 WHERE name = '{TYPES}'", ""),
}


@pytest.mark.parametrize("how", PROGRESS)
def test_a_roll_up_that_was_edited_is_found(folder: Path, how: str) -> None:
    statements, named = PROGRESS[how]
    edit(folder, statements)

    found = found_in(folder)
    assert any(named in one.seen for one in found), found
    rebuild_index(folder)
    assert not found_in(folder)


def test_a_roll_up_put_back_whole_that_has_to_count_again_is_found_where_it_cannot(folder: Path) -> None:
    edit(folder, "DELETE FROM cell WHERE rollup = 'sums'")
    edit(folder, "UPDATE rollup SET position = 0, sealed_below = 0 WHERE name = 'sums'")

    assert any("has not counted records that were pruned since" in one.seen for one in found_in(folder))


def test_a_roll_up_that_was_deleted_whole_is_counted_again(folder: Path) -> None:
    def sums() -> object:
        with tallystick.open(folder) as ledger:
            asked = ledger.series(event_type="user.*", measure="sum:payload.amount", group="actor")
            assert asked.source == "rollup:sums"
            return asked.buckets

    before = sums()
    edit(folder, "DELETE FROM cell WHERE rollup = 'sums'; DELETE FROM rollup WHERE name = 'sums'")

    assert not found_in(folder)
    assert sums() == before
    assert not found_in(folder)


@pytest.mark.parametrize("how", ["count + 1", "count + 1000000"])
def test_counts_by_type_of_what_was_pruned_are_compared_too(folder: Path, how: str) -> None:
    # Where the index has counted what was pruned; the one that was rebuilt since has taken it over.
    edit(folder, f"UPDATE tally SET count = {how} WHERE quarter = (SELECT min(quarter) FROM tally WHERE quarter > 0)")

    assert any("other counts for the quarter" in one.seen for one in found_in(folder))


def test_rows_of_what_is_gone_do_not_keep_the_rest_from_being_compared(folder: Path) -> None:
    # Who says that the index has not forgotten a prune gets what was not forgotten left out, and nothing else.
    edit(folder, "DELETE FROM forgotten")
    assert not found_in(folder)

    falsify(folder, MEMBERS["state"])
    assert found_in(folder)
    with tallystick.open(folder) as ledger:
        declare(ledger)
        assert "ghost" not in ledger.state("e-0").value, "opening it has the index forget, and all snapshots"
    assert not found_in(folder)


def test_a_snapshot_is_neither_used_nor_kept_where_the_index_has_not_forgotten(folder: Path) -> None:
    falsify(folder, MEMBERS["state"])
    with pytest.MonkeyPatch.context() as patch, tallystick.open(folder) as ledger:
        patch.setattr(state, "SNAPSHOT_EVENTS", 1)
        declare(ledger)
        assert "ghost" in ledger.state("e-0").value, "a plain answer is as good as the file"
        edit(folder, "UPDATE forgotten SET prune_at = 1; DELETE FROM snapshot WHERE entity = 'e-1'")

        assert "ghost" not in ledger.state("e-0").value
        ledger.state("e-1")
        assert not edit(folder, "SELECT 1 FROM snapshot WHERE entity = 'e-1'")


def test_what_a_prune_seals_does_not_depend_on_what_the_index_says_of_roll_ups(tmp_path: Path) -> None:
    folder, clock = tmp_path / "audit", Clock()
    with tallystick.open(folder, clock=clock) as ledger:
        fill(ledger, clock, range(3))
        clock.now += 50 * DAY
        ledger.downsample("sums", event_type="user.*", width="day", measure="sum:payload.amount")
        before = ledger.series(event_type="user.*", measure="sum:payload.amount").buckets
    edit(folder, "UPDATE term SET name = 'x.hidden' WHERE name = 'tallystick.rollup.defined'")

    clock.now += DAY
    with tallystick.open(folder, clock=clock) as ledger:
        ledger.retention.set(RetentionPolicy.of("10d"))
        assert ledger.retention.prune().count
    rebuild_index(folder)

    with tallystick.open(folder, clock=clock) as ledger:
        found = ledger.series(event_type="user.*", measure="sum:payload.amount")
        assert (found.source, found.buckets) == ("rollup:sums", before)


class FiledWorld(World):
    """A ledger in memory whose index is in a file, and forgets what was pruned, as it does."""

    def __init__(self, ledger: Ledger, clock: Any, folder: Path) -> None:
        self.folder: Final = folder
        super().__init__(ledger, clock)

    def delete_index(self) -> None:
        delete_files(self.folder)
        self.file = SqliteIndexFile(self.folder, self.store)
        self.search = Search(self.store, self.file.questions)
        self.rollups = Rollups(self.store, self.search, self.file.rollups)
        self.index()

    def check_index(self) -> None:
        check = IndexCheck(self.file.path, self.store, layout=LAYOUT)
        steps = [*check.run()]
        assert (check.faults, bool(steps)) == ([], True)

    def ask_all(self, definitions: list[Question]) -> None:
        """Have the roll-ups count what there is, and the one of types begin."""
        for asked in definitions:
            self.ask(asked)
        self.ask(Question(width="15 minutes", group="type"))

    def forget(self) -> None:
        self.file.forget(absent_ranges(self.store, 0, self.store.below), prune_at=self.newest_prune())

    def newest_prune(self) -> int:
        return max(one.position for one in all_of(self.ledger) if one.event_type == "tallystick.records.pruned")


@given(
    st.lists(DEFINITIONS, min_size=1, max_size=2),
    prunes("go on", "delete index", "cut short", "define again", "verify before it forgets"),
    BATCHES,
)
def test_whatever_is_defined_and_pruned_the_index_that_came_to_be_by_it_holds(
    definitions: list[Question], pruned: list[tuple[list[Any], float, set[int], str]], last: list[Any]
) -> None:
    clock = EarlyClock()
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        tallystick.open("memory:", clock=clock) as ledger,
    ):
        patch.setattr(sqlite_check, "RANGE_RECORDS", 7)
        world = FiledWorld(ledger, clock, Path(folder))
        for name, asked in zip("ab", definitions, strict=False):
            world.define(name, asked)
        world.check_index()
        for batches, part, held, then in pruned:
            for step, batch in batches:
                world.append(batch, step)
            if then == "define again":
                world.define("a", definitions[-1])
            end = max(int(part * world.size), world.store.below)
            going = world.seal_removed(end, held)
            world.check_index()
            if then == "cut short":
                world.delete_index()
                world.ask_all(definitions)
            world.remove(end, going)
            if then == "verify before it forgets":
                world.check_index()
            if then == "delete index":
                world.delete_index()
            if world.store.below:
                world.forget()
            world.check_index()
        for step, batch in last:
            world.append(batch, step)
        world.ask_all(definitions)
        world.check_index()
        world.delete_index()
        world.check_index()
        world.rollups.advance(world.size)
        world.check_index()
