"""The query: what is asked of records, as a value, and the one parser of the terms in which people ask it.

`takes` is the exact meaning, decided on the record itself; an index only proposes candidates. The command line
and the service read the same terms, such as `entity_id=user-456`, `after=2026-03-01` or `payload.amount>=1000`;
a name that comes again adds to what was there. All terms must fit; of several entities, types or actors, any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NoReturn
from urllib.parse import unquote_to_bytes

from tallystick.core import timestamp
from tallystick.core.canonical import SURROGATE
from tallystick.core.content import check_key, is_event_type
from tallystick.core.moment import Moment
from tallystick.core.record import Record
from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError
from tallystick.limits import (
    ENTITY_ID_CHARACTERS_MAX,
    EVENT_ID_CHARACTERS_MAX,
    LABEL_CHARACTERS_MAX,
    QUERY_BYTES_MAX,
    QUERY_CONDITIONS_MAX,
    QUERY_TERM_CHARACTERS_MAX,
    QUERY_TERMS_MAX,
    QUERY_TEXT_CHARACTERS_MAX,
    QUERY_VALUES_MAX,
    QUERY_WORDS_MAX,
    SIZE_MAX,
)
from tallystick.read.condition import Condition, Test, number_of, shown
from tallystick.read.words import Search

__all__ = ("NAMES", "Condition", "Query", "number_of", "parse_terms", "terms_of_query_string")


@dataclass(frozen=True, slots=True)
class Within:
    """A bound on what may be asked at all: any of the event types, and any of the beginnings of entity ids.

    What is empty is no bound. It is no term: whoever asks can neither lift it nor write it.
    """

    event_types: tuple[str, ...] = ()
    """Exact, or `prefix.*`."""
    entity_prefixes: tuple[str, ...] = ()


EVERYTHING: Final = Within()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked of records; all of it must fit, and a query of nothing takes all. Made by `parse_terms` or `of`.

    Times are microseconds, positions and times half-open. An event type is exact, or `prefix.*`.
    """

    entities: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    """Of each of these, any fits."""
    labels: tuple[str, ...] = ()
    """All of them."""
    after: int | None = None
    before: int | None = None
    """The recorded time."""
    occurred_after: int | None = None
    occurred_before: int | None = None
    """The time that the event claims, else the recorded one."""
    first: int | None = None
    end: int | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    """The string `context.correlation_id`."""
    conditions: tuple[Condition, ...] = ()
    text: str = ""
    """Words that the payload must have, as `tallystick.read.words` defines them."""
    dates: tuple[str, ...] = field(default=(), compare=False)
    """The times among the members that were given as a date."""
    within: Within = EVERYTHING
    """What the caller may see: records outside of it are as if they were not there."""
    _tests: tuple[Test, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tests", (*_plain_tests(self), *_costly_tests(self)))

    @classmethod
    def of(cls, **members: Any) -> Query:
        """A query from the names that terms have, each with a value or a list of them; None is not asked.

        Times may be a `datetime` with a zone, positions an `int`; `where` takes conditions as terms have them.
        Raises `RejectedError` with the name.
        """
        gathered = _Gathered()
        for name, given in members.items():
            if isinstance(given, list | tuple | set | frozenset) and not given:
                raise RejectedError("an empty list, which nothing fits", place=name, cure="leave it out to ask for all")
            for value in given if isinstance(given, list | tuple) else [given]:
                if value is None:
                    continue
                if name == "where":
                    if not isinstance(value, str):
                        cure = "send conditions such as payload.ip=10.0.1.42"
                        raise RejectedError(f"a {type(value).__name__} is no condition", place=name, cure=cure)
                    gathered.add_condition(Condition.parse(value), place=name)
                else:
                    gathered.add(name, value, place=name)
        return gathered.query()

    def takes(self, record: Record) -> bool:
        """Whether the record is what is asked for."""
        members = record.members
        for test in self._tests:  # noqa: SIM110 - a generator would double the time
            if not test(members):
                return False
        return True

    def terms(self) -> list[str]:
        """Write the query as terms that `parse_terms` reads as the same query."""
        out = [f"{name}={value}" for name, member in _MANY.items() for value in getattr(self, member)]
        for name in _TIMES:
            moment = getattr(self, name)
            if moment is not None:
                text = timestamp.render(moment)
                out.append(f"{name}={text[:10] if name in self.dates else text}")
        out += [f"{name}={getattr(self, name)}" for name in _POSITIONS if getattr(self, name) is not None]
        out += [f"{name}={getattr(self, member)}" for name, member in _ONE.items() if getattr(self, member) is not None]
        out += [condition.render() for condition in self.conditions]
        return [*out, f"text={self.text}"] if self.text else out

    @property
    def assumptions(self) -> list[str]:
        """What was taken for granted, in sentences for the answer."""
        return [
            f"{name}: {timestamp.render(getattr(self, name))[:10]} is taken as midnight UTC"
            for name in _TIMES
            if name in self.dates
        ]


def _plain_tests(query: Query) -> Iterator[Test]:
    """The questions that one look at a member answers."""
    if query.first is not None or query.end is not None:
        first, end = query.first or 0, SIZE_MAX if query.end is None else query.end
        yield lambda members: first <= members["position"] < end
    if query.after is not None or query.before is not None:
        yield _time_test(_recorded, query.after, query.before)
    for patterns in filter(None, (query.event_types, query.within.event_types)):
        yield _type_test(patterns)
    if query.within.entity_prefixes:
        yield lambda members: members["entity_id"].startswith(query.within.entity_prefixes)
    if query.entities:
        entities = frozenset(query.entities)
        yield lambda members: members["entity_id"] in entities
    if query.actors:
        actors = frozenset(query.actors)
        yield lambda members: members["actor"] is not None and members["actor"]["id"] in actors
    if query.labels:
        labels = frozenset(query.labels)
        yield lambda members: labels.issubset(members["labels"])
    if query.event_id is not None:
        yield lambda members: bool(members["id"] == query.event_id)
    if query.correlation_id is not None:
        yield lambda members: bool(members["context"].get("correlation_id") == query.correlation_id)


def _type_test(patterns: tuple[str, ...]) -> Test:
    exact = frozenset(patterns)
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith(".*"))
    return lambda members: members["event_type"] in exact or members["event_type"].startswith(prefixes)


