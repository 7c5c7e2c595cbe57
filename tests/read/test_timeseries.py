"""Time series against a look at every record: whoever answers, and whatever was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.core.buckets import Calendar
from tallystick.core.measure import Measure
from tallystick.core.moment import Moment
from tallystick.errors import RejectedError
from tallystick.limits import BUCKETS_MAX
from tallystick.read import answers, follower, growth
from tallystick.read.answers import Asked
from tallystick.read.index import GroupKind, TimeKind
from tallystick.read.query import Query, parse_terms
from tallystick.read.timeseries import Extent, Point, Series, TimeSeries
from tests.read.ledgers import all_of, terms_like
from tests.read.series_twin import BATCHES, MINUTE, NEARBY, Question, micros, moment_of, questions, series

HOUR: Final = 60 * MINUTE
START: Final = micros(datetime.fromisoformat(NEARBY))


class Clock:
    """A clock that only moves when it is moved."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def answer(ledger: tallystick.Ledger, asked: Question) -> Series:
    reader = ledger._open_reader()
    return reader.timeseries().query(
        asked.query,
        size=reader.catch_up(),
        width=asked.width,
        zone=asked.zone,
        measure=asked.measure,
        group=asked.group,
        time=asked.time,
        after=Moment.parse(asked.after) if asked.after else None,
        before=Moment.parse(asked.before) if asked.before else None,
        fill=asked.fill,
    )


def rows(found: Series) -> list[tuple[Any, ...]]:
    return [(point.start, point.end, point.group, point.value, point.count) for point in found.buckets]


def check(ledger: tallystick.Ledger, asked: Question) -> None:
    """Fails unless the series is that of the twin, and all else in it is as it should be."""
    found = answer(ledger, asked)
    expected = series(all_of(ledger), asked)
    assert rows(found) == expected, (asked, found.source)
    assert [type(point.value) for point in found.buckets] == [type(row[3]) for row in expected], asked
    assert found.size == ledger.size


@pytest.mark.slow
@given(BATCHES, st.lists(questions(), min_size=1, max_size=6), st.sampled_from([1, 5, 100]))
def test_a_series_is_what_a_look_at_every_record_says(
    batches: list[tuple[int, list[dict[str, Any]]]], asked: list[Question], flush: int
) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch, tallystick.open("memory:", clock=clock) as ledger:
        patch.setattr(follower, "FLUSH_RECORDS", flush)
        patch.setattr(answers, "_SLICE_RECORDS", 3)
        for step, batch in batches:
            clock.now += step
            ledger.append_many(batch)
            check(ledger, asked[0])

        for question in asked:
            check(ledger, question)


@pytest.mark.slow
@given(BATCHES, questions())
def test_whoever_can_answer_says_the_same(batches: list[tuple[int, list[dict[str, Any]]]], question: Question) -> None:
    clock = Clock()
    with tallystick.open("memory:", clock=clock) as ledger:
        for step, batch in batches:
            clock.now += step
            ledger.append_many(batch)
        reader = ledger._open_reader()
        asked = Asked(
            query=question.query,
            after=None if question.after is None else Moment.parse(question.after).start,
            before=None if question.before is None else Moment.parse(question.before).start,
            calendar=Calendar(question.width, question.zone),
            measure=Measure.parse(question.measure),
            group=cast("GroupKind | None", question.group),
            time=cast("TimeKind", question.time),
            size=reader.catch_up(),
        )

        found = [
            answers.from_tally(asked, reader.questions, reader.rollups),
            answers.from_index(asked, reader.questions),
            answers.from_records(asked, reader.search),
        ]

        cells = [given.cells for given in found if given is not None]
        assert all(other == cells[0] for other in cells)


