"""What the rows of the SQLite index answer (`Questions`): candidates, counts, times.

Posting lists give the candidates of entities, types, actors, labels and words, already in the order of
positions; what they cannot say is held against the event's row. A narrow range of occurred time is looked
up first instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import orjson

from tallystick.core.buckets import QUARTER_HOUR as QUARTER
from tallystick.core.rollup import TYPES
from tallystick.limits import SIZE_MAX
from tallystick.read import sqlite_figures as figures
from tallystick.read.index import FindId, GroupKind, Take, TimeKind
from tallystick.read.postings import alternatives, condition_expressions, conjunction, text_expressions
from tallystick.read.query import Query
from tallystick.read.sqlite_selection import Selection
from tallystick.read.sqlite_stretches import runs, stretches

Tokens = Callable[[str], list[str]]

_MARK: Final = "\x01"
_TERMS_IN_MATCH_MAX: Final = 200
"""Types, entities or actors that are looked up in the posting lists; more are held against the event's row."""

_OCCURRED_LOOKED_UP: Final = 5_000
"""Events in a range of occurred time up to which they are candidates by that alone."""

_OCCURRED_MEASURED: Final = 100_000
"""Events in a range of occurred time up to which their positions narrow the search."""

_COLUMNS: Final[dict[GroupKind, str]] = {"type": "type", "actor": "actor", "entity": "entity", "label": "label.label"}


