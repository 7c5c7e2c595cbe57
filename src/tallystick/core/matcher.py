"""Asking selectors of records: compiled once, and by event type, so that most terms are never looked at.

A record's type decides nearly everything: which alternatives can fit is worked out once for each type and kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from tallystick.core import timestamp
from tallystick.core.member import MemberPath
from tallystick.core.selector import COMPARE, Selector, Term

Members: TypeAlias = dict[str, Any]
Test: TypeAlias = Callable[[Members], bool]
Tests: TypeAlias = tuple[Test, ...]
Group: TypeAlias = tuple[Tests, tuple[int, ...], tuple[tuple[int, tuple[Tests, ...]], ...]]
"""Tests of `within`; the selectors that have it and ask nothing more; and the others, with their alternatives."""

TYPES_MAX: Final = 4_096
"""Event types whose alternatives are kept. A ledger has some hundred; a hostile one gains nothing."""


class Matcher:
    """Tells which selectors a record fits. For one thread."""

    def __init__(self, selectors: Sequence[Selector]) -> None:
        self._selectors: Final = [
            (_Compiled(one.within), [*map(_Compiled, one.any_of)], tuple(term.render() for term in one.within))
            for one in selectors
        ]
        self._groups: Final[dict[str, tuple[Group, ...]]] = {}

    def match(self, members: Members) -> list[int]:
        """The indexes of the selectors that a record fits, each once."""
        event_type = members["event_type"]
        groups = self._groups.get(event_type)
        if groups is None:
            if len(self._groups) >= TYPES_MAX:
                self._groups.clear()
            groups = self._groups[event_type] = tuple(self._grouped(event_type))
        found: list[int] = []
        for tests, settled, open_ in groups:
            if _all(tests, members):
                found += settled
                for index, alternatives in open_:
                    for alternative in alternatives:
                        if _all(alternative, members):
                            found.append(index)
                            break
        return found

    def _grouped(self, event_type: str) -> Iterator[Group]:
        groups: dict[tuple[str, ...], tuple[Tests, list[int], list[tuple[int, tuple[Tests, ...]]]]] = {}
        for index, (within, any_of, key) in enumerate(self._selectors):
            alternatives = tuple(one.tests for one in any_of if one.takes_type(event_type))
            if not alternatives or not within.takes_type(event_type):
                continue
            _, settled, open_ = groups.setdefault(key, (within.tests, [], []))
            if () in alternatives:
                settled.append(index)
            else:
                open_.append((index, alternatives))
        return ((tests, tuple(settled), tuple(open_)) for tests, settled, open_ in groups.values())


@dataclass(frozen=True, slots=True)
class Match:
    """What one selector takes of some records."""

    name: str
    count: int
    positions: Sequence[int]
    """Ascending; the first ones, if there are fewer than `count`."""

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {"name": self.name, "count": self.count, "positions": [*self.positions]}


class Tally:
    """Counts what selectors take of records that come in order, and keeps at most `most` positions in all."""

    def __init__(self, selectors: Sequence[Selector], *, most: int = 0) -> None:
        self._names: Final = [selector.name for selector in selectors]
        self._matcher: Final = Matcher(selectors)
        self.counts: Final = [0] * len(selectors)
        self._positions: Final = [array("q") for _ in selectors]
        self._room = most

    def take(self, members: Members) -> bool:
        """The next record: whether any selector takes it."""
        found = self._matcher.match(members)
        for index in found:
            self.counts[index] += 1
            if self._room:
                self._room -= 1
                self._positions[index].append(members["position"])
        return bool(found)

    def matches(self) -> tuple[Match, ...]:
        """What was taken, selector by selector."""
        return tuple(map(Match, self._names, self.counts, self._positions))


def _all(tests: Tests, members: Members) -> bool:
    for test in tests:  # noqa: SIM110 - a generator would double the time
        if not test(members):
            return False
    return True


class _Compiled:
    """A list of terms that must all hold: what it asks of the event type, and tests of the rest."""

    def __init__(self, terms: Iterable[Term]) -> None:
        grouped: dict[str, list[Term]] = {}
        rest: list[Term] = []
        for term in terms:
            if term.subject in _ANY and term.operator != "!=":
                grouped.setdefault(str(term.subject), []).append(term)
            else:
                rest.append(term)
        self._types: Final = [str(term.value) for term in grouped.pop("event_type", [])]
        self._not_types: Final = [str(term.value) for term in rest if term.subject == "event_type"]
        tests = [_any_test(name, alike) for name, alike in grouped.items()]
        self.tests: Final[Tests] = (*tests, *(_test(term) for term in rest if term.subject != "event_type"))

    def takes_type(self, event_type: str) -> bool:
        """Whether a record of this type can fit."""
        taken = not self._types or any(_is_of(event_type, pattern) for pattern in self._types)
        return taken and not any(_is_of(event_type, pattern) for pattern in self._not_types)


_ANY: Final = frozenset(("actor", "correlation_id", "entity_id", "event_type", "id"))
"""Fields of which a record has one value: of several terms any fits."""


def _is_of(event_type: str, pattern: str) -> bool:
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern


def _any_test(name: str, terms: Sequence[Term]) -> Test:
    exact = frozenset(str(term.value) for term in terms if term.operator == "=")
    beginnings = tuple(str(term.value) for term in terms if term.operator == "^=")
    if name == "actor":
        return lambda members: members["actor"] is not None and members["actor"]["id"] in exact
    if name == "correlation_id":

        def correlates(members: Members) -> bool:
            value = members["context"].get("correlation_id")
            return type(value) is str and value in exact

        return correlates
    if beginnings:
        return lambda members: members[name] in exact or members[name].startswith(beginnings)
    return lambda members: members[name] in exact


# Recorded times have one form, and so compare as texts (SPEC 3.2); claimed ones do not.
_FITS: Final[dict[str, Callable[[Members, Any], bool]]] = {
    "label": lambda members, value: value in members["labels"],
    "first": lambda members, value: members["position"] >= value,
    "end": lambda members, value: members["position"] < value,
    "after": lambda members, value: members["recorded_at"] >= value,
    "before": lambda members, value: members["recorded_at"] < value,
    "occurred_after": lambda members, value: occurred(members) >= value,
    "occurred_before": lambda members, value: occurred(members) < value,
}


def _test(term: Term) -> Test:
    if isinstance(term.subject, MemberPath):
        return _member_test(term.subject, term.operator, term.value)
    fits, value = _FITS[term.subject], term.value
    asked = timestamp.parse(str(value)) if term.subject.startswith("occurred") else value
    return lambda members: fits(members, asked)


_parse_recorded: Final = lru_cache(maxsize=1024)(timestamp.parse)  # records of one commit share their time
_parse_claimed: Final = lru_cache(maxsize=1024)(timestamp.parse_rfc3339)  # one record is asked several times


def recorded(members: Members) -> int:
    """The time at which an event was recorded, in microseconds."""
    return _parse_recorded(members["recorded_at"])


def occurred(members: Members) -> int:
    """The time that an event claims, else the recorded one, in microseconds."""
    claimed = members["occurred_at"]
    return recorded(members) if claimed is None else _parse_claimed(claimed)


def _member_test(path: MemberPath, operator: str, value: Any) -> Test:
    if operator == "has":
        return path.is_in
    if operator == "lacks":
        return lambda members: not path.is_in(members)
    compare, values = COMPARE[operator], path.values
    if type(value) is str:

        def fits(found: Any) -> bool:
            return type(found) is str and compare(found, value)

    elif value is None or type(value) is bool:

        def fits(found: Any) -> bool:
            return found is value

    else:

        def fits(found: Any) -> bool:
            return isinstance(found, int | float) and type(found) is not bool and compare(found, value)

    if operator == "!=":
        return lambda members: path.is_in(members) and not any(map(fits, values(members)))
    return lambda members: any(map(fits, values(members)))
