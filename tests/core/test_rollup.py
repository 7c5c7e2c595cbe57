"""The ledger's events about roll-ups: written, read back, and refused when they are anything else."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.canonical import canonical, decode, encode
from tallystick.core.measure import Totals
from tallystick.core.record import Record
from tallystick.core.rollup import ROLLUP_DEFINED, ROLLUP_SEALED, TYPES, Cells, Definition, SealedCells
from tallystick.core.system import system_members
from tallystick.errors import RejectedError

SEALED_BY_US: Final = {
    "entity_version": 1,
    "epoch": 0,
    "ledger": "acme",
    "position": 7,
    "prev_hash": "0" * 64,
    "recorded_at": "2026-03-15T09:30:00.000000Z",
    "signature": "0" * 64,
}


def record_of(event_type: str, payload: dict[str, Any], /, **changes: Any) -> Record:
    members = {**system_members(event_type, payload, event_id="id-7"), **SEALED_BY_US, **changes}
    return Record.parse(canonical(members))


def definition(**changes: Any) -> Definition:
    members: dict[str, Any] = {
        "name": "amounts",
        "terms": ("event_type=paid",),
        "width": "day",
        "zone": "Europe/Berlin",
        "measures": ("sum:payload.amount", "count"),
        "group": "actor",
        "time": "occurred",
    }
    return Definition(**{**members, **changes})


@pytest.mark.parametrize("changes", [{}, {"group": None}, {"measures": ("count",)}, {"terms": ()}])
def test_definitions_come_back_from_their_records(changes: dict[str, Any]) -> None:
    written = definition(**changes)

    assert Definition.of(record_of(ROLLUP_DEFINED, written.payload())) == written
    assert Definition.of(record_of(ROLLUP_DEFINED, written.payload(), actor={"id": "admin-jane"})) == written


def test_definitions_are_told_apart_by_their_digests() -> None:
    assert definition().digest == definition().digest
    assert definition().digest != definition(zone="UTC").digest
    assert len(definition().digest) == 64


@pytest.mark.parametrize(
    ("changes", "payload"),
    [
        ({"event_type": ROLLUP_SEALED}, {}),
        ({"entity_id": "user-1"}, {}),
        ({}, {"name": None}),
        ({}, {"name": TYPES.name}),
        ({}, {"name": 7}),
        ({}, {"query": "event_type=paid"}),
        ({}, {"query": [7]}),
        ({}, {"measures": []}),
        ({}, {"measures": ["sum:payload.a", "sum:payload.b"]}),
        ({}, {"width": "decade"}),
        ({}, {"group": 7}),
        ({}, {"group": "colour"}),
        ({}, {"time": None}),
        ({}, {"more": 1}),
    ],
)
def test_what_is_not_a_definition_by_the_ledger_is_refused(changes: dict[str, Any], payload: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        Definition.of(record_of(ROLLUP_DEFINED, {**definition().payload(), **payload}, **changes))


# ------------------------------------------------------------------------------------------------- sealed cells

NUMBERS: Final = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.sampled_from([0.5, 1e21, 1e-7, 5e-324, -1e308]),
)


@st.composite
def cells(draw: st.DrawFn) -> Cells:
    out: Cells = {}
    for second in draw(st.lists(st.integers(-62_135_596_800, 253_402_300_800), min_size=1, max_size=5, unique=True)):
        totals = Totals()
        for numbers in draw(st.lists(st.lists(NUMBERS, max_size=2), min_size=1, max_size=3)):
            totals.add_record(numbers)
        out[second * 1_000_000, draw(st.sampled_from(["", "jane", "ü"]))] = totals
    return out


@given(cells())
def test_cells_come_back_from_their_records(written: Cells) -> None:
    [part] = SealedCells.split(definition(), written, first=1, end=9)

    read = SealedCells.of(record_of(ROLLUP_SEALED, decode(canonical(part.payload()))))

    assert (read.rollup, read.digest, read.first, read.end) == ("amounts", definition().digest, 1, 9)
    assert [*read.cells] == sorted(written)
    for key, totals in read.cells.items():
        assert totals.total == written[key].total
        assert (totals.records, totals.numbers) == (written[key].records, written[key].numbers)
        assert (totals.least, totals.most) == (written[key].least, written[key].most)


def test_cells_are_parted_as_records_have_room() -> None:
    counted = Totals(records=3)
    written = {(minute * 60_000_000, "g" * 500): counted for minute in range(1_000)}

    parts = [*SealedCells.split(definition(), written, first=1, end=9)]

    assert len(parts) == 11
    assert all(len(encode(part.payload())) < 48_000 for part in parts)
    assert {key for part in parts for key in part.cells} == set(written)
    assert sum(len(part.cells) for part in parts) == len(written)
    assert [*SealedCells.split(definition(), {}, first=1, end=9)] == []


GOOD: Final[dict[str, Any]] = {
    "cells": [[60, "jane", 2, 3, "7/2", -1, 4.5], [120, None, 1]],
    "definition": "d" * 64,
    "end": 9,
    "first": 1,
    "rollup": "amounts",
}


def test_sealed_cells_are_read_from_json() -> None:
    sealed = SealedCells.of(record_of(ROLLUP_SEALED, GOOD))

    assert [*sealed.cells] == [(60_000_000, "jane"), (120_000_000, "")]
    assert sealed.payload() == GOOD


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": {}},
        {"cells": [[60, "jane"]]},
        {"cells": [[60, "jane", 0]]},
        {"cells": [[60, "", 1]]},
        {"cells": [[0.5, "jane", 1]]},
        {"cells": [[True, "jane", 1]]},
        {"cells": [[60, 7, 1]]},
        {"cells": [[60, "jane", 1, 0, "0", None, None]]},
        {"cells": [[60, "jane", 1, 1, "2/4", 1, 1]]},
        {"cells": [[60, "jane", 1], [60, "jane", 1]]},
        {"cells": [7]},
        {"first": 9},
        {"first": -1},
        {"first": True},
        {"end": "9"},
        {"rollup": None},
        {"definition": 7},
        {"more": 1},
    ],
)
def test_what_are_not_sealed_cells_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        SealedCells.of(record_of(ROLLUP_SEALED, {**GOOD, **changes}))
