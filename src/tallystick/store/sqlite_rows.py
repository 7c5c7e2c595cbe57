"""The rows of the SQLite store: writing a batch in few statements, and telling records from what is none."""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import chain, count
from typing import Any, Final
from zlib import crc32

import apsw

from tallystick.errors import DamagedError
from tallystick.store.contract import Batch, StoredRecord

INDEX_BITS: Final = 48
"""Of a tile's number, below its level."""
_BOUND_BYTES: Final = 1_048_576
_FEW_ROWS: Final = 16
_ROWS_AT_ONCE: Final = 500
"""Rows of one INSERT. Each statement run releases and retakes the interpreter's lock; beside busy threads
that is the cost of an insert, so few large statements beat many small ones (docs/adr/0004)."""

_INSERT_ROW: Final = "(?,?,?)"


def insert(connection: apsw.Connection, batch: Batch) -> None:
    """Write the records and the tiles. The caller has a transaction."""
    # SQLite keeps what the last statement was given until its next use: of large records this is more than a little.
    at_once = _ROWS_AT_ONCE
    if len(batch.lines) > _FEW_ROWS:
        at_once = max(1, min(_ROWS_AT_ONCE, _BOUND_BYTES * len(batch.lines) // sum(map(len, batch.lines))))
    for start in range(0, len(batch.lines), at_once):
        lines = batch.lines[start : start + at_once]
        rows = zip(count(batch.first + start), lines, map(crc32, lines), strict=False)
        connection.execute(_insert_sql(len(lines)), list(chain.from_iterable(rows)))
    for tile in batch.tiles:
        number = (tile.level << INDEX_BITS) + tile.index
        connection.execute("INSERT INTO tile VALUES (?,?,?)", (number, tile.hashes, tile.root))


def checked(rows: list[tuple[Any, ...]]) -> list[StoredRecord]:
    """The rows as records, if that is what they are."""
    positions, lines, crcs = zip(*rows, strict=True)
    if [*positions] != sorted({*positions}) or {*map(type, lines)} != {bytes} or {*map(type, crcs)} != {int}:
        raise DamagedError(f"the rows from {positions[0]} to {positions[-1]} are out of order, or not records")
    return [*map(_stored, rows)]


# What StoredRecord._make does, without its Python: a row is a tuple of the three already.
_stored: Final = partial(tuple.__new__, StoredRecord)


@lru_cache(maxsize=_ROWS_AT_ONCE)
def _insert_sql(rows: int) -> str:
    return "INSERT INTO record VALUES " + ",".join([_INSERT_ROW] * rows)
