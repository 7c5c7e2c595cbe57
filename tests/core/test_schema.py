"""The records of schemas: exactly the payloads of SPEC 5.6, and everything else refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from tallystick.core.record import Record
from tallystick.core.schema import ENFORCEMENT_SET, SCHEMA_REGISTERED, EnforcementSet, Registration
from tallystick.core.system import system_members
from tallystick.errors import RejectedError

GOOD: Final[dict[str, Any]] = {
    "compatibility": "backward",
    "name": "user.created",
    "schema": {"type": "object"},
    "target": "payload",
    "version": 1,
}


def record(event_type: str, payload: dict[str, Any], **members: Any) -> Record:
    return Record(b"", {**system_members(event_type, payload, event_id="x"), **members})


def test_a_registration_is_read_as_it_was_written() -> None:
    for payload in (GOOD, {**GOOD, "reason": "audit", "target": "event", "compatibility": "none"}):
        assert Registration.of(record(SCHEMA_REGISTERED, payload)).payload() == payload
    registration = Registration.of(record(SCHEMA_REGISTERED, GOOD))
    assert registration.document == b'{"type":"object"}'
    assert replace(registration, version=2).payload()["version"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "user created"},
        {"name": "tallystick.own"},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"schema": True},
        {"target": "actor"},
        {"target": None},
        {"compatibility": "both"},
        {"compatibility": []},
        {"reason": ""},
        {"reason": None},
        {"more": 1},
    ],
)
def test_a_payload_that_is_not_exactly_so_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        Registration.of(record(SCHEMA_REGISTERED, {**GOOD, **change}))


def test_the_enforcement_is_one_of_three() -> None:
    for word in ("strict", "registered", "warn"):
        assert EnforcementSet.of(record(ENFORCEMENT_SET, {"enforcement": word})).enforcement == word
    for payload in (
        {},
        {"enforcement": "off"},
        {"enforcement": "warn", "more": 1},
        {"enforcement": "warn", "reason": 3},
    ):
        with pytest.raises(RejectedError):
            EnforcementSet.of(record(ENFORCEMENT_SET, payload))


def test_only_the_ledger_itself_registers_anything() -> None:
    with pytest.raises(RejectedError, match="own events"):
        Registration.of(record(SCHEMA_REGISTERED, GOOD, entity_id="user-1"))
    with pytest.raises(RejectedError, match="not a tallystick"):
        Registration.of(record(ENFORCEMENT_SET, GOOD))