def test_series_are_the_same_after_the_index_was_deleted_midway(tmp_path: Path) -> None:
    folders = iter(tmp_path / str(number) for number in range(10_000))

    @settings(max_examples=10)
    @given(BATCHES, BATCHES, st.lists(questions(), min_size=1, max_size=4))
    def check_after_deletion(before: list[Any], after: list[Any], asked: list[Question]) -> None:
        folder, clock = next(folders), Clock()
        for batches in (before, after):
            with tallystick.open(folder, clock=clock) as ledger:
                for step, batch in batches:
                    clock.now += step
                    ledger.append_many(batch)
                for question in asked:
                    check(ledger, question)
            for file in folder.glob("index.db*"):
                file.unlink()

    check_after_deletion()


@given(BATCHES, st.lists(terms_like(), min_size=1, max_size=3), st.sampled_from(["recorded", "occurred"]))
def test_a_range_is_the_extent_of_what_fits(batches: list[Any], asked: list[list[str]], time: str) -> None:
    clock = Clock()
    with tallystick.open("memory:", clock=clock) as ledger:
        for step, batch in batches:
            clock.now += step
            ledger.append_many(batch)
        reader = ledger._open_reader()
        for terms in asked:
            query = parse_terms(terms)

            found = reader.timeseries().range(query, size=reader.catch_up(), time=time)

            fitting = [record for record in all_of(ledger) if query.takes(record)]
            moments = [moment_of(record.members, time) for record in fitting]
            assert found == Extent(min(moments, default=None), max(moments, default=None), len(moments))


# ------------------------------------------------------------------------------------------------ who answers


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="ledger")
def _ledger(clock: Clock) -> Iterator[tallystick.Ledger]:
    with tallystick.open("memory:", clock=clock) as ledger:
        yield ledger


def event(event_type: str = "paid", **members: Any) -> dict[str, Any]:
    return {"event_type": event_type, "entity_id": "user-1", **members}


def spread(ledger: tallystick.Ledger, clock: Clock, minutes: Sequence[int], **members: Any) -> None:
    """One event at each of these minutes."""
    for minute in minutes:
        clock.now = START + minute * MINUTE
        ledger.append(event(**members))


@pytest.mark.parametrize(
    ("question", "source"),
    [
        (Question(group="type"), "tally"),
        (Question(terms=("event_type=paid", "event_type=user.*"), width="month"), "tally"),
        (Question(width="15 minutes", zone="Asia/Kathmandu"), "tally"),
        (Question(width="5 minutes"), "index"),
        (Question(group="actor"), "index"),
        (Question(time="occurred"), "index"),
        (Question(terms=("actor=jane",)), "index"),
        (Question(terms=("event_type=paid", "first=1")), "index"),
        (Question(measure="distinct:actor", group="label"), "index"),
        (Question(terms=("payload.amount>1",)), "records"),
        (Question(terms=("text=x",), measure="distinct:actor"), "records"),
        (Question(measure="sum:payload.amount"), "records"),
    ],
)
def test_the_cheapest_that_answers_exactly_is_asked(
    ledger: tallystick.Ledger, clock: Clock, question: Question, source: str
) -> None:
    spread(ledger, clock, [1, 2, 40, 3_000], actor="jane", payload={"amount": 3, "note": "x"}, labels=["a", "b"])

    assert answer(ledger, question).source == source
    check(ledger, question)


def test_quarters_that_are_cut_are_counted_row_by_row(ledger: tallystick.Ledger, clock: Clock) -> None:
    spread(ledger, clock, [*range(0, 180, 4)])
    for after in (None, "2026-03-29T00:44:00Z", "2026-03-29T00:45:00Z", "2026-03-29T01:08:00Z"):
        for before in (None, "2026-03-29T01:12:00Z", "2026-03-29T02:30:00Z", "2026-03-29T02:37:00.000001Z"):
            for width in ("15 minutes", "hour", "day"):
                question = Question(width=width, zone="Europe/Berlin", after=after, before=before)

                assert answer(ledger, question).source == "tally"
                check(ledger, question)


