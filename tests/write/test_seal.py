"""Sealing: epochs, clocks, keys, other writers; and the whole against a naive twin, a plain list."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import tallystick
from tallystick.core.checkpoint import open_checkpoint
from tallystick.core.keys import epoch_key
from tallystick.core.record import EPOCH_CLOSED, EPOCH_OPENED, KEY_ROTATED, split_signature
from tallystick.core.system import EpochClosed, EpochOpened, Genesis, KeyRotated
from tallystick.errors import BusyError, ConflictError, RejectedError, TamperError
from tallystick.keystore import Keystore
from tallystick.limits import EPOCH_SECONDS_MAX
from tallystick.store.contract import Batch, Head
from tallystick.store.memory import MemoryStore
from tallystick.write import resume
from tallystick.write.request import Submission
from tests import naive
from tests.crashing import abandon

START: Final = 1_770_000_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def event(entity_id: str = "e", **more: Any) -> dict[str, Any]:
    return {"event_type": "t.happened", "entity_id": entity_id, **more}


def lines_of(ledger: tallystick.Ledger) -> list[bytes]:
    return [record.line for record in ledger.read()]


def types_of(ledger: tallystick.Ledger, first: int = 0) -> list[str]:
    return [record.event_type.removeprefix("tallystick.") for record in ledger.read(first)]


# ------------------------------------------------------------------------------------------- the beginning


def test_a_new_ledger_holds_its_genesis_and_the_opening_of_epoch_0() -> None:
    with tallystick.open("memory:", clock=Clock()) as ledger:
        genesis, opened = ledger.read()

    assert Genesis.of(genesis).signature_holds(genesis)
    assert EpochOpened.of(opened).epoch == 0
    assert (genesis.entity_version, opened.entity_version) == (1, 2)
    assert genesis.recorded_at == opened.recorded_at == "2026-02-02T02:40:00.000000Z"


def test_records_are_signed_under_the_epochs_key_and_chained(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many([event(), event("f"), event()])
        ledger.change_epoch()
        ledger.append(event())
        lines = lines_of(ledger)
    event_mac = Keystore(tmp_path / "ledger" / "keys").ledger_keys("ledger").event_mac

    records = naive.read_chain(lines)
    for line, record in zip(lines[1:], records[1:], strict=True):
        signed_part, signature = split_signature(line)
        key = epoch_key(event_mac, record["epoch"])
        assert hmac.new(key, b"tallystick/v1/event\0" + signed_part, "sha256").hexdigest().encode() == signature
        del record["signature"]
        assert json.loads(signed_part) == record
    assert [record["epoch"] for record in records] == [0, 0, 0, 0, 0, 0, 1, 1]


# ------------------------------------------------------------------------------------------------- epochs


def test_changing_the_epoch_closes_one_and_opens_the_next() -> None:
    with tallystick.open("memory:") as ledger:
        ledger.append_many([event(), event()])
        ledger.change_epoch()
        ledger.change_epoch()
        ledger.append(event())
        records = [*ledger.read()]

    assert [record.event_type for record in records[4:8]] == [EPOCH_CLOSED, EPOCH_OPENED] * 2
    assert EpochClosed.of(records[4]) == EpochClosed(0, 1, 4)
    assert EpochOpened.of(records[5]).epoch == 1
    assert EpochClosed.of(records[6]) == EpochClosed(1, 5, 6)
    assert EpochOpened.of(records[7]).epoch == 2
    assert [record.members["epoch"] for record in records] == [0, 0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("seconds", "changes"), [(EPOCH_SECONDS_MAX - 1, False), (EPOCH_SECONDS_MAX, True)])
def test_an_epoch_that_has_lasted_its_time_is_closed_by_the_next_append(seconds: int, changes: bool) -> None:
    clock = Clock()
    with tallystick.open("memory:", clock=clock) as ledger:
        ledger.append(event())
        clock.now += seconds * 1_000_000
        sealed = ledger.append_many([event(), event()])
        types = types_of(ledger, 3)
        versions = [one.entity_version for one in sealed]
        first = sealed[0].position

    assert types == (["epoch.closed", "epoch.opened"] if changes else []) + ["t.happened"] * 2
    assert versions == [2, 3]
    assert first == (5 if changes else 3)


def test_an_epoch_that_holds_its_number_of_records_is_closed_by_the_next_append(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tallystick.opening.EPOCH_RECORDS_MAX", 5)
    with tallystick.open("memory:") as ledger:
        for number in range(8):
            ledger.append(event(payload={"number": number}))
        records = [*ledger.read()]

    epochs = [record.members["epoch"] for record in records]
    assert epochs == [0] * 7 + [1] * 5
    assert [record.event_type for record in records[6:8]] == [EPOCH_CLOSED, EPOCH_OPENED]
    assert EpochClosed.of(records[6]).payload()["count"] == 6


def test_a_due_epoch_is_changed_also_when_all_requests_are_refused_or_repeated() -> None:
    clock = Clock()
    with tallystick.open("memory:", clock=clock) as ledger:
        first = ledger.append(event(id="x"))
        clock.now += EPOCH_SECONDS_MAX * 1_000_000

        with pytest.raises(ConflictError):
            ledger.append(event(expected_version=9))
        again = ledger.append(event(id="x"))

        assert types_of(ledger, 3) == ["epoch.closed", "epoch.opened"]
        assert again == first._replace(replayed=True)


# ------------------------------------------------------------------------------------------------ the clock


def test_a_clock_that_steps_back_is_held_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with tallystick.open("memory:", clock=clock) as ledger, caplog.at_level(logging.WARNING, "tallystick"):
        times = []
        for step in (10, -3_000_000, 5, 5, 4_000_000, -1, 1):
            clock.now += step
            times.append(ledger.append(event()).recorded_at)

    assert times == sorted(times)
    assert times[:4] == ["2026-02-02T02:40:00.000010Z"] * 4
    assert [record.getMessage() for record in caplog.records] == [
        "the clock stepped back 3.000000 s; recorded times are held until it has caught up",
        "the clock stepped back 0.000001 s; recorded times are held until it has caught up",
    ]


# -------------------------------------------------------------------------------------------- key rotation


def test_from_its_rotation_on_the_new_checkpoint_key_signs(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        old = ledger.verifier_key
        before = ledger.checkpoint()
        ledger.rotate_key("checkpoint")
        new = ledger.verifier_key
        ledger.append(event())
        after = ledger.checkpoint()
        rotated = KeyRotated.of(ledger.get(2))
        origin = ledger.origin

    assert open_checkpoint(before, [old], origin=origin).size == 2
    assert open_checkpoint(after, [new], origin=origin).size == 4
    for note, key in ((before, new), (after, old)):
        with pytest.raises(TamperError):
            open_checkpoint(note, [key], origin=origin)
    assert rotated.signatures_hold()
    assert (rotated.old_key, rotated.new_key) == (old.public_key, new.public_key)
    with tallystick.open(tmp_path / "ledger") as ledger:
        assert ledger.verifier_key == new
        ledger.append(event())


def test_an_evidence_key_is_rotated_without_touching_the_checkpoints(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        key, evidence_key = ledger.verifier_key, ledger.evidence_key
        ledger.rotate_key("evidence")
        ledger.rotate_key("evidence")
        first, second = KeyRotated.of(ledger.get(2)), KeyRotated.of(ledger.get(3))

        assert ledger.verifier_key == key
        assert (first.old_key, first.new_key, second.new_key) == (
            evidence_key,
            second.old_key,
            ledger.evidence_key,
        )
        assert types_of(ledger, 2) == [KEY_ROTATED.removeprefix("tallystick.")] * 2


def test_two_writers_of_one_ledger_that_rotate_by_turns_chain_their_keys(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as one, tallystick.open(tmp_path / "ledger") as two:
        one.append(event())
        two.append(event())
        in_force = one.verifier_key.public_key
        for ledger in (one, two, two, one, two):
            ledger.rotate_key("checkpoint")
            ledger.append(event())
            other = two if ledger is one else one
            other.append(event())
        rotations = [KeyRotated.of(record) for record in one.read() if record.event_type == KEY_ROTATED]

    for rotated in rotations:
        assert rotated.old_key == in_force
        assert rotated.signatures_hold()
        in_force = rotated.new_key


def test_two_writers_that_rotate_at_the_same_moment_chain_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tallystick.open(tmp_path / "ledger") as one, tallystick.open(tmp_path / "ledger") as two:
        one.append(event())
        two.append(event())
        begin = Keystore.begin_rotation

        def begin_after_the_other(self: Keystore, purpose: Any) -> Any:
            new = begin(self, purpose)
            monkeypatch.setattr(Keystore, "begin_rotation", begin)
            two.rotate_key(purpose)  # all of the other's rotation happens here
            return new

        monkeypatch.setattr(Keystore, "begin_rotation", begin_after_the_other)
        in_force = one.verifier_key.public_key
        one.rotate_key("checkpoint")
        one.append(event())
        two.append(event())
        rotations = [KeyRotated.of(record) for record in one.read() if record.event_type == KEY_ROTATED]

    assert len(rotations) == 2
    for rotated in rotations:
        assert rotated.old_key == in_force
        in_force = rotated.new_key


# -------------------------------------------------------------------------------------------- other writers


def test_two_writers_by_turns_know_of_each_others_records(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as one, tallystick.open(tmp_path / "ledger") as two:
        versions = [ledger.append(event()).entity_version for ledger in (one, two, two, one, one, two)]
        first = one.append(event(id="x"))
        again = two.append(event(id="x"))
        with pytest.raises(ConflictError):
            one.append(event(expected_version=6))
        one.change_epoch()
        two.append(event(expected_version=7))
        naive.read_chain(lines_of(two))

    assert versions == [1, 2, 3, 4, 5, 6]
    assert again == first._replace(replayed=True)


def test_a_conflict_with_what_was_true_a_moment_ago_is_looked_at_again(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as one, tallystick.open(tmp_path / "ledger") as two:
        one.append(event())
        two.append(event())

        # `one` still believes in version 1; what it would refuse is right by now.
        sealed = one.append(event(expected_version=2))

    assert sealed.entity_version == 3


def test_who_loses_to_others_again_and_again_holds_them_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tallystick.open(tmp_path / "ledger") as slow, tallystick.open(tmp_path / "ledger") as fast:
        fast.append(event())
        store, outcomes = slow._store, list[str]()
        commit = store.commit

        def commit_late(*members: Any, **more: Any) -> None:
            """Commit when another process has just done so, if it can."""
            try:
                fast.append_each([Submission([event()])], patient=False)
                outcomes.append("lost")
            except BusyError:
                outcomes.append("held up")
            commit(*members, **more)

        monkeypatch.setattr(store, "commit", commit_late)
        sealed = slow.append(event())
        monkeypatch.undo()

        assert outcomes == ["lost"] * 5 + ["held up"]
        assert fast.append(event()).position == sealed.position + 1
        naive.read_chain(lines_of(slow))


# --------------------------------------------------------------------------------------- resuming, suspiciously


def altered(head: Head, **changes: Any) -> Head:
    values = {name: getattr(head, name) for name in Head.__slots__}
    return Head(**{**values, **changes})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda _: {"epoch_at": 2}, "head does not hold"),
        (lambda _: {"epoch_at": 0}, "head does not hold"),
        (lambda _: {"epoch_at": 1}, "wrong epoch"),
        (lambda _: {"epoch_at": 99}, "missing"),
        (lambda _: {"checkpoint_key_at": 3}, "head does not hold"),
        (lambda head: {"checkpoint": head.checkpoint[:-8] + b"AAAAAA=\n"}, "signature"),
        (lambda _: {"checkpoint": b"nonsense"}, "head does not hold"),
        (lambda head: {"size": head.size - 1}, "not of these records"),
        (lambda head: {"size": head.size + 1}, "missing"),
    ],
)
def test_a_head_that_the_log_does_not_bear_out_stops_the_writer(
    change: Callable[[Head], dict[str, Any]], problem: str, tmp_path: Path
) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many([event(), event()])
        ledger.change_epoch()
        ledger.append(event())
        genesis, store = ledger.genesis, ledger._store
        copy = MemoryStore()
        head = store.head()
        assert head is not None
        copy.create(Batch(0, lines_of(ledger), []), head)
        copy._head = altered(head, **change(head))

    with pytest.raises(TamperError, match=problem):
        resume.load_state(copy, genesis=genesis)


def test_a_record_that_was_altered_stops_the_writer(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many([event(payload={"n": number}) for number in range(9)])
        genesis, lines, head = ledger.genesis, lines_of(ledger), ledger._store.head()
        assert head is not None

    for position in (2, 5, len(lines) - 1):
        copy = MemoryStore()
        changed = lines[position].replace(b'"payload":{"n":', b'"payload":{"m":')
        copy.create(Batch(0, [*lines[:position], changed, *lines[position + 1 :]], []), head)
        with pytest.raises(TamperError, match="not of these records"):
            resume.load_state(copy, genesis=genesis)


def test_the_keys_of_another_ledger_are_refused_before_anything_changes(tmp_path: Path) -> None:
    tallystick.open(tmp_path / "ledger").close()
    tallystick.open(tmp_path / "other", name="ledger").close()
    with tallystick.open(tmp_path / "ledger", keys=tmp_path / "other" / "keys") as ledger:
        before = ledger._head()

        for attempt in (
            lambda: ledger.append(event()),
            ledger.change_epoch,
            lambda: ledger.rotate_key("checkpoint"),
        ):
            with pytest.raises(RejectedError, match="give the folder that holds this ledger's keys"):
                attempt()

        assert ledger._head() == before
        with pytest.raises(TamperError, match="another root key"):
            ledger.checkpoint()


# --------------------------------------------------------------------------- the ledger against a plain list


class Twin:
    """A ledger as a list of what was sealed: the obvious rules, without bytes, commits or an index."""

    def __init__(self) -> None:
        self.rows: list[tuple[str | None, str, Any]] = []
        """Event id, entity and payload; for the ledger's own events the type in place of a payload."""

    def append_many(self, events: list[dict[str, Any]]) -> list[tuple[int, int, bool]] | None:
        """The position, the entity version and whether it was a repetition, for each; None for a conflict."""
        rows, answers = [*self.rows], []
        for one in events:
            wanted = (one.get("id"), one["entity_id"], one["payload"])
            at = next((at for at, row in enumerate(rows) if wanted[0] is not None and row[0] == wanted[0]), None)
            replayed = at is not None
            if at is None:
                version = sum(row[1] == wanted[1] for row in rows)
                expected = one.get("expected_version", "any")
                if expected not in ("any", "none" if version == 0 else "exists", version):
                    return None
                at = len(rows)
                rows.append(wanted)
            elif rows[at] != wanted:
                return None
            answers.append((at, sum(row[1] == wanted[1] for row in rows[: at + 1]), replayed))
        self.rows = rows
        return answers


