"""Verified reads: what is handed out is in the signed tree, and what is absent was lawfully pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

import tallystick
from tallystick.core.note import VerifierKey
from tallystick.core.system import Genesis
from tallystick.errors import TamperError
from tallystick.store.contract import Store
from tallystick.store.reading import checkpoint_key, read_record
from tallystick.store.sqlite import SqliteStore
from tallystick.store.verified_reads import VerifiedReads, verified_tree
from tests.evidence.test_prune import pruned_ledger
from tests.tampering import edit, replace_record

RECORDS: Final = 70_000
"""More than 256 tiles, so that there is a full tile above them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified") / "audit"
    with tallystick.open(folder) as ledger:
        for first in range(0, RECORDS, 10_000):
            numbers = range(first, first + 10_000)
            ledger.append_many({"event_type": "door.opened", "entity_id": f"door-{n % 50}"} for n in numbers)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    store = SqliteStore(made, readonly=True)
    try:
        store.copy(tmp_path)
    finally:
        store.close()
    return tmp_path


@contextmanager
def opened(folder: Path) -> Iterator[VerifiedReads]:
    store = SqliteStore(folder, readonly=True)
    try:
        yield reads_of(store)
    finally:
        store.close()


def reads_of(store: Store) -> VerifiedReads:
    head = store.head()
    assert head is not None
    genesis = Genesis.of(read_record(store, 0))
    key = VerifierKey(genesis.origin, checkpoint_key(store, head.checkpoint_key_at, genesis=genesis))
    return VerifiedReads(store, verified_tree(store, head, key))


def altered(folder: Path, position: int) -> bytes:
    with opened(folder) as reads:
        [stored] = reads.fetch([position])
    return stored.line.replace(b"door.opened", b"door.closed")


def test_all_records_of_a_whole_log_are_handed_out_in_order(folder: Path) -> None:
    with opened(folder) as reads:
        assert [stored.position for stored in reads.read(0, reads.size)] == [*range(RECORDS + 2)]
        assert [stored.position for stored in reads.fetch([69_999, 3, 65_535])] == [3, 65_535, 69_999]


@pytest.mark.parametrize("position", [2, 255, 256, 40_000, 65_535, 65_536, 69_887, 69_888, RECORDS + 1])
def test_an_altered_record_whose_crc_fits_is_refused_at_its_position(folder: Path, position: int) -> None:
    line = altered(folder, position)
    replace_record(folder / "ledger.db", position, line)

    # At the right edge the head itself does not fit the record any more; elsewhere the record is refused.
    with pytest.raises(TamperError, match=rf"position {position}\b|not of these records"), opened(folder) as reads:
        reads.fetch([position])
    with pytest.raises(TamperError), opened(folder) as reads:
        list(reads.read(0, reads.size))


@pytest.mark.parametrize("number", [0, 7, 1 << 48], ids=["leaves of the record", "other leaves", "the tile above"])
def test_a_tile_that_fits_an_altered_record_is_refused(folder: Path, number: int) -> None:
    line = altered(folder, 9)
    replace_record(folder / "ledger.db", 9, line)
    edit(folder / "ledger.db", "UPDATE tile SET hashes = zeroblob(8192) WHERE number = ?", number)

    with pytest.raises(TamperError), opened(folder) as reads:
        reads.fetch([9])


@pytest.mark.parametrize("told", [False, True], ids=["only removed", "and the store says that it was pruned"])
def test_a_removed_record_is_missing_whatever_the_store_says(folder: Path, told: bool) -> None:
    edit(folder / "ledger.db", "DELETE FROM record WHERE position = 300")
    if told:
        edit(folder / "ledger.db", "INSERT OR REPLACE INTO pruned VALUES (1, 301)")

    with pytest.raises(TamperError, match=r"position 300 is missing"), opened(folder) as reads:
        list(reads.read(0, reads.size))
    with pytest.raises(TamperError, match=r"position 300 is missing"), opened(folder) as reads:
        reads.fetch([300])


def test_what_a_prune_removed_is_left_out_and_what_else_is_gone_is_missing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    pruned_ledger(store)
    reads = reads_of(store)

    there = [stored.position for stored in reads.read(0, reads.size)]
    assert 0 < len(there) < reads.size
    gone = next(position for position in range(reads.size) if position not in there)
    assert reads.fetch([gone, there[-1]]) == [*store.fetch([there[-1]])]

    victim = next(position for position in there if position > gone)
    edit(tmp_path / "ledger.db", "DELETE FROM record WHERE position = ?", victim)
    for read in (lambda reads: reads.fetch([victim]), lambda reads: list(reads.read(0, reads.size))):
        asked: Callable[[VerifiedReads], object] = read
        with pytest.raises(TamperError, match="is missing"):
            asked(reads_of(store))
    store.close()


def test_a_head_that_is_not_of_these_records_is_refused(folder: Path) -> None:
    edit(folder / "ledger.db", "UPDATE head SET size = size - 1")

    with pytest.raises(TamperError, match="not of these records"), opened(folder):
        pass
