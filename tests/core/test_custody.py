"""Policies, holds and prunes as events: what is written is read back, and nothing else is read as one of them."""

from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Callable
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import timestamp
from tallystick.core.custody import (
    CUSTODY_TYPES,
    HOLD_PLACED,
    HOLD_RELEASED,
    RECORDS_PRUNED,
    RETENTION_SET,
    HoldPlaced,
    HoldReleased,
    InForce,
    OwnEvent,
    RetentionPolicy,
    RetentionSet,
    parse_period,
    render_period,
)
from tallystick.core.merkle import Tree, root_from_frontier
from tallystick.core.pruned import Absent, RecordsPruned, frontier_at
from tallystick.core.record import Record
from tallystick.core.system import SYSTEM_ENTITY, system_members
from tallystick.errors import RejectedError
from tallystick.limits import HOLDS_MAX, PERIOD_DAYS_MAX, POLICY_LABELS_MAX
from tests import naive

NOON: Final = timestamp.parse("2026-03-15T12:00:00.000000Z")
PRUNED: Final = RecordsPruned(
    first=2,
    end=11,
    count=7,
    first_hash=b"\1" * 32,
    last_hash=b"\2" * 32,
    frontier_at_end=(b"\3" * 32, b"\4" * 32, b"\5" * 32),
    checkpoint_at_prune="a/b\n11\nroot\n\n— a/b sig\n".encode(),
    policy_position=9,
    holds_checked=(5, 8),
    absent=Absent(8, b"\6" * 32),
    moment=NOON,
)


def record_of(event_type: str, payload: Any, **changes: Any) -> Record:
    members = system_members(event_type, payload, event_id="id-7")
    sealed: dict[str, Any] = {
        "entity_version": 7,
        "epoch": 0,
        "ledger": "acme",
        "occurred_at": timestamp.render(NOON),
        "position": 17,
        "prev_hash": "ab" * 32,
        "recorded_at": timestamp.render(NOON),
        "signature": "cd" * 32,
    }
    return Record.parse(bytes(rfc8785.dumps({**members, **sealed, **changes})))


CASES: Final[dict[str, tuple[str, Callable[[Record], Any], Any]]] = {
    "a policy": (RETENTION_SET, RetentionSet.of, RetentionSet(RetentionPolicy(90, {"phi": 2196, "tax": None}))),
    "a policy with a reason": (RETENTION_SET, RetentionSet.of, RetentionSet(RetentionPolicy(None), "law")),
    "a hold on an entity": (HOLD_PLACED, HoldPlaced.of, HoldPlaced(name="case 1", reason="suit", entity="user-1")),
    "a hold on a label": (HOLD_PLACED, HoldPlaced.of, HoldPlaced(name="case 2", reason="suit", label="phi")),
    "a hold on a range": (HOLD_PLACED, HoldPlaced.of, HoldPlaced(name="c", reason="suit", first=0, end=7)),
    "a release": (HOLD_RELEASED, HoldReleased.of, HoldReleased("case 1", "settled")),
    "a prune": (RECORDS_PRUNED, RecordsPruned.of, PRUNED),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_back(name: str) -> None:
    event_type, read, value = CASES[name]

    assert read(record_of(event_type, value.payload())) == value
    assert event_type in CUSTODY_TYPES


ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 7, 2.5, 2**53 - 1, "", "x", "00", "é", [], {}, [1], {"a": 1}, [0, 7], [7, 0]),
    *("AAAA", "ab" * 32, "AB" * 32, "a" * 63, [True, 7], [5, 5], [8, 5], ["x"], {"phi": 0}, {"phi": True}, "a\n"),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every member and element of a payload, at every depth."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path for key in keys for path in ((*at, key), *places(value[key], (*at, key)))]