def test_the_tally_does_not_count_what_came_after_the_size_it_answers_for(
    ledger: tallystick.Ledger, clock: Clock
) -> None:
    spread(ledger, clock, [0, 1, 20])
    size = ledger.size
    spread(ledger, clock, [20, 21, 90])
    reader = ledger._open_reader()
    reader.catch_up()

    found = reader.timeseries().query(Query(event_types=("paid",)), size=size, width="15 minutes", fill=True)

    assert (found.source, found.size) == ("tally", size)
    assert [point.value for point in found.buckets] == [2, 1]


def test_what_was_recorded_before_1970_is_not_left_to_the_tally() -> None:
    clock = Clock(-20 * MINUTE)
    with tallystick.open("memory:", clock=clock) as ledger:
        for _ in range(5):
            ledger.append(event())
            clock.now += 10 * MINUTE

        check(ledger, Question(width="15 minutes", group="type"))
        assert answer(ledger, Question(width="15 minutes", group="type")).source == "index"


def test_a_series_speaks_for_one_size_while_others_append(tmp_path: Path) -> None:
    clock = Clock()
    with tallystick.open(tmp_path / "ledger", clock=clock) as ledger:
        stop = threading.Event()

        def append() -> None:
            while not stop.is_set():
                clock.now += 3 * MINUTE
                ledger.append_many([event(), event("seen")])

        writer = threading.Thread(target=append)
        writer.start()
        try:
            found = [answer(ledger, Question(group=group)) for group in (None, "type", "actor", "entity") * 5]
        finally:
            stop.set()
            writer.join()

        assert {series.source for series in found} == {"tally", "index"}
        for series in found:
            assert sum(point.count for point in series.buckets) == series.size


# ------------------------------------------------------------------------------------------- what is answered


