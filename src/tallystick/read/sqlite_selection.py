"""A query as SQL over the index: which rows of `event e` it may mean, and from which tables they are had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tallystick.read.index import GroupKind


class Sql(NamedTuple):
    """A piece of a statement, and the values for its question marks."""

    text: str
    values: list[str | int]


@dataclass(slots=True)
class Selection:
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

    def tables(self, group: GroupKind | None = None) -> Sql:
        """What stands after FROM: `event e`, and its labels if they are the group."""
        found = "SELECT rowid AS position FROM posting WHERE posting MATCH ? AND rowid >= ? AND rowid < ?"
        match: list[str | int] = [] if self.match is None else [self.match, self.first, self.end]
        if group == "label":
            # By label first, as their rows lie in that order.
            chosen = "label.position >= ? AND label.position < ?" + (
                f" AND label.position IN ({found})" if match else ""
            )
            return Sql(
                f"term CROSS JOIN label ON term.kind = 'label' AND label.label = term.id AND {chosen}"
                " CROSS JOIN event AS e ON e.position = label.position",
                [self.first, self.end, *match],
            )
        if self.match is None or self.by_occurred:
            return Sql(f"event AS e {'INDEXED BY event_occurred' if self.by_occurred else 'NOT INDEXED'}", [])
        return Sql(f"({found}) AS p CROSS JOIN event AS e ON e.position = p.position", match)

    def where(self) -> Sql:
        """What stands after WHERE."""
        text = " AND ".join(["e.position >= ?", "e.position < ?", *self.tests])
        return Sql(text, [self.first, self.end, *self.values])

    def source(self, group: GroupKind | None = None, *, joined: str = "", joined_values: Sequence[int] = ()) -> Sql:
        """FROM, perhaps with another table, and WHERE."""
        tables, where = self.tables(group), self.where()
        return Sql(f"{tables.text} {joined} WHERE {where.text}", [*tables.values, *joined_values, *where.values])