def changed(payload: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    out: Any = copy.deepcopy(payload)
    target = out
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return dict(out)


@pytest.mark.parametrize("name", CASES)
def test_any_other_value_in_any_one_place_is_refused_or_says_something_else(name: str) -> None:
    event_type, read, original = CASES[name]
    payload = original.payload()

    for path in places(payload):
        before: Any = payload
        for key in path:
            before = before[key]
        more = [before.upper(), before + " ", before[:-1], f"0{before}"] if type(before) is str else []
        for value in (*ODD, *more):
            if type(value) is type(before) and value == before:
                continue
            try:
                record = record_of(event_type, changed(payload, path, value))
                other = read(record)
            except RejectedError:
                continue
            assert other != original, (path, value)
            assert other.payload() == record.payload, (path, value)


@pytest.mark.parametrize("name", CASES)
def test_a_member_more_or_less_is_refused(name: str) -> None:
    event_type, read, original = CASES[name]
    payload = original.payload()

    for member in payload:
        less = {other: value for other, value in payload.items() if other != member}
        if member == "reason" and event_type == RETENTION_SET:
            continue  # a policy may be without
        with pytest.raises(RejectedError):
            read(record_of(event_type, less))
    with pytest.raises(RejectedError):
        read(record_of(event_type, {**payload, "zzz": 1}))


@pytest.mark.parametrize("name", CASES)
def test_a_record_of_another_type_or_stream_is_refused(name: str) -> None:
    event_type, read, original = CASES[name]

    for other in (*CUSTODY_TYPES, "user.created"):
        if other != event_type:
            with pytest.raises(RejectedError):
                read(record_of(other, original.payload()))
    with pytest.raises(RejectedError):
        read(record_of(event_type, original.payload(), entity_id="mallory"))


@given(st.data())
def test_any_payload_is_read_to_the_byte_or_refused(data: st.DataObject) -> None:
    event_type, read, original = CASES[data.draw(st.sampled_from(sorted(CASES)))]
    json = st.recursive(
        st.none() | st.booleans() | st.integers(-3, 20) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )
    payload = {**original.payload(), **data.draw(st.dictionaries(st.sampled_from(sorted(original.payload())), json))}

    try:
        record = record_of(event_type, payload)
        value = read(record)
    except RejectedError:
        return
    assert value.payload() == record.payload


# ------------------------------------------------------------------------------------------------- periods


@pytest.mark.parametrize(
    ("text", "days"), [("1d", 1), ("90d", 90), ("26w", 182), ("1y", 366), ("6y", 2_196), ("100y", 36_600)]
)
def test_a_period_is_read_in_days(text: str, days: int) -> None:
    assert parse_period(text) == days
    assert parse_period(render_period(days)) == days


def test_forever_is_no_number_of_days() -> None:
    assert parse_period("forever") is None
    assert render_period(None) == "forever"


@pytest.mark.parametrize(
    "text",
    ["", "90", "d", "0d", "-1d", "+1d", "1.5y", "90D", " 90d", "90d ", "90 d", "09d", "٣d", "1m", "101y", "9" * 5_000],
)
def test_what_is_no_period_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RejectedError, match="such as 90d") as caught:
        parse_period(text, place="period")

    assert caught.value.place == "period"
    assert len(str(caught.value)) < 300


@given(st.integers(1, PERIOD_DAYS_MAX))
def test_every_period_is_read_as_it_was_written(days: int) -> None:
    assert parse_period(render_period(days)) == days


# ------------------------------------------------------------------------------------------------ policies


DAYS: Final = st.none() | st.integers(1, 1_000)
LABELS: Final = st.dictionaries(st.sampled_from(["phi", "pci", "tax", "é"]), DAYS)


@given(DAYS, LABELS, st.lists(st.sampled_from(["phi", "pci", "tax", "other"]), unique=True))
def test_the_longest_period_wins_and_for_ever_is_the_longest(
    general: int | None, labels: dict[str, int | None], carried: list[str]
) -> None:
    policy = RetentionPolicy(general, labels)

    periods = [general, *(labels[name] for name in carried if name in labels)]

    assert policy.days_for(carried) == (None if None in periods else max(days for days in periods if days))


