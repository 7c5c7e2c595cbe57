"""The query: terms become one and come back, and what it takes is what a slow look at the record says."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any, Final
from urllib.parse import quote, quote_plus

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import timestamp
from tallystick.core.member import MemberPath
from tallystick.core.record import Record
from tallystick.errors import RejectedError
from tallystick.limits import (
    QUERY_BYTES_MAX,
    QUERY_CONDITIONS_MAX,
    QUERY_TERM_CHARACTERS_MAX,
    QUERY_TERMS_MAX,
    QUERY_TEXT_CHARACTERS_MAX,
    QUERY_VALUES_MAX,
    QUERY_WORDS_MAX,
)
from tallystick.read.condition import OPERATORS
from tallystick.read.query import NAMES, Condition, Query, number_of, parse_terms, terms_of_query_string

MEMBERS: Final[dict[str, Any]] = {
    "actor": {"id": "admin-jane", "name": "Jane"},
    "context": {"correlation_id": "c-1", "ip": "10.0.1.42"},
    "entity_id": "user-456",
    "entity_version": 3,
    "epoch": 2,
    "event_type": "user.permission_changed",
    "event_version": 1,
    "id": "id-1",
    "labels": ["phi", "pci"],
    "ledger": "acme/eu",
    "occurred_at": "2026-03-14T23:30:00-02:00",
    "payload": {
        "field": "role",
        "old_value": None,
        "new_value": "editor",
        "amount": 1000,
        "price": 0.1,
        "ok": True,
        "tags": ["a", 7, ["b"]],
        "items": [{"sku": "x"}, {"sku": "y", "count": 2}],
        "empty": [],
        "a b": {"c.d": "10"},
        "big": 9007199254740991,
    },
    "position": 17,
    "prev_hash": "0123456789abcdef" * 4,
    "recorded_at": "2026-03-15T09:30:00.000000Z",
    "signature": "fedcba9876543210" * 4,
}


def record_of(**changes: Any) -> Record:
    return Record.parse(bytes(rfc8785.dumps({**MEMBERS, **changes})))


RECORD: Final = record_of()


def takes(*terms: str) -> bool:
    return parse_terms(terms).takes(RECORD)


# --------------------------------------------------------------------------------------------------- terms


def test_terms_are_one_typed_query() -> None:
    query = parse_terms(
        [
            *("entity_id=user-456", "entity_id=user-457", "event_type=user.*", "actor=admin-jane", "label=phi"),
            *(
                "label=pci",
                "after=2026-03-01",
                "before=2026-03-16T00:00:00Z",
                "occurred_after=2026-03-01T00:00:00+01:00",
            ),
            *("first=5", "end=500", "id=id-1", "correlation_id=c-1", "text=payroll export", "text=csv"),
            *("payload.ip=10.0.1.42", "payload.amount>=1000", "payload.errorCode", "!payload.errorCode"),
        ]
    )

    assert query == Query(
        entities=("user-456", "user-457"),
        event_types=("user.*",),
        actors=("admin-jane",),
        labels=("phi", "pci"),
        after=timestamp.parse("2026-03-01T00:00:00.000000Z"),
        before=timestamp.parse("2026-03-16T00:00:00.000000Z"),
        occurred_after=timestamp.parse("2026-02-28T23:00:00.000000Z"),
        first=5,
        end=500,
        event_id="id-1",
        correlation_id="c-1",
        conditions=(
            Condition(MemberPath(("payload", "ip")), "=", "10.0.1.42"),
            Condition(MemberPath(("payload", "amount")), ">=", "1000"),
            Condition(MemberPath(("payload", "errorCode")), "has"),
            Condition(MemberPath(("payload", "errorCode")), "lacks"),
        ),
        text="payroll export csv",
    )
    assert query.assumptions == ["after: 2026-03-01 is taken as midnight UTC"]


def test_the_library_asks_by_the_same_names() -> None:
    query = Query.of(
        entity_id=["user-456", "user-457"],
        event_type="user.*",
        actor=None,
        after="2026-03-01",
        before=datetime(2026, 3, 16, 1, tzinfo=timezone(timedelta(hours=1))),
        first=5,
        end="500",
        text="payroll export",
        where=["payload.ip=10.0.1.42", "!payload.errorCode"],
    )

    assert query == parse_terms(
        [
            *("entity_id=user-456", "entity_id=user-457", "event_type=user.*", "after=2026-03-01", "end=500"),
            *("before=2026-03-16T00:00:00Z", "first=5", "text=payroll export", "payload.ip=10.0.1.42"),
            "!payload.errorCode",
        ]
    )
    assert query.assumptions == ["after: 2026-03-01 is taken as midnight UTC"]


def test_a_query_of_nothing_takes_everything() -> None:
    assert parse_terms([]) == Query.of() == Query()
    assert Query().takes(RECORD)
    assert Query().terms() == Query().assumptions == []


def test_what_is_said_twice_is_asked_once() -> None:
    query = parse_terms(["label=a", "label=a", "payload.x=1", "payload.x=1"])

    assert (query.labels, len(query.conditions)) == (("a",), 1)


PLAIN = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
TYPES = st.from_regex(r"[A-Za-z0-9_-]{1,5}(\.[a-z]{1,5}){0,2}(\.\*)?", fullmatch=True)
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
TIMES = MOMENTS | MOMENTS.map(lambda moment: f"{moment:%Y-%m-%d}".zfill(10)) | MOMENTS.map(datetime.isoformat)
POSITIONS = st.integers(0, 2**63 - 1)
PARTS = st.lists(PLAIN | st.sampled_from(["a.b", "a b", "", "=", '"']), min_size=1, max_size=3)
VALUES = (
    PLAIN
    | PLAIN.map(json.dumps)
    | st.sampled_from(["", "=", "=5", "1e3", "-0.5", "true", "null", " 5"])
    | st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)


def good_value(value: str) -> bool:
    if not value.startswith('"'):
        return True
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    path = MemberPath((draw(st.sampled_from(["payload", "context"])), *draw(PARTS)))
    operation = draw(st.sampled_from(OPERATORS))
    return Condition(path, operation, "" if operation in ("has", "lacks") else draw(VALUES.filter(good_value)))


def asked_for(members: dict[str, Any]) -> dict[str, Any]:
    """The members without those of which nothing is asked: an empty list is refused."""
    return {name: value for name, value in members.items() if value != []}


MEMBERS_OF = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("entity_id", "actor", "label"), st.lists(PLAIN, max_size=3)),
        "event_type": st.lists(TYPES, max_size=3),
        **dict.fromkeys(("after", "before", "occurred_after", "occurred_before"), TIMES),
        **dict.fromkeys(("first", "end"), POSITIONS),
        **dict.fromkeys(("id", "correlation_id"), PLAIN),
        "text": st.lists(PLAIN.map(lambda text: f"{text} x"), min_size=1, max_size=2),
        "where": st.lists(conditions().map(Condition.render), max_size=3),
    },
)


@given(MEMBERS_OF)
def test_a_query_is_read_as_it_is_written(members: dict[str, Any]) -> None:
    query = Query.of(**asked_for(members))

    again = parse_terms(query.terms())

    assert (again, again.assumptions, again.terms()) == (query, query.assumptions, query.terms())
    assert hash(again) == hash(query)


@given(conditions())
def test_a_condition_is_read_as_it_is_written(condition: Condition) -> None:
    assert Condition.parse(condition.render()) == condition


TERM_TEXTS = st.text(max_size=30) | st.tuples(
    st.sampled_from([*NAMES, "payload.a", "!payload.a", 'payload."a', "context", "payload", "", "where"]),
    st.sampled_from(["", "=", "==", "!=", "<", ">=", "%", " = ", '="']),
    st.text(max_size=20) | TIMES.map(str) | VALUES,
).map("".join)


@given(st.lists(TERM_TEXTS, max_size=3))
def test_any_terms_are_a_query_or_are_refused(terms: list[str]) -> None:
    try:
        query = parse_terms(terms)
    except RejectedError as error:
        str(error).encode()
        return

    assert parse_terms(query.terms()) == query
    query.takes(RECORD)


@given(st.sampled_from([*NAMES, "where", "other"]), st.none() | st.booleans() | st.integers() | st.floats() | st.text())
def test_any_member_is_asked_or_refused(name: str, value: Any) -> None:
    for given_value in (value, [value], {"a": value}, b"a", 10**5000, -(10**5000)):
        with suppress(RejectedError):
            Query.of(**{name: given_value}).takes(RECORD)


@pytest.mark.parametrize(
    ("term", "says"),
    [
        ("frobnicate=1", "entity_id, event_type"),
        ("user-456", "entity_id, event_type"),
        ("", "entity_id, event_type"),
        ("entity_id =x", "entity_id, event_type"),
        ("actor!=jane", "only be asked with ="),
        ("after>2026-03-01", "only be asked with ="),
        ("entity_id=", "is empty"),
        ("label=" + "x" * 101, "101 characters"),
        ("event_type=*", "user.*"),
        ("event_type=user*", "user.*"),
        ("after=yesterday", "2026-03-15T09:30:00Z"),
        ("after=2026-03-15T10:30:00 01:00", "%2B"),
        ("before=2026-02-30", "not a real date"),
        ("first=-1", "not a decimal"),
        ("first=1e3", "not a decimal"),
        ("end=9223372036854775808", "not a decimal"),
        ("payload", "no member"),
        ("context=x", "no member"),
        ("payloads.a=1", "no member"),
        ("payload.a b=1", 'payload."a b"'),
        ("payload.=1", 'payload."a b"'),
        ("!payload.a=1", "!payload.errorCode"),
        ("!actor", "!payload.errorCode"),
        ("payload.a,1", "payload.errorCode"),
        ('payload.a="x', "JSON string"),
        ('payload.a="x" ', "JSON string"),
        ('payload.a="\\ud800"', "lone surrogate"),
        ("payload.a=1e9999999999999999999", "exponent"),
        ("payload.a=" + "x" * QUERY_TERM_CHARACTERS_MAX, str(QUERY_TERM_CHARACTERS_MAX)),
        ("entity_id=\ud800", "surrogate"),
    ],
)
def test_a_term_that_cannot_be_taken_is_named_and_mended(term: str, says: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_terms(["entity_id=user-456", term])

    assert caught.value.place == term.replace("\ud800", "\ufffd")[:77] + ("..." if len(term) > 80 else term[77:80])
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "term", ["id=1", "correlation_id=c", "after=2026-03-01", "occurred_before=2026-03-01", "end=5"]
)
def test_what_has_one_value_is_given_once(term: str) -> None:
    with pytest.raises(RejectedError, match="given twice"):
        parse_terms([term, term])


@pytest.mark.parametrize(
    "terms",
    [
        [f"entity_id=e{number}" for number in range(QUERY_VALUES_MAX + 1)],
        [f"{name}={number}" for name in ("entity_id", "actor", "label") for number in range(QUERY_TERMS_MAX // 3 + 1)],
        [f"payload.a={number}" for number in range(QUERY_CONDITIONS_MAX + 1)],
        ["text=" + " ".join(map(str, range(QUERY_WORDS_MAX + 1)))],
        ["text=" + "x" * (QUERY_TEXT_CHARACTERS_MAX + 1)],
        ["text=-- *"],
        ["text="],
        ["label=a", *(f"text={number}" for number in range(QUERY_WORDS_MAX + 1))],
    ],
)
def test_a_query_is_bounded(terms: list[str]) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_terms(terms)

    assert caught.value.place in terms or terms[-1].startswith(caught.value.place[:77])
    assert caught.value.cure


# --------------------------------------------------------------------------------------------- URL queries


def test_a_query_string_is_its_terms() -> None:
    raw = (
        "entity_id=user-456&payload.amount%3E=1000&&payload.n%3C5&text=payroll+export&payload.x=a%26b%3Dc&label=%C3%A9"
    )

    assert terms_of_query_string(raw) == [
        *("entity_id=user-456", "payload.amount>=1000", "payload.n<5", "text=payroll export", "payload.x=a&b=c"),
        "label=é",
    ]


def test_what_must_be_lacking_may_be_sent_with_an_equals_sign() -> None:
    assert terms_of_query_string("%21payload.a=&!payload.b&payload.c&payload.d=") == [
        *("!payload.a", "!payload.b", "payload.c", "payload.d="),
    ]


@given(MEMBERS_OF, st.sampled_from([quote, quote_plus]))
def test_a_query_comes_through_a_url(members: dict[str, Any], encode: Callable[[str], str]) -> None:
    terms = Query.of(**asked_for(members)).terms()

    assert terms_of_query_string("&".join(map(encode, terms))) == [
        term[:-1] if term.startswith("!") and term.endswith("=") else term for term in terms
    ]


@pytest.mark.parametrize(
    "raw", ["a=%", "a=%4", "a=%zz", "a=%ff", "a=%ED%A0%80", "a=\ud800", "x" * (QUERY_BYTES_MAX + 1)]
)
def test_a_query_string_that_is_none_is_refused(raw: str) -> None:
    with pytest.raises(RejectedError):
        terms_of_query_string(raw)


@given(st.text() | st.text(alphabet="ab=&%+!4f\u00e9"))
def test_any_query_string_is_terms_or_is_refused(raw: str) -> None:
    try:
        terms = terms_of_query_string(raw)
    except RejectedError as error:
        str(error).encode()
        return

    "".join(terms).encode()


# ------------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize(
    "term",
    [
        *("entity_id=user-456", "event_type=user.permission_changed", "event_type=user.*", "actor=admin-jane"),
        *("label=phi", "id=id-1", "correlation_id=c-1", "first=17", "end=18", "first=0", "text=EDITOR role"),
        *("after=2026-03-15", "after=2026-03-15T09:30:00Z", "before=2026-03-16", "before=2026-03-15T09:30:00.000001Z"),
        *("occurred_after=2026-03-15T01:30:00Z", "occurred_before=2026-03-16", "text=edit* 9007199254740991"),
    ],
)
def test_a_record_that_fits_a_term_is_taken(term: str) -> None:
    assert takes(term)


@pytest.mark.parametrize(
    "term",
    [
        *("entity_id=user-45", "event_type=user", "event_type=user.permission_changed.*", "event_type=use.*"),
        *("actor=Jane", "label=secret", "id=id-2", "correlation_id=c", "first=18", "end=17", "text=10.0.1.42"),
        *("after=2026-03-15T09:30:00.000001Z", "before=2026-03-15T09:30:00Z", "before=2026-03-15", "text=edit"),
        *("occurred_after=2026-03-15T01:30:00.000001Z", "occurred_before=2026-03-15T01:30:00Z", "text=editor nothing"),
    ],
)
def test_a_record_that_does_not_is_not(term: str) -> None:
    assert not takes(term)


def test_any_entity_will_do_and_all_labels_must_be_there() -> None:
    assert takes(
        "entity_id=user-1", "entity_id=user-456", "event_type=a", "event_type=user.*", "label=pci", "label=phi"
    )
    assert not takes("label=phi", "label=secret")
    assert not takes("entity_id=user-456", "actor=someone-else")


def test_without_a_claimed_time_an_event_occurred_when_it_was_recorded() -> None:
    record = record_of(occurred_at=None, actor=None, context={}, labels=[])

    assert parse_terms(["occurred_after=2026-03-15T09:30:00Z"]).takes(record)
    assert not parse_terms(["occurred_before=2026-03-15T09:30:00Z"]).takes(record)
    assert not parse_terms(["actor=admin-jane"]).takes(record)
    assert not parse_terms(["correlation_id=c-1"]).takes(record)


def test_an_upcast_record_is_judged_by_what_it_became() -> None:
    record = Record(RECORD.line, {**RECORD.members, "payload": {"role": "admin"}})

    assert parse_terms(["payload.role=admin", "text=admin"]).takes(record)


@pytest.mark.parametrize(
    "term",
    [
        *("payload.field=role", 'payload.field="role"', "payload.field!=other", "payload.field", "!payload.nothing"),
        *("payload.amount=1000", "payload.amount=1e3", "payload.amount=1000.0", "payload.amount>=1000"),
        *("payload.amount<1000.5", "payload.amount>-1", "payload.amount!=1001", "payload.price=0.1"),
        *("payload.price=1e-1", "payload.price<0.2", "payload.price=0.1000000000000000055", "payload.ok=true"),
        *("payload.old_value=null", "payload.old_value", "payload.ok!=false", "payload.tags=a", "payload.tags=7"),
        *("payload.tags=b", "payload.tags!=c", "payload.items.sku=y", "payload.items.count", "payload.empty"),
        *("payload.empty!=1", 'payload."a b"."c.d"=10', 'payload."a b"."c.d"="10"', 'payload."a b"."c.d"<9'),
        *("payload.field>rola", "payload.field<rolf", 'payload.field>="role"', "payload.items!=x", "payload.items"),
        *("payload.big=9007199254740991", "payload.big>9007199254740990.7", "payload.big<9007199254740992"),
        *("payload.big<1e999999999999999999", "payload.big>-1e400", "payload.amount>1e-999999999999999999"),
        *("context.ip=10.0.1.42", "!context.request_id", "payload.field>", 'payload.amount!="1000"'),
    ],
)
def test_a_condition_that_holds(term: str) -> None:
    assert takes(term)


@pytest.mark.parametrize(
    "term",
    [
        *("payload.field=Role", "payload.field!=role", "payload.nothing", "!payload.field", "payload.nothing!=1"),
        *('payload.amount="1000"', "payload.amount=1000.0000000001", "payload.amount>1000", "payload.amount=x"),
        *("payload.amount<x", "payload.price!=0.1", "payload.price=0.10000000001", 'payload.ok="true"', "payload.ok=1"),
        *("payload.ok=True", "payload.ok<z", "payload.old_value=", "payload.old_value<z", "payload.tags!=b"),
        *("payload.tags.x", "payload.items.sku=z", "payload.empty=1", "payload.empty=", "!payload.empty"),
        *("payload.items=x", 'payload."a b"=10', "payload.a", "payload.amount=01000"),
        *("payload.amount=+1000", "payload.amount= 1000", "payload.amount=1000.", "payload.amount=0x3e8"),
        *("payload.big=9007199254740990.9999", "payload.big=9007199254740992", "payload.big>=9007199254740991.2"),
    ],
)
def test_a_condition_that_does_not_hold(term: str) -> None:
    assert not takes(term)


def test_a_condition_tells_the_index_what_it_compares_with() -> None:
    found = [
        (condition.text, number_of(condition))
        for condition in map(
            Condition.parse,
            [
                "payload.a=x",
                "payload.a=5",
                'payload.a="5"',
                "payload.a=5.0",
                "payload.a=0.10",
                "payload.a=1e999",
                "payload.a",
            ],
        )
    ]

    assert found == [("x", None), ("5", 5), ("5", None), ("5.0", 5), ("0.10", 0.1), ("1e999", None), ("", None)]


# -------------------------------------------------------------------------------------- against a slow twin

COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    **{"=": operator.eq, "!=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
}
LITERALS = ["0", "7", "-1", "0.5", "7.0", "70e-1", "1e21", "9007199254740991", "9007199254740990.5", "-0"]
SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        7,
        -1,
        0.5,
        9007199254740991,
        1e21,
        1e-7,
        "",
        "7",
        "x",
        "true",
        "null",
        "Zz",
        "\U0001f600",
        "\uffff",
    ]
)
NAMED = st.sampled_from(["a", "b", "a b"])
PAYLOADS = st.dictionaries(
    NAMED,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMED, inner, max_size=2),
        max_leaves=5,
    ),
)


def slow_values(values: list[Any], parts: list[str]) -> list[Any]:
    """What the parts lead to, arrays opened on the way but not at the end."""
    for part in parts:
        opened = [one for value in values for one in opening(value)]
        values = [one[part] for one in opened if isinstance(one, dict) and part in one]
    return values


def opening(value: Any) -> list[Any]:
    return [one for element in value for one in opening(element)] if isinstance(value, list) else [value]


def slow_compare(value: Any, operation: str, asked: str) -> bool:
    compare = COMPARE[operation]
    if isinstance(value, str):
        return compare([*map(ord, value)], [*map(ord, json.loads(asked) if asked.startswith('"') else asked)])
    if value is None or isinstance(value, bool):
        return operation in ("=", "!=") and asked == json.dumps(value)
    if isinstance(value, dict) or asked not in LITERALS:
        return False
    return compare(value, float(asked)) if isinstance(value, float) else compare(Fraction(value), Fraction(asked))


def slow_condition(document: Any, parts: list[str], operation: str, asked: str) -> bool:
    reached = slow_values([document], parts)
    if operation in ("has", "lacks"):
        return bool(reached) == (operation == "has")
    found = [slow_compare(value, operation, asked) for one in reached for value in opening(one)]
    return bool(reached) and not any(found) if operation == "!=" else any(found)


@given(
    PAYLOADS,
    st.lists(NAMED, min_size=1, max_size=3),
    st.sampled_from(OPERATORS),
    st.sampled_from([*LITERALS, "", "x", "true", "null", "false", '"7"', '"true"', "\U0001f600", "Z"]),
)
def test_a_condition_means_what_the_slow_twin_says(
    payload: dict[str, Any], parts: list[str], operation: str, asked: str
) -> None:
    value = "" if operation in ("has", "lacks") else asked
    condition = Condition(MemberPath(("payload", *parts)), operation, value)

    record = record_of(payload=payload)

    document = json.loads(record.line)["payload"]
    assert condition.fits(record.members) is slow_condition(document, parts, operation, asked)


def slow_fits(event_type: str, asked: str) -> bool:
    if not asked.endswith(".*"):
        return event_type == asked
    words, beginning = event_type.split("."), asked.split(".")[:-1]
    return len(words) > len(beginning) and words[: len(beginning)] == beginning


def slow_takes(line: bytes, asked: dict[str, Any]) -> bool:
    """The query, member by member, from the JSON of the record."""
    members = json.loads(line)
    recorded = datetime.fromisoformat(members["recorded_at"])
    occurred = datetime.fromisoformat(members["occurred_at"]) if members["occurred_at"] else recorded
    verdicts: dict[str, Callable[[Any], bool]] = {
        "entity_id": lambda names: not names or members["entity_id"] in names,
        "event_type": lambda names: not names or any(slow_fits(members["event_type"], name) for name in names),
        "actor": lambda names: not names or (members["actor"] or {}).get("id") in names,
        "label": lambda names: all(name in members["labels"] for name in names),
        "after": lambda moment: recorded >= moment,
        "before": lambda moment: recorded < moment,
        "occurred_after": lambda moment: occurred >= moment,
        "occurred_before": lambda moment: occurred < moment,
        "first": lambda position: members["position"] >= position,
        "end": lambda position: members["position"] < position,
        "id": lambda name: members["id"] == name,
        "correlation_id": lambda name: members["context"].get("correlation_id") == name,
    }
    return all(verdicts[name](value) for name, value in asked.items())


FEW = st.sampled_from(["a", "b", "c"])
FEW_TYPES = st.sampled_from(["a.x", "a.y", "b.x", "a", "ab.x"])
FEW_TIMES = st.integers(0, 4).map(lambda hours: datetime(2026, 3, 15, hours, tzinfo=UTC))
RECORDS = st.fixed_dictionaries(
    {
        "entity_id": FEW,
        "event_type": FEW_TYPES,
        "actor": st.none() | FEW.map(lambda name: {"id": name}),
        "labels": st.lists(FEW, unique=True),
        "recorded_at": FEW_TIMES.map(lambda moment: moment.isoformat(timespec="microseconds").replace("+00:00", "Z")),
        "occurred_at": st.none()
        | FEW_TIMES.map(lambda moment: moment.astimezone(timezone(timedelta(hours=5))).isoformat()),
        "position": st.integers(1, 4),
        "id": FEW,
        "context": st.just({}) | FEW.map(lambda name: {"correlation_id": name}),
    }
)
ASKED = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("entity_id", "actor", "label"), st.lists(FEW, max_size=2)),
        "event_type": st.lists(FEW_TYPES | st.sampled_from(["a.*", "b.*"]), max_size=2),
        **dict.fromkeys(("after", "before", "occurred_after", "occurred_before"), FEW_TIMES),
        **dict.fromkeys(("first", "end"), st.integers(0, 5)),
        **dict.fromkeys(("id", "correlation_id"), FEW),
    },
)


@given(st.lists(RECORDS, min_size=1, max_size=5), ASKED)
def test_a_query_takes_what_the_slow_twin_takes(records: list[dict[str, Any]], asked: dict[str, Any]) -> None:
    query = Query.of(**asked_for(asked))

    for changes in records:
        record = record_of(**changes)
        assert query.takes(record) is slow_takes(record.line, asked)
