"""Verifying a whole ledger or a part of it: in one process or several, with keys and without, beside writers."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

import tallystick
from tallystick.core.note import VerifierKey
from tallystick.evidence.findings import MEANING, Kind
from tallystick.evidence.verification.scan import RANGE_RECORDS
from tallystick.write.sealing_index import SealingIndex
from tests.evidence.forge import kinds

SIZE = 2 * RANGE_RECORDS + 900


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of three ranges, so that several processes have something to do."""
    folder = tmp_path_factory.mktemp("large") / "shop"
    with tallystick.open(folder) as ledger:
        while ledger.size < SIZE:
            count = min(1_000, SIZE - ledger.size)
            ledger.append_many([event(number) for number in range(count)])
            if ledger.size == 20_002:
                ledger.change_epoch()
    return folder


def event(number: int) -> dict[str, Any]:
    return {"event_type": "shop.sold", "entity_id": f"till-{number % 50}", "payload": {"n": number}}


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_finds_the_same(large: Path, tmp_path: Path, processes: int) -> None:
    shutil.copytree(large, tmp_path / "shop")
    wanted = [300, RANGE_RECORDS - 1, RANGE_RECORDS, 2 * RANGE_RECORDS, SIZE - 1]
    database = apsw.Connection(str(tmp_path / "shop" / "ledger.db"))
    database.execute("DROP TRIGGER record_no_delete")
    for position in wanted:
        database.execute("DELETE FROM record WHERE position = ?", (position,))
    database.close()

    report = tallystick.verify(tmp_path / "shop", processes=processes)

    missing = [(found.position, found.end) for found in report.findings if found.kind is Kind.MISSING]
    assert missing == [
        (300, 301),
        (RANGE_RECORDS - 1, RANGE_RECORDS + 1),
        (2 * RANGE_RECORDS, 2 * RANGE_RECORDS + 1),
        (SIZE - 1, SIZE),
    ]
    assert {at for _, at in kinds(report)} <= {*wanted, None}


@pytest.mark.parametrize("processes", [1, 2])
def test_progress_is_told_and_ends_with_all_records(large: Path, processes: int) -> None:
    told: list[tuple[int, int]] = []

    report = tallystick.verify(large, processes=processes, progress=lambda done, of: told.append((done, of)))

    assert report.holds
    assert report.signatures == SIZE - 1
    assert [done for done, _ in told][:3] == [RANGE_RECORDS, 2 * RANGE_RECORDS, SIZE]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (2 * SIZE, 2 * SIZE), "once for the records, once for the index"


def test_a_range_is_widened_to_whole_tiles_and_proven_by_the_signed_root(large: Path) -> None:
    report = tallystick.verify(large, first=1_000, end=1_001)

    assert report.holds
    assert (report.first, report.end) == (768, 1_024)
    assert report.proven == ((768, 1_024),)
    assert report.size == SIZE


def test_a_range_without_the_damage_passes_and_one_with_it_fails(large: Path, tmp_path: Path) -> None:
    shutil.copytree(large, tmp_path / "shop")
    database = apsw.Connection(str(tmp_path / "shop" / "ledger.db"))
    database.execute("DROP TRIGGER record_no_delete")
    database.execute("DELETE FROM record WHERE position = 5000")
    database.execute("CREATE TRIGGER record_no_delete BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'no'); END")
    database.close()

    whole = tallystick.verify(tmp_path / "shop", first=10_000, end=20_000)
    hurt = tallystick.verify(tmp_path / "shop", first=4_900, end=5_100)

    assert [kind for kind, _ in kinds(whole)] == [Kind.STORE]
    assert whole.proven == ((9_984, 20_224),)
    assert (Kind.MISSING, 5_000) in kinds(hurt)


@pytest.mark.parametrize(("first", "end"), [(-1, 5), (5, 5), (SIZE, SIZE + 5), (7, 3)])
def test_a_range_that_is_none_is_refused(large: Path, first: int, end: int) -> None:
    with pytest.raises(tallystick.RejectedError):
        tallystick.verify(large, first=first, end=end)