def test_a_policy_is_made_from_periods_as_people_write_them() -> None:
    policy = RetentionPolicy.of("90d", {"tax": "forever", "phi": "6y"})

    assert policy == RetentionPolicy(90, {"phi": 2_196, "tax": None})
    assert policy.text == "90d, phi 6y, tax forever"


@pytest.mark.parametrize(
    ("period", "labels", "place"),
    [("soon", {}, "period"), ("90d", {"phi": "soon"}, "label 'phi'"), ("90d", {"": "1d"}, "labels")],
)
def test_a_policy_that_is_none_is_refused_at_its_place(period: str, labels: dict[str, str], place: str) -> None:
    with pytest.raises(RejectedError) as caught:
        RetentionPolicy.of(period, labels)

    assert caught.value.place == place


def test_what_becomes_of_the_labels_that_were_given_changes_no_policy() -> None:
    given: dict[str, int | None] = {"tax": None, "phi": 7}
    policy = RetentionPolicy(90, given)

    given["phi"] = 1

    assert policy.text == "90d, phi 7d, tax forever"


def test_a_policy_has_a_bounded_number_of_labels() -> None:
    labels = {f"label-{number}": "1y" for number in range(POLICY_LABELS_MAX + 1)}

    with pytest.raises(RejectedError, match="256"):
        RetentionPolicy.of("1d", labels)


