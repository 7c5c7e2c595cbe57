"""Retention by the front door: what goes is gone everywhere; what stays answers as before, and all of it verifies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.core.record import Record
from tallystick.errors import ConflictError, NotFoundError, PruneTooLargeError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.opening import rebuild_index
from tallystick.read.query import parse_terms
from tests.read.test_search import check
from tests.tampering import edit, replace_record

DAY: Final = 86_400_000_000
BEGIN: Final = 1_772_323_200_000_000
QUESTIONS: Final[tuple[list[str], ...]] = (
    [],
    ["entity_id=e-1"],
    ["label=phi"],
    ["event_type=t.x2", "actor=a1"],
    ["text=secret*"],
    ["payload.n>=30"],
    ["event_type=tallystick.*"],
)


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> int:
        return self.now


def fill(ledger: tallystick.Ledger, clock: Clock, *, days: int = 40) -> None:
    """Three events a day; every fifth is labelled; `gone-N` is an entity of one day."""
    for day in range(days):
        clock.now = BEGIN + day * DAY
        ledger.append_many(
            [
                {
                    "event_type": f"t.x{n % 3}",
                    "entity_id": f"e-{n % 4}" if n % 3 else f"gone-{day}",
                    "actor": f"a{n % 2}",
                    "labels": ["phi"] if n % 5 == 0 else [],
                    "payload": {"n": n, "word": _word(n)},
                    "id": f"id-{n}",
                }
                for n in range(day * 3, day * 3 + 3)
            ]
        )


def _word(number: int) -> str:
    if number == 7:
        return "zanzibar"  # of a record that goes
    return f"secret{number}" if number % 2 else "plain"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def hourly(ledger: tallystick.Ledger) -> list[Any]:
    query = parse_terms(["event_type=t.*"])
    return [(p.start, p.group, p.count) for p in ledger.series(query, width="day", group="type").buckets]


def test_what_was_pruned_is_gone_and_the_rest_answers_verifies_and_is_counted_as_before(
    tmp_path: Path, clock: Clock
) -> None:
    folder = tmp_path / "l"
    with tallystick.open(folder, clock=clock) as ledger:
        fill(ledger, clock)
    assert all(b"zanzibar" in (folder / name).read_bytes() for name in ("index.db", "ledger.db"))
    with tallystick.open(folder, clock=clock) as ledger:
        ledger.downsample("sums", parse_terms(["event_type=t.*"]), width="day", measure="sum:payload.n")
        before = hourly(ledger), _sums(ledger)
        ledger.retention.set(RetentionPolicy.of("30d", {"phi": "35d"}), actor="cfo", reason="policy 7")
        ledger.retention.hold("case-9", reason="litigation", entity="e-1", actor="counsel")

        plan = ledger.retention.plan()
        expected = _doomed(ledger, clock)
        assert (plan.count, plan.bytes) == (len(expected), sum(len(record.line) for record in expected))
        pruned = ledger.retention.prune(plan, actor="dpo")

        assert pruned.count == len(expected) > 10
        _check_gone(ledger, expected)
        assert (hourly(ledger), _sums(ledger)) == before
    assert [path.name for path in folder.glob("*.db*") if b"zanzibar" in path.read_bytes()] == []
    report = tallystick.verify(folder, clock=clock)
    assert report.holds, report.findings
    assert [one.count for one in report.pruned] == [len(expected)]

    # The index can be lost, and comes back to the same answers; appends go on, also to streams that are gone.
    (folder / "index.db").unlink()
    with tallystick.open(folder, clock=clock) as ledger:
        _check_gone(ledger, expected)
        assert (hourly(ledger), _sums(ledger)) == before
        assert ledger.append(event_type="t.x0", entity_id="gone-0", id="id-0").entity_version == 1
        assert ledger.append(event_type="t.x0", entity_id="e-1").entity_version > 10
    assert tallystick.verify(folder, clock=clock).holds


def test_a_prune_that_roll_ups_count_too_finely_for_one_goes_in_parts(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.read.rollup.PRUNE_CELLS_MAX", 40)
    with tallystick.open(tmp_path / "ledger", keys=tmp_path / "keys", clock=clock) as ledger:
        fill(ledger, clock)
        ledger.downsample("fine", parse_terms(["event_type=t.*"]), width="minute", group="entity")
        ledger.retention.set(RetentionPolicy.of("10d", {"phi": "20d"}))
        before, plan = minutely(ledger), ledger.retention.plan()

        pruned = ledger.retention.prune(plan, clock_is_right=True)

        assert (pruned.count, pruned.bytes, pruned.end) == (plan.count, plan.bytes, plan.end)
        parts = [*ledger.records(event_type="tallystick.records.pruned")]
        assert len(parts) > 3
        assert sum(part.payload["count"] for part in parts) == plan.count
        assert parts[-1].position == pruned.position
        assert minutely(ledger) == before
        assert ledger.retention.plan().count == 0
        with monkeypatch.context() as tighter:
            clock.now += 30 * DAY
            tighter.setattr("tallystick.read.rollup.PRUNE_CELLS_MAX", 0)
            again, size = ledger.retention.plan(), ledger.size
            # What a policy kept for longer lies below the end of the last prune, and below that no prune can end.
            with pytest.raises(PruneTooLargeError, match="define one of them anew"):
                ledger.retention.prune(again, clock_is_right=True)
            assert ledger.size == size
        assert ledger.retention.prune(again, clock_is_right=True).count == again.count > 0
    rebuild_index(tmp_path / "ledger")
    with tallystick.open(tmp_path / "ledger", keys=tmp_path / "keys", clock=clock) as ledger:
        assert minutely(ledger) == before
        assert ledger.verify().holds


def minutely(ledger: tallystick.Ledger) -> list[Any]:
    series = ledger.series(parse_terms(["event_type=t.*"]), width="minute", group="entity")
    assert series.source == "rollup:fine"
    return [*series.buckets]


def _sums(ledger: tallystick.Ledger) -> list[Any]:
    series = ledger.series(parse_terms(["event_type=t.*"]), width="day", measure="sum:payload.n")
    assert series.source == "rollup:sums"
    return [(point.start, point.value, point.count) for point in series.buckets]


def _doomed(ledger: tallystick.Ledger, clock: Clock) -> list[Record]:
    """What the policy of the test says must go, by a look at every record."""
    out = []
    for record in ledger.read():
        age = (clock.now - BEGIN) // DAY - (record.payload.get("n", 0) // 3)
        own = record.event_type.startswith("tallystick.")
        if not own and record.entity_id != "e-1" and age >= (35 if "phi" in record.labels else 30):
            out.append(record)
    return out


def _check_gone(ledger: tallystick.Ledger, gone: list[Record]) -> None:
    positions = {record.position for record in gone}
    assert positions.isdisjoint(record.position for record in ledger.read())
    for terms in QUESTIONS:
        check(ledger, terms)
    for record in gone[::7]:
        with pytest.raises(NotFoundError, match="pruned"):
            ledger.get(record.position)
        with pytest.raises(NotFoundError):
            ledger.get(record.id)
    with pytest.raises(NotFoundError):
        ledger.state("gone-1")


def test_a_prune_that_a_crash_cut_short_before_the_index_is_finished_at_the_next_opening(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "l"
    with tallystick.open(folder, clock=clock) as ledger:
        fill(ledger, clock)
        ledger.retention.set(RetentionPolicy.of("20d"), actor="cfo")
        gone = [record for record in ledger.read() if record.entity_id == "gone-3"]
        retention = ledger.retention
        monkeypatch.setattr(retention, "_after_prune", None)
        retention.prune(actor="dpo", clock_is_right=True)

    with tallystick.open(folder, clock=clock) as ledger:
        _check_gone(ledger, gone)
        assert ledger.append(event_type="t", entity_id="gone-3").entity_version == 1
    assert tallystick.verify(folder, clock=clock).holds


def test_a_ledger_in_memory_is_pruned_too(clock: Clock) -> None:
    with tallystick.open("memory:", clock=clock) as ledger:
        fill(ledger, clock)
        ledger.retention.set(RetentionPolicy.of("10d"))
        count = ledger.retention.prune(clock_is_right=True).count

        assert count == 87 + 3
        assert ledger.verify().holds
        for terms in QUESTIONS:
            check(ledger, terms)
        assert ledger.retention.plan().count == 0


def test_projections_subscriptions_and_states_pass_over_what_is_gone(clock: Clock) -> None:
    with tallystick.open("memory:", clock=clock) as ledger:
        fill(ledger, clock)
        ledger.retention.set(RetentionPolicy.of("10d"))
        ledger.retention.prune(clock_is_right=True)
        kept = [record.position for record in ledger.read()]

        with ledger.subscribe() as subscription:
            assert [record.position for record in iter(lambda: subscription.take(timeout=0), None)] == kept
        running = ledger.project(
            tallystick.Projection(name="all", evolve=lambda state, r: [*state, r.position], initial=[])
        )
        running.run()
        assert running.state == kept
        state = ledger.state("e-2")
        assert state.begins_at_version > 1
        assert state.pruned == state.version - state.folded > 0
        assert state.version == max(record.entity_version for record in ledger.records(entity_id="e-2"))


# ---------------------------------------------------------------------------------------- someone with the disk


def expired(folder: Path, clock: Clock) -> None:
    """A ledger of two tiles of records that have expired, with a policy of thirty days."""
    with tallystick.open(folder, clock=clock) as ledger:
        ledger.retention.set(RetentionPolicy.of("30d"))
        ledger.append_many({"event_type": "t.t", "entity_id": f"e-{n % 9}", "id": f"id-{n}"} for n in range(700))
        ledger.append_many({"event_type": "t.t", "entity_id": "held", "id": f"held-{n}"} for n in range(3))
        ledger.retention.hold("case", reason="suit", entity="held")
        ledger.append_many({"event_type": "t.t", "entity_id": "new"} for _ in range(600))
    clock.now += 40 * DAY


def test_a_record_that_was_edited_out_of_a_hold_is_not_pruned(tmp_path: Path) -> None:
    clock = Clock()
    expired(tmp_path, clock)
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    rows: list[Any] = connection.execute("SELECT position, bytes FROM record").fetchall()
    connection.close()
    held = [(position, line) for position, line in rows if b'"entity_id":"held"' in line]
    for position, line in held:
        changed = line.replace(b'"entity_id":"held"', b'"entity_id":"e-1x"')
        replace_record(tmp_path / "ledger.db", position, changed)
    edit(tmp_path / "index.db", "UPDATE entity SET name = 'e-1x' WHERE name = 'held'")

    with tallystick.open(tmp_path, clock=clock) as ledger:
        with pytest.raises(TamperError, match="not the one in the signed tree"):
            ledger.retention.prune(clock_is_right=True)
        assert ledger.retention.holds()[0].name == "case"
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    assert connection.execute("SELECT count(*) FROM record").fetchall() == [(len(rows),)]


def test_sealing_runs_from_before_a_prune_put_back_while_it_is_open_seal_no_wrong_version(tmp_path: Path) -> None:
    clock = Clock()
    expired(tmp_path, clock)
    older = (tmp_path / "sealing.db").read_bytes()
    with tallystick.open(tmp_path, clock=clock) as ledger:
        ledger.retention.prune(clock_is_right=True)
        first = ledger.append(event_type="t.t", entity_id="e-1")
        assert first.entity_version == 1, "all of its records are gone"
        for suffix in ("-wal", "-shm"):
            Path(f"{tmp_path / 'sealing.db'}{suffix}").unlink(missing_ok=True)
        (tmp_path / "sealing.db").write_bytes(older)
    with tallystick.open(tmp_path, clock=clock) as ledger:
        assert ledger.append(event_type="t.t", entity_id="e-1").entity_version == 2
        assert ledger.append(event_type="t.t", entity_id="e-2").entity_version == 1
    assert tallystick.verify(tmp_path, clock=clock).holds


def test_a_kept_record_that_is_removed_for_a_moment_does_not_free_its_id(tmp_path: Path) -> None:
    clock = Clock()
    expired(tmp_path, clock)
    with tallystick.open(tmp_path, clock=clock) as ledger:
        ledger.retention.prune(clock_is_right=True)
        kept = {"event_type": "t.t", "entity_id": "held", "id": "held-1"}
        repeated = ledger.append(kept)
        assert repeated.replayed
        with pytest.raises(ConflictError):
            ledger.append(event_type="other", entity_id="held", id="held-1")
        edit(tmp_path / "ledger.db", "DELETE FROM record WHERE position = ?", repeated.position)

        with pytest.raises(TamperError, match="is missing"):
            ledger.append(kept)


@pytest.mark.parametrize("edited", ["one row of the gone", "an index from before the prune"])
def test_what_a_prune_kept_cannot_be_hidden_as_what_it_removed(tmp_path: Path, edited: str) -> None:
    clock = Clock()
    expired(tmp_path, clock)
    index = tmp_path / "index.db"
    older = tmp_path / "older"
    with tallystick.open(tmp_path, clock=clock) as ledger:
        ledger.catch_up()
        held = [record.position for record in ledger.records(entity_id="held")]
    shutil.copy(index, older)
    with tallystick.open(tmp_path, clock=clock) as ledger:
        assert ledger.retention.prune(clock_is_right=True).count
        there = {record.position for record in ledger.read()}
    gone = min({*range(max(there))} - there)
    if edited == "an index from before the prune":
        shutil.copy(older, index)
        assert tallystick.verify(tmp_path, clock=clock).holds, "it has not forgotten yet, and answers right"
    else:
        edit(index, "DELETE FROM forgotten")
        edit(index, "INSERT INTO event SELECT ?, type, entity, actor, recorded, occurred FROM event LIMIT 1", gone)
        edit(index, "INSERT INTO posting (rowid, words) VALUES (?, 'zzz')", gone)
    for position in held:
        edit(index, "DELETE FROM event WHERE position = ?", position)
        edit(index, "DELETE FROM posting WHERE rowid = ?", position)

    found = tallystick.verify(tmp_path, clock=clock).findings
    assert {one.kind for one in found} == {Kind.INDEX}
    told = {at for one in found if one.position is not None for at in range(one.position, one.end or one.position + 1)}
    assert {*held} <= told
