"""Selectors (SPEC 10.9): which records count, as the signed manifest says it; counted here, whatever it says of that.

A term asks one thing of a record. Terms of a list must all hold, but of several about one of the fields of which a
record has one value, any. A selector takes what fits `within` and a list of `any_of`.
"""

import operator
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

from tallystick_verify import forms
from tallystick_verify.canonical import DEPTH_MAX, INTEGER_MAX, need, parse
from tallystick_verify.forms import Form, Record, text

Test: TypeAlias = Callable[[Record], bool]
POSITIONS_MAX: Final = 1_000_000
TYPES_MAX: Final = 4_096
TERMS_MAX, CONDITIONS_MAX, NAMES_BYTES_MAX = 10_000, 1_000, 32_768
COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    **{"=": operator.eq, "!=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
}
_PART: Final = r'[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"'
_MEMBER: Final = re.compile(rf"(!?)((?:payload|context)(?:\.(?:{_PART}))+)(?:(!=|<=|>=|=|<|>)(.*))?", re.DOTALL)
_NAMED: Final = re.compile(r"([a-z_]+)(!=|\^=|=)(.*)", re.DOTALL)
_TYPE: Final = text(r"(?=.{1,200}\Z|.{1,200}\.\*\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?:\.\*)?")
_KEY: Final = text(r"[^\x00-\x1f\x7f]+")
_PLACE: Final = text("0|[1-9][0-9]{0,15}")
_FORMS: Final[dict[str, Form]] = {
    **dict.fromkeys(("actor=", "correlation_id=", "entity_id=", "entity_id^=", "id=", "label="), _KEY),
    **dict.fromkeys(("event_type=", "event_type!="), _TYPE),
    **dict.fromkeys(("after=", "before=", "occurred_after=", "occurred_before="), forms.is_time),
    **dict.fromkeys(("first=", "end="), lambda value: _PLACE(value) and int(value) <= INTEGER_MAX),
}
_is_list: Final = forms.array(text(".{0,4096}"), TERMS_MAX)
is_selectors: Final = forms.array(
    forms.Members(
        {_is_list: "within", forms.whole(): "count"}, any_of=forms.array(_is_list, 64, 1), name=forms.identifier(100)
    ),
    256,
)


class Term(NamedTuple):
    """A field and an operator, or the names on the way to a member; and what is asked of it."""

    field: str
    operator: str
    value: Any
    names: tuple[str, ...] = ()


def read_term(said: str) -> Term:
    """A term in its canonical form; raises RefusedError."""
    named, member = _NAMED.fullmatch(said), _MEMBER.fullmatch(said)
    if member:
        lacks, path, sign, value = member.groups()
        parts = re.findall(_PART, path)
        names = tuple(parse(part.encode()) if part[0] == '"' else part for part in parts)
        is_plain = not any(part[0] == '"' and re.fullmatch('"[A-Za-z0-9_-]+"', part) for part in parts)
        need(is_plain and len(names) <= DEPTH_MAX and not (lacks and sign), f"not the path of a member: {said[:80]!r}")
        scalar = parse(value.encode()) if sign else None
        is_ordered = type(scalar) in (int, float, str) or sign in (None, "=", "!=")
        need(is_ordered and not isinstance(scalar, dict | list), f"not a scalar to compare with: {said[:80]!r}")
        return Term("", sign or lacks or "has", scalar, names)
    need(bool(named), f"not a term: {said[:80]!r}")
    field, sign, value = named.groups()  # type: ignore[union-attr]
    need(f"{field}{sign}" in _FORMS and _FORMS[f"{field}{sign}"](value), f"not a term: {said[:80]!r}")
    return Term(field, sign, int(value) if field in ("first", "end") else value)


class Terms:
    """A list of terms: what it asks of the event's type apart from the rest."""

    def __init__(self, said: Iterable[str]) -> None:
        self.terms, alike = [read_term(term) for term in said], defaultdict[str, list[Term]](list)
        self.tests, self._types, self._not = list[Test](), set[str](), set[str]()
        for term in self.terms:
            if term.field == "event_type":
                (self._not if term.operator == "!=" else self._types).add(term.value)
            elif term.field in ("actor", "correlation_id", "entity_id", "id"):
                alike[term.field].append(term)
            else:
                self.tests.append(_test_of(term))
        self.tests += [_any_of(field, terms) for field, terms in alike.items()]

    def takes(self, event_type: str) -> bool:
        """Whether a record of this type may fit; `a.*` stands for all types that begin with `a.`."""
        is_of = {one for one in self._types | self._not if _is_of(event_type, one)}
        return not self._not.intersection(is_of) and (not self._types or not self._types.isdisjoint(is_of))

    def fits(self, record: Record) -> bool:
        return all(test(record) for test in self.tests)

    def edge(self, field: str) -> list[Any]:
        """The values that are given for a field."""
        return [term.value for term in self.terms if term.field == field]


