"""Retention: what a prune removes, what it keeps and why, what it says beforehand, and what a crash leaves of it."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.core import timestamp
from tallystick.core.custody import RetentionPolicy
from tallystick.core.moment import DAY
from tallystick.core.pruned import RecordsPruned
from tallystick.core.record import Record
from tallystick.errors import BusyError, ConflictError, NotFoundError, RejectedError, StoreError, TamperError
from tallystick.read.query import Query
from tallystick.store.contract import Head
from tallystick.store.memory import MemoryStore
from tallystick.store.sqlite import SqliteStore
from tests import naive
from tests.evidence.forge import kinds
from tests.govern.scene import Scene, payload_at
from tests.store.faulty import Fault, FaultyStore


@pytest.fixture
def scene() -> Scene:
    """Ten records, one a day: positions 2 to 11, recorded on days 0 to 9."""
    scene = Scene()
    for number in range(10):
        scene.append(f"user-{number % 2}", labels=["phi"] if number % 5 == 1 else [])
        scene.pass_days(1)
    return scene


# ------------------------------------------------------------------------------------------------ policies


def test_a_ledger_has_no_policy_until_one_is_set(scene: Scene) -> None:
    assert scene.retention.policy() == (None, None)

    receipt = scene.retention.set(RetentionPolicy.of("90d"), actor="jane", reason="the law")

    assert scene.retention.policy() == (RetentionPolicy(90), receipt.position)
    record = scene.records()[receipt.position]
    assert (record.event_type, record.actor) == ("tallystick.retention.set", {"id": "jane"})
    assert record.payload == {"labels": {}, "period_days": 90, "reason": "the law"}


def test_the_newest_policy_is_in_force(scene: Scene) -> None:
    scene.keep("90d")
    scene.keep("6y", phi="forever")

    assert scene.retention.policy()[0] == RetentionPolicy(2_196, {"phi": None})


def test_nothing_is_pruned_before_a_policy_was_set(scene: Scene) -> None:
    for attempt in (scene.retention.plan, scene.retention.prune):
        with pytest.raises(RejectedError, match="no retention policy"):
            attempt()


def test_a_policy_that_fits_no_record_changes_nothing(scene: Scene) -> None:
    size = scene.size

    with pytest.raises(RejectedError, match="at most"):
        scene.retention.set(RetentionPolicy(90, {f"{number:03}" + "€" * 97: 91 for number in range(256)}))

    assert scene.size == size


# --------------------------------------------------------------------------------------------------- holds


def test_a_hold_is_in_force_until_it_is_released(scene: Scene) -> None:
    placed = scene.retention.hold("case 1", reason="suit", entity="user-1", actor={"id": "jane", "type": "user"})
    scene.retention.hold("case 2", reason="suit", first=3, end=7)

    assert [(hold.name, hold.placed.scope) for hold in scene.retention.holds()] == [
        ("case 1", "entity user-1"),
        ("case 2", "positions [3, 7)"),
    ]
    assert scene.retention.holds()[0].position == placed.position
    assert scene.retention.holds()[0].actor == {"id": "jane", "type": "user"}
    scene.retention.release("case 1", reason="settled")
    assert [hold.name for hold in scene.retention.holds()] == ["case 2"]
    scene.retention.hold("case 1", reason="again", label="phi")
    assert [hold.name for hold in scene.retention.holds()] == ["case 2", "case 1"]


def test_two_holds_in_force_have_different_names(scene: Scene) -> None:
    scene.retention.hold("case", reason="suit", entity="user-1")

    with pytest.raises(ConflictError, match="'case' is in force already"):
        scene.retention.hold("case", reason="suit", entity="user-2")


def test_a_hold_that_is_not_in_force_cannot_be_released(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="no hold 'case'"):
        scene.retention.release("case", reason="settled")


def test_a_hold_without_a_scope_changes_nothing(scene: Scene) -> None:
    size = scene.size

    with pytest.raises(RejectedError, match="exactly one scope"):
        scene.retention.hold("case", reason="suit")
    with pytest.raises(RejectedError, match="actor"):
        scene.retention.hold("case", reason="suit", entity="e", actor={"name": "nobody"})

    assert scene.size == size


def test_of_two_processes_that_place_the_same_hold_one_is_refused() -> None:
    # Given two openings, of which the second places its hold after the first looked, and before it seals.
    one = Scene()
    two = Scene(one.store)
    seal = one.retention._seal_own

    def late(events: Any, *, guard: Any = None) -> Any:
        if not two.retention.holds():
            two.retention.hold("case", reason="suit", entity="other")
        return seal(events, guard=guard)

    one.retention._seal_own = late  # type: ignore[misc]

    with pytest.raises(ConflictError, match="in force already"):
        one.retention.hold("case", reason="suit", entity="e")

    assert [hold.placed.entity for hold in one.retention.holds()] == ["other"]
    assert kinds(one.verify()) == []


# ---------------------------------------------------------------------------------------------- what goes


def test_a_prune_removes_what_has_expired_and_nothing_else(scene: Scene) -> None:
    scene.keep("5d")  # on day 10: records of days 0 to 5 have expired, as one of day 5 was kept for five days

    done = scene.retention.prune(actor="jane")

    assert (done.count, done.end, done.position) == (6, 8, 13)
    assert scene.ours() == [8, 9, 10, 11]
    assert scene.positions()[:2] == [0, 1]
    assert kinds(scene.verify()) == []


def test_a_record_is_kept_to_the_microsecond(scene: Scene) -> None:
    scene.keep("5d")
    scene.now -= 1  # the record of day 5 has one microsecond to go

    assert scene.retention.plan().count == 5


def test_nothing_to_prune_is_no_error_and_seals_nothing(scene: Scene) -> None:
    scene.keep("10y")
    size = scene.size

    plan = scene.retention.plan()
    done = scene.retention.prune(plan)

    assert (plan.count, plan.first, plan.bytes) == (0, None, 0)
    assert (done.count, done.position) == (0, None)
    assert scene.size == size


def test_what_is_kept_for_ever_never_goes(scene: Scene) -> None:
    scene.keep("forever")
    scene.pass_days(40_000)

    assert scene.retention.plan().count == 0


def test_a_label_keeps_its_records_longer_and_never_shorter(scene: Scene) -> None:
    scene.keep("3d", phi="8d", other="1d")

    scene.retention.prune()

    # Labelled phi are those of day 1, whose eight days are over as well, and of day 6.
    assert scene.ours() == [8, 10, 11]


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ({"entity": "user-1"}, [3, 5, 7, 9, 11]),
        ({"label": "phi"}, [3, 8]),
        ({"first": 4, "end": 6}, [4, 5]),
        ({"first": 10, "end": 2**53 - 1}, [10, 11]),
    ],
)
def test_a_hold_wins_and_says_so(scene: Scene, scope: dict[str, Any], left: list[int]) -> None:
    scene.keep("1d")
    scene.retention.hold("case", reason="suit", **scope)
    scene.pass_days(10)

    plan = scene.retention.plan()
    scene.retention.prune()

    assert plan.kept_by_hold == {"case": len(left)}
    assert scene.ours() == left
    assert kinds(scene.verify()) == []


def test_when_a_hold_is_released_the_next_prune_takes_what_it_held(scene: Scene) -> None:
    scene.keep("1d")
    scene.retention.hold("case", reason="suit", entity="user-1")
    scene.pass_days(10)
    scene.retention.prune()
    scene.retention.release("case", reason="settled")

    done = scene.retention.prune()

    assert done.count == 5
    assert scene.ours() == []
    assert kinds(scene.verify()) == []


def test_a_policy_made_longer_keeps_also_what_an_earlier_prune_passed_over(scene: Scene) -> None:
    scene.keep("1d")
    scene.retention.hold("case", reason="suit", entity="user-1")
    scene.pass_days(10)
    scene.retention.prune()
    scene.retention.release("case", reason="settled")
    scene.keep("1y")

    assert scene.retention.plan().count == 0
    scene.keep("forever")
    assert scene.retention.plan().count == 0


def test_the_ledgers_own_records_stay_for_ever(scene: Scene) -> None:
    scene.keep("1d")
    scene.sealer.change_epoch()
    for _ in range(3):
        scene.pass_days(30)
        scene.append()
        scene.retention.prune()

    scene.pass_days(30)
    scene.retention.prune()

    assert scene.ours() == []
    types = [record.event_type for record in scene.records()]
    assert types.count("tallystick.records.pruned") == 4
    assert {"tallystick.ledger.created", "tallystick.epoch.closed", "tallystick.retention.set"} <= {*types}
    assert kinds(scene.verify()) == []


def test_a_plan_says_what_goes_what_stays_and_why(scene: Scene) -> None:
    scene.keep("3d", phi="1y")
    scene.retention.hold("case 1", reason="suit", entity="user-0")
    scene.retention.hold("case 2", reason="suit", first=2, end=4)

    plan = scene.retention.plan()

    records = scene.records()
    assert (plan.end, plan.first) == (10, 5)
    assert (plan.count, plan.bytes) == (3, sum(len(records[at].line) for at in (5, 7, 9)))
    assert (plan.kept, plan.kept_own) == (7, 2)
    assert plan.kept_by_hold == {"case 1": 4, "case 2": 2}
    assert plan.kept_by_label == {"phi": 2}
    assert plan.oldest_kept == records[2].recorded_at
    assert (plan.policy, plan.policy_position) == ("3d, phi 1y", 12)
    assert (plan.unfinished, plan.size) == (None, scene.size)
    assert scene.ours() == [*range(2, 12)]


def test_progress_is_told_while_a_prune_is_planned(scene: Scene) -> None:
    scene.keep("1d")
    told: list[tuple[int, int]] = []

    scene.retention.plan(progress=lambda done, of: told.append((done, of)))

    assert told == [(12, 12)]


def test_a_plan_is_only_good_while_nothing_was_ordered_since(scene: Scene) -> None:
    scene.keep("1d")
    plan = scene.retention.plan()
    scene.append()  # this does not matter
    scene.retention.hold("case", reason="suit", entity="user-1")

    with pytest.raises(ConflictError, match="plan again"):
        scene.retention.prune(plan)

    assert len(scene.ours()) == 11
    assert scene.retention.prune().count == 5


def test_an_order_that_comes_while_the_prune_is_sealed_stops_it(scene: Scene) -> None:
    scene.keep("1d")
    other = Scene(scene.store, now=scene.now)

    def place_a_hold(end: int, records: Iterator[Record]) -> list[tuple[str, dict[str, Any]]]:
        del end, records
        other.retention.hold("case", reason="suit", entity="user-1")
        return []

    scene.retention._before_prune = place_a_hold  # type: ignore[misc]

    with pytest.raises(ConflictError, match="plan again"):
        scene.retention.prune()

    assert scene.ours() == [*range(2, 12)]
    assert kinds(scene.verify()) == []


def test_a_prune_of_everything_there_is_ends_at_its_own_record(scene: Scene) -> None:
    scene.keep("1d")
    scene.pass_days(30)

    done = scene.retention.prune()

    assert (done.count, done.end, done.position) == (10, 13, 13)
    assert scene.ours() == []
    scene.append("user-0")
    assert kinds(scene.verify()) == []


# ----------------------------------------------------------------------------------------- what it says


def test_the_record_of_a_prune_vouches_for_what_went_and_for_what_is_left(scene: Scene) -> None:
    lines = [record.line for record in scene.records()]
    scene.keep("5d", phi="1y")
    hold = scene.retention.hold("case", reason="suit", first=4, end=5)

    done = scene.retention.prune(actor="jane")

    assert done.position is not None
    record = scene.records()[-1]
    payload = payload_at(scene.store, done.position)
    absent = [2, 5, 6, 7]
    ranges = struct.pack(">QQQQ", 2, 3, 5, 8)
    leaves = [naive.sha256(b"\0" + line) for line in lines[:8]]
    assert payload == {
        "absent": {"count": 4, "digest": hashlib.sha256(ranges).hexdigest()},
        "checkpoint_at_prune": payload["checkpoint_at_prune"],
        "count": len(absent),
        "end": 8,
        "first": 2,
        "first_hash": naive.sha256(lines[2]).hex(),
        "frontier_at_end": [base64.b64encode(naive.root(leaves)).decode()],
        "holds_checked": [hold.position],
        "last_hash": naive.sha256(lines[7]).hex(),
        "policy_position": 12,
    }
    assert naive.checkpoint_of(payload["checkpoint_at_prune"].encode())[0] == done.position
    assert (record.actor, record.entity_id) == ({"id": "jane"}, "tallystick.ledger")
    assert record.occurred_at == timestamp.render(scene.now)


def test_a_prune_can_say_something_beforehand_in_the_same_commit(scene: Scene) -> None:
    seen: list[tuple[int, list[int]]] = []

    def before(end: int, records: Iterator[Record]) -> list[tuple[str, dict[str, Any]]]:
        seen.append((end, [record.position for record in records]))
        return [("tallystick.test.said", {"n": 1}), ("tallystick.test.said", {"n": 2})]

    scene.retention._before_prune = before  # type: ignore[misc]
    scene.keep("5d")
    scene.retention.hold("case", reason="suit", first=3, end=4)

    done = scene.retention.prune()

    assert seen == [(8, [2, 4, 5, 6, 7])]
    last = scene.records()[-3:]
    assert [record.payload.get("n") for record in last] == [1, 2, None]
    assert last[-1].position == done.position
    assert last[0].actor == {"id": "tallystick", "type": "system"}
    assert kinds(scene.verify()) == []


def test_a_prune_forged_to_end_past_itself_is_refused_before_anything_is_made_of_it(scene: Scene) -> None:
    scene.keep("1d")
    scene.retention.prune()
    pruned = RecordsPruned.of(scene.records()[-1])
    wide = replace(pruned, end=2**50, frontier_at_end=(bytes(32),))
    scene.sealer.seal_own([wide.event(None)])

    for attempt in (scene.retention.plan, scene.retention.prune):
        with pytest.raises(TamperError, match="past itself"):
            attempt()


def test_only_a_ledger_that_holds_at_its_head_is_pruned(scene: Scene) -> None:
    scene.keep("1d")
    store = scene.store
    assert isinstance(store, MemoryStore)
    head = store.head()
    assert head is not None
    store._head = Head(head.size, head.checkpoint.replace(b"\n\n", b"\n\n\n", 1), head.epoch_at, 0, 0)

    with pytest.raises(TamperError, match="nothing is pruned"):
        scene.retention.prune()

    assert len(scene.ours()) == 10


def test_a_record_that_the_index_proposes_and_the_log_says_must_stay_stops_the_prune(scene: Scene) -> None:
    class Forgetful:
        """An index that has lost an entity."""

        def positions(self, query: Query, **where: Any) -> list[int]:
            return [] if query.entities else scene.index.questions.positions(query, **where)

        def __getattr__(self, name: str) -> Any:
            return getattr(scene.index.questions, name)

    scene.keep("1d")
    scene.retention.hold("case", reason="suit", entity="user-1")
    scene.retention._questions = Forgetful()  # type: ignore[misc]

    with pytest.raises(StoreError, match=r"index rebuild"):
        scene.retention.prune()

    assert scene.ours() == [*range(2, 12)]


# ------------------------------------------------------------------------------------ life after a prune


def test_a_ledger_goes_on_after_a_prune_with_its_index_and_with_one_made_anew(scene: Scene) -> None:
    scene.keep("1d")
    scene.retention.prune()
    assert scene.append("user-1")[0].entity_version == 6

    again = Scene(scene.store, now=scene.now)

    versions = [again.append(name)[0].entity_version for name in ("user-1", "user-0", "new")]
    assert versions[0] == 7
    assert versions[2] == 1
    assert kinds(again.verify()) == []


def test_an_entity_of_which_all_records_went_may_begin_again(scene: Scene) -> None:
    scene.keep("1d")
    scene.pass_days(20)
    scene.retention.prune()

    again = Scene(scene.store, now=scene.now)

    assert again.append("user-1")[0].entity_version == 1
    assert kinds(again.verify()) == []


def test_many_prunes_in_one_unfinished_tile_keep_the_tree_whole() -> None:
    scene = Scene()
    scene.keep("1d")
    for _ in range(12):
        scene.append(count=7)
        scene.pass_days(2)
        scene.retention.prune()
        scene = Scene(scene.store, now=scene.now)  # its tree is read back from what is there
    scene.append(count=300)

    assert kinds(scene.verify()) == []
    scene.pass_days(2)
    assert scene.retention.prune().count == 300
    assert kinds(Scene(scene.store, now=scene.now).verify()) == []


EVENTS: Final = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from(["phi", "pci"]), unique=True), st.integers(0, 40)
)
HOLDS: Final = st.one_of(
    st.sampled_from(["a", "b"]).map(lambda name: {"entity": name}),
    st.sampled_from(["phi", "pci"]).map(lambda name: {"label": name}),
    st.tuples(st.integers(0, 30), st.integers(1, 20)).map(lambda p: {"first": p[0], "end": p[0] + p[1]}),
)
PERIODS: Final = st.sampled_from(["1d", "20d", "60d", "forever"])
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(EVENTS, min_size=1, max_size=12)),
        st.tuples(st.just("keep"), st.tuples(PERIODS, st.dictionaries(st.sampled_from(["phi", "pci"]), PERIODS))),
        st.tuples(st.just("hold"), HOLDS),
        st.tuples(st.just("release"), st.integers(0, 3)),
        st.tuples(st.just("prune"), st.booleans()),
    ),
    max_size=12,
)


class Twin:
    """Retention the naive way: all records in a dictionary, every rule applied to each of them."""

    def __init__(self) -> None:
        self.policy: tuple[str, dict[str, str]] | None = None
        self.holds: dict[str, dict[str, Any]] = {}

    def stays(self, record: Record, now: int) -> bool:
        assert self.policy is not None
        general, labels = self.policy
        periods = [general, *(labels[label] for label in record.labels if label in labels)]
        if "forever" in periods or record.event_type.startswith("tallystick."):
            return True
        longest = max(int(period[:-1]) for period in periods)
        if timestamp.parse(record.recorded_at) + longest * DAY > now:
            return True
        return any(self._covers(scope, record) for scope in self.holds.values())

    def _covers(self, scope: dict[str, Any], record: Record) -> bool:
        if "entity" in scope:
            return bool(record.entity_id == scope["entity"])
        return scope["label"] in record.labels if "label" in scope else scope["first"] <= record.position < scope["end"]


@settings(max_examples=40)
@given(STEPS)
def test_after_any_orders_exactly_what_must_stay_is_there_and_the_ledger_verifies(steps: list[tuple[str, Any]]) -> None:
    scene, twin = Scene(), Twin()
    for number, (step, what) in enumerate(steps):
        if step == "append":
            for entity, labels, days in what:
                scene.append(entity, labels=labels)
                scene.pass_days(days)
        elif step == "keep":
            twin.policy = what
            scene.retention.set(RetentionPolicy.of(*what))
        elif step == "hold":
            twin.holds[f"h{number}"] = what
            scene.retention.hold(f"h{number}", reason="r", **what)
        elif step == "release" and twin.holds:
            name = [*twin.holds][what % len(twin.holds)]
            del twin.holds[name]
            scene.retention.release(name, reason="r")
        elif step == "prune" and twin.policy is not None:
            if what:
                scene = Scene(scene.store, now=scene.now)
            expected = [record.position for record in scene.records() if twin.stays(record, scene.now)]
            plan = scene.retention.plan()
            before = len(scene.positions())
            done = scene.retention.prune(plan, clock_is_right=True)  # months may be between an event and this
            assert [at for at in scene.positions() if at < plan.size] == expected
            assert done.count == plan.count == before - len(expected)
            assert scene.retention.plan().count == 0

    report = scene.verify()

    assert report.findings == ()
    assert sum(prune.count for prune in report.pruned) == scene.size - len(scene.positions()) == report.absent


# ------------------------------------------------------------------------------------------- cut short


def cut_short(scene: Scene) -> int:
    """A prune that sealed its record and then came to nothing; the position of that record."""

    def fail(*_: Any) -> int:
        raise StoreError("killed here (injected)")

    prune = scene.store.prune
    scene.store.prune = fail  # type: ignore[assignment,method-assign]
    with pytest.raises(StoreError, match="injected"):
        scene.retention.prune()
    scene.store.prune = prune  # type: ignore[method-assign]
    return scene.size - 1


def test_a_prune_that_was_cut_short_is_finished_by_the_next_one(scene: Scene) -> None:
    scene.keep("5d", phi="6d")
    position = cut_short(scene)
    assert scene.ours() == [*range(2, 12)]
    # Meanwhile more expires, also by label, and the index is lost.
    scene.pass_days(2)
    again = Scene(scene.store, now=scene.now)

    plan = again.retention.plan()
    done = again.retention.prune(plan)

    assert plan.unfinished == done.finished == position
    assert plan.count == done.count
    assert again.ours() == [10, 11]
    assert kinds(again.verify()) == []


def test_a_prune_that_was_cut_short_verifies_as_not_finished(scene: Scene) -> None:
    scene.keep("5d")
    position = cut_short(scene)

    report = scene.verify()

    assert kinds(report) == []
    assert [(prune.position, prune.finished) for prune in report.pruned] == [(position, False)]
    assert report.absent == 0
    scene.retention.prune()
    assert [prune.finished for prune in scene.verify().pruned] == [True]


def test_a_second_prune_that_was_cut_short_verifies_by_the_one_before(scene: Scene) -> None:
    scene.keep("5d")
    scene.retention.prune()
    scene.pass_days(2)
    cut_short(scene)

    report = scene.verify()

    assert kinds(report) == []
    assert [prune.finished for prune in report.pruned] == [True, False]
    assert report.absent == 6


def test_a_hold_placed_before_a_prune_was_finished_stops_it_until_it_is_released(scene: Scene) -> None:
    scene.keep("5d")
    cut_short(scene)
    scene.retention.hold("case", reason="suit", entity="user-1")

    with pytest.raises(ConflictError, match=r"hold 'case' .* covers 3 of its records"):
        scene.retention.prune()

    assert scene.ours() == [*range(2, 12)]
    assert kinds(scene.verify()) == []
    scene.retention.release("case", reason="settled")
    assert scene.retention.prune().finished is not None
    assert scene.ours() == [8, 9, 10, 11]


def test_a_hold_that_does_not_touch_it_lets_a_prune_be_finished(scene: Scene) -> None:
    scene.keep("5d")
    cut_short(scene)
    scene.retention.hold("case", reason="suit", first=8, end=10)

    assert scene.retention.prune().finished is not None


def test_a_plan_made_before_a_prune_was_finished_does_not_count_its_records_again(scene: Scene) -> None:
    scene.keep("5d")
    cut_short(scene)

    plan = scene.retention.plan()

    assert plan.count == 0
    assert scene.retention.prune(plan).finished is not None
    assert scene.ours() == [8, 9, 10, 11]


@pytest.mark.parametrize("fault", ["failed", "busy", "failed, yet persisted", "failed, yet persisted, and then silent"])
@pytest.mark.parametrize("write", [0, 1])
def test_whichever_write_of_a_prune_fails_a_repeat_completes_it(fault: Fault, write: int) -> None:
    # Given a prune of which the first write seals the record, and the second removes.
    faults: list[Fault | None] = []
    scene = Scene(FaultyStore(MemoryStore(), lambda: faults.pop(0) if faults else None))
    scene.append(count=20)
    scene.keep("1d")
    scene.pass_days(2)
    faults[:] = [*[None] * write, fault]

    for _ in range(3):
        try:
            scene.retention.prune()
            break
        except (StoreError, BusyError):
            continue

    assert scene.retention.prune().count == 0
    assert scene.ours() == []
    assert kinds(scene.verify()) == []
    assert len(scene.verify().pruned) == 1


KILLED: Final = """
import os, signal, sys
from pathlib import Path
import tallystick.store.sqlite as sqlite
import tallystick.store.sqlite_prune as sqlite_prune
from tests.govern.scene import Scene

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