def test_without_the_keys_everything_but_signatures_is_checked(large: Path, tmp_path: Path) -> None:
    shutil.copytree(large, tmp_path / "shop", ignore=shutil.ignore_patterns("keys"))

    report = tallystick.verify(tmp_path / "shop")

    assert report.holds
    assert not report.keys
    assert report.signatures == 0
    assert report.proven == ((0, SIZE),)


def test_the_keys_of_another_ledger_are_a_finding_and_check_no_signature(large: Path, tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "other"):
        pass

    report = tallystick.verify(large, keys=tmp_path / "other" / "keys", first=0, end=256)

    assert kinds(report) == [(Kind.GENESIS, 0)]
    assert not report.keys


def test_keys_that_are_not_there_and_a_ledger_that_is_not_there_are_said_so(large: Path, tmp_path: Path) -> None:
    with pytest.raises(tallystick.NotFoundError):
        tallystick.verify(large, keys=tmp_path / "nowhere")
    with pytest.raises(tallystick.NotFoundError):
        tallystick.verify(tmp_path / "nowhere")


def test_a_trusted_key_that_is_none_of_the_ledgers_is_found(large: Path, tmp_path: Path) -> None:
    with tallystick.open(large, readonly=True) as ledger:
        own = ledger.verifier_key
    with tallystick.open(tmp_path / "other", name="shop") as other:
        foreign = other.verifier_key

    assert tallystick.verify(large, end=256, trust=own).holds
    report = tallystick.verify(large, end=256, trust=VerifierKey(own.name, foreign.public_key))
    assert kinds(report) == [(Kind.GENESIS, None)]


def test_a_verification_beside_writers_holds(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "shop") as ledger:
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                ledger.append_many([event(number) for number in range(97)])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(20):
                # Comparing the index takes longer than scanning, and meanwhile the ledger grows.
                report = tallystick.verify(tmp_path / "shop", processes=1, index=number % 7 == 0)
                assert report.holds, report.findings
                assert report.end == report.size, "one head decides what is verified"
        finally:
            stop.set()
            writer.join()


def test_a_ledger_in_memory_verifies_too() -> None:
    with tallystick.open("memory:") as ledger:
        ledger.append_many([event(number) for number in range(600)])
        assert ledger.verify().holds


@pytest.mark.parametrize("cut", [0, 100, 4_096, 50_000, -9_000], ids=lambda cut: f"cut at {cut}")
def test_a_file_cut_short_is_found_or_reported_and_never_crashes(large: Path, tmp_path: Path, cut: int) -> None:
    shutil.copytree(large, tmp_path / "shop")
    path = tmp_path / "shop" / "ledger.db"
    data = path.read_bytes()
    path.write_bytes(data[:cut])

    try:
        report = tallystick.verify(tmp_path / "shop")
    except tallystick.TallystickError:
        return  # a file that is no database any more is an error of the store
    assert not report.holds


def test_every_kind_of_finding_has_a_meaning() -> None:
    assert set(MEANING) == set(Kind)


def test_an_id_that_stands_twice_is_found(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "shop") as ledger:
        ledger.append(event_type="paid", entity_id="order-1", id="pay-1")
    with tallystick.open(tmp_path / "shop") as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setattr(SealingIndex, "find_all", lambda *_: {})  # as if the sealer had never heard of it
        again = ledger.append(event_type="paid", entity_id="order-1", id="pay-1")

    assert kinds(tallystick.verify(tmp_path / "shop")) == [(Kind.DUPLICATE_ID, again.position)]


