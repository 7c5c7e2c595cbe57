"""The library with files that are damaged, or lawfully changed, while a ledger is open."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

import tallystick
from tallystick.errors import DamagedError, DamagedIndexError, StoreError
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.sqlite_file import translated
from tests.damaging import LOG, damage

MAIN = ("zeroed", "emptied", "garbage", "replaced", "removed")


def fill(ledger: tallystick.Ledger, count: int) -> None:
    for _ in range(count):
        ledger.append(event_type="door.opened", entity_id="door-1", actor="jane")


@pytest.mark.parametrize("log", LOG)
@pytest.mark.parametrize("main", MAIN)
def test_a_log_that_is_damaged_while_it_is_open_is_neither_read_nor_added_to(
    tmp_path: Path, main: str, log: str
) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        fill(ledger, 20)
        damage(tmp_path / "l/ledger.db", main=main, log=log)
        with pytest.raises(DamagedError):
            fill(ledger, 1)
        with pytest.raises(DamagedError):
            ledger.get(5)
        with pytest.raises(DamagedError):
            ledger.look(now=True)


@pytest.mark.parametrize("log", LOG)
@pytest.mark.parametrize("main", MAIN)
def test_an_index_that_is_damaged_while_it_is_open_is_rebuilt_when_the_ledger_is_opened_again(
    tmp_path: Path, main: str, log: str
) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        fill(ledger, 20)
        assert ledger.count() == 22
        damage(tmp_path / "l/index.db", main=main, log=log)
        with pytest.raises(DamagedIndexError):
            ledger.look(now=True)
        with pytest.raises(DamagedIndexError):
            ledger.count()
        fill(ledger, 1)
    with tallystick.open(tmp_path / "l") as ledger:
        assert ledger.count() == 23


def test_a_prune_of_another_process_shortens_the_files_and_is_no_damage(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger, tallystick.open(tmp_path / "l") as other:
        fill(ledger, 400)
        other.look(now=True)
        assert other.count() == 402
        connection = apsw.Connection(str(tmp_path / "l/ledger.db"))
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        connection.close()
        assert (tmp_path / "l/ledger.db-wal").stat().st_size == 0
        for one in (ledger, other):
            assert one.look(now=True)
        fill(other, 1)
        assert ledger.count() == 403


def test_an_index_that_one_of_us_rebuilds_is_no_damage(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "l") as ledger:
        fill(ledger, 20)
        assert ledger.count() == 22
        assert tallystick.rebuild_index(tmp_path / "l") == 22
        assert not ledger.look(now=True), "it should be opened again"
        assert ledger.count() == 22
        assert isinstance(ledger._open_reader().follower.file, SqliteIndexFile)


@pytest.mark.parametrize("kind", [apsw.FullError, apsw.CantOpenError, apsw.IOError])
def test_an_error_that_may_be_over_soon_is_not_damage(kind: type[apsw.Error]) -> None:
    with pytest.raises(StoreError) as caught, translated("commit"):
        raise kind("no room")
    assert not isinstance(caught.value, DamagedError)
