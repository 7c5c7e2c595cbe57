"""The store in memory keeps the contract, and is the policeman of the other tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.errors import RejectedError, StoreError, TamperError
from tallystick.store.contract import StoredRecord
from tallystick.store.memory import MemoryStore
from tests.store.contract_suite import Opener, StoreContract, batch_of, head_of


class TestMemoryStore(StoreContract):
    def opener(self, folder: Path) -> Opener:
        del folder
        store = MemoryStore()
        return lambda: store


def test_sealed_bytes_that_changed_are_caught_when_they_are_read() -> None:
    store = MemoryStore()
    store.create(batch_of(0, 2), head_of(2))
    record = store._records[1]

    store._records[1] = StoredRecord(1, record.line.replace(b"1", b"2"), record.crc32)

    with pytest.raises(TamperError, match="position 1"):
        [*store.read(0, 2)]


@pytest.mark.parametrize(("first", "size"), [(3, 4), (1, 2), (2, 4), (2, 2)])
def test_a_batch_that_does_not_continue_the_ledger_up_to_its_head_is_refused(first: int, size: int) -> None:
    store = MemoryStore()
    store.create(batch_of(0, 2), head_of(2))

    with pytest.raises(StoreError):
        store.commit(2, batch_of(first, 1), head_of(size))

    assert store.head() == head_of(2)


def test_a_store_in_memory_gives_no_copy_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="a ledger in memory cannot be copied into a folder"):
        MemoryStore().copy(tmp_path)

    assert [*tmp_path.iterdir()] == []
