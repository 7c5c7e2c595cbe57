"""What the rows of the SQLite index answer (`Questions`): candidates, counts, times.

Posting lists give the candidates of entities, types, actors, labels and words, already in the order of
positions; what they cannot say is held against the event's row. A narrow range of occurred time is looked
up first instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from tallystick.limits import SIZE_MAX
from tallystick.read.index import Cell, GroupKind, TimeKind
from tallystick.read.postings import alternatives, condition_expressions, conjunction, text_expressions
from tallystick.read.query import Query

QueryRows = Callable[[str, Sequence[str | int]], list[Any]]
Tokens = Callable[[str], list[str]]

_MARK: Final = "\x01"
_TERMS_IN_MATCH_MAX: Final = 200
"""Types, entities or actors that are looked up in the posting lists; more are held against the event's row."""

_OCCURRED_LOOKED_UP: Final = 5_000
"""Events in a range of occurred time up to which they are candidates by that alone."""

_OCCURRED_MEASURED: Final = 100_000
"""Events in a range of occurred time up to which their positions narrow the search."""

QUARTER: Final = 900_000_000
"""The unit of the tally: a quarter of an hour, in microseconds. All time zones of today are multiples of it."""

_COLUMNS: Final[dict[GroupKind, str]] = {"type": "type", "actor": "actor", "entity": "entity", "label": "label.label"}


@dataclass(slots=True)
class _Selection:
    """A query as SQL: which rows of `event e` it may mean."""

    first: int
    end: int
    match: str | None = None
    """The expression for the posting lists."""
    tests: list[str] = field(default_factory=list)
    values: list[str | int] = field(default_factory=list)
    by_occurred: bool = False
    impossible: bool = False

    def test(self, condition: str, *values: str | int) -> None:
        self.tests.append(condition)
        self.values += values

    def source(self) -> tuple[str, list[str | int]]:
        """FROM and WHERE, and the values for them; positions are `e.position`."""
        where = " AND ".join(["e.position >= ?", "e.position < ?", *self.tests])
        values: list[str | int] = [self.first, self.end, *self.values]
        if self.match is None or self.by_occurred:
            hint = "INDEXED BY event_occurred" if self.by_occurred else "NOT INDEXED"
            return f"event AS e {hint} WHERE {where}", values
        found = "SELECT rowid AS position FROM posting WHERE posting MATCH ? AND rowid >= ? AND rowid < ?"
        return f"({found}) AS p CROSS JOIN event AS e ON e.position = p.position WHERE {where}", [
            self.match,
            self.first,
            self.end,
            *values,
        ]


