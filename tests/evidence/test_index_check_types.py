"""Values that the schema of an index does not allow, put in while it was taken away: a clear error, and a rebuild."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw
import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.errors import DamagedError
from tallystick.evidence.findings import Kind

COUNT: Final = 200
VALUES: Final = ("'abc'", "NULL", "x'ff'", "9e99")
COLUMNS: Final = {
    "cursor": ("position", "last_hash", "ledger_id"),
    "forgotten": ("prune_at",),
    "event": ("recorded", "occurred"),
    "tally": ("quarter", "count"),
    "rollup": ("position", "sealed_below", "defined_at"),
}

POSSIBLE: Final = {("quarter", "NULL"), ("last_hash", "x'ff'"), ("ledger_id", "x'ff'")}
"""What is of the right type, or refused by SQLite in any case."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("types") / "audit"
    with tallystick.open(folder) as ledger:
        ledger.append_many({"event_type": "a.b", "entity_id": "e", "payload": {"n": n}} for n in range(COUNT))
        ledger.retention.set(RetentionPolicy.of("5d", {}))
        ledger.downsample("r", event_type="a.*", width="hour", measure="sum:payload.n")
        ledger.series(event_type="a.*", width="hour", measure="sum:payload.n")
    return folder


def loosen(folder: Path, table: str, column: str, value: str) -> bool:
    """Put a value into all rows of a table that its schema does not allow; whether there is a row."""
    path = str(folder / "index.db")
    with closing(apsw.Connection(path)) as connection:
        [[sql]] = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchall()
        loose = str(sql).replace("STRICT, ", "").replace(" STRICT", "").replace("NOT NULL", "")  # but of a primary key
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (loose, table))
    with closing(apsw.Connection(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        if table == "forgotten":
            connection.execute("INSERT OR REPLACE INTO forgotten VALUES (1, 0)")
        connection.execute(f"UPDATE OR REPLACE {table} SET {column} = {value}")
        changed = connection.changes()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
    return changed > 0


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        (table, column, value)
        for table, columns in COLUMNS.items()
        for column in columns
        for value in VALUES
        if (column, value) not in POSSIBLE
    ],
)
def test_a_value_of_another_type_is_told_and_the_index_is_made_again(
    made: Path, tmp_path: Path, table: str, column: str, value: str
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "audit"))
    assert loosen(folder, table, column, value)

    assert {finding.kind for finding in tallystick.verify(folder).findings} == {Kind.INDEX}
    for _ in range(8):
        with tallystick.open(folder) as ledger:
            try:
                ledger.stats()
                ledger.extent(event_type="a.*")
                ledger.series(event_type="a.*", width="day")
                ledger.series(event_type="a.*", width="hour", measure="sum:payload.n")
                ledger.retention.plan()
                ledger.query(event_type="a.b", after="2020-01-01")
                ledger.append(event_type="c.d", entity_id="e")
                assert ledger.count(event_type="a.b") == COUNT
                break
            except DamagedError:
                continue
    else:
        pytest.fail("the index was not made again")