# --------------------------------------------------------------------------------------------------- holds


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"entity": "a", "label": "b"},
        {"entity": "a", "first": 1, "end": 2},
        {"first": 1},
        {"end": 1},
        {"first": 2, "end": 2},
        {"first": -1, "end": 2},
        {"first": True, "end": 2},
        {"entity": ""},
        {"label": "a" * 101},
        {"entity": "a\x00"},
    ],
)
def test_a_hold_has_exactly_one_scope_that_is_one(scope: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        HoldPlaced(name="case", reason="suit", **scope)


@pytest.mark.parametrize(("name", "reason"), [("", "suit"), ("a" * 101, "suit"), ("a\n", "suit"), ("case", "")])
def test_a_hold_has_a_name_and_a_reason(name: str, reason: str) -> None:
    with pytest.raises(RejectedError):
        HoldPlaced(name=name, reason=reason, entity="e")
    with pytest.raises(RejectedError):
        HoldReleased(name, reason)


def test_a_hold_covers_what_its_scope_says_and_nothing_else() -> None:
    record = record_of("user.created", {}, entity_id="user-1", labels=["phi"], position=17)

    covers = {
        placed.scope: placed.covers(record.members)
        for placed in (
            HoldPlaced(name="a", reason="r", entity="user-1"),
            HoldPlaced(name="a", reason="r", entity="user-12"),
            HoldPlaced(name="a", reason="r", label="phi"),
            HoldPlaced(name="a", reason="r", label="pci"),
            HoldPlaced(name="a", reason="r", first=17, end=18),
            HoldPlaced(name="a", reason="r", first=18, end=20),
            HoldPlaced(name="a", reason="r", first=0, end=17),
        )
    }

    assert covers == {
        "entity user-1": True,
        "entity user-12": False,
        "label phi": True,
        "label pci": False,
        "positions [17, 18)": True,
        "positions [18, 20)": False,
        "positions [0, 17)": False,
    }


def test_holds_and_policies_count_from_their_record_until_the_next_word() -> None:
    in_force = InForce()
    place = HoldPlaced(name="case", reason="suit", label="phi").payload()

    in_force.take(record_of(RETENTION_SET, RetentionSet(RetentionPolicy(90)).payload(), position=5))
    in_force.take(record_of(HOLD_PLACED, place, position=6, actor={"id": "jane"}))
    in_force.take(record_of("tallystick.epoch.closed", {}, position=7))

    assert (in_force.policy, in_force.policy_position) == (RetentionPolicy(90), 5)
    assert [(hold.name, hold.position, hold.actor) for hold in in_force.holds.values()] == [("case", 6, {"id": "jane"})]
    with pytest.raises(RejectedError, match="in force already"):
        in_force.take(record_of(HOLD_PLACED, place))
    in_force.take(record_of(HOLD_RELEASED, HoldReleased("case", "over").payload()))
    assert in_force.holds == {}
    with pytest.raises(RejectedError, match="no hold"):
        in_force.take(record_of(HOLD_RELEASED, HoldReleased("case", "over").payload()))


def test_the_holds_in_force_are_bounded() -> None:
    in_force = InForce()
    for number in range(HOLDS_MAX):
        placed = HoldPlaced(name=f"{number}", reason="r", entity="e")
        in_force.take(record_of(HOLD_PLACED, placed.payload(), position=number + 1))

    with pytest.raises(RejectedError, match="1000 holds"):
        in_force.take(record_of(HOLD_PLACED, HoldPlaced(name="more", reason="r", entity="e").payload()))


def test_an_own_event_is_of_the_ledgers_stream_by_whoever_ordered_it() -> None:
    event = OwnEvent(HOLD_RELEASED, {"name": "a", "reason": "b"}, {"id": "jane"}, "2026-03-15T12:00:00Z")

    members = event.members("id-1")

    assert (members["entity_id"], members["actor"]) == (SYSTEM_ENTITY, {"id": "jane"})
    assert members["occurred_at"] == "2026-03-15T12:00:00Z"
    assert OwnEvent(HOLD_RELEASED, {}).members("id-1")["actor"] == {"id": "tallystick", "type": "system"}
    with pytest.raises(RejectedError):
        OwnEvent(HOLD_RELEASED, {}, {"name": "nobody"}).members("id-1")


# -------------------------------------------------------------------------------------------------- prunes


@given(st.sets(st.integers(0, 60)))
def test_the_digest_is_over_the_maximal_ranges_of_what_is_absent(absent: set[int]) -> None:
    edges = (
        sorted({at for at in absent if at - 1 not in absent}),
        sorted(at + 1 for at in absent if at + 1 not in absent),
    )
    ranges = [*zip(*edges, strict=True)]

    made = Absent.over(ranges)

    assert made.count == len(absent)
    assert made.digest == hashlib.sha256(b"".join(struct.pack(">QQ", *pair) for pair in ranges)).digest()


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_frontier_of_any_earlier_size_folds_to_its_root(size: int, end: int) -> None:
    leaves = [naive.sha256(b"%d" % number) for number in range(size)]
    end = min(end, size)

    frontier = frontier_at(end, node=lambda level, index: naive.root(leaves[index << level : (index + 1) << level]))

    assert frontier == Tree.empty().extend(leaves[:end])[0].frontier
    assert root_from_frontier(frontier) == naive.root(leaves[:end])


def test_a_prune_that_does_not_say_as_of_when_is_refused() -> None:
    for occurred_at in (None, "2026-03-15T12:00:00Z"):
        with pytest.raises(RejectedError):
            RecordsPruned.of(record_of(RECORDS_PRUNED, PRUNED.payload(), occurred_at=occurred_at))


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 0},
        {"first": 11},
        {"count": 10},
        {"count": 0},
        {"end": 12},
        {"absent": Absent(6, b"\6" * 32)},
        {"absent": Absent(11, b"\6" * 32)},
        {"first_hash": b"\1" * 31},
        {"holds_checked": (8, 5)},
        {"frontier_at_end": (b"\3" * 32,)},
    ],
)
def test_a_prune_whose_numbers_do_not_fit_each_other_cannot_be_made(wrong: dict[str, Any]) -> None:
    values = {name: getattr(PRUNED, name) for name in RecordsPruned.__slots__}

    with pytest.raises(RejectedError, match="fit"):
        RecordsPruned(**{**values, **wrong})