def _is_of(event_type: str, pattern: str) -> bool:
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern


def _any_of(field: str, terms: list[Term]) -> Test:
    exact = {term.value for term in terms if term.operator == "="}
    starts = tuple(term.value for term in terms if term.operator == "^=")

    def test(record: Record) -> bool:
        value = record.get(field)
        if field == "actor":
            value = value and value["id"]
        if field == "correlation_id":
            value = record["context"].get(field)
        return type(value) is str and (value in exact or value.startswith(starts))

    return test


_FITS: Final[dict[str, Callable[[Record, Any], bool]]] = {
    "label": lambda record, value: value in record["labels"],
    "first": lambda record, value: record["position"] >= value,
    "end": lambda record, value: record["position"] < value,
    "after": lambda record, value: record["recorded_at"] >= value,
    "before": lambda record, value: record["recorded_at"] < value,
    "occurred_after": lambda record, value: _occurred(record) >= value[:26],
    "occurred_before": lambda record, value: _occurred(record) < value[:26],
}


def _test_of(term: Term) -> Test:
    field, sign, value, names = term
    if field:
        fits = _FITS[field]
        return lambda record: fits(record, value)
    if sign in ("has", "!"):
        return lambda record: _leads(record, names) == (sign == "has")
    compare, is_negated = COMPARE[sign], sign == "!="

    def test(record: Record) -> bool:
        is_there = any(_are_alike(found, value) and compare(found, value) for found in _values(record, names))
        return _leads(record, names) and not is_there if is_negated else is_there

    return test


def _are_alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) or {type(one), type(other)} == {int, float}


def _occurred(record: Record) -> str:
    """The time that the event claims, else the recorded one, in UTC; of digits past the microsecond, none."""
    claimed = record["occurred_at"] or record["recorded_at"]
    return datetime.fromisoformat(claimed.upper()).astimezone(UTC).isoformat(timespec="microseconds")[:26]


def _values(value: Any, names: tuple[str, ...]) -> Iterator[Any]:
    """What a path leads to, through arrays by each of their elements."""
    if isinstance(value, list):
        for element in value:
            yield from _values(element, names)
    elif not names:
        yield value
    elif isinstance(value, dict) and names[0] in value:
        yield from _values(value[names[0]], names[1:])


def _leads(value: Any, names: tuple[str, ...]) -> bool:
    """Whether a path leads anywhere, be it to an empty array."""
    if not names or isinstance(value, list):
        return not names or any(_leads(element, names) for element in value)
    return isinstance(value, dict) and names[0] in value and _leads(value[names[0]], names[1:])


class Selector:
    """One selector, and what it takes of the records that are shown to it."""

    def __init__(self, said: Record) -> None:
        self.name, self.said_count, self.count, self.positions = said["name"], said["count"], 0, array("Q")
        self.within, self.any_of = Terms(said["within"]), [Terms(terms) for terms in said["any_of"]]

    def is_covered(self, first: int, end: int, times: tuple[str, str], size: int) -> bool:
        """Whether no record outside of [first, end) can fit; `times` are those of the first record and the last, or
        a last and a first one of all where they say nothing."""
        within = self.within.edge
        is_begun = first <= max(within("first"), default=0) or any(times[0] < time for time in within("after"))
        is_ended = end >= min([size, *within("end")]) or any(times[1] >= time for time in within("before"))
        return is_begun and is_ended


class Selectors:
    """All selectors of a manifest. Raises RefusedError if they are more than SPEC 12 allows, or not of the grammar."""

    def __init__(self, said: list[Record]) -> None:
        lists = [terms for one in said for terms in [one["within"], *one["any_of"]]]
        need(sum(map(len, lists)) <= TERMS_MAX, "the selectors have too many terms")
        need(sum(len(one["name"].encode()) for one in said) <= NAMES_BYTES_MAX, "the selectors' names are too long")
        conditions = sum(bool(_MEMBER.fullmatch(term)) for term in chain(*lists))
        need(conditions <= CONDITIONS_MAX, "the selectors ask for too many members")
        self.every, self._room = [*map(Selector, said)], POSITIONS_MAX
        self._by_type = dict[str, list[tuple[Selector, list[Terms]]]]()

    def take(self, record: Record) -> bool:
        """Whether any selector takes the next record."""
        kind, taken = record["event_type"], False
        if kind not in self._by_type:
            if len(self._by_type) >= TYPES_MAX:
                self._by_type.clear()
            fitting = ((one, [terms for terms in one.any_of if terms.takes(kind)]) for one in self.every)
            self._by_type[kind] = [(one, lists) for one, lists in fitting if lists and one.within.takes(kind)]
        for one, lists in self._by_type[kind]:
            if one.within.fits(record) and any(terms.fits(record) for terms in lists):
                taken, one.count = True, one.count + 1
                if self._room:
                    self._room -= 1
                    one.positions.append(record["position"])
        return taken