class SqliteQuestions:
    """Keeps `Questions`. `query` and `each` run one statement that reads; `tokens` splits as the posting lists do.

    The index knows no event ids: `find` does. Without it a question for one has all records as candidates.
    """

    def __init__(self, query: figures.QueryRows, each: figures.HandRows, tokens: Tokens, find: FindId | None) -> None:
        self._query: Final = query
        self._each: Final = each
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
        take: Take,
    ) -> None:
        selection = self._select(query, first=first, end=end)
        if selection.impossible:
            return
        source, values = selection.source(group)
        column = _COLUMNS[group] if group else "NULL"
        # Moments before 1970 are rounded down, not towards it.
        bucket = f"(e.{time} - ((e.{time} % ?) + ?) % ?) / ?"
        self._each(
            f"SELECT unit, {_name_of(group)}, count FROM (SELECT {bucket} AS unit, {column} AS id, count(*) AS count"
            f" FROM {source} GROUP BY 1, 2) AS counted",
            [unit, unit, unit, unit, *values],
            (figures.number, figures.name, figures.number),
            take,
        )

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
        take: Take,
    ) -> None:
        for run in runs(buckets):
            selection = self._select(query, first=first, end=end)
            if not selection.impossible:
                selection.test(f"e.{time} >= ? AND e.{time} < ?", run[0][0], run[-1][1])
                self._distinct(selection, time=time, buckets=run, what=what, group=group, take=take)

    def extent(self, query: Query, *, first: int, end: int, time: TimeKind) -> tuple[int, int] | None:
        if time == "recorded":
            ends = [
                self.positions(query, first=first, end=end, newest_first=newest_first, limit=1)
                for newest_first in (False, True)
            ]
            statement = "SELECT min(recorded), max(recorded) FROM event WHERE position IN (?, ?)"
            if not all(ends):
                return None
            [[low, high]] = self._query(statement, ends[0] + ends[1], (figures.moment, figures.moment))
        else:
            selection = self._select(query, first=first, end=end)
            if selection.impossible:
                return None
            source, values = selection.source()
            kinds = (figures.moment, figures.moment)
            [[low, high]] = self._query(f"SELECT min(e.{time}), max(e.{time}) FROM {source}", values, kinds)
        return None if low is None else (low, high)

    def tally(
        self,
        *,
        first: int,
        end: int,
        quarters: int = 1,
        event_types: Sequence[str] = (),
        size: int = SIZE_MAX,
        take: Take,
    ) -> None:
        wanted = f"AND type IN ({', '.join(map(str, self._types(event_types)))})" if event_types else ""
        within = f"FROM tally WHERE hour >= ?1 / 4 AND hour <= ?2 / 4 AND quarter >= ?1 AND quarter < ?2 {wanted}"
        counted = f"SELECT quarter, type, count {within}"
        if first % 4 == 0 and quarters % 4 == 0:
            # Grouped in the order of the table no row is sorted, which is most of the work otherwise.
            counted = f"SELECT 4 * hour AS quarter, type, sum(count) AS count {within} GROUP BY hour, type"
        if quarters != 4 or first % 4:
            unit = "?1 + (quarter - ?1) / ?3 * ?3"
            counted = f"SELECT {unit} AS quarter, type, sum(count) AS count FROM ({counted}) GROUP BY 1, 2"
        # In one statement, as more may be saved at any moment: it sees one state of the index.
        self._each(
            f"SELECT quarter, term.name, count FROM ({counted} UNION ALL"
            f" SELECT ?1 + (recorded / {QUARTER} - ?1) / ?3 * ?3, type, -1 FROM event"
            f" WHERE position >= ?4 AND recorded >= ?1 * {QUARTER} AND recorded < ?2 * {QUARTER} {wanted}"
            ") JOIN term ON term.id = type",
            [first, end, quarters, size],
            (figures.number, figures.name, figures.number),
            take,
        )
        is_wanted = _type_test(event_types)
        self._each(
            f"SELECT ?1 + (bucket / {QUARTER} - ?1) / ?3 * ?3, cell_group, sum(count) FROM cell"
            f" WHERE rollup = ?4 AND bucket >= ?1 * {QUARTER} AND bucket < ?2 * {QUARTER} GROUP BY 1, 2",
            [first, end, quarters, TYPES.name],
            (figures.number, figures.name, figures.number),
            lambda rows: take([row for row in rows if is_wanted(row[1])]),
        )

    def tally_extent(self, event_types: Sequence[str] = ()) -> tuple[int, int] | None:
        wanted = f"WHERE type IN ({', '.join(map(str, self._types(event_types)))})" if event_types else ""
        quarters = self._query(
            f"SELECT (SELECT min(quarter) FROM tally WHERE hour = (SELECT min(hour) FROM tally {wanted})),"
            f" (SELECT max(quarter) FROM tally WHERE hour = (SELECT max(hour) FROM tally {wanted}))",
            [],
            (figures.quarter, figures.quarter),
        )
        sealed = self._query(
            f"SELECT min(bucket) / {QUARTER}, max(bucket) / {QUARTER} FROM cell WHERE rollup = ?",
            [TYPES.name],
            (figures.quarter, figures.quarter),
        )
        found = [pair for pair in quarters + sealed if pair[0] is not None]
        return (min(low for low, _ in found), max(high for _, high in found) + 1) if found else None

    def _distinct(
        self,
        selection: Selection,
        *,
        time: TimeKind,
        buckets: Sequence[tuple[int, int]],
        what: Literal["actor", "entity"],
        group: GroupKind | None,
        take: Take,
    ) -> None:
        # A stretch no longer than any bucket has at most one boundary inside: before it, or from it on.
        length = min(bucket_end - start for start, bucket_end in buckets)
        source, values = selection.source(
            group,
            joined=f"CROSS JOIN stretch ON stretch.number = (e.{time} - ?) / ?",
            joined_values=[buckets[0][0], length],
        )
        column = _COLUMNS[group] if group else "NULL"
        self._each(
            "WITH stretch (number, before, boundary) AS MATERIALIZED"
            " (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))"
            f" SELECT start, {_name_of(group)}, count FROM (SELECT"
            f" iif(e.{time} < stretch.boundary, stretch.before, stretch.boundary) AS start, {column} AS id,"
            f" count(DISTINCT e.{what}) AS count FROM {source} GROUP BY 1, 2) AS counted WHERE count > 0",
            [orjson.dumps(stretches(buckets, length)).decode(), *values],
            (),
            take,
        )

    def end_at(self, recorded: int) -> int:
        # Each by itself: asked for both at once, SQLite looks at every row.
        ends = "SELECT (SELECT min(position) FROM event), (SELECT max(position) + 1 FROM event)"
        [[low, high]] = self._query(ends, [])
        if low is None:
            return 0
        while low < high:
            middle = (low + high) // 2
            [[position, moment]] = self._query(
                "SELECT position, recorded FROM event WHERE position >= ? ORDER BY position LIMIT 1",
                [middle],
                (figures.number, figures.number),
            )
            if moment < recorded:
                low = position + 1
            else:
                high = middle
        return int(low)

    def known(self) -> dict[str, int]:
        rows = self._query(
            "SELECT 'entity', count(*) FROM entity UNION ALL SELECT kind, count(*) FROM term GROUP BY kind", []
        )
        return {"type": 0, "actor": 0, "label": 0, **dict(rows)}

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

    def _select(self, query: Query, *, first: int, end: int) -> Selection:
        selection = Selection(max(first, query.first or 0), min(end, SIZE_MAX if query.end is None else query.end))
        if query.after is not None:
            selection.first = max(selection.first, self.end_at(query.after))
        if query.before is not None:
            selection.end = min(selection.end, self.end_at(query.before))
        if query.event_id is not None and self._find is not None:
            found = self._find(query.event_id)
            selection.test("e.position = ?", -1 if found is None else found)
            selection.impossible = found is None
        self._select_words(query, selection)
        if query.occurred_after is not None or query.occurred_before is not None:
            self._select_occurred(query, selection)
        selection.impossible = selection.impossible or selection.first >= selection.end
        return selection

    def _select_words(self, query: Query, selection: Selection) -> None:
        parts = []
        within = query.within
        for letter, column, wanted, ids in (
            ("e", "entity", query.entities, self._entities(query.entities)),
            ("t", "type", query.event_types, self._types(query.event_types)),
            ("a", "actor", query.actors, self._terms("actor", query.actors)),
            ("t", "type", within.event_types, self._types(within.event_types) if within.event_types else []),
            ("e", "entity", within.entity_prefixes, self._beginning(within.entity_prefixes)),
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

    def _select_occurred(self, query: Query, selection: Selection) -> None:
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

    def _beginning(self, prefixes: Sequence[str]) -> list[int]:
        """Entities whose ids begin with any of these."""
        found: set[int] = set()
        for prefix in prefixes:
            end = _end_of(prefix)
            rows = self._query(
                f"SELECT id FROM entity WHERE name >= ? {'' if end is None else 'AND name < ?'}",
                [prefix] if end is None else [prefix, end],
            )
            found.update(number for (number,) in rows)
        return sorted(found)

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


def _end_of(prefix: str) -> str | None:
    """The first text, in the order of code points, that is behind all with this beginning; None if there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at])
        if code < sys.maxunicode:  # no text has a surrogate
            return prefix[:at] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


def _type_test(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether an event type is one of these, or begins as one that ends in `.*`; of none, all are."""
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith(".*"))
    return lambda name: not patterns or name in patterns or name.startswith(prefixes)


def _name_of(group: GroupKind | None) -> str:
    if group is None:
        return "NULL"
    return f"(SELECT name FROM {'entity' if group == 'entity' else 'term'} AS named WHERE named.id = counted.id)"
