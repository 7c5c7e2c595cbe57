"""Verification takes posting lists apart: pages that mislead who looks a word up are found, whatever a walk says."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

import tallystick
from tallystick.evidence.findings import Kind
from tallystick.read.sqlite_check_postings import check_postings

RECORDS: Final = 600
OF_A_LIST: Final = 1 << 36
EVERY: Final = "über"
"""A word of every record, behind all others."""


def positions(connection: apsw.Connection, order: str = "", word: str = EVERY) -> list[int]:
    rows: list[Any] = connection.execute(
        f"SELECT rowid FROM posting WHERE posting MATCH ? {order}", (f'"{word}"',)
    ).fetchall()
    return [position for (position,) in rows]


@contextmanager
def index_of(folder: Path) -> Iterator[apsw.Connection]:
    with closing(apsw.Connection(str(folder / "index.db"))) as connection:
        yield connection


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger whose index has posting lists on small pages, so that lists of some hundred positions go over many."""
    folder = tmp_path_factory.mktemp("postings") / "audit"
    with tallystick.open(folder) as ledger:
        payload = [{EVERY: "opened", "n": f"w{n}", "of": f"s{n % 6}"} for n in range(RECORDS)]
        ledger.append_many({"event_type": "door.used", "entity_id": "door", "payload": one} for one in payload)
        ledger.catch_up()
    with index_of(folder) as connection:
        _write_on_small_pages(connection)
    return folder


def _write_on_small_pages(connection: apsw.Connection) -> None:
    connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, posting, instance)")
    rows: list[Any] = connection.execute("SELECT doc, group_concat(term, ' ') FROM temp.words GROUP BY doc").fetchall()
    settings: list[Any] = connection.execute("SELECT k, v FROM posting_config").fetchall()
    connection.execute("INSERT INTO posting (posting) VALUES ('delete-all')")
    connection.execute("INSERT INTO posting (posting, rank) VALUES ('pgsz', 64)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO posting (rowid, words) VALUES (?, ?)", rows)
    connection.execute("INSERT INTO posting (posting) VALUES ('optimize')")
    connection.execute("DELETE FROM posting_config")
    connection.executemany("INSERT INTO posting_config VALUES (?, ?)", settings)
    connection.execute("COMMIT")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "audit"))


def blocks(connection: apsw.Connection, where: str) -> list[tuple[int, bytearray]]:
    rows: list[Any] = connection.execute(f"SELECT id, block FROM posting_data WHERE {where} ORDER BY id").fetchall()
    return [(number, bytearray(block)) for number, block in rows]


def write(connection: apsw.Connection, number: int, block: bytes | bytearray) -> None:
    connection.execute("UPDATE posting_data SET block = ? WHERE id = ?", (bytes(block), number))


def wordless(connection: apsw.Connection) -> list[tuple[int, bytearray]]:
    """The pages with nothing but positions."""
    pages = blocks(connection, f"id >= 1 << 37 AND id & {OF_A_LIST} = 0")
    return [(number, block) for number, block in pages if int.from_bytes(block[2:4], "big") == len(block)]


def cut_an_index(connection: apsw.Connection) -> None:
    """The index of the last list says that it ends earlier."""
    number, block = blocks(connection, f"id & {OF_A_LIST}")[-1]
    write(connection, number, block[:4])


def cut_all_indexes(connection: apsw.Connection) -> None:
    for number, block in blocks(connection, f"id & {OF_A_LIST}"):
        write(connection, number, block[:-1])


def hide_a_page(connection: apsw.Connection) -> None:
    """Whoever walks backward takes a page for one without positions, and the index of the list says so, too."""
    for number, block in wordless(connection):
        block[:2] = bytes(2)
        write(connection, number, block)
    connection.execute("UPDATE posting_idx SET pgno = pgno & ~1")


def exchange_pages(connection: apsw.Connection) -> None:
    """The positions of a list are not in order, so that whoever looks for some ends too early."""
    pages = dict(wordless(connection))
    first = next(number for number in pages if number + 1 in pages)
    write(connection, first, pages[first + 1])
    write(connection, first + 1, pages[first])
    connection.execute("UPDATE posting_idx SET pgno = pgno & ~1")


def lower_what_an_index_says(connection: apsw.Connection) -> None:
    """As FTS5 allows, where it has deleted in place: positions that are before those of the page."""
    connection.execute("UPDATE posting_config SET v = 5 WHERE k = 'version'")
    for number, block in blocks(connection, f"id & {OF_A_LIST}"):
        block[-1] -= 1
        write(connection, number, block)