class SqliteQuestions:
    """Keeps `Questions`. `query` runs one statement that reads; `tokens` splits as the posting lists do."""

    def __init__(self, query: QueryRows, tokens: Tokens, find: Callable[[str], list[int]]) -> None:
        self._query: Final = query
        self._tokens: Final = tokens
        self._find: Final = find

    def positions(self, query: Query, *, first: int, end: int, newest_first: bool, limit: int) -> list[int]:
        selection = self._select(query, first=first, end=end)
        if selection.impossible:
            return []
        direction = "DESC" if newest_first else "ASC"
        if selection.match is not None and not selection.tests:
            statement = "SELECT rowid FROM posting WHERE posting MATCH ? AND rowid >= ? AND rowid < ?"
            rows = self._query(
                f"{statement} ORDER BY rowid {direction} LIMIT ?",
                [selection.match, selection.first, selection.end, limit],
            )
        else:
            source, values = selection.source()
            column = "p.position" if selection.match and not selection.by_occurred else "e.position"
            rows = self._query(
                f"SELECT e.position FROM {source} ORDER BY {column} {direction} LIMIT ?", [*values, limit]
            )
        return [position for (position,) in rows]

    def answers_exactly(self, query: Query) -> bool:
        return not (query.text or query.conditions or query.correlation_id or query.event_id)

    def count(self, query: Query, *, first: int, end: int) -> int:
        selection = self._select(query, first=first, end=end)
        if selection.impossible:
            return 0
        if selection.match is not None and not selection.tests:
            [[found]] = self._query(
                "SELECT count(*) FROM posting WHERE posting MATCH ? AND rowid >= ? AND rowid < ?",
                [selection.match, selection.first, selection.end],
            )
        else:
            source, values = selection.source()
            [[found]] = self._query(f"SELECT count(*) FROM {source}", values)
        return int(found)

    def counts(
        self,
        query: Query,
        *,
        first: int,
        end: int,
        time: TimeKind,
        unit: int,
        group: GroupKind | None,
    ) -> list[Cell]:
        selection = self._select(query, first=first, end=end)
        if selection.impossible:
            return []
        source, values = _with_label(selection.source(), group)
        column = _COLUMNS[group] if group else "NULL"
        # Moments before 1970 are rounded down, not towards it.
        bucket = f"(e.{time} - ((e.{time} % ?) + ?) % ?) / ?"
        rows = self._query(
            f"SELECT unit, {_name_of(group)}, count FROM (SELECT {bucket} AS unit, {column} AS id, count(*) AS count"
            f" FROM {source} GROUP BY 1, 2) AS counted",
            [unit, unit, unit, unit, *values],
        )
        return [Cell(*row) for row in rows]

    def distinct(
        self,
        query: Query,
        *,
        first: int,
        end: int,
        time: TimeKind,
        buckets: Sequence[tuple[int, int]],
        what: Literal["actor", "entity"],
        group: GroupKind | None,
    ) -> list[tuple[int, str | None, int]]:
        selection = self._select(query, first=first, end=end)
        if selection.impossible or not buckets:
            return []
        selection.test(f"e.{time} >= ? AND e.{time} < ?", buckets[0][0], buckets[-1][1])
        source, values = _with_label(selection.source(), group)
        column = _COLUMNS[group] if group else "NULL"
        starts = orjson.dumps([start for start, _ in buckets]).decode()
        return [
            (start, name, count)
            for start, name, count in self._query(
                "WITH bucket (start) AS MATERIALIZED (SELECT value FROM json_each(?))"
                f" SELECT start, {_name_of(group)}, count FROM ("
                f"SELECT (SELECT max(start) FROM bucket WHERE start <= e.{time}) AS start, {column} AS id,"
                f" count(DISTINCT e.{what}) AS count FROM {source} GROUP BY 1, 2) AS counted WHERE count > 0",
                [starts, *values],
            )
        ]

    def tally(self, *, first: int, end: int) -> list[tuple[int, str, int]]:
        return self._query(
            "SELECT quarter, name, count FROM tally JOIN term ON term.id = type WHERE quarter >= ? AND quarter < ?",
            [first, end],
        )

    def end_at(self, recorded: int) -> int:
        [[low, high]] = self._query("SELECT min(position), max(position) + 1 FROM event", [])
        if low is None:
            return 0
        while low < high:
            middle = (low + high) // 2
            [[position, moment]] = self._query(
                "SELECT position, recorded FROM event WHERE position >= ? ORDER BY position LIMIT 1", [middle]
            )
            if moment < recorded:
                low = position + 1
            else:
                high = middle
        return int(low)

    def names(self, kind: GroupKind) -> Iterator[str]:
        last = ""
        while True:
            if kind == "entity":
                rows = self._query("SELECT name FROM entity WHERE name > ? ORDER BY name LIMIT 1000", [last])
            else:
                rows = self._query(
                    "SELECT name FROM term WHERE kind = ? AND name > ? ORDER BY name LIMIT 1000", [kind, last]
                )
            if not rows:
                return
            yield from (name for (name,) in rows)
            last = rows[-1][0]

    def _select(self, query: Query, *, first: int, end: int) -> _Selection:
        selection = _Selection(max(first, query.first or 0), min(end, SIZE_MAX if query.end is None else query.end))
        if query.after is not None:
            selection.first = max(selection.first, self.end_at(query.after))
        if query.before is not None:
            selection.end = min(selection.end, self.end_at(query.before))
        if query.event_id is not None:
            found = self._find(query.event_id)
            selection.test("e.position IN (SELECT value FROM json_each(?))", orjson.dumps(found).decode())
            selection.impossible = not found
        self._select_words(query, selection)
        if query.occurred_after is not None or query.occurred_before is not None:
            self._select_occurred(query, selection)
        selection.impossible = selection.impossible or selection.first >= selection.end
        return selection

    def _select_words(self, query: Query, selection: _Selection) -> None:
        parts = []
        for letter, column, wanted, ids in (
            ("e", "entity", query.entities, self._entities(query.entities)),
            ("t", "type", query.event_types, self._types(query.event_types)),
            ("a", "actor", query.actors, self._terms("actor", query.actors)),
        ):
            if not wanted:
                continue
            selection.impossible = selection.impossible or not ids
            if len(ids) > _TERMS_IN_MATCH_MAX:
                selection.test(f"e.{column} IN (SELECT value FROM json_each(?))", orjson.dumps(ids).decode())
            else:
                parts.append(alternatives([f"{_MARK}{letter}{number}" for number in ids]))
        labels = self._terms("label", query.labels)
        selection.impossible = selection.impossible or len(labels) < len({*query.labels})
        parts += [alternatives([f"{_MARK}l{number}"]) for number in labels]
        parts += text_expressions(query, self._tokens)
        parts += condition_expressions(query, self._tokens)
        selection.match = conjunction(parts)

    def _select_occurred(self, query: Query, selection: _Selection) -> None:
        first = -SIZE_MAX if query.occurred_after is None else query.occurred_after
        end = SIZE_MAX if query.occurred_before is None else query.occurred_before
        selection.test("e.occurred >= ? AND e.occurred < ?", first, end)
        [[count, low, high]] = self._query(
            "SELECT count(*), min(position), max(position) FROM (SELECT position FROM event"
            " INDEXED BY event_occurred WHERE occurred >= ? AND occurred < ? LIMIT ?)",
            [first, end, _OCCURRED_MEASURED],
        )
        if count == 0:
            selection.impossible = True
        elif count < _OCCURRED_MEASURED:
            selection.first = max(selection.first, low)
            selection.end = min(selection.end, high + 1)
        if selection.match is None:
            selection.by_occurred = count <= _OCCURRED_LOOKED_UP

    def _entities(self, names: Sequence[str]) -> list[int]:
        rows = self._query(
            "SELECT id FROM entity WHERE name IN (SELECT value FROM json_each(?))", [orjson.dumps(names).decode()]
        )
        return [number for (number,) in rows]

    def _terms(self, kind: GroupKind, names: Sequence[str]) -> list[int]:
        rows = self._query(
            "SELECT id FROM term WHERE kind = ? AND name IN (SELECT value FROM json_each(?))",
            [kind, orjson.dumps(names).decode()],
        )
        return [number for (number,) in rows]

    def _types(self, patterns: Sequence[str]) -> list[int]:
        exact = [pattern for pattern in patterns if not pattern.endswith(".*")]
        found = {*self._terms("type", exact)}
        for pattern in patterns:
            if pattern.endswith(".*"):  # "/" is the character after "."
                rows = self._query(
                    "SELECT id FROM term WHERE kind = 'type' AND name >= ? AND name < ?",
                    [pattern[:-1], pattern[:-2] + "/"],
                )
                found.update(number for (number,) in rows)
        return sorted(found)


def _with_label(source: tuple[str, list[str | int]], group: GroupKind | None) -> tuple[str, list[str | int]]:
    """The source with one row for every label of an event."""
    statement, values = source
    if group != "label":
        return source
    before, _, where = statement.partition(" WHERE e.position >= ?")
    joined = (
        f"{before} CROSS JOIN term ON term.kind = 'label'"
        f" CROSS JOIN label ON label.label = term.id AND label.position = e.position WHERE e.position >= ?{where}"
    )
    return joined, values


def _name_of(group: GroupKind | None) -> str:
    if group is None:
        return "NULL"
    return f"(SELECT name FROM {'entity' if group == 'entity' else 'term'} AS named WHERE named.id = counted.id)"
