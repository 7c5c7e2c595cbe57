"""The table of SPEC 12.1 is the one of `vectors.members`, and the library keeps to what no vector can show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tallystick.core.canonical import encode
from tallystick.core.custody import HOLD_PLACED, HOLD_RELEASED, RETENTION_SET, HoldPlaced, HoldReleased, RetentionSet
from tallystick.core.record import Record
from tallystick.core.restored import LEDGER_RESTORED, LedgerRestored
from tallystick.core.schema import ENFORCEMENT_SET, SCHEMA_REGISTERED, EnforcementSet, Registration
from tallystick.core.system import system_members
from tallystick.errors import RejectedError
from vectors.members import JUDGED, NOTHING, Member, members
from vectors.scene import CREATED

SPEC: Final = (Path(__file__).parents[2] / "SPEC.md").read_text("utf-8")
HOLD: Final = {"name": "case", "reason": "sued"}
READERS: Final[dict[str, tuple[str, Callable[[Record], object], dict[str, Any]]]] = {
    "restored": (
        LEDGER_RESTORED,
        LedgerRestored.of,
        {"backup_sha256": "0" * 64, "created": CREATED, "held_checkpoint": None, "reason": "lost", "size": 3},
    ),
    "schema": (
        SCHEMA_REGISTERED,
        Registration.of,
        {"name": "a.b", "version": 1, "schema": {}, "target": "payload", "compatibility": "none"},
    ),
    "enforcement": (ENFORCEMENT_SET, EnforcementSet.of, {"enforcement": "strict"}),
    "retention": (RETENTION_SET, RetentionSet.of, {"labels": {}, "period_days": 90}),
    "hold": (HOLD_PLACED, HoldPlaced.of, {**HOLD, "entity": "user-1"}),
    "release": (HOLD_RELEASED, HoldReleased.of, HOLD),
}
"""Who reads the payloads that a verifier of bundles does not, and one that is right."""
OTHERS: Final = [member for member in members() if member.of not in JUDGED]


def test_the_table_of_the_specification_is_that_of_the_vectors() -> None:
    table = SPEC.partition("\n12.1. ")[2].partition("\n## ")[0]
    rows = [line for line in table.split("\n") if re.match(r"\| .* \| `", line)]

    assert rows == [member.row for member in members()]


@pytest.mark.parametrize("member", OTHERS, ids=lambda member: f"{member.of}-{member.name}")
def test_a_payload_is_read_at_its_bounds_and_not_past_them(member: Member) -> None:
    event_type, read, payload = READERS[member.of]
    if (member.of, member.name) in (("hold", "label"), ("hold", "range")):
        payload = HOLD
    assert member.at is not NOTHING, "each of these has a bound"

    read(record_of(event_type, {**payload, member.name: member.at}))
    with pytest.raises(RejectedError):
        read(record_of(event_type, {**payload, member.name: member.past}))


def record_of(event_type: str, payload: dict[str, Any]) -> Record:
    content = system_members(event_type, payload, event_id="e")
    sealed = {
        **{"entity_version": 1, "epoch": 0, "ledger": "shop", "position": 3},
        **{"prev_hash": "0" * 64, "recorded_at": CREATED, "signature": "0" * 64},
    }
    return Record.parse(encode({**content, **sealed}))
