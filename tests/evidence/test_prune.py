"""Verifying a ledger from which records were pruned: what is lawfully gone passes, and nothing else that is gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.config import Location
from tallystick.core import timestamp
from tallystick.core.canonical import decode
from tallystick.core.checked_proof import check_proof
from tallystick.core.custody import OwnEvent, RetentionPolicy
from tallystick.core.keys import epoch_key
from tallystick.core.moment import DAY
from tallystick.core.policy import Policy
from tallystick.core.pruned import Absent, RecordsPruned
from tallystick.core.record import Record
from tallystick.errors import NotFoundError, StoreError, TamperError
from tallystick.evidence.findings import Kind, Report
from tallystick.evidence.tiles import write_tile_tree
from tallystick.evidence.verification.prunes import MISSING_MAX
from tallystick.evidence.verification.ranges import Ranges, without
from tallystick.evidence.verification.scan import RANGE_RECORDS
from tallystick.evidence.verify import verify_store
from tallystick.store.contract import Store, StoredRecord
from tallystick.store.memory import MemoryStore
from tallystick.store.sqlite import SqliteStore
from tests.evidence.forge import KEYS, StaticKeys, edited, kinds, reseal
from tests.govern.scene import Scene

FIRST_END: Final = 300
"""Below it are records that the first of the prunes passed over."""


def pruned_ledger(store: Store) -> Scene:
    """A ledger of four tiles, pruned twice; every fiftieth record is kept by its label, and one by a hold."""
    scene = Scene(store)
    scene.keep("30d", phi="1y")
    scene.retention.hold("case", reason="suit", first=20, end=21)
    for month in range(3):
        for number in range(6 if month < 2 else 8):
            scene.append(f"user-{number}", count=49)
            scene.append(f"user-{number}", labels=["phi"])
        if month == 0:
            scene.sealer.change_epoch()
        scene.pass_days(31)
        scene.retention.prune()
    return scene


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("pruned")
    scene = pruned_ledger(SqliteStore(folder))
    scene.append("later", count=200)
    scene.store.close()
    return folder, scene.now


class Outsider:
    """Someone who can write the ledger's file, and has taken the triggers down."""

    def __init__(self, folder: Path, now: int) -> None:
        self.folder, self._now = folder, now
        self._db = apsw.Connection(str(folder / "ledger.db"))
        self._triggers = self.sql("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        for name, _ in self._triggers:
            self._db.execute(f"DROP TRIGGER {name}")
        self.positions = [position for (position,) in self.sql("SELECT position FROM record ORDER BY 1")]
        self.prunes = [at for at in self.positions if b'"event_type":"tallystick.records.pruned"' in self.line(at)]

    def sql(self, statement: str, *values: Any) -> list[Any]:
        return self._db.execute(statement, values).fetchall()

    def line(self, position: int) -> bytes:
        ((line,),) = self.sql("SELECT bytes FROM record WHERE position = ?", position)
        return bytes(line)

    def put(self, position: int, line: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO record VALUES (?,?,?)", (position, line, crc32(line)))

    def leave(self, **options: Any) -> Report:
        for _, sql in self._triggers:
            self.sql(sql)
        self._db.close()
        return self.verify(**options)

    def verify(self, **options: Any) -> Report:
        options.setdefault("clock", lambda: self._now)
        store = SqliteStore(self.folder, readonly=True)
        try:
            return verify_store(store, keystore=StaticKeys(KEYS), **options)  # type: ignore[arg-type]
        finally:
            store.close()


@pytest.fixture
def outsider(original: tuple[Path, int], tmp_path: Path) -> Outsider:
    folder, now = original
    shutil.copytree(folder, tmp_path / "ledger")
    return Outsider(tmp_path / "ledger", now)


def absent_of(outsider: Outsider) -> list[int]:
    return sorted({*range(outsider.positions[-1] + 1)} - {*outsider.positions})


# ------------------------------------------------------------------------------------------------- lawful


def test_a_pruned_ledger_verifies_and_the_report_says_what_is_gone(outsider: Outsider) -> None:
    absent, prunes = absent_of(outsider), outsider.prunes
    size = outsider.positions[-1] + 1

    report = outsider.leave()

    assert report.findings == ()
    assert report.proven == ((0, size),)
    assert report.absent == len(absent) > 800
    assert [(prune.position, prune.finished) for prune in report.pruned] == [(at, True) for at in prunes]
    assert sum(prune.count for prune in report.pruned) == len(absent)
    newest = report.pruned[-1]
    assert newest.text == (
        f"[{newest.first}, {newest.end}) lawfully pruned: {newest.count:,} records under the policy at position 2"
    )
    assert report.to_json()["pruned"] == [prune.to_json() for prune in report.pruned]
    assert report.signatures == len(outsider.positions) - 1


def test_every_part_of_a_pruned_ledger_verifies_by_itself(outsider: Outsider) -> None:
    absent, prunes = absent_of(outsider), outsider.prunes
    report = outsider.leave()
    assert report.holds

    for first in range(0, report.size, 256):
        part = outsider.verify(first=first, end=first + 1)

        assert part.findings == ()
        gone = [at for at in absent if part.first <= at < part.end]
        assert part.absent == len(gone)
        assert [prune.position for prune in part.pruned] == (
            [at for at in prunes if at > gone[-1]][-2:] if gone else []
        )


def test_a_ledger_kept_in_one_unfinished_tile_verifies_after_its_records_are_gone() -> None:
    scene = Scene()
    scene.append(count=40)
    scene.keep("1d")
    scene.pass_days(2)
    scene.retention.prune()

    report = scene.verify()

    assert report.findings == ()
    assert (report.absent, report.proven) == (40, ((0, 44),))


@pytest.mark.parametrize("processes", [1, 2])
def test_any_number_of_processes_finds_very_many_gaps_lawful(tmp_path: Path, processes: int) -> None:
    scene = Scene(SqliteStore(tmp_path))
    scene.keep("1d", phi="1y")
    while scene.size < RANGE_RECORDS + 3_000:
        scene.sealer.seal(
            [
                scene._acceptor.accept({"event_type": "t.t", "entity_id": f"e{n % 7}", "labels": ["phi"] * (n % 2)})
                for n in range(3_000)
            ]
        )
    scene.pass_days(2)
    count = scene.retention.prune().count

    report = scene.verify(location=Location(tmp_path), processes=processes)

    assert report.findings == ()
    assert report.absent == count > 9_000
    database = apsw.Connection(str(tmp_path / "ledger.db"))
    database.execute("DROP TRIGGER record_no_delete")
    database.execute("DELETE FROM record WHERE position = 16384 OR position = 16385")
    database.close()
    found = scene.verify(location=Location(tmp_path), processes=processes).findings
    assert len(found) == MISSING_MAX + 3  # and the trigger, the prune, and the rest of what may be missing
    assert {Kind.MISSING, Kind.PRUNE, Kind.STORE} == {finding.kind for finding in found}


def test_a_verification_in_the_midst_of_which_records_are_pruned_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    scene = Scene(store)
    scene.append(count=2_000)
    scene.keep("1d")
    scene.pass_days(2)
    read = store.read
    reads: list[int] = []

    def pruning(first: int, end: int) -> Iterator[StoredRecord]:
        for stored in read(first, end):
            if stored.position == 700 and end - first > 1_900 and not reads:
                reads.append(first)
                scene.retention.prune()
            yield stored

    monkeypatch.setattr(store, "read", pruning)

    report = scene.verify()

    assert reads == [0]
    assert report.findings == ()
    assert report.absent == 2_000


# ------------------------------------------------------------------------------- an outsider with the file


def test_a_record_deleted_beside_the_pruned_ones_is_missing(outsider: Outsider) -> None:
    kept = next(at for at in outsider.positions if 100 < at < FIRST_END)
    outsider.sql("DELETE FROM record WHERE position = ?", kept)

    report = outsider.leave()

    assert (Kind.PRUNE, outsider.prunes[-1]) in kinds(report)
    missing = [finding for finding in report.findings if finding.kind is Kind.MISSING]
    assert any(at.position is not None and at.position <= kept < (at.end or 0) for at in missing)


def test_one_more_range_deleted_is_missing_and_what_an_older_prune_says_is_not(outsider: Outsider) -> None:
    report = outsider.leave()
    older, newest = report.pruned[-2:]
    database = apsw.Connection(str(outsider.folder / "ledger.db"))
    database.execute("DROP TRIGGER record_no_delete")
    database.execute("DELETE FROM record WHERE position >= ? AND position < ?", (older.end + 10, newest.end))
    database.close()

    found = outsider.verify()

    missing = [finding.position for finding in found.findings if finding.kind is Kind.MISSING]
    assert missing
    assert min(at for at in missing if at is not None) >= older.end - 1


def test_records_deleted_above_the_end_of_the_last_prune_are_missing_there_and_only_there(outsider: Outsider) -> None:
    end = outsider.positions[-1] - 20
    outsider.sql("DELETE FROM record WHERE position IN (?, ?, ?)", end, end + 1, end + 5)

    report = outsider.leave()

    found = [(found.kind, found.position, found.end) for found in report.findings if found.position is not None]
    assert found == [(Kind.MISSING, end, end + 2), (Kind.MISSING, end + 5, end + 6)]


def test_records_deleted_without_any_prune_are_missing(tmp_path: Path) -> None:
    scene = Scene(SqliteStore(tmp_path))
    scene.append(count=300)
    database = apsw.Connection(str(tmp_path / "ledger.db"))
    database.execute("DROP TRIGGER record_no_delete; DELETE FROM record WHERE position BETWEEN 5 AND 9")
    database.execute("INSERT INTO pruned VALUES (1, 200)")
    database.close()

    report = scene.verify()

    assert {(Kind.MISSING, 5), (Kind.PRUNE, None), (Kind.STORE, None)} == {*kinds(report)}


def test_a_store_that_was_told_of_a_prune_that_never_was_is_found(outsider: Outsider) -> None:
    outsider.sql("UPDATE pruned SET below = below + 1")

    assert kinds(outsider.leave()) == [(Kind.PRUNE, None)]


def test_records_that_were_pruned_and_put_back_are_found(outsider: Outsider) -> None:
    outsider.put(absent_of(outsider)[5], outsider.line(2))

    assert (Kind.PRUNE, outsider.prunes[-1]) in kinds(outsider.leave())


def test_a_kept_record_altered_among_pruned_ones_is_found_at_its_position(outsider: Outsider) -> None:
    kept = next(at for at in outsider.positions if 100 < at < FIRST_END)
    outsider.put(kept, edited(outsider.line(kept), payload={"n": 1_000_000}))

    report = outsider.leave()

    assert kinds(report) == [(Kind.SIGNATURE, kept), (Kind.LEAF, kept)]
    assert (0, kept) in report.proven


def test_a_prune_that_was_altered_no_longer_speaks_for_what_is_gone(outsider: Outsider) -> None:
    newest = outsider.prunes[-1]
    payload = decode(outsider.line(newest))["payload"]
    outsider.put(newest, edited(outsider.line(newest), payload={**payload, "count": payload["count"] + 1}))

    found = kinds(outsider.leave())

    assert {(Kind.SIGNATURE, newest)} <= {*found}
    assert Kind.MISSING in {kind for kind, _ in found}


def test_an_older_prunes_word_in_place_of_the_newest_is_found(outsider: Outsider) -> None:
    older, newest = outsider.prunes[-2:]
    payload = decode(outsider.line(older))["payload"]
    outsider.put(newest, edited(outsider.line(newest), payload=payload))

    found = kinds(outsider.leave())

    assert (Kind.SIGNATURE, newest) in found
    assert Kind.MISSING in {kind for kind, _ in found}


def test_a_prune_forged_without_the_keys_speaks_for_nothing(outsider: Outsider) -> None:
    # Given someone who deletes two records, and makes one of the later ones a prune that says so.
    last = outsider.positions[-1]
    newest = decode(outsider.line(outsider.prunes[-1]))
    victims = [last - 40, last - 39]
    for position in victims:
        outsider.sql("DELETE FROM record WHERE position = ?", position)
    ranges = Ranges()
    ranges.extend((at, at + 1) for at in sorted({*absent_of(outsider), *victims}))
    absent = Absent.over(ranges)
    payload = {
        **newest["payload"],
        "absent": {"count": absent.count, "digest": absent.digest.hex()},
        "end": last - 38,
        "first": victims[0],
        "count": 2,
    }
    names = ("entity_id", "event_type", "actor", "occurred_at")
    changes = {name: newest[name] for name in names}
    outsider.put(last - 10, edited(outsider.line(last - 10), payload=payload, **changes))

    found = kinds(outsider.leave())

    assert {(Kind.SIGNATURE, last - 10), (Kind.MISSING, victims[0])} <= {*found}


def test_a_leaf_hash_of_a_pruned_record_that_was_altered_is_found_by_the_root(tmp_path: Path) -> None:
    scene = Scene(SqliteStore(tmp_path))
    scene.append(count=40)
    scene.keep("1d")
    scene.pass_days(2)
    scene.retention.prune()
    scene.store.close()
    outsider = Outsider(tmp_path, scene.now)
    outsider.sql("UPDATE leaf SET hash = zeroblob(32) WHERE position = 7")

    report = outsider.leave()

    assert (Kind.ROOT, None) in kinds(report)
    assert report.proven == ()


def test_a_missing_record_in_a_part_of_a_pruned_ledger_is_found(outsider: Outsider) -> None:
    kept = next(at for at in outsider.positions if 300 < at < 500)
    outsider.sql("DELETE FROM record WHERE position = ?", kept)

    whole = outsider.leave()
    part = outsider.verify(first=kept, end=kept + 1)

    assert not whole.holds
    assert Kind.MISSING in {kind for kind, _ in kinds(part)}


@settings(max_examples=40)
@given(st.data())
def test_whatever_else_is_deleted_is_found(original: tuple[Path, int], tmp_path_factory: Any, data: Any) -> None:
    folder = tmp_path_factory.mktemp("any") / "ledger"
    shutil.copytree(original[0], folder)
    outsider = Outsider(folder, original[1])
    victims = data.draw(st.sets(st.sampled_from(outsider.positions[:-1]), min_size=1, max_size=4))
    for victim in victims:
        outsider.sql("DELETE FROM record WHERE position = ?", victim)

    report = outsider.leave()

    missing = [finding for finding in report.findings if finding.kind is Kind.MISSING]
    for victim in victims:
        assert any(found.position is not None and found.position <= victim < (found.end or 0) for found in missing)


# --------------------------------------------------------------------------------- an insider with the keys


Change = Callable[[RecordsPruned], RecordsPruned]

WRONG: Final[dict[str, Change]] = {
    "another last hash": lambda pruned: replace(pruned, last_hash=bytes(32)),
    "another frontier": lambda pruned: replace(pruned, frontier_at_end=(*pruned.frontier_at_end[:-1], bytes(32))),
    "a policy that is none": lambda pruned: replace(pruned, policy_position=3),
    "a hold left out": lambda pruned: replace(pruned, holds_checked=()),
    "a hold that is none": lambda pruned: replace(pruned, holds_checked=(2, *pruned.holds_checked)),
    "decided in the future": lambda pruned: replace(pruned, moment=pruned.moment + timestamp.SECOND),
    "decided so early that nothing had expired": lambda pruned: replace(pruned, moment=pruned.moment - 10**13),
    "a checkpoint of nobody": lambda pruned: replace(
        pruned, checkpoint_at_prune=pruned.checkpoint_at_prune.replace(b"forge", b"other")
    ),
    "a checkpoint of another size": lambda pruned: replace(
        pruned, checkpoint_at_prune=pruned.checkpoint_at_prune.replace(b"\n1", b"\n2", 1)
    ),
    "another count": lambda pruned: replace(pruned, count=pruned.count - 1),
    "another digest": lambda pruned: replace(pruned, absent=replace(pruned.absent, digest=bytes(32))),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_prune_that_lies_is_found_although_it_is_signed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = lied_to(WRONG[name], monkeypatch, ledger=pruned_ledger)

    assert (Kind.PRUNE, newest_prune(scene)) in kinds(scene.verify())


def test_a_wrong_first_hash_is_found_where_the_next_record_stayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def ledger(store: MemoryStore) -> Scene:
        scene = Scene(store)
        scene.append(count=1)
        scene.append(labels=["phi"])
        scene.append(count=9)
        scene.keep("1d", phi="1y")
        scene.pass_days(2)
        scene.retention.prune()
        return scene

    scene = lied_to(lambda pruned: replace(pruned, first_hash=bytes(32)), monkeypatch, ledger=ledger)

    assert kinds(scene.verify()) == [(Kind.PRUNE, newest_prune(scene))]


def lied_to(change: Change, monkeypatch: pytest.MonkeyPatch, *, ledger: Callable[[MemoryStore], Scene]) -> Scene:
    """A ledger whose last prune was sealed with a lie, and carried out as if it had been sealed without."""
    sealed: list[RecordsPruned] = []
    event = RecordsPruned.event
    last = len([record for record in ledger(MemoryStore()).records() if "pruned" in record.event_type])

    def lying(self: RecordsPruned, actor: Any) -> OwnEvent:
        sealed.append(self)
        return event(change(self) if len(sealed) == last else self, actor)

    monkeypatch.setattr(RecordsPruned, "event", lying)
    store = MemoryStore()
    with suppress(StoreError, TamperError, NotFoundError):  # it cannot be carried out from its own record
        ledger(store)
    scene = Scene(store)
    scene.now = timestamp.parse(scene.records()[-1].recorded_at)
    kept = [
        record.position
        for record in scene.records()
        if record.event_type.startswith("tallystick.") or record.labels or record.position == 20
    ]
    store.prune(sealed[-1].end, kept)
    return scene


def newest_prune(scene: Scene) -> int:
    return max(record.position for record in scene.records() if "pruned" in record.event_type)


def test_a_prune_under_a_policy_that_keeps_for_ever_is_found() -> None:
    scene = Scene()
    scene.append(count=300)
    scene.keep("1d")
    scene.pass_days(2)
    seal = scene.retention._seal_own

    def too_late(events: Sequence[OwnEvent], *, guard: Any = None) -> Any:
        del guard
        scene.keep_sealed("forever")
        return seal(events)

    scene.retention._seal_own = too_late  # type: ignore[misc]
    scene.retention.prune()

    position = scene.size - 1
    assert {(Kind.PRUNE, position)} == {*kinds(scene.verify())}


def test_prunes_whose_ends_go_back_are_found() -> None:
    scene = pruned_ledger(MemoryStore())
    newest = next(record for record in reversed(scene.records()) if "pruned" in record.event_type)
    pruned = RecordsPruned.of(newest)
    again = replace(
        pruned,
        first=2,
        end=299,
        count=1,
        frontier_at_end=tuple(bytes(32) for _ in range((299).bit_count())),
        absent=replace(pruned.absent, count=200),
    )
    scene.sealer.seal_own([again.event(None)])

    found = [finding.seen for finding in scene.verify().findings if finding.position == scene.size - 1]

    assert any("and the one before at" in seen for seen in found)
    assert any("is absent is not" in seen for seen in found)


def test_a_version_may_jump_over_pruned_records_and_no_further() -> None:
    # Given a stream of which three records were pruned between two that stayed.
    store = MemoryStore()
    scene = Scene(store)
    scene.append(labels=["phi"])
    scene.append(count=3)
    scene.append(labels=["phi"])
    scene.keep("1d", phi="1y")
    scene.pass_days(2)
    scene.retention.prune()
    assert [record.entity_version for record in scene.records() if record.labels] == [1, 5]
    assert kinds(scene.verify()) == []

    for version, holds in ((2, True), (5, True), (6, False), (1, False)):
        line = store._records[6].line
        altered = reseal({**decode(line), "entity_version": version}, mac_key=epoch_key(KEYS.event_mac, 0))
        record, sealed = store._records[6], store._sealed[6]
        store._records[6], store._sealed[6] = StoredRecord(6, altered, crc32(altered)), altered

        found = (Kind.ENTITY_VERSION, 6) in kinds(scene.verify())

        assert found is not holds, version
        store._records[6], store._sealed[6] = record, sealed


def test_static_tiles_of_a_pruned_ledger_have_all_hashes_and_the_entries_that_are_whole(tmp_path: Path) -> None:
    now = [timestamp.parse("2026-03-01T00:00:00.000000Z")]
    event = {"event_type": "t.happened", "entity_id": "e"}
    with tallystick.open(tmp_path / "ledger", clock=lambda: now[0]) as ledger:
        ledger.append_many([event] * 300)
        now[0] += 2 * DAY
        ledger.append_many([event] * 300)
        ledger.retention.set(RetentionPolicy.of("1d"))
        ledger.retention.prune()

        for _ in range(2):  # anew, and brought up to date
            write_tile_tree(ledger, tmp_path / "tiles")
            ledger.append(event)

        tiles = sorted(path.relative_to(tmp_path / "tiles").as_posix() for path in tmp_path.glob("tiles/tile/**/*"))
        assert {"tile/0/000", "tile/0/001"} <= {*tiles}
        assert "tile/entries/000" not in tiles
        assert any(path.startswith("tile/entries/002.p/") for path in tiles)
        proof = ledger.prove(400)
        assert check_proof(proof.render(), ledger.get(400).line, Policy(logs=(ledger.verifier_key,))).holds


# -------------------------------------------------------------------------------------------- the ranges


@given(st.sets(st.integers(0, 60)), st.integers(0, 65), st.integers(0, 65))
def test_ranges_answer_as_a_set_does(positions: set[int], first: int, end: int) -> None:
    ranges = Ranges()
    ranges.extend((at, at + 1) for at in sorted(positions))

    assert [at for pair in ranges for at in range(*pair)] == sorted(positions)
    assert ranges.count == len(positions)
    assert bool(ranges) is bool(positions)
    assert ranges.below(first) == len([at for at in positions if at < first])
    assert (first in ranges) is (first in positions)
    assert [at for pair in ranges.within(first, end) for at in range(*pair)] == sorted(
        at for at in positions if first <= at < end
    )
    if first in positions:
        assert {*range(ranges.start_of(first), first)} <= positions
        assert ranges.start_of(first) - 1 not in positions
    left = without(first, end, reversed([*ranges])) if first < end else ()
    assert [at for pair in left for at in range(*pair)] == [at for at in range(first, end) if at not in positions]


def test_the_records_of_a_pruned_ledger_are_read_one_by_one_as_they_stand() -> None:
    scene = pruned_ledger(MemoryStore())

    assert all(Record.parse(stored.line).position == stored.position for stored in scene.store.read(0, scene.size))
