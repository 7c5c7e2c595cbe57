"""What a report takes of a ledger is bounded, and what it leaves out it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

import tallystick
from tallystick import Ledger
from tallystick.errors import BusyError
from tallystick.evidence.controls.catalogue import load as load_controls
from tallystick.evidence.controls.period import Period
from tallystick.evidence.report import Page, allowance, load, make
from tallystick.evidence.report.blocks import Table, Timeline
from tallystick.evidence.report.html import render as render_html
from tallystick.evidence.report.pdf import inputs
from tallystick.read.weight import weight_of
from tests.evidence.reports import document, page

EVENTS: Final = 20
MEMBERS: Final = 400


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """An entity with 8,000 members, twenty events of which name 400 each."""
    with tallystick.open(tmp_path_factory.mktemp("wide") / "ledger") as ledger:
        ledger.append_many(
            {
                "event_type": "a.b",
                "entity_id": "wide",
                "payload": {f"m{n:04}": 1 for n in range(first, first + MEMBERS)},
            }
            for first in range(0, EVENTS * MEMBERS, MEMBERS)
        )
        yield ledger


def made(ledger: Ledger, body: str, **given: Any) -> tuple[Page, list[int]]:
    held: list[int] = []
    period = Period.between(None, None)
    found = make(ledger, document(body), period=period, catalogue=load_controls(), held=held.append, **given)
    return found.page, held


def tables(found: Page) -> list[Table]:
    return [node for node in found.nodes if isinstance(node, Table)]


def timelines(found: Page) -> list[Timeline]:
    return [node for node in found.nodes if isinstance(node, Timeline)]


def test_the_first_members_of_a_state_are_told_and_how_many_there_are(wide: Ledger) -> None:
    [table] = tables(page(wide, '{{ state("wide") }}'))
    assert len(table.rows) == 5_000
    assert table.note == "The first 5,000 of 8,000 members."
    assert [row[0].text for row in table.rows[:2]] == ["m0000", "m0001"]
    assert table.rows[4_999][0].text == "m4999"
    assert [row[4].text for row in table.rows[399:401]] == ["2", "3"]


def test_a_state_that_is_too_much_is_not_folded_on(wide: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "REPORT_BYTES_MAX", 1_500_000)
    found, held = made(wide, '{{ state("wide") }}\n\n{{ timeline(history("wide")) }}')
    assert (tables(found)[0].rows, timelines(found)[0].entries) == ((), ())
    assert "more than a report takes" in tables(found)[0].note
    assert "more than a report takes" in timelines(found)[0].note
    assert max(held) <= 1_500_000
    assert len(held) < 2 * EVENTS


def test_what_one_figure_held_is_there_for_the_next(wide: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, held = made(wide, '{{ timeline(history("wide")) }}')
    monkeypatch.setattr(allowance, "REPORT_BYTES_MAX", max(held) + 900_000)
    many, _ = made(wide, '{{ timeline(history("wide")) }}\n\n' * 5)
    assert [one.entries for one in timelines(many)] == [timelines(whole)[0].entries] * 5
    assert len(timelines(whole)[0].entries) == EVENTS


def test_all_figures_together_are_bounded(wide: Ledger) -> None:
    body = '{{ table(query("entity_id=wide")) }}\n\n'
    found, _ = made(wide, body * 3, cells_max=60)
    assert [len(table.rows) for table in tables(found)] == [12, 0, 0]
    assert [table.note for table in tables(found)] == ["12 of 20 records.", "0 of 20 records.", "0 of 20 records."]
    assert "0 of 20 records." in render_html(found)
    assert "0 of 20 records." in inputs(found)["page"]
    found, _ = made(wide, '{{ timeline(history("wide")) }}', cells_max=100)
    [timeline] = timelines(found)
    assert 0 < len(timeline.entries) < EVENTS
    assert timeline.entries[-1].position == EVENTS + 1  # the last changes are those that are told
    assert timeline.note == f"{len(timeline.entries)} of 20 records."


def test_long_texts_are_bounded_too(wide: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "CHARACTERS_MAX", 2_000)
    found, _ = made(wide, '{{ state("wide") }}\n\n{{ timeline(history("wide")) }}')
    assert sum(len(cell.text) for row in tables(found)[0].rows for cell in row) <= 2_000
    assert timelines(found)[0].entries == ()


def test_records_are_weighed_by_what_is_made_of_them(wide: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    [record] = wide.query(entity_id="wide", limit=1).records
    assert weight_of(record.line) > 8 * len(record.line)
    monkeypatch.setattr(allowance, "REPORT_BYTES_MAX", 5 * weight_of(record.line) + 50_000)
    [table] = tables(page(wide, '{{ table(query("entity_id=wide")) }}'))
    assert len(table.rows) == 5
    assert table.note == "5 of 20 records."


def test_a_report_is_given_up_where_there_is_no_room(wide: Ledger) -> None:
    def full(count: int) -> None:
        if count > 1_000_000:
            raise BusyError("no room")

    with pytest.raises(BusyError):
        make(
            wide,
            load("entity-dossier"),
            period=Period.between(None, None),
            catalogue=load_controls(),
            given={"entity": "wide"},
            held=full,
        )


def test_a_dossier_of_it_is_made(wide: Ledger) -> None:
    given = {"entity": "wide"}
    period = Period.between(None, None)
    found = make(wide, load("entity-dossier"), period=period, catalogue=load_controls(), given=given).page
    assert tables(found)[0].note == "The first 5,000 of 8,000 members."
    assert "The first 5,000 of 8,000 members." in render_html(found)