def _costly_tests(query: Query) -> Iterator[Test]:
    """The questions for which there is something to parse or to walk."""
    if query.occurred_after is not None or query.occurred_before is not None:
        yield _time_test(_occurred, query.occurred_after, query.occurred_before)
    yield from (condition.fits for condition in query.conditions)
    if query.text:
        search = Search.parse(query.text)
        yield lambda members: search.fits(members["payload"])


def _time_test(moment_of: Callable[[dict[str, Any]], int], after: int | None, before: int | None) -> Test:
    if before is None:
        return lambda members: after is None or moment_of(members) >= after
    if after is None:
        return lambda members: moment_of(members) < before
    return lambda members: after <= moment_of(members) < before


_parse_recorded: Final = lru_cache(maxsize=1024)(timestamp.parse)  # records of one commit share their time


def _recorded(members: dict[str, Any]) -> int:
    return _parse_recorded(members["recorded_at"])


def _occurred(members: dict[str, Any]) -> int:
    claimed = members["occurred_at"]
    return _recorded(members) if claimed is None else timestamp.parse_rfc3339(claimed)


# ----------------------------------------------------------------------------------------------- the terms

_MANY: Final = {"entity_id": "entities", "event_type": "event_types", "actor": "actors", "label": "labels"}
_TIMES: Final = ("after", "before", "occurred_after", "occurred_before")
_POSITIONS: Final = ("first", "end")
_ONE: Final = {"id": "event_id", "correlation_id": "correlation_id"}
NAMES: Final = (*_MANY, *_TIMES, *_POSITIONS, *_ONE, "text")
"""The names that terms may have, beside members of `payload` and `context`."""

_CHARACTERS_MAX: Final = {
    "entity_id": ENTITY_ID_CHARACTERS_MAX,
    "actor": ENTITY_ID_CHARACTERS_MAX,
    "label": LABEL_CHARACTERS_MAX,
    "id": EVENT_ID_CHARACTERS_MAX,
    "correlation_id": QUERY_TERM_CHARACTERS_MAX,
}
_OTHER_OPERATOR: Final = re.compile(r"(\w+)[!<>]")
_LOST_PLUS: Final = re.compile(r":\d\d(?:\.\d+)? \d\d:\d\d")


def parse_terms(terms: Iterable[str]) -> Query:
    """Read terms as one query. Raises `RejectedError`; its place is the term."""
    gathered = _Gathered()
    for term in terms:
        place = shown(term)
        if term.startswith(("payload", "context", '"', "!")):
            gathered.add_condition(Condition.parse(term), place=place)
            continue
        name, equals, value = term.partition("=")
        if not equals or name not in NAMES:
            known = f"use {', '.join(NAMES)}, or a member such as payload.ip=10.0.1.42"
            other = _OTHER_OPERATOR.match(term)
            if other and other[1] in NAMES:
                raise RejectedError(f"{other[1]} can only be asked with =", place=place, cure=known)
            raise RejectedError(f"there is no {shown(name[:40])!r} to ask for", place=place, cure=known)
        gathered.add(name, value, place=place)
    return gathered.query()