@pytest.mark.parametrize("size", [10**12, 2**62])
def test_a_head_that_claims_a_size_without_end_is_found_and_costs_nothing(tmp_path: Path, size: int) -> None:
    with tallystick.open(tmp_path / "shop") as ledger:
        ledger.append_many([event(number) for number in range(300)])
    database = apsw.Connection(str(tmp_path / "shop" / "ledger.db"))
    database.execute("UPDATE head SET size = ?", (size,))
    database.close()

    found = kinds(tallystick.verify(tmp_path / "shop"))

    assert (Kind.MISSING, 302) in found
    assert (Kind.HEAD, None) in found


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE head SET size = 0",
        "DELETE FROM head",
        "UPDATE record SET bytes = 'text' WHERE position = 7",
        "INSERT INTO record SELECT -5, bytes, crc32 FROM record WHERE position = 7",
        "INSERT INTO record SELECT 9223372036854775807, bytes, crc32 FROM record WHERE position = 7",
        "INSERT INTO tile SELECT -1, hashes, root FROM tile WHERE number = 0",
        "INSERT INTO tile SELECT 9 << 48, hashes, root FROM tile WHERE number = 0",
    ],
)
def test_rows_that_no_commit_makes_are_found(tmp_path: Path, statement: str) -> None:
    with tallystick.open(tmp_path / "shop") as ledger:
        ledger.append_many([event(number) for number in range(300)])
    database = apsw.Connection(str(tmp_path / "shop" / "ledger.db"))
    triggers = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'record'")
    database.close()
    database = apsw.Connection(str(tmp_path / "shop" / "ledger.db"))
    database.execute(statement)
    database.execute("PRAGMA writable_schema = ON")
    database.execute(
        "UPDATE sqlite_schema SET sql = substr(sql, 1, length(sql) - 1) || ') STRICT' WHERE name = 'record'"
    )
    database.close()
    database = apsw.Connection(str(tmp_path / "shop" / "ledger.db"))
    for _, sql in triggers:
        database.execute(str(sql))
    database.close()

    try:
        report = tallystick.verify(tmp_path / "shop")
    except tallystick.TamperError:
        return  # a ledger that has no head any more
    assert not report.holds


def test_a_page_of_the_file_that_hides_records_from_a_search_is_found(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "shop") as ledger:
        ledger.append_many([event(number) for number in range(3_000)])
    path = tmp_path / "shop" / "ledger.db"
    database = apsw.Connection(str(path))
    ((root,),) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'record'").fetchall()
    database.close()
    data = bytearray(path.read_bytes())
    page = (int(str(root)) - 1) * 8_192
    assert data[page] == 5, "an interior page: each of its cells is a child page and the largest position there"
    cell = int.from_bytes(data[page + 12 : page + 14], "big")
    data[page + cell + 4] ^= 1
    path.write_bytes(data)

    report = tallystick.verify(tmp_path / "shop")

    assert Kind.STORE in {finding.kind for finding in report.findings}


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a tile at level 1: it takes 65,536 records."""
    folder = tmp_path_factory.mktemp("tall") / "shop"
    with tallystick.open(folder) as ledger:
        while ledger.size < 65_800:
            ledger.append_many([event(number) for number in range(min(5_000, 65_800 - ledger.size))])
    return folder


@pytest.mark.parametrize(
    "statement",
    ["UPDATE tile SET hashes = zeroblob(8192)", "UPDATE tile SET root = zeroblob(32)", "DELETE FROM tile"],
    ids=["hashes", "root", "missing"],
)
def test_a_tile_above_the_lowest_level_is_checked_too(tall: Path, tmp_path: Path, statement: str) -> None:
    shutil.copytree(tall, tmp_path / "shop")
    database = apsw.Connection(str(tmp_path / "shop" / "ledger.db"))
    triggers = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    database.execute(f"{statement} WHERE number = 1 << 48")
    for _, sql in triggers:
        database.execute(str(sql))
    database.close()

    report = tallystick.verify(tmp_path / "shop")

    assert kinds(report) == [(Kind.TILE, 0)]
    assert report.proven == ((0, 65_800),)
