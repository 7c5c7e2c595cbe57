"""Stored roll-ups in the index file (`tallystick.read.index.RollupRows`).

The cells of a step and how far it came are saved in one transaction, so that every record counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from tallystick.core.measure import Totals
from tallystick.core.rollup import Cells
from tallystick.errors import RejectedError, TamperError
from tallystick.read.index import KeptRollup
from tallystick.read.sqlite_figures import Test

_KEPT: Final = "SELECT definition, defined_at, position, sealed_below FROM rollup WHERE name = ?"
_CELL: Final = "SELECT count, numbers, total, least, most FROM {} WHERE rollup = ? AND bucket = ? AND cell_group = ?"

_COUNTED: Final = "SELECT count(*) FROM (SELECT 1 FROM cell WHERE rollup = ? AND bucket >= ? AND bucket < ? LIMIT ?)"


class _File(Protocol):
    def query(self, statement: str, values: Sequence[str | int] = ()) -> list[Any]: ...

    def each(
        self, statement: str, values: Sequence[str | int], kinds: Sequence[Test], take: Callable[[list[Any]], None]
    ) -> None: ...

    def changing(self) -> AbstractContextManager[Any]: ...


class SqliteRollups:
    """Keeps roll-ups as rows beside the index; an index made anew begins without any."""

    def __init__(self, file: _File) -> None:
        self._file: Final = file

    def kept(self, name: str) -> KeptRollup | None:
        rows = self._file.query(_KEPT, (name,))
        return KeptRollup(*rows[0]) if rows else None

    def begin(self, name: str, rollup: KeptRollup) -> None:
        with self._file.changing() as writer:
            for definition, defined_at, _, _ in writer.execute(_KEPT, (name,)).fetchall():
                if definition == rollup.definition or defined_at > rollup.defined_at:
                    return
            writer.execute("DELETE FROM cell WHERE rollup = ?", (name,))
            writer.execute("INSERT OR REPLACE INTO rollup VALUES (?,?,?,?,?)", (name, *rollup))

    def add(self, name: str, rollup: KeptRollup, cells: Cells, *, end: int) -> bool:
        with self._file.changing() as writer:
            if writer.execute(_KEPT, (name,)).fetchall() != [tuple(rollup)]:
                return False
            add_cells(writer, "main.cell", name, cells)
            writer.execute("UPDATE rollup SET position = ? WHERE name = ?", (end, name))
        return True

    def cells(
        self, name: str, definition: str, *, first: int, end: int, most: int, take: Callable[[Cells], None]
    ) -> int | None:
        [[count]] = self._file.query(_COUNTED, (name, first, end, most + 1))
        if count > most:
            problem = f"the roll-up has more than {most} cells in that time"
            raise RejectedError(problem, place="rollup", cure="ask for less time")
        reached: set[int] = set()

        def take_rows(rows: list[Any]) -> None:
            reached.update(row[0] for row in rows)
            take({(bucket, group): _totals(row) for _, bucket, group, *row in rows if bucket is not None})

        self._file.each(
            "SELECT position, bucket, cell_group, count, numbers, total, least, most FROM rollup"
            " LEFT JOIN cell ON cell.rollup = name AND bucket >= ? AND bucket < ?"
            " WHERE name = ? AND definition = ? LIMIT ?",
            (first, end, name, definition, most + 1),
            (),
            take_rows,
        )
        return min(reached, default=None)


def add_cells(writer: Any, table: str, name: str, cells: Cells) -> None:
    """Add to the cells of a roll-up in a table, within a transaction."""
    for key, totals in cells.items():
        present = Totals()
        for row in writer.execute(_CELL.format(table), (name, *key)).fetchall():
            present = _totals(row)
        present.add(totals)
        writer.execute(f"INSERT OR REPLACE INTO {table} VALUES (?,?,?,?,?,?,?,?)", (name, *key, *_row(present)))


def _row(totals: Totals) -> tuple[int, int, str, int | float | None, int | float | None]:
    least, most = (float(edge) if isinstance(edge, float) else edge for edge in (totals.least, totals.most))
    return totals.records, totals.numbers, totals.total_text, least, most


def _totals(row: Sequence[Any]) -> Totals:
    try:
        return Totals.read(*row)
    except RejectedError as error:
        raise TamperError(f"the index has a roll-up with {row!r}, {error}: delete index.db, and verify") from error