def terms_of_query_string(raw: str) -> list[str]:
    """The terms in the query string of a URL, each between `&`, percent-encoded in UTF-8, `+` for a space.

    As many programs can only send names with `=`, a `!payload.errorCode=` is taken without it.
    """
    if len(raw) > QUERY_BYTES_MAX:
        raise RejectedError(f"a query of {len(raw)} characters; at most {QUERY_BYTES_MAX} are allowed")
    terms: list[str] = []
    for piece in filter(None, raw.split("&")):
        if re.search(r"%(?![0-9A-Fa-f]{2})", piece):
            raise RejectedError("a % without two hex digits", place=shown(piece), cure="write a % as %25")
        try:
            term = unquote_to_bytes(piece.replace("+", " ")).decode()
        except UnicodeError as error:
            raise RejectedError("not percent-encoded UTF-8", place=shown(piece), cure="encode it as UTF-8") from error
        terms.append(term[:-1] if term.startswith("!") and term.endswith("=") else term)
    return terms


class _Gathered:
    """The members of a query while they come in, each checked at its place."""

    def __init__(self) -> None:
        self._many: Final[dict[str, dict[str, None]]] = {name: {} for name in _MANY}
        self._single: Final[dict[str, Any]] = {}
        self._conditions: Final[dict[Condition, None]] = {}
        self._dates: Final[list[str]] = []
        self._texts: Final[list[str]] = []
        self._text_place = ""
        self._count = 0

    def add_condition(self, condition: Condition, *, place: str) -> None:
        self._conditions[condition] = None
        if len(self._conditions) > QUERY_CONDITIONS_MAX:
            _refuse_many(f"more than {QUERY_CONDITIONS_MAX} conditions", place)
        self._count_term(place)

    def add(self, name: str, value: object, *, place: str) -> None:
        if isinstance(value, str) and SURROGATE.search(value):
            raise RejectedError("a lone surrogate, which no UTF-8 can hold", place=place, cure="send whole characters")
        self._count_term(place)
        if name not in NAMES:
            cure = f"use {', '.join(NAMES)}, or where"
            raise RejectedError(f"there is no {name[:40]!r} to ask for", place=place, cure=cure)
        if name not in (*_TIMES, *_POSITIONS) and not isinstance(value, str):
            raise RejectedError(f"a {type(value).__name__} is no {name}", place=place, cure="send a string")
        if name in _CHARACTERS_MAX:
            check_key(value, place, _CHARACTERS_MAX[name])
        if name in _MANY:
            if name == "event_type" and not is_event_type(str(value).removesuffix(".*")):
                cure = "use a whole one, such as user.created, or the beginning of several, such as user.*"
                raise RejectedError(f"{shown(value)!r} is not an event type", place=place, cure=cure)
            self._many[name][str(value)] = None
            if len(self._many[name]) > QUERY_VALUES_MAX:
                _refuse_many(f"more than {QUERY_VALUES_MAX} values of {name}", place)
        elif name == "text":
            self._texts.append(str(value))
            self._text_place = place
        elif _ONE.get(name, name) in self._single:
            raise RejectedError(f"{name} is given twice", place=place, cure="give it once")
        elif name in _TIMES:
            self._single[name] = self._moment(name, value, place)
        elif name in _POSITIONS:
            # Python writes no decimal of a very large integer.
            text = hex(value) if type(value) is int and abs(value) > SIZE_MAX else str(value)
            self._single[name] = parse_decimal(text, maximum=SIZE_MAX, place=place)
        else:
            self._single[_ONE[name]] = value

    def query(self) -> Query:
        """The query, if its free text is one."""
        text = " ".join(self._texts)
        if self._texts:
            words = len(Search.parse(text)) if len(text) <= QUERY_TEXT_CHARACTERS_MAX else QUERY_WORDS_MAX + 1
            if not 0 < words <= QUERY_WORDS_MAX:
                problem = "too many words to search for" if words else "no word to search for"
                cure = f"send 1 to {QUERY_WORDS_MAX} words, in at most {QUERY_TEXT_CHARACTERS_MAX} characters"
                raise RejectedError(problem, place=self._text_place, cure=cure)
        many: dict[str, Any] = {_MANY[name]: tuple(values) for name, values in self._many.items()}
        return Query(**many, **self._single, conditions=tuple(self._conditions), text=text, dates=tuple(self._dates))

    def _moment(self, name: str, value: object, place: str) -> int:
        try:
            moment = Moment.of(value, place=place)
        except RejectedError as error:
            if isinstance(value, str) and _LOST_PLUS.search(value):
                cure = f"{error.cure}; in a URL, write + as %2B"
                raise RejectedError(error.problem, place=place, cure=cure) from error
            raise
        if moment.is_date:
            self._dates.append(name)
        return moment.start

    def _count_term(self, place: str) -> None:
        self._count += 1
        if self._count > QUERY_TERMS_MAX:
            _refuse_many(f"more than {QUERY_TERMS_MAX} terms", place)


def _refuse_many(problem: str, place: str) -> NoReturn:
    raise RejectedError(problem, place=place, cure="ask in several queries")