scene = Scene(sqlite.SqliteStore(Path(sys.argv[1])), now=int(sys.argv[2]))
step = sys.argv[3]
if step == "before the record is sealed":
    scene.store.commit = die
elif step == "before anything is removed":
    scene.store.prune = die
elif step == "while it is removed":
    remove = sqlite_prune._remove
    sqlite_prune._remove = lambda *given: (remove(*given), die())
elif step == "before the room is given back":
    sqlite_prune._give_back = die
elif step == "before it is acknowledged":
    prune = scene.store.prune
    scene.store.prune = lambda *given: (prune(*given), die())
scene.retention.prune()
"""


@pytest.mark.parametrize(
    ("step", "sealed", "removed"),
    [
        ("before the record is sealed", False, False),
        ("before anything is removed", True, False),
        ("while it is removed", True, False),
        ("before the room is given back", True, True),
        ("before it is acknowledged", True, True),
    ],
)
def test_a_prune_killed_between_any_two_steps_is_whole_after_the_next_one(
    tmp_path: Path, step: str, sealed: bool, removed: bool
) -> None:
    scene = Scene(SqliteStore(tmp_path))
    scene.keep("5d", phi="1y")
    for _ in range(3):
        scene.append(count=400)
        scene.append(labels=["phi"])
        scene.pass_days(3)
    scene.store.close()

    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, str(scene.now), step],
        env={"PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent.parent.parent)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    again = Scene(SqliteStore(tmp_path), now=scene.now)
    assert (len(again.ours()) < 1_203) is removed
    report = again.verify()
    assert kinds(report) == []
    assert [prune.finished for prune in report.pruned] == ([removed] if sealed else [])
    again.retention.prune()
    assert len(again.verify().pruned) == 1
    labelled = [record.position for record in again.records() if record.labels == ["phi"]]
    assert len(labelled) == 3
    assert len(again.ours()) == 403
    again.append()
    assert kinds(again.verify()) == []
