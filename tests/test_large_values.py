"""Databases with values that are longer than any that is written: they are refused, and not read whole into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import tallystick
from tallystick.core.custody import RetentionPolicy
from tallystick.errors import DamagedError
from tests.tampering import edit

LONG: Final = 1_000_000
LONGER: Final = 134_217_729
"""Longer than an index may have one."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.append_many({"event_type": "a.b", "entity_id": f"e{n % 3}"} for n in range(300))
        ledger.retention.set(RetentionPolicy.of("5d", {}))
        ledger.catch_up()
    return tmp_path / "audit"


def test_a_long_record_is_refused(folder: Path) -> None:
    edit(folder / "ledger.db", "UPDATE record SET bytes = zeroblob(?) WHERE position = 20", LONG)

    with tallystick.open(folder, readonly=True) as ledger:
        with pytest.raises(DamagedError, match="longer"):
            ledger.get(20)
        with pytest.raises(DamagedError, match="longer"):
            list(ledger.records())
    assert not tallystick.verify(folder).holds


def test_a_long_checkpoint_is_refused(folder: Path) -> None:
    edit(folder / "ledger.db", "UPDATE head SET checkpoint = zeroblob(?)", LONG)

    with pytest.raises(DamagedError, match="longer"):
        tallystick.open(folder)


def test_what_the_sealer_knows_is_made_again(folder: Path) -> None:
    edit(folder / "sealing.db", "UPDATE manifest SET content = zeroblob(?)", 3 * LONG)

    assert not tallystick.verify(folder).holds
    with tallystick.open(folder) as ledger:
        assert ledger.append(event_type="a.b", entity_id="e0").entity_version == 101
    assert tallystick.verify(folder).holds


def test_an_index_is_made_again(folder: Path) -> None:
    edit(folder / "index.db", "UPDATE cursor SET last_hash = zeroblob(?)", LONGER)

    assert not tallystick.verify(folder).holds
    with tallystick.open(folder) as ledger:
        assert ledger.count(event_type="a.b") == 300
    assert tallystick.verify(folder).holds


def test_many_positions_are_fetched_whatever_their_order(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        found = ledger._store.fetch([299, 5, 5, 10**15, *range(10**9, 10**9 + 30_000), 0])

    assert [stored.position for stored in found] == [0, 5, 299]
