"""What the log keeps of prunes, and what becomes of rows of it that no prune leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw
import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.errors import DamagedError
from tallystick.evidence.findings import Kind
from tallystick.ledger import Ledger

DAY: Final = 86_400_000_000
BEGIN: Final = 1_772_323_200_000_000


def opened(folder: Path, *, day: int) -> Ledger:
    return tallystick.open(folder, clock=lambda: BEGIN + day * DAY)


def fill(ledger: Ledger, count: int) -> None:
    ledger.append_many({"event_type": "door.opened", "entity_id": "d"} for _ in range(count))


def edit(folder: Path, statements: str) -> None:
    """Edit the log, and put back all that protects it."""
    connection = apsw.Connection(str(folder / "ledger.db"))
    found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in found:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(statements).fetchall()
    for _, sql in found:
        connection.execute(str(sql))
    connection.close()


def loosen(folder: Path, value: str) -> None:
    """Put a value in `pruned` that its schema does not allow: take the schema away for a moment."""
    connection = apsw.Connection(str(folder / "ledger.db"))
    [[sql]] = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'pruned'").fetchall()
    connection.execute("PRAGMA writable_schema = ON")
    loose = "CREATE TABLE pruned (id INTEGER PRIMARY KEY, below)"
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'pruned'", (loose,))
    connection.close()
    edit(folder, f"UPDATE pruned SET below = {value}")
    connection = apsw.Connection(str(folder / "ledger.db"))
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'pruned'", (sql,))
    connection.close()


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    with opened(tmp_path / "audit", day=0) as ledger:
        fill(ledger, 60)
        ledger.retention.set(RetentionPolicy.of("5d", {}))
    with opened(tmp_path / "audit", day=10) as ledger:
        fill(ledger, 60)
        ledger.retention.prune()
    return tmp_path / "audit"


@pytest.mark.parametrize(
    "statements",
    ["UPDATE pruned SET id = -5", "INSERT INTO pruned VALUES (2, 5)", "UPDATE pruned SET below = -5"],
)
def test_rows_that_no_prune_leaves_are_told_and_nothing_is_made_of_them(pruned: Path, statements: str) -> None:
    edit(pruned, statements)

    assert Kind.STORE in {finding.kind for finding in tallystick.verify(pruned).findings}
    with pytest.raises(DamagedError, match="how far it was pruned"), opened(pruned, day=30) as ledger:
        ledger.retention.prune()


@pytest.mark.parametrize("value", ["'abc'", "NULL", "x'ff'", "9e99"])
def test_values_of_other_types_are_told(pruned: Path, value: str) -> None:
    loosen(pruned, value)

    assert Kind.STORE in {finding.kind for finding in tallystick.verify(pruned).findings}
    with pytest.raises(DamagedError, match="how far it was pruned"), opened(pruned, day=30) as ledger:
        ledger.count()


@pytest.mark.parametrize("position", [30, 5_000])
def test_a_leaf_hash_that_no_prune_left_is_told_and_a_prune_gets_over_it(tmp_path: Path, position: int) -> None:
    folder = tmp_path / "audit"
    with opened(folder, day=0) as ledger:
        fill(ledger, 60)
        ledger.retention.set(RetentionPolicy.of("5d", {}))
    edit(folder, f"INSERT INTO leaf VALUES ({position}, randomblob(32))")

    report = tallystick.verify(folder)
    assert [finding.kind for finding in report.findings] == [Kind.STORE]
    assert f"a leaf hash numbered {position}" in report.findings[0].seen
    with opened(folder, day=10) as ledger:
        fill(ledger, 30)
        assert ledger.retention.prune() is not None
        fill(ledger, 30)
        assert ledger.verify().holds == (position == 30)