EVENTS: Final = st.fixed_dictionaries(
    {
        "event_type": st.just("t.happened"),
        "entity_id": st.sampled_from(["a", "b", "c"]),
        "payload": st.fixed_dictionaries({"n": st.integers(0, 1)}),
    },
    optional={
        "id": st.sampled_from([f"id-{number}" for number in range(12)]),
        "expected_version": st.sampled_from(["any", "any", "none", "exists", 0, 1, 2, 3]),
    },
)


class LedgerMachine(RuleBasedStateMachine):
    """Does the same to a ledger and to its twin; derived classes say where the ledger is."""

    def open(self) -> tallystick.Ledger:
        return tallystick.open("memory:", clock=self.clock)

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.twin = Twin()
        self.checkpoints: list[bytes] = []
        self.ledger = self.open()
        self._add_own("tallystick.ledger.created", "tallystick.epoch.opened")

    def _add_own(self, *event_types: str) -> None:
        for event_type in event_types:
            record = self.ledger.get(len(self.twin.rows))
            assert record.event_type == event_type
            self.twin.rows.append((record.id, "tallystick.ledger", event_type))

    def _append(self, events: list[dict[str, Any]], *, one_by_one: bool = False) -> None:
        expected = self.twin.append_many(events)
        try:
            receipts = [self.ledger.append(events[0])] if one_by_one else [*self.ledger.append_many(events)]
        except ConflictError:
            assert expected is None
            return
        assert expected is not None
        assert [(one.position, one.entity_version, one.replayed) for one in receipts] == expected
        for sealed in receipts:  # the ids that were made are known now, and can be repeated
            self.twin.rows[sealed.position] = (sealed.id, *self.twin.rows[sealed.position][1:])

    @rule(one=EVENTS)
    def append(self, one: dict[str, Any]) -> None:
        self._append([one], one_by_one=True)

    @rule(events=st.lists(EVENTS, min_size=1, max_size=7))
    def append_many(self, events: list[dict[str, Any]]) -> None:
        self._append(events)

    @rule(data=st.data(), changes=st.booleans())
    def repeat(self, data: st.DataObject, changes: bool) -> None:
        """Send again what was sealed, perhaps with other content, perhaps beside something new."""
        own = [row for row in self.twin.rows if row[1] != "tallystick.ledger"]
        if not own:
            return
        event_id, entity_id, payload = data.draw(st.sampled_from(own))
        again = event(entity_id, id=event_id, payload={"n": 7} if changes else payload)
        self._append(data.draw(st.permutations([again, *data.draw(st.lists(EVENTS, max_size=2))])))

    @rule(microseconds=st.integers(-10, 10**6))
    def let_time_pass(self, microseconds: int) -> None:
        self.clock.now += microseconds

    @rule()
    def change_epoch(self) -> None:
        self.ledger.change_epoch()
        self._add_own("tallystick.epoch.closed", "tallystick.epoch.opened")

    @rule(purpose=st.sampled_from(["checkpoint", "evidence"]))
    def rotate_key(self, purpose: Any) -> None:
        self.ledger.rotate_key(purpose)
        self._add_own("tallystick.key.rotated")

    @invariant()
    def they_have_the_same_size(self) -> None:
        self.checkpoints.append(self.ledger.checkpoint())
        assert self.ledger.size == naive.checkpoint_of(self.checkpoints[-1])[0] == len(self.twin.rows)

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        with self.ledger as ledger:
            lines = lines_of(ledger)
            records = naive.read_chain(lines)
            naive.check_tree(lines, self.checkpoints)
            for record, (event_id, entity_id, payload) in zip(records, self.twin.rows, strict=True):
                assert (record["id"], record["entity_id"]) == (event_id, entity_id)
                assert payload in (record["payload"], record["event_type"])
                assert ledger.get(record["id"]).position == record["position"]