def test_a_series_says_all_that_was_assumed(ledger: tallystick.Ledger, clock: Clock) -> None:
    spread(ledger, clock, [0, 70], payload={"amount": 7})
    reader = ledger._open_reader()

    found = TimeSeries(reader.search, reader.questions, reader.rollups, pruned_below=3).query(
        parse_terms(["event_type=paid", "occurred_after=2026-01-01"]),
        size=reader.catch_up(),
        width="hour",
        zone="Europe/Berlin",
        after=Moment.parse("2026-03-29"),
        before=Moment.parse("2026-03-29T02:00:00Z"),
        measure="sum:payload.amount",
        group="entity",
    )

    assert found == Series(
        buckets=(
            Point(START - HOUR // 2, START + HOUR // 2, "2026-03-29T01:00:00+01:00", "user-1", 7, 1),
            Point(START + HOUR // 2, START + 3 * HOUR // 2, "2026-03-29T03:00:00+02:00", "user-1", 7, 1),
        ),
        width="hour",
        zone="Europe/Berlin",
        measure="sum:payload.amount",
        group="entity",
        time="recorded",
        size=4,
        source="records",
        pruned_below=3,
        assumptions=(
            "occurred_after: 2026-01-01 is taken as midnight UTC",
            "after: 2026-03-29 is taken as midnight UTC",
        ),
    )


@pytest.mark.parametrize(
    ("measure", "gap"),
    [
        *(("count", 0), ("distinct:actor", 0), ("sum:payload.amount", 0)),
        *(("min:payload.amount", None), ("max:payload.amount", None), ("avg:payload.amount", None)),
    ],
)
def test_gaps_are_filled_with_nothing(ledger: tallystick.Ledger, clock: Clock, measure: str, gap: int | None) -> None:
    spread(ledger, clock, [0, 130], actor="jane", payload={"amount": 1})
    question = Question(terms=("event_type=paid",), measure=measure, fill=True)

    found = answer(ledger, replace(question, after="2026-03-28T23:10:00Z", before="2026-03-29T04:00:00Z"))

    assert [point.value for point in found.buckets] == [gap, 1, gap, 1, gap]
    assert [point.count for point in found.buckets] == [0, 1, 0, 1, 0]


def test_without_records_only_a_window_can_be_filled(ledger: tallystick.Ledger) -> None:
    window = Question(
        terms=("event_type=none",), after="2026-03-28T00:00:00Z", before="2026-03-28T02:00:00Z", fill=True
    )

    assert [point.value for point in answer(ledger, window).buckets] == [0, 0]
    assert answer(ledger, replace(window, after=None)).buckets == ()
    assert answer(ledger, replace(window, before=None)).buckets == ()
    assert answer(ledger, replace(window, group="type")).buckets == ()
    assert answer(ledger, replace(window, after=window.before)).buckets == ()


@pytest.mark.parametrize(
    ("amounts", "total", "mean"),
    [
        ([2**53 - 1] * 3, 3 * (2**53 - 1), float(2**53 - 1)),
        ([0.1, 0.2, 0.3], 0.6, 0.2),
        ([0.1] * 10, 1.0, 0.1),
        ([1e308, 1, -1e308], 1.0, 1 / 3),
        ([1e21, [2, [0.5, "7", True, None]]], 1e21, (1e21 + 2.5) / 3),
        ([5e-324, 5e-324], 1e-323, 5e-324),
        (["7", True, None, {}, []], 0, None),
    ],
)
def test_sums_are_exact_and_rounded_once(
    ledger: tallystick.Ledger, amounts: list[Any], total: float, mean: float | None
) -> None:
    ledger.append_many([event(payload={"amount": amount}) for amount in amounts])

    found = [
        answer(ledger, Question(terms=("event_type=paid",), measure=f"{function}:payload.amount")).buckets[0].value
        for function in ("sum", "avg")
    ]

    assert found == [total, mean]
    assert type(found[0]) is type(total)


def test_a_sum_beyond_all_doubles_is_said_not_guessed(ledger: tallystick.Ledger) -> None:
    ledger.append_many([event(payload={"amount": 1e308}) for _ in range(2)])

    sums = answer(ledger, Question(terms=("event_type=paid",), measure="sum:payload.amount"))
    means = answer(ledger, Question(terms=("event_type=paid",), measure="avg:payload.amount"))

    assert [point.value for point in sums.buckets] == [None]
    assert sums.assumptions == ("where there is no sum, it is beyond what a double holds",)
    assert [point.value for point in means.buckets] == [1e308]
    assert means.assumptions == ()


def test_a_record_counts_under_each_of_its_labels(ledger: tallystick.Ledger) -> None:
    ledger.append_many([event(labels=["phi", "pci"]), event(labels=["phi"]), event()])

    found = answer(ledger, Question(group="label"))

    assert [(point.group, point.value) for point in found.buckets] == [("pci", 1), ("phi", 2)]


def test_all_of_time_can_be_asked_for(ledger: tallystick.Ledger) -> None:
    ledger.append_many(
        event(occurred_at=text)
        for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1850-07-01T00:00:00Z")
    )
    for width, zone in (("year", "UTC"), ("year", "Europe/Amsterdam"), ("quarter", "America/New_York")):
        for measure in ("count", "distinct:entity"):
            reader = ledger._open_reader()

            found = reader.timeseries().query(
                Query(event_types=("paid",)),
                size=reader.catch_up(),
                width=width,
                zone=zone,
                measure=measure,
                time="occurred",
            )

            assert [point.value for point in found.buckets] == [1, 1, 1]


def test_names_are_told_apart_where_a_zone_moved_its_grid(ledger: tallystick.Ledger) -> None:
    # Kathmandu went from +05:30 to +05:45 in 1986, so one hour there had a quarter of an hour.
    moments = [f"1985-12-31T{hour}:{minute}:00Z" for hour in range(16, 21) for minute in ("00", "20", "35", "50")]
    ledger.append_many(event(occurred_at=moment, actor=moment[11:15]) for moment in moments)
    question = Question(terms=("event_type=paid",), zone="Asia/Kathmandu", time="occurred")
    for measure in ("distinct:actor", "distinct:entity", "count"):
        check(ledger, replace(question, measure=measure))
        check(ledger, replace(question, measure=measure, group="actor", width="15 minutes"))


# --------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"width": "fortnight"}, "width"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"group": "colour"}, "group"),
        ({"time": "stellar"}, "time"),
        *(({"measure": measure}, "measure") for measure in ("", "sum", "sum:", "sum:x", "sum:payload", "avg:payload.")),
        *(
            ({"measure": measure}, "measure")
            for measure in ("count:", "count:x", "distinct", "distinct:type", "\ud800")
        ),
        *(
            ({"measure": measure}, "measure")
            for measure in ("median:payload.x", "sum:payload.x y", "sum:" + "a." * 9_000)
        ),
        *(
            ({"measure": measure}, "measure")
            for measure in ("sum:entity_version", "SUM:payload.x", "sum:payload.\ud800")
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(ledger: tallystick.Ledger, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(RejectedError) as refused:
        answer(ledger, replace(Question(), **changes))

    assert refused.value.place == place
    assert refused.value.cure
    assert len(str(refused.value)) < 400


def test_a_range_is_of_one_of_the_two_times(ledger: tallystick.Ledger) -> None:
    reader = ledger._open_reader()
    with pytest.raises(RejectedError, match="no time of a record"):
        reader.timeseries().range(Query(), size=reader.catch_up(), time="position")


@pytest.mark.parametrize("measure", ["count", "distinct:actor", "sum:payload.x"])
@pytest.mark.parametrize("terms", [(), ("text=x",)])
def test_too_many_buckets_are_refused_whoever_answers(
    ledger: tallystick.Ledger, measure: str, terms: tuple[str, ...]
) -> None:
    texts = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
    ledger.append_many(event(occurred_at=text, payload={"note": "x"}) for text in texts)
    question = Question(terms=terms, measure=measure, time="occurred", width="day")

    with pytest.raises(RejectedError, match=f"at most {BUCKETS_MAX}") as refused:
        answer(ledger, question)

    assert refused.value.place == "width"


def test_points_and_groups_are_bounded(
    ledger: tallystick.Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        clock.now += HOUR
        ledger.append_many([event(entity_id=f"{number}-{entity}", payload={"x": 1}, actor="a") for entity in range(3)])
    question = Question(terms=("event_type=paid",), group="entity")
    plain = ("count", "distinct:actor", "sum:payload.x")

    monkeypatch.setattr(growth, "SERIES_GROUPS_MAX", 11)
    for measure in plain:
        with pytest.raises(RejectedError, match="more than 11 groups"):
            answer(ledger, replace(question, measure=measure))
    monkeypatch.setattr(growth, "SERIES_GROUPS_MAX", 12)
    answer(ledger, question)
    asked: dict[str, Any] = {"group": "entity", "width": question.width, "fill": True}
    assert len(ledger.series(event_type="paid", **asked, points_max=48).buckets) == 48
    with pytest.raises(RejectedError, match="48 buckets and groups; at most 47"):
        ledger.series(event_type="paid", **asked, points_max=47)
    with pytest.raises(RejectedError, match="more than 11 buckets and groups"):
        ledger.series(event_type="paid", group="entity", width=question.width, points_max=11)
    monkeypatch.setattr(growth, "BUCKETS_MAX", 11)
    for measure in plain:
        with pytest.raises(RejectedError, match="buckets and groups"):
            answer(ledger, replace(question, measure=measure))


def test_names_that_are_told_apart_in_memory_are_bounded(
    ledger: tallystick.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append_many([event(entity_id=f"e-{number}", payload={"x": 1}) for number in range(4)])
    question = Question(terms=("payload.x=1",), measure="distinct:entity")

    monkeypatch.setattr(growth, "SERIES_DISTINCT_MAX", 3)
    with pytest.raises(RejectedError, match="more than 3 names"):
        answer(ledger, question)
    monkeypatch.setattr(growth, "SERIES_DISTINCT_MAX", 4)
    check(ledger, question)