def have_less_in_common(connection: apsw.Connection) -> None:
    """A word repeats a letter that it has in common with the one before: who looks for it believes it is not there."""
    for number, block in blocks(connection, f"id >= 1 << 37 AND id & {OF_A_LIST} = 0"):
        size = int.from_bytes(block[2:4], "big")
        starts = [sum(block[size : end + 1]) for end in range(size, len(block))]
        if len(starts) < 2 or max(block[size:]) > 127:
            continue
        words = [b""]
        for at, start in enumerate(starts):
            kept, begin = (0, start) if at == 0 else (block[start], start + 1)
            words.append(words[-1][:kept] + bytes(block[begin + 1 : begin + 1 + block[begin]]))
        start = starts[-1]
        if words[-1][:2] == b"0w" and block[start] > 2:
            added = bytes([block[start] - 1, block[start + 1] + 1, words[-1][block[start] - 1]])
            piece = added + bytes(block[start + 2 : size])
            write(connection, number, block[:2] + (size + 1).to_bytes(2, "big") + block[4:start] + piece + block[size:])
            return
    raise AssertionError("no page ends in such a word")


def lead_elsewhere(connection: apsw.Connection) -> None:
    """A key leads to another page than the words are on."""
    keys: list[Any] = connection.execute("SELECT term, pgno FROM posting_idx ORDER BY term").fetchall()
    (_, before), (term, _) = keys[len(keys) // 2 : len(keys) // 2 + 2]
    connection.execute("UPDATE posting_idx SET pgno = ? WHERE term = ?", (before, term))


EDITS: Final[dict[str, Callable[[apsw.Connection], None]]] = {
    "the index of a list cut": cut_an_index,
    "the ends of all indexes of lists cut": cut_all_indexes,
    "pages hidden from who walks backward": hide_a_page,
    "pages of a list exchanged": exchange_pages,
    "positions in the index of a list lowered": lower_what_an_index_says,
    "less in common with the word before": have_less_in_common,
    "a key that leads elsewhere": lead_elsewhere,
}


def test_lists_over_many_pages_hold(folder: Path) -> None:
    with index_of(folder) as connection:
        assert len(blocks(connection, f"id & {OF_A_LIST}")) > 3
        assert positions(connection) == positions(connection, "ORDER BY rowid DESC")[::-1]

    assert tallystick.verify(folder).holds


@pytest.mark.parametrize("how", EDITS)
def test_a_page_that_misleads_who_looks_a_word_up_is_found(folder: Path, how: str) -> None:
    with index_of(folder) as connection:
        EDITS[how](connection)

    report = tallystick.verify(folder)
    assert {finding.kind for finding in report.findings} == {Kind.INDEX}


def test_what_newest_first_does_not_find_walking_forward_did(folder: Path) -> None:
    """The edit does what the test of it is for."""
    with index_of(folder) as connection:
        cut_an_index(connection)

        assert len(positions(connection)) == RECORDS
        assert len(positions(connection, "ORDER BY rowid DESC")) < RECORDS
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_word_that_is_there_and_is_not_found_by_who_looks_for_it(folder: Path) -> None:
    with index_of(folder) as connection:
        have_less_in_common(connection)

        lost = [n for n in range(RECORDS) if not positions(connection, word=f"w{n}")]
        assert lost
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_fts5_writes_merges_and_deletes_holds(seed: int) -> None:
    drawn = random.Random(seed)
    page_bytes = drawn.choice([32, 64, 100, 500, 4050])
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute("ATTACH ':memory:' AS saved")
        connection.execute(
            "CREATE VIRTUAL TABLE saved.posting USING fts5 (words, content = '', contentless_delete = 1, detail = none)"
        )

        def holds() -> None:
            connection.execute("DELETE FROM posting_config WHERE k = 'pgsz'")
            assert [*check_postings(connection)] == []
            connection.execute("INSERT INTO posting (posting, rank) VALUES ('pgsz', ?)", (page_bytes,))

        position = 0
        holds()
        for _ in range(drawn.randrange(1, 40)):
            rows = []
            for _ in range(drawn.randrange(1, 2_000 if page_bytes > 4_000 else 150)):
                words = ["every"] * drawn.randrange(2)
                words += ["v" * drawn.choice([1, 2, 300]) + str(drawn.randrange(1 << drawn.randrange(12)))]
                rows.append((position, " ".join(words)))
                position += drawn.choice([1, 1, 1, 2, 50, 1_000, 20_000])
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO posting (rowid, words) VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        holds()
        connection.execute("BEGIN")
        connection.execute("DELETE FROM posting WHERE rowid IN (SELECT id FROM posting_docsize WHERE id % 3 = 0)")
        connection.execute("INSERT INTO posting (posting) VALUES ('optimize')")
        connection.execute("COMMIT")
        holds()


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_in_a_page_are_one_problem_at_most(folder: Path, seed: int) -> None:
    drawn = random.Random(seed)
    with index_of(folder) as connection:
        connection.execute("ATTACH ? AS saved", (str(folder / "index.db"),))
        pages = blocks(connection, "id >= 1 << 37")
        for number, block in drawn.sample(pages, 20):
            at = drawn.randrange(len(block))
            changed = bytes(block[:at]) + drawn.randbytes(drawn.randrange(1, 4)) + bytes(block[at + 1 :])
            write(connection, number, changed[: drawn.choice([len(changed), at])])
            assert len([*check_postings(connection)]) < 2
            write(connection, number, block)
        assert [*check_postings(connection)] == []