class SqliteMachine(LedgerMachine):
    """The same in a folder, which can be left and opened anew, and may have a second writer."""

    folders: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self._folder = next(self.folders)

    def open(self) -> tallystick.Ledger:
        return tallystick.open(self._folder, clock=self.clock, name="machine")

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open()

    @rule()
    def leave_as_a_crash_would_and_open_again(self) -> None:
        abandon(self.ledger)
        self.ledger = self.open()

    @rule(one=EVENTS)
    def another_writer_appends(self, one: dict[str, Any]) -> None:
        first = self.ledger
        with self.open() as self.ledger:
            self._append([one])
        self.ledger = first

    @rule()
    def lose_the_index(self) -> None:
        self.ledger.close()
        (self._folder / "index.db").unlink(missing_ok=True)
        self.ledger = self.open()


def test_the_ledger_does_what_a_plain_list_does() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(stateful_step_count=25))


@pytest.mark.slow
def test_a_ledger_on_disk_does_what_a_plain_list_does_whoever_writes_and_whatever_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.read.follower.FLUSH_RECORDS", 5)
    monkeypatch.setattr(SqliteMachine, "folders", (tmp_path / f"{number}" for number in count()), raising=False)

    few = settings(stateful_step_count=20, max_examples=settings().max_examples // 2)
    run_state_machine_as_test(SqliteMachine, settings=few)
