"""States against a twin that folds a list from the beginning for every question, with and without snapshots."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import timestamp
from tallystick.core.canonical import encode
from tallystick.core.moment import Moment
from tallystick.core.record import Record
from tallystick.core.upcast import Upcasters
from tallystick.errors import NotFoundError, RejectedError
from tallystick.limits import ENTITY_ID_CHARACTERS_MAX, SIZE_MAX
from tallystick.read import state as state_module
from tallystick.read.as_of import AsOf, When
from tallystick.read.fold import Folded, Folds, Snapshot
from tallystick.read.state import Change, Difference, State, States, Streams

NOON: Final = timestamp.parse("2026-03-15T12:00:00.000000Z")
SECOND: Final = timestamp.SECOND


# ------------------------------------------------------------------------------------ a ledger that is a list


def record_of(payload: dict[str, Any], *, position: int, entity_version: int, at: int, **members: Any) -> Record:
    sealed = {
        "actor": {"id": "jane"},
        "context": {},
        "entity_id": "a",
        "entity_version": entity_version,
        "epoch": 0,
        "event_type": "user.changed",
        "event_version": 1,
        "id": f"id-{position}",
        "labels": [],
        "ledger": "acme",
        "occurred_at": None,
        "payload": payload,
        "position": position,
        "prev_hash": "0" * 64,
        "recorded_at": timestamp.render(at),
        "signature": "0" * (64 if position else 128),
    }
    return Record.parse(encode({**sealed, **members}))


def log_of(*events: dict[str, Any], first: int = 1) -> list[Record]:
    """Records of these events, each with a payload, perhaps other members, and `after` seconds behind the last."""
    versions: dict[str, int] = {}
    records, at = [], NOON
    for position, event in enumerate(events, first):
        members = {"entity_id": "a", **event}
        at += members.pop("after", 1) * SECOND
        entity_id = members["entity_id"]
        versions[entity_id] = versions.get(entity_id, 0) + 1
        payload = members.pop("payload")
        records.append(record_of(payload, position=position, entity_version=versions[entity_id], at=at, **members))
    return records


class ListStreams:
    """The port over a list; counts the records that were read."""

    def __init__(self, records: list[Record], size: int | None = None) -> None:
        self.log: Final = records
        self.size: Final = (records[-1].position + 1 if records else 0) if size is None else size
        self.read = 0

    def records(self, entity_id: str, *, first: int, end: int) -> Iterator[Record]:
        for record in self.log:
            if record.entity_id == entity_id and first <= record.position < end:
                self.read += 1
                # As from a store: every reading decodes anew, so no answer can reach into another.
                yield Record.parse(record.line)

    def at(self, positions: Sequence[int]) -> Iterator[Record]:
        assert list(positions) == sorted(positions)
        return (Record.parse(record.line) for record in self.log if record.position in positions)

    def time(self, record: Record) -> int:
        return timestamp.parse(record.recorded_at)

    def end_at(self, moment_end: int) -> int:
        later = (record.position for record in self.log if timestamp.parse(record.recorded_at) >= moment_end)
        return next(later, self.size)


class KeptSnapshots:
    """The port over a dict of bytes."""

    def __init__(self) -> None:
        self.kept: Final[dict[tuple[str, int], bytes]] = {}

    def load(self, entity_id: str, version_max: int, end: int) -> Snapshot | None:
        versions = sorted(version for entity, version in self.kept if entity == entity_id and version <= version_max)
        for version in reversed(versions):
            snapshot = Snapshot.of_bytes(self.kept[entity_id, version])
            if snapshot is None or snapshot.position < end:
                return snapshot
        return None

    def save(self, snapshot: Snapshot) -> None:
        self.kept[snapshot.entity_id, snapshot.version] = snapshot.to_bytes()


def folds_declared() -> Folds:
    folds = Folds()
    folds.declare("note.*", {"fold": "append", "member": "notes", "from": "payload.text"})
    folds.declare("user.cleared", {"fold": "clear"})
    return folds


def upcasters_declared() -> Upcasters:
    upcasters = Upcasters()
    upcasters.declare("user.old", 1, [{"op": "rename", "member": "x", "to": "b"}])
    return upcasters


def states_of(
    records: list[Record],
    *,
    snapshots: KeptSnapshots | None = None,
    folds: Folds | None = None,
    upcasters: Upcasters | None = None,
    size: int | None = None,
) -> States:
    streams: Streams = ListStreams(records, size)
    return States(streams, snapshots, folds or folds_declared(), upcasters or upcasters_declared())


# ------------------------------------------------------------------------------------------------ the twin


def twin_takes(record: Record, asked: AsOf) -> bool:
    if asked.version is not None:
        return record.entity_version <= asked.version
    if asked.position is not None:
        return record.position <= asked.position
    if asked.time is None:
        return True
    text = record.recorded_at
    if asked.clock == "occurred" and record.occurred_at is not None:
        text = record.occurred_at
    return timestamp.parse_rfc3339(text) < asked.time.end


def twin_next(state: dict[str, Any], record: Record) -> dict[str, Any]:
    """The state after a record of the few kinds that the tests make, on deep copies."""
    state, payload = copy.deepcopy(state), copy.deepcopy(record.payload)
    if record.event_type.startswith("note."):
        if "text" in payload:
            notes = state.get("notes")
            state["notes"] = [*notes, payload["text"]] if isinstance(notes, list) else [payload["text"]]
        return state
    if record.event_type == "user.cleared":
        return {}
    if record.event_type == "user.old" and "x" in payload:
        payload["b"] = payload.pop("x")
    if isinstance(payload.get("field"), str) and "new_value" in payload:
        if payload["new_value"] is None:
            state.pop(payload["field"], None)
        else:
            state[payload["field"]] = payload["new_value"]
        return state
    merged: dict[str, Any] = twin_merge(state, payload)
    return merged


def twin_merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = twin_merge(target.get(name), value)
    return target


def same(old: Any, new: Any) -> bool:
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)


def twin_fold(records: list[Record]) -> tuple[dict[str, Any], dict[str, int], dict[str, int]]:
    """The state, who made what is there, and who last changed anything by that name, there or not."""
    state: dict[str, Any] = {}
    made_by: dict[str, int] = {}
    touched: dict[str, int] = {}
    for record in records:
        new = twin_next(state, record)
        for name in state.keys() | new.keys():
            if name not in state or name not in new or not same(state[name], new[name]):
                made_by[name] = touched[name] = record.position
        state, made_by = new, {name: made_by[name] for name in new}
    return state, made_by, touched


def taken(records: list[Record], entity_id: str, asked: AsOf) -> list[Record]:
    return [record for record in records if record.entity_id == entity_id and twin_takes(record, asked)]


def check_state(answer: State, records: list[Record], entity_id: str, asked: AsOf) -> None:
    """Fails unless the answer is what the twin says."""
    folded = taken(records, entity_id, asked)
    value, made_by, _ = twin_fold(folded)
    assert same(answer.value, value)
    assert answer.made_by == made_by
    assert [record.position for record in answer.events] == sorted(set(made_by.values()))
    assert (answer.version, answer.position) == (
        (folded[-1].entity_version, folded[-1].position) if folded else (0, None)
    )
    assert (answer.folded, answer.begins_at_version) == (len(folded), folded[0].entity_version if folded else 0)
    assert (answer.entity_id, answer.moment, answer.size) == (entity_id, asked, records[-1].position + 1)


JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.5, "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)
PAYLOADS: Final = st.one_of(
    st.dictionaries(st.sampled_from(["a", "b", "x"]), JSON, max_size=3),
    st.fixed_dictionaries({"field": st.sampled_from(["a", "b"]), "new_value": JSON}),
    st.fixed_dictionaries({"text": JSON}),
)
LOGS: Final = st.lists(
    st.fixed_dictionaries(
        {
            "payload": PAYLOADS,
            "entity_id": st.sampled_from(["a", "a", "b"]),
            "event_type": st.sampled_from(["user.changed", "user.changed", "user.old", "note.added", "user.cleared"]),
            "after": st.integers(0, 2),
            "occurred_at": st.none()
            | st.integers(-3, 20).map(lambda seconds: timestamp.render(NOON + seconds * SECOND)),
        }
    ),
    min_size=1,
    max_size=14,
).map(lambda events: log_of(*events))
TIMES: Final = st.integers(-3, 25).map(lambda seconds: Moment.parse(timestamp.render(NOON + seconds * SECOND)))
POINTS: Final[st.SearchStrategy[AsOf]] = st.one_of(
    st.just(AsOf()),
    st.integers(0, 16).map(lambda version: AsOf(version=version)),
    st.integers(0, 16).map(lambda position: AsOf(position=position)),
    TIMES.map(lambda time: AsOf(time=time)),
    TIMES.map(lambda time: AsOf(time=time, clock="occurred")),
)


@given(LOGS, POINTS)
def test_a_state_is_what_folding_everything_from_the_beginning_gives(records: list[Record], asked: AsOf) -> None:
    entity_id = records[0].entity_id

    check_state(states_of(records).state(entity_id, asked), records, entity_id, asked)


@given(LOGS, st.lists(POINTS, min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 14))
def test_with_snapshots_every_answer_is_the_same(
    records: list[Record], questions: list[AsOf], every: int, growth: int
) -> None:
    # Given a ledger that grows between the questions, and snapshots that are kept after very few events.
    entity_id, snapshots = records[0].entity_id, KeptSnapshots()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_module, "SNAPSHOT_EVENTS", every)
        for number, asked in enumerate(questions):
            log = records[: 1 + number * growth]
            states, plain = states_of(log, snapshots=snapshots), states_of(log)

            answer = states.state(entity_id, asked)

            check_state(answer, log, entity_id, asked)
            assert answer == plain.state(entity_id, asked)
            for earlier in questions:
                assert difference(states, entity_id, earlier, asked) == difference(plain, entity_id, earlier, asked)


def difference(states: States, entity_id: str, earlier: AsOf, later: AsOf) -> Difference | str:
    try:
        return states.diff(entity_id, earlier=earlier, later=later)
    except RejectedError as error:
        return str(error)


@given(LOGS, POINTS, POINTS)
def test_a_difference_is_between_the_two_states(records: list[Record], earlier: AsOf, later: AsOf) -> None:
    entity_id = records[0].entity_id
    before, after = taken(records, entity_id, earlier), taken(records, entity_id, later)
    states = states_of(records)

    if any(record not in after for record in before):
        with pytest.raises(RejectedError, match="the range runs backwards"):
            states.diff(entity_id, earlier=earlier, later=later)
        return
    found = states.diff(entity_id, earlier=earlier, later=later)

    old, _, _ = twin_fold(before)
    new, _, touched = twin_fold(after)
    names = {name for name in old.keys() | new.keys() if not same([*pick(old, name)], [*pick(new, name)])}
    assert [change.member for change in found.changes] == sorted(names)
    for change in found.changes:
        assert (change.kind == "added", change.kind == "removed") == (
            change.member not in old,
            change.member not in new,
        )
        assert same(change.old, old.get(change.member))
        assert same(change.new, new.get(change.member))
        assert change.record is not None
        assert change.record.position == touched[change.member]
    assert [record.line for record in found.records] == [record.line for record in after if record not in before]
    assert (found.from_version, found.to_version) == (last_version(before), last_version(after))
    assert [record.line for record in states.history(entity_id, earlier=earlier, later=later)] == [
        record.line for record in found.records
    ]


def pick(state: dict[str, Any], name: str) -> Iterator[Any]:
    if name in state:
        yield state[name]


def last_version(records: list[Record]) -> int:
    return records[-1].entity_version if records else 0


@given(LOGS, POINTS, st.sampled_from([None, "a", "notes"]))
def test_a_timeline_leads_step_by_step_to_the_state(records: list[Record], asked: AsOf, member: str | None) -> None:
    entity_id = records[0].entity_id
    state: dict[str, Any] = {}

    for turn in states_of(records).timeline(entity_id, member, as_of=asked):
        assert turn.changes
        for change in turn.changes:
            assert change.record is turn.record
            assert same([*pick(state, change.member)], [] if change.kind == "added" else [change.old])
            if change.kind == "removed":
                del state[change.member]
            else:
                state[change.member] = change.new

    value, _, _ = twin_fold(taken(records, entity_id, asked))
    assert same(state, value if member is None else {name: value[name] for name in value if name == member})


# ------------------------------------------------------------------------------------------ asking for a time


def set_to(value: int, **members: Any) -> dict[str, Any]:
    return {"payload": {"x": value}, **members}


def test_a_date_means_to_the_end_of_that_day_in_utc() -> None:
    # Given one event in the last microsecond of the 15th, and one at midnight.
    midnight = timestamp.parse("2026-03-16T00:00:00.000000Z")
    records = [
        record_of({"x": 1}, position=1, entity_version=1, at=midnight - 1),
        record_of({"x": 2}, position=2, entity_version=2, at=midnight),
    ]
    states = states_of(records)

    assert states.state("a", "2026-03-15").value == {"x": 1}
    assert states.state("a", "2026-03-15").moment.described == "to the end of 2026-03-15 (UTC), by recorded time"
    assert states.state("a", "2026-03-16").value == {"x": 2}
    assert states.state("a", "2026-03-14").value == {}


def test_an_instant_takes_in_what_was_recorded_at_it() -> None:
    states = states_of(log_of(set_to(1), set_to(2), set_to(3)))

    assert states.state("a", "2026-03-15T12:00:02Z").value == {"x": 2}
    assert states.state("a", "2026-03-15T12:00:01.999999Z").value == {"x": 1}
    assert states.state("a", "2026-03-15T13:00:02+01:00").value == {"x": 2}
    zone = timezone(timedelta(hours=1))
    assert states.state("a", datetime(2026, 3, 15, 13, 0, 2, tzinfo=zone)).value == {"x": 2}
    assert states.state("a", datetime(2026, 3, 15, 12, 0, 2, tzinfo=UTC)).moment.clock == "recorded"


def test_by_occurred_time_late_news_counts_where_it_belongs_and_order_is_by_position() -> None:
    # Given what was recorded second but had happened first, and one event that claims nothing.
    records = log_of(
        set_to(1, occurred_at="2026-03-15T10:00:00Z"),
        {"payload": {"x": 2, "late": True}, "occurred_at": "2026-03-15T09:00:00Z"},
        set_to(3),
    )
    states = states_of(records)

    assert states.state("a", "2026-03-15T09:30:00Z", clock="occurred").value == {"x": 2, "late": True}
    assert states.state("a", "2026-03-15T10:30:00Z", clock="occurred").value == {"x": 2, "late": True}
    assert states.state("a", "2026-03-15T10:30:00Z").value == {}
    assert states.state("a", "2026-03-15", clock="occurred").value == {"x": 3, "late": True}
    late = states.state("a", "2026-03-15T09:30:00Z", clock="occurred")
    assert (late.version, late.position, late.folded, late.begins_at_version) == (2, 2, 1, 2)
    assert late.moment.described == "up to 2026-03-15T09:30:00Z, by occurred time"


def test_by_occurred_time_a_day_ends_before_the_next_midnight() -> None:
    records = log_of(
        set_to(1, occurred_at="2026-03-14T23:59:59.999999Z"), set_to(2, occurred_at="2026-03-15T01:00:00+01:00")
    )

    assert states_of(records).state("a", "2026-03-14", clock="occurred").value == {"x": 1}
    assert states_of(records).state("a", "2026-03-15", clock="occurred").value == {"x": 2}


def test_a_version_and_a_position_take_in_their_own_record() -> None:
    states = states_of(log_of(set_to(1), set_to(7, entity_id="b"), set_to(2), set_to(3)))

    assert states.state("a", version=2).value == states.state("a", position=3).value == {"x": 2}
    assert states.state("a", position=2).value == states.state("a", version=1).value == {"x": 1}
    assert states.state("a", version=2).moment.described == "up to version 2"
    assert states.state("a", position=3).moment.described == "up to position 3"


def test_beyond_the_end_there_is_what_there_is() -> None:
    states = states_of(log_of(set_to(1), set_to(2)))

    for answer in (
        states.state("a"),
        states.state("a", version=SIZE_MAX),
        states.state("a", position=SIZE_MAX),
        states.state("a", "9999-12-31"),
        states.state("a", "9999-12-31", clock="occurred"),
    ):
        assert (answer.value, answer.version, answer.position, answer.size) == ({"x": 2}, 2, 2, 3)
    assert states.state("a").moment.described == "now"


def test_nothing_was_known_then_is_an_answer() -> None:
    states = states_of(log_of(set_to(1)))

    for answer in (
        states.state("a", "2026-03-15T11:00:00Z"),
        states.state("a", version=0),
        states.state("a", position=0),
        states.state("a", "2026-03-15T11:00:00Z", clock="occurred"),
    ):
        assert (answer.value, answer.made_by, answer.events) == ({}, {}, ())
        assert (answer.version, answer.position, answer.folded, answer.begins_at_version) == (0, None, 0, 0)
        assert answer.size == 2


QUESTIONS: Final[tuple[Callable[[States, str], Any], ...]] = (
    lambda states, entity_id: states.state(entity_id),
    lambda states, entity_id: states.state(entity_id, version=0),
    lambda states, entity_id: states.diff(entity_id, earlier=AsOf(version=0)),
    lambda states, entity_id: states.timeline(entity_id),
    lambda states, entity_id: states.history(entity_id),
)


@pytest.mark.parametrize("ask", QUESTIONS)
def test_an_entity_without_any_events_is_not_found(ask: Callable[[States, str], Any]) -> None:
    states = states_of(log_of(set_to(1)))

    for entity_id in ("nobody", "a\ud800"):
        with pytest.raises(NotFoundError, match="no events of the entity"):
            ask(states, entity_id)
    with pytest.raises(NotFoundError):
        ask(states_of([]), "a")
    with pytest.raises(NotFoundError):
        ask(states_of(log_of(set_to(1)), size=1), "a")


@pytest.mark.parametrize("entity_id", ["", "a" * (ENTITY_ID_CHARACTERS_MAX + 1), "a\n", None, 7, b"a", ["a"]])
@pytest.mark.parametrize("ask", QUESTIONS)
def test_what_is_no_entity_id_is_refused(ask: Callable[[States, str], Any], entity_id: Any) -> None:
    with pytest.raises(RejectedError, match="entity_id"):
        ask(states_of(log_of(set_to(1))), entity_id)


@pytest.mark.parametrize(
    ("point", "place"),
    [
        ({"version": -1}, "version"),
        ({"version": True}, "version"),
        ({"version": "7"}, "version"),
        ({"version": 1.0}, "version"),
        ({"version": SIZE_MAX + 1}, "version"),
        ({"position": -1}, "position"),
        ({"position": False}, "position"),
        ({"position": "x" * 1_000}, "position"),
        ({"version": 1, "position": 1}, ""),
        ({"as_of": "2026-03-15", "version": 1}, ""),
        ({"as_of": AsOf(), "version": 1}, "as_of"),
        ({"as_of": "v3", "version": 1}, "as_of"),
        ({"as_of": "@3", "position": 1}, "as_of"),
        ({"as_of": "v99999999999999999999"}, "as_of"),
        ({"as_of": AsOf(), "clock": "occurred"}, "as_of"),
        ({"clock": "occurred"}, "clock"),
        ({"version": 1, "clock": "occurred"}, "clock"),
        ({"as_of": "2026-03-15", "clock": "server"}, "clock"),
        ({"as_of": "2026-03-15", "clock": None}, "clock"),
        ({"as_of": "2026-03-15T10:00:00"}, "as_of"),
        ({"as_of": "yesterday"}, "as_of"),
        ({"as_of": ""}, "as_of"),
        ({"as_of": "2026-02-30"}, "as_of"),
        ({"as_of": 7}, "as_of"),
        ({"as_of": datetime(2026, 3, 15)}, "as_of"),
    ],
)
def test_a_bad_point_in_time_is_refused_at_its_place(point: dict[str, Any], place: str) -> None:
    with pytest.raises(RejectedError) as caught:
        states_of(log_of(set_to(1))).state("a", **point)

    assert caught.value.place == place
    assert len(str(caught.value)) < 300


def test_a_point_in_time_is_taken_in_every_form() -> None:
    time = Moment.parse("2026-03-15")
    questions: tuple[When, ...] = ("2026-03-15", time, AsOf(time=time))

    assert {AsOf.of(question) for question in questions} == {AsOf(time=time)}
    assert AsOf.of() == AsOf.of(None, version=None, position=None, clock="recorded") == AsOf()


# ------------------------------------------------------------------------------------------- what is answered


def test_a_state_says_which_records_made_it() -> None:
    # Given a role that is changed twice, a name given once and a member that is gone again.
    records = log_of(
        {"payload": {"role": "viewer", "name": "Jane", "tmp": 1}},
        {"payload": {"field": "role", "new_value": "editor"}},
        {"payload": {"tmp": None}},
        {"payload": {"name": "Jane"}},
    )
    answer = states_of(records).state("a")

    assert answer.made_by == {"name": 1, "role": 2}
    assert [record.line for record in answer.events] == [records[0].line, records[1].line]


def test_the_events_and_the_history_are_read_upcast() -> None:
    records = log_of({"payload": {"x": 1}, "event_type": "user.old"}, set_to(2))
    states = states_of(records)

    assert states.state("a").value == {"b": 1, "x": 2}
    first, second = states.history("a")
    assert (first.payload, first.event_version, first.line) == ({"b": 1}, 2, records[0].line)
    assert second.members == records[1].members
    assert states.state("a").events == (first, second)
    assert [turn.record for turn in states.timeline("a")] == [first, second]
    assert states.diff("a", earlier=AsOf(version=0)).records == (first, second)


def test_an_answer_is_the_callers_and_reaches_no_record() -> None:
    states = states_of(log_of({"payload": {"list": [{"a": 1}], "b": 1}}))
    answer = states.state("a")

    answer.value["list"][0]["a"] = 2
    answer.made_by["b"] = 99

    assert answer.events[0].payload == {"list": [{"a": 1}], "b": 1}
    [change] = [change for change in states.diff("a", earlier="2026-03-14").changes if change.member == "list"]
    change.new.append(2)
    assert change.record is not None
    assert change.record.payload["list"] == [{"a": 1}]


def test_members_stand_in_name_order() -> None:
    answer = states_of(log_of({"payload": {"b": {"z": 1}}}, {"payload": {"a": 1, "b": {"c": 2}}})).state("a")

    assert [*answer.value] == [*answer.made_by] == ["a", "b"]
    assert [*answer.value["b"]] == ["c", "z"]


def test_a_stream_whose_beginning_was_pruned_begins_later() -> None:
    records = log_of({"payload": {"a": 1}}, {"payload": {"b": 2}}, {"payload": {"c": 3}})[1:]
    answer = states_of(records).state("a")

    assert (answer.value, answer.version, answer.folded) == ({"b": 2, "c": 3}, 3, 2)
    assert answer.begins_at_version == 2
    assert states_of(records).state("a", version=1).value == {}


def test_what_was_sealed_after_the_size_is_not_seen() -> None:
    records = log_of(set_to(1), set_to(2), set_to(3))
    states = states_of(records, size=3)

    assert (states.state("a").value, states.state("a").size) == ({"x": 2}, 3)
    assert states.state("a", position=3).value == {"x": 2}
    assert states.state("a", "2026-03-16").value == {"x": 2}
    assert states.state("a", "2026-03-16", clock="occurred").value == {"x": 2}
    assert len([*states.history("a")]) == len([*states.timeline("a")]) == 2


def test_a_difference_names_what_came_what_went_and_what_is_another() -> None:
    records = log_of(
        {"payload": {"role": "viewer", "old": 1, "same": 1}},
        {"payload": {"role": "editor", "same": 2}},
        {"payload": {"role": "admin", "old": None, "same": 1}},
        {"payload": {"new": {"a": 1}}},
    )
    found = states_of(records).diff("a", earlier=AsOf(version=1))

    assert found.changes == (
        Change(member="new", kind="added", old=None, new={"a": 1}, record=records[3]),
        Change(member="old", kind="removed", old=1, new=None, record=records[2]),
        Change(member="role", kind="changed", old="viewer", new="admin", record=records[2]),
    )
    assert found.records == tuple(records[1:])
    assert (found.from_version, found.to_version, found.size) == (1, 4, 5)
    assert (found.earlier, found.later, found.entity_id) == (AsOf(version=1), AsOf(), "a")


def test_a_late_record_amid_the_earlier_ones_is_folded_in_its_place() -> None:
    # Given that the second record, by its claim, happened last.
    records = log_of(
        set_to(1, occurred_at="2026-03-15T09:00:00Z"),
        {"payload": {"x": 2, "y": 2}, "occurred_at": "2026-03-15T11:00:00Z"},
        set_to(3, occurred_at="2026-03-15T10:00:00Z"),
    )
    found = states_of(records).diff(
        "a",
        earlier=AsOf.of("2026-03-15T10:00:00Z", clock="occurred"),
        later=AsOf.of("2026-03-15T11:00:00Z", clock="occurred"),
    )

    assert found.changes == (Change(member="y", kind="added", old=None, new=2, record=records[1]),)
    assert found.records == (records[1],)


def test_a_difference_between_states_that_no_record_answers_for_says_so() -> None:
    # Given a fold that takes a record in another way once a flag is there.
    records = log_of(
        {"payload": {"flag": True}, "occurred_at": "2026-03-15T11:00:00Z"},
        {"payload": {}, "event_type": "odd.one", "occurred_at": "2026-03-15T10:00:00Z"},
    )
    folds = Folds()
    folds.register("odd.one", lambda state, _: state if "flag" in state else {"odd": 1})

    found = states_of(records, folds=folds).diff("a", earlier=AsOf.of("2026-03-15T10:00:00Z", clock="occurred"))

    assert found.changes == (
        Change(member="flag", kind="added", old=None, new=True, record=records[0]),
        Change(member="odd", kind="removed", old=1, new=None, record=None),
    )


def test_a_value_that_stayed_only_in_the_later_state_is_of_the_record_that_made_it() -> None:
    records = log_of(
        {"payload": {"odd": 0}, "occurred_at": "2026-03-15T09:00:00Z"},
        {"payload": {"flag": True}, "occurred_at": "2026-03-15T11:00:00Z"},
        {"payload": {}, "event_type": "odd.one", "occurred_at": "2026-03-15T10:00:00Z"},
    )
    folds = Folds()
    folds.register("odd.one", lambda state, _: state if "flag" in state else {"odd": 1})

    found = states_of(records, folds=folds).diff("a", earlier=AsOf.of("2026-03-15T10:00:00Z", clock="occurred"))

    assert found.changes[1] == Change(member="odd", kind="changed", old=1, new=0, record=records[0])


@pytest.mark.parametrize("later", [AsOf(position=3), AsOf.of("2026-03-15T12:00:03Z", clock="occurred")])
def test_a_record_outside_both_moments_is_not_looked_into(later: AsOf) -> None:
    # Given an upcaster that fails on what came after them.
    upcasters = Upcasters()
    upcasters.register("user.broken", 1, lambda payload: payload["none"])
    records = log_of(set_to(1), set_to(2), set_to(3), {"payload": {}, "event_type": "user.broken"}, set_to(5))
    states = states_of(records, upcasters=upcasters)

    assert states.diff("a", earlier=AsOf(version=2), later=later).records == (records[2],)
    assert len([*states.history("a", earlier=AsOf(version=2), later=later)]) == 1


@pytest.mark.parametrize("bound", ["RECORDS", "BYTES"])
def test_a_difference_that_is_too_long_is_refused(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = log_of(set_to(1), set_to(2), set_to(3))
    most = 2 if bound == "RECORDS" else sum(len(record.line) for record in records[-2:])
    monkeypatch.setattr(state_module, f"BETWEEN_{bound}_MAX", most)
    states = states_of(records)

    assert len(states.diff("a", earlier=AsOf(version=1)).records) == 2
    with pytest.raises(RejectedError, match="lie between"):
        states.diff("a", earlier=AsOf(version=0))


def test_a_timeline_leaves_out_what_changed_nothing() -> None:
    records = log_of(
        {"payload": {"b": 1, "a": 1}}, {"payload": {"a": 1}}, {"payload": {"b": 2}}, {"payload": {"a": None, "b": 2}}
    )
    turns = [*states_of(records).timeline("a")]

    assert [(turn.record.position, [change.member for change in turn.changes]) for turn in turns] == [
        (1, ["a", "b"]),
        (3, ["b"]),
        (4, ["a"]),
    ]
    assert [turn.record.position for turn in states_of(records).timeline("a", "a")] == [1, 4]
    assert [turn.record.position for turn in states_of(records).timeline("a", as_of=AsOf(version=2))] == [1]
    assert [*states_of(records).timeline("a", "none such")] == []


def test_a_fold_that_fails_is_an_error_at_the_record_and_the_state_before_it_can_be_asked() -> None:
    folds = Folds()
    folds.register("user.broken", lambda state, _: state["none"])
    states = states_of(log_of(set_to(1), {"payload": {}, "event_type": "user.broken"}), folds=folds)

    with pytest.raises(RejectedError, match=r"position 2: the fold of user\.broken failed"):
        states.state("a")
    assert states.state("a", version=1).value == {"x": 1}


# ------------------------------------------------------------------------------------------------ snapshots


@pytest.fixture
def _few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "SNAPSHOT_EVENTS", 3)


def counting(events: int) -> list[Record]:
    return log_of(*(set_to(number) for number in range(1, events + 1)))


@pytest.mark.usefixtures("_few_events")
def test_a_snapshot_is_kept_after_so_many_events_folded_in_one_go() -> None:
    snapshots = KeptSnapshots()
    states_of(counting(8), snapshots=snapshots).state("a")
    assert [*snapshots.kept] == [("a", 3), ("a", 6)]

    # When two more events come, folding begins at the sixth, and four are not three.
    states_of(counting(10), snapshots=snapshots).state("a")
    assert [*snapshots.kept] == [("a", 3), ("a", 6), ("a", 9)]
    states_of(counting(11), snapshots=snapshots).state("a")
    assert [*snapshots.kept] == [("a", 3), ("a", 6), ("a", 9)]


@pytest.mark.usefixtures("_few_events")
def test_a_snapshot_saves_the_reading_of_what_came_before_it() -> None:
    snapshots, records = KeptSnapshots(), counting(8)
    states_of(records, snapshots=snapshots).state("a")
    streams = ListStreams(records)

    answer = States(streams, snapshots, folds_declared(), upcasters_declared()).state("a")

    assert (answer.value, answer.folded, answer.version) == ({"x": 8}, 8, 8)
    assert streams.read == 1 + 2  # the first, for where the stream begins, and those past the snapshot


def test_a_stream_is_read_no_further_than_the_version_asked_for() -> None:
    streams = ListStreams(counting(8))

    States(streams, None, folds_declared(), upcasters_declared()).state("a", version=2)

    assert streams.read == 1 + 3  # the first, the two asked for, and the one that tells that they are all


@pytest.mark.usefixtures("_few_events")
def test_the_events_of_a_state_reach_behind_its_snapshot_and_are_upcast() -> None:
    snapshots = KeptSnapshots()
    records = log_of({"payload": {"x": 1}, "event_type": "user.old"}, *(set_to(number) for number in range(5)))

    for _ in range(2):
        answer = states_of(records, snapshots=snapshots).state("a")

        assert (answer.value, answer.made_by) == ({"b": 1, "x": 4}, {"b": 1, "x": 6})
        assert [record.payload for record in answer.events] == [{"b": 1}, {"x": 4}]
    assert snapshots.kept


def other_folds() -> Folds:
    folds = folds_declared()
    folds.declare("user.changed", {"fold": "count", "member": "n"})
    return folds


def other_upcasters() -> Upcasters:
    upcasters = upcasters_declared()
    upcasters.declare("user.changed", 1, [{"op": "rename", "member": "x", "to": "y"}])
    return upcasters


@pytest.mark.usefixtures("_few_events")
def test_a_snapshot_made_under_other_declarations_is_left_aside_and_replaced() -> None:
    snapshots, records = KeptSnapshots(), counting(4)
    states_of(records, snapshots=snapshots).state("a")
    first = dict(snapshots.kept)

    assert states_of(records, snapshots=snapshots, folds=other_folds()).state("a").value == {"n": 4}
    assert states_of(records, snapshots=snapshots, upcasters=other_upcasters()).state("a").value == {"y": 4}

    assert snapshots.kept.keys() == first.keys()
    assert snapshots.kept != first


@pytest.mark.usefixtures("_few_events")
def test_with_python_folds_or_upcasters_no_snapshot_is_kept_or_believed() -> None:
    snapshots, records = KeptSnapshots(), counting(4)
    folds, upcasters = Folds(), Upcasters()
    folds.register("none.such", lambda state, _: state)
    upcasters.register("none.such", 1, lambda payload: payload)

    assert states_of(records, snapshots=snapshots, folds=folds).state("a").value == {"x": 4}
    assert states_of(records, snapshots=snapshots, upcasters=upcasters).state("a").value == {"x": 4}

    assert snapshots.kept == {}


@pytest.mark.usefixtures("_few_events")
def test_by_occurred_time_no_snapshot_is_kept_or_believed() -> None:
    snapshots, records = KeptSnapshots(), counting(4)

    assert states_of(records, snapshots=snapshots).state("a", "2026-03-16", clock="occurred").value == {"x": 4}
    assert snapshots.kept == {}

    states_of(records, snapshots=snapshots).state("a")
    streams = ListStreams(records)
    States(streams, snapshots, folds_declared(), upcasters_declared()).state("a", "2026-03-16", clock="occurred")
    assert streams.read == 1 + 4


@pytest.mark.usefixtures("_few_events")
def test_a_damaged_snapshot_is_folded_anew() -> None:
    snapshots, records = KeptSnapshots(), counting(4)
    states_of(records, snapshots=snapshots).state("a")
    good = dict(snapshots.kept)
    snapshots.kept["a", 3] = good["a", 3].replace(b'"x":3', b'"x":4')
    assert snapshots.kept != good

    assert states_of(records, snapshots=snapshots).state("a", version=3).value == {"x": 3}
    assert snapshots.kept == good


@pytest.mark.usefixtures("_few_events")
def test_what_was_pruned_since_does_not_live_on_in_a_snapshot() -> None:
    snapshots = KeptSnapshots()
    records = log_of({"payload": {"gone": 1}}, *(set_to(number) for number in range(4)))
    assert states_of(records, snapshots=snapshots).state("a").value == {"gone": 1, "x": 3}

    assert states_of(records[1:], snapshots=snapshots).state("a").value == {"x": 3}


class Liar:
    """Gives the same snapshot for every question."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot: Final = snapshot

    def load(self, entity_id: str, version_max: int, end: int) -> Snapshot | None:
        del entity_id, version_max, end
        return self.snapshot

    def save(self, snapshot: Snapshot) -> None:
        del snapshot


@pytest.mark.parametrize(
    "wrong", [{}, {"entity_id": "b"}, {"version": 5}, {"position": 6}, {"fingerprint": "x"}, {"begins_at_version": 2}]
)
def test_a_snapshot_that_does_not_fit_the_question_is_left_aside(wrong: dict[str, Any]) -> None:
    fingerprint = f"{folds_declared().fingerprint}/{upcasters_declared().fingerprint}"
    members = {"entity_id": "a", "version": 3, "position": 3, "fingerprint": fingerprint, "begins_at_version": 1}
    snapshot = Snapshot(folded=Folded({"kept": 1}, {"kept": 3}), events=3, **{**members, **wrong})
    states = States(ListStreams(counting(8)), Liar(snapshot), folds_declared(), upcasters_declared())

    by_position, by_version = states.state("a", position=5), states.state("a", version=4)

    assert ("kept" in by_position.value) == (wrong in ({}, {"version": 5}))
    assert ("kept" in by_version.value) == (wrong in ({}, {"position": 6}))
