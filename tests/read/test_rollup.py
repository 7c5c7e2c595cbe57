"""Roll-ups against a look at every record there ever was: while they come, without an index, and after a prune."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.core.canonical import encode
from tallystick.core.custody import OwnEvent
from tallystick.core.moment import Moment
from tallystick.core.pruned import Absent, RecordsPruned
from tallystick.core.record import Record
from tallystick.core.rollup import ROLLUP_DEFINED, ROLLUP_SEALED, Cells, Definition
from tallystick.errors import RejectedError, TamperError
from tallystick.read import follower, rollup
from tallystick.read.index import KeptRollup
from tallystick.read.query import Query
from tallystick.read.rollup import Rollups
from tallystick.read.search import Search
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.read.timeseries import Series, TimeSeries
from tallystick.store.contract import StoredRecord
from tallystick.store.memory import MemoryStore
from tallystick.write.draft import system_draft
from tests.read.ledgers import all_of
from tests.read.series_twin import BATCHES, MINUTE, ZONES, Question, series
from tests.read.test_timeseries import HOUR, Clock, rows


class PrunedStore(MemoryStore):
    """The records of another store but for those that were removed."""

    def __init__(self, whole: MemoryStore) -> None:
        super().__init__()
        self._whole: Final = whole
        self.removed: Final[set[int]] = set()
        self.below = 0

    def head(self) -> Any:
        return self._whole.head()

    def read(self, first: int, end: int) -> Iterator[StoredRecord]:
        return (stored for stored in self._whole.read(first, end) if stored.position not in self.removed)

    def last_position(self) -> int | None:
        return self._whole.last_position()

    def pruned_below(self) -> int:
        return self.below


@dataclass
class World:
    """A ledger, what a prune has left of it, and an index with roll-ups over that."""

    ledger: tallystick.Ledger
    clock: Clock

    def __post_init__(self) -> None:
        store = self.ledger._store
        assert isinstance(store, MemoryStore)
        self.store = PrunedStore(store)
        self.delete_index()

    @property
    def size(self) -> int:
        return self.ledger.size

    def delete_index(self) -> None:
        """Begin anew with an index of the records that are there."""
        self.file = SqliteIndexFile(None, self.store)
        self.search = Search(self.store, self.file.questions)
        self.rollups = Rollups(self.store, self.search, self.file.rollups)
        self.index()

    def index(self) -> int:
        first = self.file.cursor()
        if first < self.size:
            self.file.save(first, self.size, [stored.line for stored in self.store.read(first, self.size)])
        return self.size

    def append(self, batch: Sequence[dict[str, Any]], step: int = 0) -> None:
        self.clock.now += step
        self.ledger.append_many(batch)

    def seal_own(self, event_type: str, payload: dict[str, Any]) -> None:
        self.seal_all([(event_type, payload)])

    def seal_all(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        if events:
            self.ledger._open_sealer().seal([system_draft(*event, self.ledger._ids) for event in events])

    def define(self, name: str, asked: Question, *more: str) -> Definition:
        return TimeSeries(self.search, self.file.questions, self.rollups).downsample(
            name,
            asked.query,
            size=self.index(),
            seal_own=self.seal_own,
            width=asked.width,
            zone=asked.zone,
            measure=(asked.measure, *more),
            group=asked.group,
            time=asked.time,
        )

    def seal_removed(self, end: int, held: Container[int] = ()) -> list[int]:
        """All of a prune but the removing: the positions that it is about to remove."""
        size = self.index()
        here = [Record.parse(stored.line) for stored in self.store.read(1, end)]
        going = [one for one in here if not one.event_type.startswith("tallystick.") and one.position not in held]
        if going:  # else there is nothing to prune, and nothing is said
            events = self.rollups.seal_removed(end, iter(going), size=size)
            own = [OwnEvent(*event) for event in events]
            self.ledger._open_sealer().seal_own([*own, self.pruned(end, going).event(None)])
        return [record.position for record in going]

    def pruned(self, end: int, going: list[Record]) -> RecordsPruned:
        """What a prune says of itself. Its hashes are made up: what is tested here does not ask for them."""
        gone = sorted(self.store.removed.union(one.position for one in going))
        firsts = [at for at in gone if at - 1 not in gone]
        ends = [at + 1 for at in gone if at + 1 not in gone]
        return RecordsPruned(
            first=going[0].position,
            end=end,
            count=len(going),
            first_hash=bytes(32),
            last_hash=bytes(32),
            frontier_at_end=(bytes(32),) * end.bit_count(),
            checkpoint_at_prune=b"none",
            policy_position=1,
            holds_checked=(),
            absent=Absent.over(zip(firsts, ends, strict=True)),
            moment=self.clock.now,
        )

    def remove(self, end: int, going: list[int]) -> None:
        if going:
            self.store.removed.update(going)
            self.store.below = max(end, self.store.below)

    def prune(self, end: int, held: Container[int] = ()) -> None:
        self.remove(end, self.seal_removed(end, held))

    def ask(self, asked: Question) -> Series:
        return TimeSeries(self.search, self.file.questions, self.rollups, pruned_below=len(self.store.removed)).query(
            asked.query,
            size=self.index(),
            width=asked.width,
            zone=asked.zone,
            measure=asked.measure,
            group=asked.group,
            time=asked.time,
            after=Moment.parse(asked.after) if asked.after else None,
            before=Moment.parse(asked.before) if asked.before else None,
            fill=asked.fill,
        )

    def check(self, asked: Question, source: str | None = None) -> None:
        """Fails unless the answer is of all records that there ever were."""
        found = self.ask(asked)
        assert rows(found) == series(all_of(self.ledger), asked), (asked, found.source)
        assert source in (None, found.source)
        assert found.size == self.size


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    clock = Clock()
    with tallystick.open("memory:", clock=clock) as ledger:
        yield World(ledger, clock)


def paid(amount: Any, *, actor: str = "jane", entity: str = "user-1", **members: Any) -> dict[str, Any]:
    payload = {"amount": amount}
    return {"event_type": "paid", "entity_id": entity, "actor": actor, "payload": payload, **members}


AMOUNTS: Final = Question(terms=("event_type=paid",), measure="sum:payload.amount", group="actor")


# ------------------------------------------------------------------------------------------ any, of any ledger

DEFINITIONS: Final = st.builds(
    Question,
    terms=st.sampled_from([(), ("event_type=user.*",), ("payload.x",), ("label=phi", "text=admin")]),
    width=st.sampled_from(["15 minutes", "hour", "day", "week", "month"]),
    zone=st.sampled_from(ZONES),
    measure=st.sampled_from(["count", "sum:payload.x", "avg:payload.x", "min:payload.x.y"]),
    group=st.sampled_from([None, "type", "actor", "entity", "label"]),
    time=st.sampled_from(["recorded", "occurred"]),
)
STEPS: Final = st.lists(
    st.one_of(
        st.just("ask"), st.just("delete index"), st.tuples(st.just("define"), st.sampled_from("ab"), DEFINITIONS)
    ),
    max_size=4,
)


def prunes(*then: str) -> st.SearchStrategy[list[tuple[list[Any], float, set[int], str]]]:
    """Some prunes: what is appended before, the part of the ledger they reach to, what is held, what happens then."""
    return st.lists(st.tuples(BATCHES, st.floats(0, 1), st.sets(st.integers(0, 20)), st.sampled_from(then)), max_size=4)


@pytest.mark.slow
@given(st.lists(st.tuples(BATCHES, STEPS), min_size=1, max_size=3), st.booleans(), st.sampled_from([1, 4, 1000]))
def test_roll_ups_say_what_a_look_at_every_record_says(
    parts: list[tuple[list[Any], list[Any]]], fill: bool, step_records: int
) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch, tallystick.open("memory:", clock=clock) as ledger:
        patch.setattr(rollup, "_STEP_RECORDS", step_records)
        world, defined = World(ledger, clock), dict[str, Question]()
        for batches, steps in parts:
            for step, batch in batches:
                world.append(batch, step)
            for what in steps:
                if what == "delete index":
                    world.delete_index()
                elif what != "ask":
                    defined[what[1]] = replace(what[2], fill=fill and what[2].width in ("day", "week", "month"))
                    world.define(what[1], what[2])
                for asked in defined.values():
                    world.check(asked)

        assert {*world.rollups.defined(world.index())} == {*defined}


@pytest.mark.slow
@given(
    st.lists(DEFINITIONS, min_size=1, max_size=2),
    prunes("go on", "delete index", "cut short", "end as before"),
    BATCHES,
)
def test_roll_ups_outlive_the_records_that_are_pruned(
    definitions: list[Question], pruned: list[tuple[list[Any], float, set[int], str]], last: list[Any]
) -> None:
    clock = Clock()
    with tallystick.open("memory:", clock=clock) as ledger:
        world = World(ledger, clock)
        for name, asked in zip("ab", definitions, strict=False):
            world.define(name, asked)
        for batches, part, held, then in pruned:
            for step, batch in batches:
                world.append(batch, step)
            end = world.store.below if then == "end as before" else max(int(part * world.size), world.store.below)
            going = world.seal_removed(end, held)
            if then == "cut short":
                world.delete_index()
                check_all(world, definitions)
            world.remove(end, going)
            if then == "delete index":
                world.delete_index()
            check_all(world, definitions)

        for step, batch in last:
            world.append(batch, step)
        check_all(world, definitions)
        world.delete_index()
        check_all(world, definitions)


def check_all(world: World, definitions: list[Question]) -> None:
    """The roll-ups, and the tally."""
    for asked in definitions:
        assert world.ask(asked).source in ("tally", "rollup:a", "rollup:b")
        world.check(asked)
    world.check(Question(width="15 minutes", group="type"), "tally")
    world.check(Question(terms=("event_type=user.*",), width="day", zone="Europe/Berlin", fill=True), "tally")


# ------------------------------------------------------------------------------------------------- what they answer


def test_a_roll_up_is_an_event_and_answers_from_its_cells(world: World) -> None:
    world.append([paid(5), paid(2.5, actor="raj")])
    definition = world.define("amounts", AMOUNTS)
    world.append([paid(7)], HOUR)

    world.check(AMOUNTS, "rollup:amounts")

    (event,) = (record for record in all_of(world.ledger) if record.event_type == ROLLUP_DEFINED)
    assert Definition.of(event) == definition
    assert event.payload == {
        "group": "actor",
        "measures": ["sum:payload.amount"],
        "name": "amounts",
        "query": ["event_type=paid"],
        "time": "recorded",
        "width": "hour",
        "zone": "UTC",
    }


def test_one_roll_up_answers_all_that_follows_from_it(world: World) -> None:
    world.define("amounts", AMOUNTS)
    for amount in (5, 0.5, [1, 2], "none", None, -3):
        world.append([paid(amount), paid(amount, actor="raj"), paid(amount, labels=["x"])], 25 * MINUTE)

    for measure in ("count", "sum:payload.amount", "min:payload.amount", "max:payload.amount", "avg:payload.amount"):
        for group in ("actor", None):
            for width in ("hour", "day", "month"):
                world.check(replace(AMOUNTS, measure=measure, width=width, group=group, fill=True), None)
                if measure != "count" or group:
                    assert world.ask(replace(AMOUNTS, measure=measure, width=width, group=group)).source[:6] == "rollup"


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": ("event_type=paid", "payload.amount>0")},
        {"measure": "sum:payload.other"},
        {"measure": "distinct:actor"},
        {"group": "entity"},
        {"time": "occurred"},
        {"width": "15 minutes"},
        {"width": "day", "zone": "Asia/Kolkata"},
        {"after": "2026-03-29T00:30:00.000001Z"},
        {"before": "2026-03-29T01:59:59Z"},
    ],
)
def test_what_does_not_follow_from_a_roll_up_is_answered_by_others(world: World, changes: dict[str, Any]) -> None:
    world.define("amounts", AMOUNTS)
    world.append([paid(1), paid(2)])
    world.append([paid(3)], 26 * HOUR)

    world.check(replace(AMOUNTS, **changes))

    assert world.ask(replace(AMOUNTS, **changes)).source in ("records", "index")


def test_a_window_that_ends_with_the_buckets_is_answered_from_cells(world: World) -> None:
    world.define("amounts", AMOUNTS)
    for _ in range(5):
        world.append([paid(1)], HOUR)
    window = replace(AMOUNTS, after="2026-03-29T02:00:00Z", before="2026-03-29T04:00:00Z", fill=True)

    world.check(window, "rollup:amounts")
    world.check(replace(window, width="day"), "rollup:amounts")
    assert [point.value for point in world.ask(window).buckets] == [1, 1]


def test_the_order_of_what_is_asked_does_not_matter(world: World) -> None:
    world.define(
        "both", replace(AMOUNTS, terms=("event_type=paid", "event_type=refunded", "payload.a=1", "payload.b=2"))
    )

    world.check(
        replace(AMOUNTS, terms=("payload.b=2", "event_type=refunded", "payload.a=1", "event_type=paid")), "rollup:both"
    )


def test_labels_are_not_added_up_to_records(world: World) -> None:
    world.define("labels", replace(AMOUNTS, group="label"))
    world.append([paid(1, labels=["a", "b"]), paid(2)])

    world.check(replace(AMOUNTS, group="label"), "rollup:labels")
    world.check(replace(AMOUNTS, group=None), "records")


def test_a_later_definition_of_the_name_replaces_the_earlier(world: World) -> None:
    world.append([paid(1)])
    world.define("amounts", AMOUNTS)
    world.check(AMOUNTS, "rollup:amounts")

    world.define("amounts", replace(AMOUNTS, group="entity"))

    world.check(replace(AMOUNTS, group="entity"), "rollup:amounts")
    world.check(AMOUNTS, "records")
    assert [*world.rollups.defined(world.index())] == ["amounts"]


def test_the_same_definition_again_is_not_another_event(world: World) -> None:
    world.define("amounts", AMOUNTS)
    size = world.size

    world.define("amounts", AMOUNTS)

    assert world.size == size


def test_a_roll_up_that_went_ahead_says_for_which_size_it_answers(world: World) -> None:
    world.define("amounts", AMOUNTS)
    size = world.index()
    world.append([paid(1)])
    world.ask(AMOUNTS)

    series = TimeSeries(world.search, world.file.questions, world.rollups)
    found = series.query(AMOUNTS.query, size=size, width="hour", measure="sum:payload.amount", group="actor")

    assert (found.size, found.source) == (world.size, "rollup:amounts")
    assert [point.value for point in found.buckets] == [1]


# ------------------------------------------------------------------------------------------------- how they follow


def test_a_roll_up_reads_only_what_came_since(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    glances = Search.glances

    def watched(self: Search, query: Query, *, first: int, end: int) -> Iterator[Record]:
        for record in glances(self, query, first=first, end=end):
            read.append(record.position)
            yield record

    monkeypatch.setattr(Search, "glances", watched)
    world.define("amounts", AMOUNTS)
    for _ in range(3):
        world.append([paid(1), {"event_type": "seen", "entity_id": "x"}])
        world.check(AMOUNTS, "rollup:amounts")

    assert read == [record.position for record in all_of(world.ledger) if record.event_type == "paid"]


def test_the_index_has_roll_ups_follow_when_it_is_saved(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    with tallystick.open(folder) as ledger:
        ledger.append_many([paid(1), paid(2)])
        payload = Definition(
            name="amounts",
            terms=AMOUNTS.terms,
            width="hour",
            zone="UTC",
            measures=(AMOUNTS.measure,),
            group="actor",
            time="recorded",
        ).payload()
        ledger._open_sealer().seal([system_draft(ROLLUP_DEFINED, payload, ledger._ids)])

    with tallystick.open(folder) as ledger:
        kept = ledger._open_reader().follower.file.rollups.kept("amounts")
        assert kept is not None
        assert kept.position == ledger.size


def test_a_roll_up_that_cannot_follow_does_not_stop_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no roll-up today")

    monkeypatch.setattr(Rollups, "advance", fail)
    monkeypatch.setattr(follower, "FLUSH_RECORDS", 2)
    with caplog.at_level(logging.WARNING), tallystick.open(tmp_path / "ledger") as ledger:
        for _ in range(3):
            ledger.append_many([paid(1), paid(2)])
        assert ledger.count(event_type="paid") == 6

    assert "no roll-up today" in caplog.text


def test_two_followers_of_one_file_count_every_record_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "_STEP_RECORDS", 2)
    world.define("amounts", AMOUNTS)
    other = Rollups(world.store, world.search, world.file.rollups)
    world.append([paid(number) for number in range(20)])
    size = world.index()
    add = world.file.rollups.add

    def overtaken(name: str, kept: KeptRollup, cells: Cells, *, end: int) -> bool:
        monkeypatch.setattr(world.file.rollups, "add", add)
        other.advance(size)
        return add(name, kept, cells, end=end)

    monkeypatch.setattr(world.file.rollups, "add", overtaken)

    world.check(AMOUNTS, "rollup:amounts")


def test_who_knows_only_an_earlier_definition_does_not_put_it_back(world: World) -> None:
    world.define("amounts", AMOUNTS)
    behind = Rollups(world.store, world.search, world.file.rollups)
    size = world.index()
    behind.advance(size)
    world.define("amounts", replace(AMOUNTS, group="entity"))
    world.check(replace(AMOUNTS, group="entity"), "rollup:amounts")

    behind.advance(size)

    series = TimeSeries(world.search, world.file.questions, behind)
    found = series.query(AMOUNTS.query, size=size, width="hour", measure="sum:payload.amount", group="actor")
    assert found.source == "records"
    world.check(replace(AMOUNTS, group="entity"), "rollup:amounts")


# --------------------------------------------------------------------------------------------------- after a prune


def test_what_was_sealed_is_only_needed_where_records_were_never_counted(world: World) -> None:
    world.define("amounts", AMOUNTS)
    world.append([paid(1), paid(0.1), paid([2, 3], actor="raj"), paid("x")])
    world.append([paid(4)], HOUR)
    first = world.ask(AMOUNTS)

    world.prune(world.size)

    assert rows(world.ask(AMOUNTS)) == rows(first)
    world.delete_index()
    assert rows(world.ask(AMOUNTS)) == rows(first)
    assert world.ask(AMOUNTS).pruned_below == len(world.store.removed)
    assert world.ask(replace(AMOUNTS, measure="sum:payload.other")).buckets == ()


def test_the_tally_outlives_records_without_any_definition(world: World) -> None:
    for _ in range(4):
        world.append([paid(1), {"event_type": "seen", "entity_id": "x"}], 40 * MINUTE)
    asked = [
        Question(group="type"),
        Question(terms=("event_type=seen",), width="15 minutes"),
        Question(terms=("event_type=se.*",), width="day"),
    ]

    world.prune(world.size - 2)
    world.delete_index()

    for question in asked:
        world.check(question, "tally")


def test_a_roll_up_defined_after_a_prune_counts_what_is_there(world: World) -> None:
    world.define("amounts", AMOUNTS)
    world.append([paid(1)])
    world.prune(world.size)
    world.append([paid(2)])
    world.delete_index()

    world.define("amounts", replace(AMOUNTS, group="entity"))
    world.define("anew", replace(AMOUNTS, group="type"))

    assert [point.value for point in world.ask(replace(AMOUNTS, group="entity")).buckets] == [2]
    assert [point.value for point in world.ask(replace(AMOUNTS, group="type")).buckets] == [2]


def test_sealed_cells_find_room_in_records_however_many_they_are(world: World) -> None:
    world.define("amounts", replace(AMOUNTS, group="entity"))
    many = [paid(1e-300 * number, entity=f"{number:04}" + "ü" * 400) for number in range(300)]
    world.append(many)

    world.prune(world.size)
    world.delete_index()

    sealed = [one.payload for one in all_of(world.ledger) if one.event_type == ROLLUP_SEALED]
    assert len([payload for payload in sealed if payload["rollup"] == "amounts"]) > 3
    assert all(len(encode(payload)) < 48_000 for payload in sealed)

    world.check(replace(AMOUNTS, group="entity"), "rollup:amounts")


def test_records_that_were_held_are_sealed_when_they_go(world: World) -> None:
    world.define("amounts", AMOUNTS)
    world.append([paid(1), paid(2), paid(4)])
    held = all_of(world.ledger)[-2].position
    end = world.size
    world.prune(end, [held])
    world.delete_index()
    world.check(AMOUNTS, "rollup:amounts")

    world.prune(end)

    world.check(AMOUNTS, "rollup:amounts")
    world.delete_index()
    world.check(AMOUNTS, "rollup:amounts")


def test_the_front_door_seals_and_a_new_index_takes_over(tmp_path: Path) -> None:
    asked = replace(AMOUNTS, group="entity", width="day")
    folder, clock = tmp_path / "ledger", Clock()
    with tallystick.open(folder, clock=clock) as ledger:
        reader = ledger._open_reader()

        def seal(events: list[tuple[str, dict[str, Any]]]) -> None:
            ledger._open_sealer().seal([system_draft(*event, ledger._ids) for event in events])

        reader.timeseries().downsample(
            "amounts",
            asked.query,
            size=reader.catch_up(),
            seal_own=lambda event_type, payload: seal([(event_type, payload)]),
            width="day",
            measure=asked.measure,
            group="entity",
        )
        ledger.append_many([paid(1), paid(2.5), paid(3, entity="user-2")])
        everything, end = all_of(ledger), ledger.size
        going = [record for record in everything if record.event_type == "paid"]
        seal(reader.seal_removed(end, iter(going)))
        everything += [*ledger.read(end)]
        kept = sorted({*range(end)} - {record.position for record in going})
        assert ledger._store.prune(end, kept) == 3
        clock.now += HOUR
        ledger.append(paid(8))
        everything += [*ledger.read(len(everything))]

    for file in folder.glob("index.db*"):
        file.unlink()
    with tallystick.open(folder, clock=clock) as ledger:
        reader = ledger._open_reader()
        for question in (asked, Question(group="type")):
            found = reader.timeseries().query(
                question.query,
                size=reader.catch_up(),
                width=question.width,
                measure=question.measure,
                group=question.group,
            )
            assert rows(found) == series(everything, question)
            assert found.pruned_below == end


def test_nothing_is_sealed_of_nothing(world: World) -> None:
    world.append([paid(1)])

    assert world.rollups.seal_removed(1, iter(()), size=world.index()) == []


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("name", ["", "tallystick.types", "a b", "ä", "-a", "a" * 101, "a\n", "a/b", "\ud800"])
def test_names_are_plain_words(world: World, name: str) -> None:
    size = world.size
    with pytest.raises(RejectedError) as refused:
        world.define(name, AMOUNTS)

    assert refused.value.place == "name"
    assert world.size == size


@pytest.mark.parametrize(
    ("changes", "more", "place"),
    [
        ({"measure": "distinct:actor"}, (), "measure"),
        ({"measure": "count"}, ("distinct:entity",), "measure"),
        ({}, ("sum:payload.other",), "measure"),
        ({"measure": "median"}, (), "measure"),
        ({"width": "decade"}, (), "width"),
        ({"zone": "../etc"}, (), "zone"),
        ({"group": "colour"}, (), "group"),
        ({"time": "stellar"}, (), "time"),
        ({"terms": tuple(f"payload.a={number}{'x' * 2_000}" for number in range(30))}, (), "query"),
    ],
)
def test_what_no_roll_up_can_count_is_refused(
    world: World, changes: dict[str, Any], more: tuple[str, ...], place: str
) -> None:
    size = world.size
    with pytest.raises(RejectedError) as refused:
        world.define("amounts", replace(AMOUNTS, **changes), *more)

    assert refused.value.place == place
    assert refused.value.cure
    assert world.size == size


def test_distinct_names_are_rolled_up_as_groups(world: World) -> None:
    with pytest.raises(RejectedError, match="group by actor"):
        world.define("actors", replace(AMOUNTS, measure="distinct:actor", group=None))


def test_roll_ups_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "ROLLUPS_MAX", 2)
    world.define("a", AMOUNTS)
    world.define("b", AMOUNTS)

    with pytest.raises(RejectedError, match="2 roll-ups"):
        world.define("c", AMOUNTS)

    world.define("b", replace(AMOUNTS, group=None))


def test_the_cells_of_one_answer_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.define("amounts", AMOUNTS)
    world.append([paid(1, actor=f"a-{number}") for number in range(4)])
    world.check(AMOUNTS, "rollup:amounts")

    monkeypatch.setattr(rollup, "ROLLUP_CELLS_MAX", 3)
    with pytest.raises(RejectedError, match="more than 3 cells"):
        world.ask(AMOUNTS)


def test_a_step_ends_where_its_cells_are_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "_STEP_CELLS", 3)
    world.define("amounts", AMOUNTS)
    world.append([paid(1, actor=f"a-{number}") for number in range(11)])
    world.check(AMOUNTS, "rollup:amounts")


@pytest.mark.parametrize("event_type", [ROLLUP_DEFINED, ROLLUP_SEALED])
def test_events_that_the_ledger_never_wrote_so_are_reported(world: World, event_type: str) -> None:
    world.seal_own(event_type, {"name": "amounts"})

    with pytest.raises(TamperError, match="cannot be read"):
        world.rollups.advance(world.index())


@pytest.mark.parametrize("total", ["1.5", "", "1/3", "x", "9" * 1_501])
def test_cells_that_were_altered_in_the_index_are_reported(world: World, total: str) -> None:
    world.define("amounts", AMOUNTS)
    world.append([paid(1)])
    world.check(AMOUNTS, "rollup:amounts")
    with world.file.changing() as writer:
        writer.execute("UPDATE cell SET total = ?", (total,))

    with pytest.raises(TamperError, match="delete index"):
        world.ask(AMOUNTS)
