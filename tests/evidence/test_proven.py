"""Answers that serve as evidence come from proven records: no edit of the index, and none of a record, is in them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import tallystick
from tallystick import Ledger
from tallystick.core import timestamp
from tallystick.errors import StoreError, TamperError
from tallystick.evidence.controls.catalogue import load as load_catalogue
from tallystick.evidence.controls.period import Period
from tallystick.evidence.report import load, make
from tallystick.evidence.report.html import render
from tallystick.read import index_scratch
from tests.evidence.conftest import EXAMPLE
from tests.tampering import edit, line_at, replace_record

NOW: Final = timestamp.parse("2026-06-01T00:00:00.000000Z")
Ask = Callable[[Ledger], object]
QUESTIONS: Final[dict[str, Ask]] = {
    "how many of a type": lambda ledger: ledger.count(event_type="user.*"),
    "which of an entity": lambda ledger: [one.position for one in ledger.query(entity_id="user-7", limit=50).records],
    "who": lambda ledger: [one.position for one in ledger.query(actor="admin-jane", limit=50).records],
    "which label": lambda ledger: ledger.count(label="phi"),
    "which words": lambda ledger: ledger.count(text="viewer"),
    "how many a day": lambda ledger: [bucket.value for bucket in ledger.series(width="day", group="type").buckets],
    "in which state": lambda ledger: ledger.state("user-7").value,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proven") / "audit"
    with tallystick.open(folder) as ledger:
        ledger.append_many([line for line in EXAMPLE.read_bytes().split(b"\n") if line])
        ledger.append_many(
            {
                "event_type": f"user.t{n % 3}",
                "entity_id": f"user-{n % 9}",
                "actor": "admin-jane",
                "labels": ["phi"] if n % 5 == 0 else [],
                "payload": {"role": "viewer", "n": n},
            }
            for n in range(600)
        )
        ledger.catch_up()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "audit"))


def answers(ledger: Ledger) -> dict[str, object]:
    return {name: ask(ledger) for name, ask in QUESTIONS.items()}


@pytest.mark.parametrize("in_memory", [10, 100_000], ids=["in files without names", "in memory"])
def test_proven_answers_are_those_of_a_good_index(
    folder: Path, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_scratch, "SCRATCH_IN_MEMORY_RECORDS", in_memory)
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent))
    with tallystick.open(folder) as ledger:
        expected = answers(ledger)
        with ledger.proven() as proven:
            assert answers(proven) == expected
            files = [path.name for path in folder.parent.rglob("tallystick-index-*/*")]
            assert files == [], "an index that others can find"

    assert all(expected.values()), "each question has an answer"
    assert [*folder.parent.glob("tallystick-index-*")] == []


def test_an_edited_index_changes_plain_answers_and_no_proven_ones(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        expected = answers(ledger)
    for statement in (
        "UPDATE term SET name = 'x.' || id WHERE name LIKE 'user.%'",
        "UPDATE term SET name = 'nobody' WHERE name = 'admin-jane'",
        "UPDATE entity SET name = 'nobody' WHERE name = 'user-7'",
        "DELETE FROM label",
        "INSERT INTO posting (posting) VALUES ('delete-all')",
        "DELETE FROM tally",
    ):
        edit(folder / "index.db", statement)

    with tallystick.open(folder) as ledger:
        assert ledger.count(event_type="user.*") == 0, "so plain answers are thinned out, and verify says so"
        with ledger.proven() as proven:
            assert answers(proven) == expected


def test_a_report_is_the_same_whatever_was_done_to_the_index(folder: Path) -> None:
    period = Period.of(after="2026-01-01", before="2126-12-31", now=NOW)

    def page() -> str:
        with tallystick.open(folder) as ledger:
            return render(make(ledger, load("access-review"), period=period, catalogue=load_catalogue()).page)

    before = page()
    edit(folder / "index.db", "UPDATE term SET name = 'x.' || id WHERE name LIKE 'user.%'")
    edit(folder / "index.db", "DELETE FROM tally")

    assert page() == before


def test_an_edited_record_whose_crc_fits_gives_no_answer(folder: Path) -> None:
    changed = line_at(folder / "ledger.db", 500).replace(b"viewer", b"editor")
    replace_record(folder / "ledger.db", 500, changed)

    with tallystick.open(folder) as ledger, ledger.proven() as proven, pytest.raises((TamperError, StoreError)):
        proven.count(event_type="user.*")


def test_a_removed_record_gives_no_answer_though_the_store_says_that_it_was_pruned(folder: Path) -> None:
    edit(folder / "ledger.db", "DELETE FROM record WHERE position = 500")
    edit(folder / "ledger.db", "INSERT OR REPLACE INTO pruned VALUES (1, 501)")

    with (
        tallystick.open(folder, readonly=True) as ledger,
        ledger.proven() as proven,
        pytest.raises((TamperError, StoreError), match="500 is missing"),
    ):
        proven.count(event_type="user.*")


def test_nothing_is_written_through_what_is_proven(folder: Path) -> None:
    with tallystick.open(folder) as ledger, ledger.proven() as proven:
        with pytest.raises(StoreError):
            proven.append(event_type="t.t", entity_id="e")
        sealed = ledger.append(event_type="t.t", entity_id="e")

        assert proven.size == sealed.position, "it stays as it was"
