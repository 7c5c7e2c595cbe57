"""What a series takes while it is made: bounded as it grows, whoever answers, and given up when it is too much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tallystick import asking
from tallystick.errors import BusyError, RejectedError
from tallystick.read import growth, sqlite_figures
from tallystick.read.growth import CELL_BYTES

EVENTS: Final = 40
LABELS: Final = 64
ASKED: Final[dict[str, dict[str, Any]]] = {
    "index": {"group": "label", "event_type": "a.b"},
    "distinct": {"group": "label", "event_type": "a.b", "measure": "distinct:entity"},
    "records": {"group": "label", "event_type": "a.b", "measure": "sum:payload.x"},
    "rollup": {"group": "label", "event_type": "rolled.up"},
    "tally": {"group": "type"},
}
"""One question for each that can answer, of some 2,560 cells."""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tallystick.Ledger]:
    with tallystick.open(tmp_path_factory.mktemp("ledger") / "ledger") as ledger:
        ledger.downsample("r", event_type="rolled.up", width="day", group="label")
        for kind in ("a.b", "rolled.up"):
            ledger.append_many(
                {
                    "event_type": kind,
                    "entity_id": f"e{number}",
                    "labels": [f"l{number * LABELS + label}" for label in range(LABELS)],
                    "payload": {"x": 1},
                }
                for number in range(EVENTS)
            )
        ledger.append_many({"event_type": f"t{n}.x", "entity_id": "e"} for n in range(EVENTS * LABELS))
        yield ledger


def sources(ledger: tallystick.Ledger) -> dict[str, str]:
    return {name: ledger.series(**asked).source for name, asked in ASKED.items()}


def test_each_of_them_answers(ledger: tallystick.Ledger) -> None:
    assert sources(ledger) == {
        **{"index": "index", "distinct": "index", "records": "records", "rollup": "rollup:r", "tally": "tally"}
    }
    for asked in ASKED.values():
        assert len(ledger.series(**asked).buckets) >= EVENTS * LABELS


@pytest.mark.parametrize("name", ASKED)
def test_no_more_is_held_than_may_be_answered(
    ledger: tallystick.Ledger, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_figures, "_ROWS", 10)
    monkeypatch.setattr(growth, "_AT_ONCE_BYTES", 0)
    held: list[int] = []
    with pytest.raises(RejectedError, match="more than 100 buckets and groups") as refused:
        ledger.series(**ASKED[name], points_max=100, held=held.append)
    assert refused.value.place == "width"
    assert len(held) <= 14  # it ended with the first rows that were too many
    assert max(held) <= 100 * (CELL_BYTES + 20)


@pytest.mark.parametrize("name", ASKED)
def test_groups_are_counted_as_they_come(ledger: tallystick.Ledger, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_figures, "_ROWS", 10)
    monkeypatch.setattr(growth, "SERIES_GROUPS_MAX", 50)
    held: list[int] = []
    with pytest.raises(RejectedError, match="more than 50 groups") as refused:
        ledger.series(**ASKED[name], held=held.append)
    assert refused.value.place == "group"
    assert len(held) <= 8


@pytest.mark.parametrize("name", ASKED)
def test_a_question_is_given_up_where_there_is_no_room(
    ledger: tallystick.Ledger, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_figures, "_ROWS", 100)
    before = ledger.series(**ASKED[name])
    asked = 0

    def held(count: int) -> None:
        nonlocal asked
        asked = max(asked, count)
        if count > 500 * CELL_BYTES + growth._AT_ONCE_BYTES:
            raise BusyError("no room")

    with pytest.raises(BusyError, match="no room"):
        ledger.series(**ASKED[name], held=held)
    assert asked < 1_000 * CELL_BYTES + growth._AT_ONCE_BYTES
    assert ledger.series(**ASKED[name]).buckets == before.buckets


def test_what_is_filled_is_counted_before_it_is_there(ledger: tallystick.Ledger) -> None:
    held: list[int] = []
    at: dict[str, Any] = {"after": "2026-01-01", "before": "2026-01-03", "width": "minute", "fill": True}
    found = ledger.series(event_type="a.b", after="0001-01-01", width="year", fill=True, held=held.append)
    assert len(found.buckets) > 2_000
    assert max(held) >= len(found.buckets) * CELL_BYTES
    with pytest.raises(RejectedError, match="at most 100"):
        ledger.series(event_type="a.b", measure="sum:payload.x", **at, points_max=100)


def test_a_ledger_reopened_answers_the_same(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many({"event_type": "a.b", "entity_id": f"e{n}", "labels": [f"l{n % 7}"]} for n in range(50))
        with pytest.raises(RejectedError):
            ledger.series(group="label", points_max=3)
        assert [point.count for point in ledger.series(group="label").buckets] == [8, 7, 7, 7, 7, 7, 7]


def test_of_many_names_the_first_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append_many({"event_type": f"t{n % 7}.x", "entity_id": "e", "labels": [f"l{n % 5}"]} for n in range(70))
        whole = ledger.stats()
        assert (whole["type_count"], whole["label_count"]) == (len(whole["types"]), 5)
        assert whole["types"]["t6.x"] == 10
        monkeypatch.setattr(asking, "STATS_NAMES_MAX", 4)
        monkeypatch.setattr(growth, "SERIES_GROUPS_MAX", 5)  # which all of them together are too many for
        some = ledger.stats()
    assert (some["type_count"], some["label_count"]) == (whole["type_count"], 5)
    assert [*some["types"].items()] == sorted(whole["types"].items())[:4]
    assert some["labels"] == ["l0", "l1", "l2", "l3"]
    assert {name: some[name] for name in ("records", "entities")} == {"records": whole["records"], "entities": 2}


@pytest.mark.parametrize("measure", ["count", "sum:payload.x"])
def test_a_few_records_far_apart_make_no_buckets_without_end(tmp_path: Path, measure: str) -> None:
    asked: dict[str, Any] = {"time": "occurred", "width": "week", "zone": "Pacific/Kiritimati", "measure": measure}
    with tallystick.open(tmp_path / "ledger") as ledger:
        for year in ("0001", "9990"):
            ledger.append(event_type="a.b", entity_id="e", occurred_at=f"{year}-01-05T00:00:00Z")
        held: list[int] = []
        with pytest.raises(RejectedError, match="at most 200000"):
            ledger.series(event_type="a.b", **asked, points_max=50_000, held=held.append)
        assert len(held) < 10
        found = ledger.series(event_type="a.b", **asked | {"width": "month"}, points_max=50_000, held=held.append)
    assert [point.count for point in found.buckets] == [1, 1]
    assert measure != "count" or len(held) > 100  # so that it can be given up
