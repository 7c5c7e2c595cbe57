"""Signed selectors: one form, one meaning, for the query they come from, the library, and the verifier."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import assume, given
from hypothesis import strategies as st
from tallystick_verify.canonical import RefusedError
from tallystick_verify.select import Selectors, read_term

from tallystick.core.canonical import decode
from tallystick.core.matcher import Matcher, Tally
from tallystick.core.record import Record
from tallystick.core.selector import Selector, Term
from tallystick.errors import RejectedError
from tallystick.evidence.controls.catalogue import load
from tallystick.limits import SELECTOR_ALTERNATIVES_MAX
from tallystick.read.condition import OPERATORS
from tallystick.read.query import Query, parse_terms
from tallystick.read.signed import alternatives, selector_of, selectors_of

NAMES: Final = st.sampled_from(["a", "b", "a b", "", "é", "x.y", "__proto__"])
TEXTS: Final = st.sampled_from(
    ["", "1", "10", "9.5", "true", "null", "a", "b", "A", "\uffff", "\U0001f600", "e\u0301", "é"]
)
NUMBERS: Final = st.integers(-12, 12) | st.sampled_from([9.5, 0.1, -1e-7, 1e21, 2**53 - 1, 1.5e300])
SCALARS: Final = TEXTS | NUMBERS | st.booleans() | st.none()
DOCUMENTS: Final = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=8
    ),
    max_size=4,
)
TYPES: Final = st.sampled_from(["a", "a.b", "a.b.c", "b.a", "a-b"])
PATTERNS: Final = TYPES | TYPES.map(lambda name: f"{name}.*")
IDS: Final = st.sampled_from(["jane", "jan", "a=b", "user-1", "é"])
MOMENTS: Final = st.integers(0, 20).map(lambda at: datetime(2026, 3, 15, 12, tzinfo=UTC) + at * timedelta(seconds=0.5))


@st.composite
def moments(draw: st.DrawFn) -> str:
    """A time as events may claim it: any zone, up to nine digits, either case."""
    zone = timezone(timedelta(minutes=draw(st.sampled_from([0, 90, -330]))))
    text = draw(MOMENTS).astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S.%f")
    digits = draw(st.sampled_from(["", "0", "999"]))
    offset = draw(st.just(f"{zone.utcoffset(None).total_seconds():+.0f}"))
    minutes = int(offset) // 60
    named = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    return f"{text}{digits}{draw(st.sampled_from([named, 'z'])) if minutes == 0 else named}"


@st.composite
def records(draw: st.DrawFn) -> Record:
    context = draw(DOCUMENTS)
    if draw(st.booleans()):
        context["correlation_id"] = draw(IDS | SCALARS)
    members = {
        "actor": draw(st.none() | IDS.map(lambda name: {"id": name})),
        "context": context,
        "entity_id": draw(IDS),
        "entity_version": 1,
        "epoch": 0,
        "event_type": draw(TYPES),
        "event_version": 1,
        "id": draw(IDS),
        "labels": draw(st.lists(IDS, unique=True, max_size=3)),
        "ledger": "acme",
        "occurred_at": draw(st.none() | moments()),
        "payload": draw(DOCUMENTS),
        "position": draw(st.integers(1, 20)),
        "prev_hash": "0" * 64,
        "recorded_at": draw(MOMENTS).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "signature": "0" * 64,
    }
    return Record.parse(bytes(rfc8785.dumps(members)))


@st.composite
def conditions(draw: st.DrawFn) -> str:
    path = ".".join([draw(st.sampled_from(["payload", "context"])), *(json.dumps(name) for name in draw(
        st.lists(NAMES, min_size=1, max_size=2)))])  # fmt: skip
    operator = draw(st.sampled_from(OPERATORS))
    if operator in ("has", "lacks"):
        return f"{'!' if operator == 'lacks' else ''}{path}"
    value = draw(TEXTS | TEXTS.map(json.dumps) | NUMBERS.map(lambda number: rfc8785.dumps(number).decode()))
    return f"{path}{operator}{value}"


QUERIES: Final = st.lists(
    st.one_of(
        conditions(),
        st.builds("{}={}".format, st.sampled_from(["entity_id", "actor", "label"]), IDS),
        PATTERNS.map(lambda pattern: f"event_type={pattern}"),
        st.builds(
            "{}={}".format,
            st.sampled_from(["after", "before", "occurred_after", "occurred_before"]),
            MOMENTS.map(datetime.isoformat),
        ),
        st.builds("{}={}".format, st.sampled_from(["first", "end"]), st.integers(0, 20)),
        st.builds("{}={}".format, st.sampled_from(["id", "correlation_id"]), IDS),
    ),
    max_size=3,
)


def queried(terms: list[str]) -> Query:
    try:
        return parse_terms(terms)
    except RejectedError as error:  # a name twice, of which the query language takes one
        assume("given twice" not in error.problem and "quote" not in error.problem)
        raise


def verifier(selector: Selector) -> Selectors:
    return Selectors([{**selector.to_json(), "count": 0}])


@given(QUERIES, st.lists(records(), min_size=1, max_size=4))
def test_a_selector_takes_what_its_query_takes_for_the_library_and_for_the_verifier(
    terms: list[str], given_records: list[Record]
) -> None:
    query = queried(terms)
    selector = selector_of("a", [query])
    matcher, theirs = Matcher([selector]), verifier(selector)

    for record in given_records:
        taken = query.takes(record)
        assert bool(matcher.match(record.members)) == taken, (terms, record.members)
        assert theirs.take(json.loads(record.line)) == taken, (terms, record.members)


SIGNED: Final = st.lists(
    st.builds("{}{}{}".format, st.sampled_from(["payload.a", 'payload."a b"', "context.b"]),
              st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
              SCALARS.map(lambda value: rfc8785.dumps(value).decode()))
    | PATTERNS.map(lambda pattern: f"event_type!={pattern}")
    | IDS.map(lambda name: f"entity_id^={name}"),
    min_size=1, max_size=4,
)  # fmt: skip


@given(SIGNED, SIGNED, st.lists(records(), min_size=1, max_size=3))
def test_terms_that_no_query_has_mean_the_same_to_both(
    terms: list[str], within: list[str], given_records: list[Record]
) -> None:
    try:
        selector = Selector.of("a", [terms, within[:1]], within)
    except RejectedError:
        with pytest.raises(RefusedError):
            Selectors([{"any_of": [terms, within[:1]], "count": 0, "name": "a", "within": within}])
        return
    matcher, theirs = Matcher([selector]), verifier(selector)

    for record in given_records:
        assert bool(matcher.match(record.members)) == theirs.take(json.loads(record.line)), record.members


@given(QUERIES)
def test_a_signed_term_is_read_as_it_is_written(terms: list[str]) -> None:
    for signed in alternatives(queried(terms)):
        for text in signed:
            assert Term.parse(text).render() == text
            read_term(text)


@given(
    st.text(max_size=30)
    | st.builds(
        "{}{}{}".format,
        st.sampled_from(["payload.a", 'payload."a', "!context.b", "event_type", "end", "after", "label", "entity_id^"]),
        st.sampled_from(["=", "!=", "<", "==", ""]),
        st.text(max_size=8) | NUMBERS.map(repr),
    )
)
def test_what_one_reader_takes_as_a_term_the_other_takes(text: str) -> None:
    assume(not any("\ud800" <= character <= "\udfff" for character in text))  # no manifest can have it
    try:
        taken = Term.parse(text).render() == text
    except RejectedError:
        taken = False
    try:
        read_term(text)
        theirs = True
    except RefusedError:
        theirs = False

    assert taken == theirs


@pytest.mark.parametrize(
    ("terms", "signed"),
    [
        (["after=2026-03-15"], [["after=2026-03-15T00:00:00.000000Z"]]),
        (["payload.ip=10.0.1.42"], [['payload.ip="10.0.1.42"']]),
        (["payload.n>=10"], [['payload.n>="10"'], ["payload.n>=10"]]),
        (['payload.n="10"'], [['payload.n="10"']]),
        (["payload.n!=1e1"], [['payload.n!="1e1"', "payload.n!=10"]]),
        (["payload.ok=true"], [['payload.ok="true"'], ["payload.ok=true"]]),
        (['payload."a"', '!context."a b"'], [["payload.a", '!context."a b"']]),
        (["end=9223372036854775807"], [[]]),
        ([], [[]]),
    ],
)
def test_a_query_becomes_exact_terms(terms: list[str], signed: list[list[str]]) -> None:
    assert alternatives(parse_terms(terms)) == signed


@pytest.mark.parametrize(
    ("terms", "problem"),
    [
        (["text=payroll"], "free text has no exact form"),
        (["payload.n=10.00000000000000000000001"], "is not held exactly"),
        (["payload.n>9007199254740993"], "is not held exactly"),
        (["payload.n<1e400"], "is not held exactly"),
        (["payload.n=1e-999"], "is not held exactly"),
        ([f"payload.n{number}=1" for number in range(7)], "too many values"),
    ],
)
def test_what_cannot_be_said_exactly_is_refused(terms: list[str], problem: str) -> None:
    with pytest.raises(RejectedError, match=problem):
        selectors_of([parse_terms(terms)])


def test_a_condition_costs_no_more_alternatives_than_a_selector_may_have() -> None:
    terms = [f"payload.n{number}=1" for number in range(6)]

    assert len(alternatives(parse_terms(terms))) == SELECTOR_ALTERNATIVES_MAX
    with pytest.raises(RejectedError, match="65 alternatives"):
        selector_of("a", [parse_terms(terms), parse_terms([])])


def test_every_selector_of_the_catalogue_can_be_signed() -> None:
    for control in load().controls:
        for selector in control.all_selectors:
            signed = selector_of(selector.name, selector.joined)
            assert Selector.of(signed.name, signed.to_json()["any_of"]) == signed


def test_positions_are_kept_up_to_a_bound_and_all_are_counted() -> None:
    tally = Tally([Selector.of("a", [[]]), Selector.of("b", [["end=2"]])], most=3)
    record = decode(b'{"event_type":"a","position":0}')

    for position in range(5):
        assert tally.take({**record, "position": position})

    assert [match.to_json() for match in tally.matches()] == [
        {"name": "a", "count": 5, "positions": [0, 1]},
        {"name": "b", "count": 2, "positions": [0]},
    ]


def members_of(event_type: str) -> dict[str, Any]:
    return {"event_type": event_type, "payload": {}}


def test_a_stream_of_ever_new_types_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.core.matcher.TYPES_MAX", 4)
    matcher = Matcher([Selector.of("a", [["event_type=a.*"]])])

    assert [len(matcher.match(members_of(f"a.{number}"))) for number in range(20)] == [1] * 20
    assert len(matcher._groups) <= 4
