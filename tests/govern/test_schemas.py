"""Schemas of a ledger: what is registered holds at once, for everybody, and the ledger says who said so and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import pytest

import tallystick
from tallystick.core.custody import OwnEvent
from tallystick.core.merkle import Tree
from tallystick.core.moment import DAY
from tallystick.errors import ConflictError, NotFoundError, RejectedError, StoreError, TamperError
from tallystick.govern import registered
from tallystick.govern import schemas as schemas_module
from tallystick.govern.document import Document
from tallystick.govern.registry import Registry
from tallystick.limits import SCHEMA_DEPTH_MAX, SCHEMAS_READ_BYTES_MAX
from tallystick.store.verified_reads import VerifiedReads, unfinished_tiles
from tallystick.write.request import Submission
from tallystick.write.sealer import Sealer
from tests.tampering import edit, line_at

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ROLE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"role": {"enum": ["viewer", "editor"]}},
    "required": ["role"],
    "additionalProperties": False,
}
WIDER: Final[dict[str, Any]] = {**ROLE, "properties": {"role": {"type": "string"}, "mail": {"type": "string"}}}
MARCH: Final = 1_772_323_200_000_000
"""2026-03-01, in microseconds."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[tallystick.Ledger]:
    with tallystick.open(tmp_path / "audit") as ledger:
        yield ledger


def event(role: str | None = "viewer", **members: Any) -> dict[str, Any]:
    return {"event_type": "user.created", "entity_id": "user-1", "payload": {"role": role} if role else {}, **members}


def types(ledger: tallystick.Ledger) -> list[str]:
    return [record.event_type for record in ledger.read(2)]


# ------------------------------------------------------------------------------------------- what is registered


def test_a_registration_is_an_event_of_the_ledger_and_verifies(ledger: tallystick.Ledger) -> None:
    done = ledger.schemas.register("user.created", 1, ROLE, actor="jane", reason="ticket 7")

    record = ledger.get(done.position)
    assert (record.event_type, record.entity_id) == ("tallystick.schema.registered", "tallystick.ledger")
    assert record.actor == done.actor == {"id": "jane"}
    assert record.payload == {
        "compatibility": "backward",
        "name": "user.created",
        "reason": "ticket 7",
        "schema": ROLE,
        "target": "payload",
        "version": 1,
    }
    ledger.schemas.enforce("strict", actor="jane")
    assert ledger.verify().holds


def test_the_same_again_changes_nothing_and_another_document_is_a_conflict(ledger: tallystick.Ledger) -> None:
    first = ledger.schemas.register("user.created", 1, ROLE)
    size = ledger.size

    assert ledger.schemas.register("user.created", 1, {**ROLE}, actor="joe") == first
    assert ledger.schemas.register("user.created", None, ROLE, compatibility="backward") == first
    others: list[dict[str, Any]] = [{"schema": WIDER}, {"target": "event"}, {"compatibility": "full"}]
    for other in others:
        with pytest.raises(ConflictError, match="a version is never changed"):
            ledger.schemas.register("user.created", 1, **{"schema": ROLE, **other})
    assert ledger.size == size


def test_versions_count_from_one_without_gaps(ledger: tallystick.Ledger) -> None:
    with pytest.raises(RejectedError, match="there is none yet; register version 1"):
        ledger.schemas.register("user.created", 2, ROLE)
    assert ledger.schemas.register("user.created", None, ROLE).version == 1
    with pytest.raises(RejectedError, match="there is version 1; register version 2"):
        ledger.schemas.register("user.created", 3, WIDER)
    assert ledger.schemas.register("user.created", None, WIDER).version == 2
    assert [one.version for one in ledger.schemas.history("user.created")] == [1, 2]


@pytest.mark.parametrize("name", ["", "user created", "user.*", "tallystick.ledger.created", "x" * 201])
def test_a_schema_is_named_as_an_event_type_of_callers(ledger: tallystick.Ledger, name: str) -> None:
    with pytest.raises(RejectedError):
        ledger.schemas.register(name, 1, ROLE)
    assert types(ledger) == []


def test_a_document_that_is_none_changes_nothing_and_says_where(ledger: tallystick.Ledger) -> None:
    with pytest.raises(RejectedError) as caught:
        ledger.schemas.register("user.created", 1, {"properties": {"a": {"$ref": "https://example.com/a"}}})

    assert caught.value.place == "/schema/properties/a/$ref"
    assert types(ledger) == []
    ledger.append(event(None))


def test_the_deepest_schema_that_may_be_makes_a_record_that_can_be_read(ledger: tallystick.Ledger) -> None:
    schema: dict[str, Any] = {}
    for _ in range(SCHEMA_DEPTH_MAX - 1):
        schema = {"not": schema}

    ledger.schemas.register("user.created", 1, schema)

    assert ledger.verify().holds
    assert ledger.schemas.get("user.created").schema == schema


def test_numbers_of_a_schema_come_back_as_they_were(ledger: tallystick.Ledger) -> None:
    schema = {"properties": {"x": {"minimum": 1e-7, "maximum": 1.5e300, "multipleOf": 0.5, "enum": [2, 1e21]}}}

    ledger.schemas.register("t.x", 1, schema)

    assert ledger.verify().holds
    assert ledger.schemas.get("t.x").schema == schema


def test_annotations_are_kept_and_given_back(ledger: tallystick.Ledger) -> None:
    schema = {
        "x-owner": "identity",
        "properties": {"mail": {"type": "string", "x-personal": True, "x-fold": "last"}, "n": {"x-personal": False}},
    }

    done = ledger.schemas.register("user.created", 1, schema)

    assert ledger.schemas.get("user.created").schema == schema
    assert done.personal == ("/payload/mail",)
    whole = ledger.schemas.register("t.x", 1, {"properties": {"actor": {"x-personal": True}}}, target="event")
    assert whole.personal == ("/actor",)


def test_what_was_in_force_in_march_can_be_asked(tmp_path: Path) -> None:
    days = count()
    with tallystick.open(tmp_path / "audit", clock=lambda: MARCH + DAY * (next(days) // 10)) as ledger:
        ledger.schemas.register("user.created", 1, ROLE, actor="jane")
        ledger.append_many(event() for _ in range(3))
        while next(days) < 50:
            pass
        ledger.schemas.enforce("strict")
        ledger.schemas.register("user.created", 2, WIDER, actor="joe")

        assert ledger.schemas.list("2026-02-28") == []
        assert [one.version for one in ledger.schemas.list("2026-03-01")] == [1]
        assert ledger.schemas.enforcement("2026-03-02T00:00:00Z") == "registered"
        assert ledger.schemas.get("user.created", as_of="2026-03-03").version == 1
        assert ledger.schemas.get("user.created").version == 2
        assert ledger.schemas.enforcement() == "strict"
        with pytest.raises(NotFoundError, match="there is no version 2"):
            ledger.schemas.get("user.created", 2, as_of="2026-03-02")


def test_what_is_in_force_is_read_from_the_log_alone(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.schemas.register("user.created", 1, ROLE)
        ledger.append_many({"event_type": "t.x", "entity_id": "e"} for _ in range(100))
        ledger.schemas.enforce("strict")
        ledger.schemas.register("user.created", 2, WIDER)
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (tmp_path / "audit" / name).unlink(missing_ok=True)

    with tallystick.open(tmp_path / "audit") as ledger:
        with pytest.raises(RejectedError, match="has no schema"):
            ledger.append(event_type="t.x", entity_id="e")
        with pytest.raises(RejectedError, match="/payload/role"):
            ledger.append(event("boss"))
        assert [one.version for one in ledger.schemas.history("user.created")] == [1, 2]


def test_no_more_versions_are_registered_than_fit(ledger: tallystick.Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas_module, "SCHEMAS_MAX", 2)
    ledger.schemas.register("t.x", 1, {})
    ledger.schemas.register("t.y", 1, {})

    for name, version in (("t.y", 2), ("t.z", 1)):
        with pytest.raises(RejectedError, match="2 versions of schemas are registered"):
            ledger.schemas.register(name, version, {"title": "new"})
    assert ledger.schemas.register("t.y", 1, {}).version == 1


def test_a_registration_that_cannot_be_is_damage_and_nothing_is_judged_by_it(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.schemas.register("t.x", 1, {})
        payload = {**ledger.get(2).payload, "version": 3}
        ledger._open_sealer().seal_own([OwnEvent("tallystick.records.noted", {})])
        with pytest.raises(TamperError, match=r"the record at position 4 cannot be: version 3 of t\.x is not"):
            ledger._open_sealer().seal_own([OwnEvent("tallystick.schema.registered", payload)])
    with tallystick.open(tmp_path / "audit") as ledger, pytest.raises(TamperError, match="verify"):
        ledger.append(event())


def test_a_schema_that_cannot_be_read_any_more_is_our_trouble_and_not_the_events(
    ledger: tallystick.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.schemas.register("user.created", 1, ROLE)

    def read(_: bytes) -> Document:
        raise RejectedError("not JSON Schema 2020-12")

    monkeypatch.setattr(registered, "DOCUMENTS", registered.Documents(SCHEMAS_READ_BYTES_MAX))
    monkeypatch.setattr(Document, "read", read)
    with pytest.raises(StoreError, match=r"version 1 of the schema of user\.created, .* cannot be read"):
        ledger.append(event())


# -------------------------------------------------------------------------------------------- compatibility


def test_a_version_that_breaks_the_one_before_is_refused_and_says_by_what(ledger: tallystick.Ledger) -> None:
    ledger.schemas.register("user.created", 1, ROLE)
    breaking = {**ROLE, "properties": {"role": {"enum": ["editor"]}, "mail": {}}, "required": ["role", "mail"]}

    with pytest.raises(RejectedError) as caught:
        ledger.schemas.register("user.created", 2, breaking)

    assert caught.value.problem == (
        "version 2 of user.created breaks version 1 (backward): "
        "/properties/mail: became required; /properties/role: enum lost 'viewer'"
    )
    assert [one.place for one in ledger.schemas.breaks("user.created", breaking)] == [
        "/properties/mail",
        "/properties/role",
    ]
    assert ledger.schemas.breaks("user.created", breaking, "none") == ()
    assert len(ledger.schemas.history("user.created")) == 1
    ledger.append(event("viewer"))


def test_each_compatibility_asks_for_its_direction_and_stays_until_it_is_changed(ledger: tallystick.Ledger) -> None:
    narrow, wide = {"type": "string"}, {"type": ["string", "null"]}

    def attempt(name: str, compatibility: str, old: Any, new: Any) -> str:
        ledger.schemas.register(name, 1, {"properties": {"a": old}}, compatibility=compatibility)  # type: ignore[arg-type]
        try:
            return ledger.schemas.register(name, 2, {"properties": {"a": new}}).compatibility
        except RejectedError:
            return "refused"

    assert [attempt(f"b.{n}", "backward", *pair) for n, pair in enumerate([(narrow, wide), (wide, narrow)])] == [
        "backward",
        "refused",
    ]
    assert [attempt(f"f.{n}", "forward", *pair) for n, pair in enumerate([(narrow, wide), (wide, narrow)])] == [
        "refused",
        "forward",
    ]
    assert [attempt(f"u.{n}", "full", *pair) for n, pair in enumerate([(narrow, wide), (wide, narrow)])] == [
        "refused",
        "refused",
    ]
    assert [attempt(f"n.{n}", "none", *pair) for n, pair in enumerate([(narrow, wide), (wide, narrow)])] == [
        "none",
        "none",
    ]


def test_a_breaking_version_is_registered_when_it_says_so_and_old_events_keep_to_the_old(
    ledger: tallystick.Ledger,
) -> None:
    ledger.schemas.register("user.created", 1, ROLE)
    ledger.schemas.register("user.created", 2, {"required": ["name"]}, compatibility="none", reason="a new form")

    ledger.append(event("viewer"))
    ledger.append(event(None, payload={"name": "Jane"}, event_version=2))
    for wrong in (event("viewer", event_version=2), event(None, payload={"name": "Jane"})):
        with pytest.raises(RejectedError):
            ledger.append(wrong)


def test_a_schema_cannot_change_what_it_is_held_against(ledger: tallystick.Ledger) -> None:
    ledger.schemas.register("user.created", 1, {})

    with pytest.raises(RejectedError, match="held against the payload"):
        ledger.schemas.register("user.created", 2, {}, target="event")
    assert ledger.schemas.register("user.created", 2, {}, target="event", compatibility="none").version == 2


# ---------------------------------------------------------------------------------------------- enforcement


def test_an_event_that_breaks_its_schema_is_refused_with_the_field_named(ledger: tallystick.Ledger) -> None:
    ledger.schemas.register("user.created", 1, ROLE)
    size = ledger.size

    with pytest.raises(RejectedError) as caught:
        ledger.append(event(None))
    assert (caught.value.place, caught.value.problem) == (
        "/payload/role",
        "it is required, and missing (schema user.created, version 1)",
    )
    assert caught.value.cure == "see tallystick schema show user.created --version 1"
    with pytest.raises(RejectedError) as caught:
        ledger.append_many([event(), event("boss")])
    assert caught.value.place == "event 1 /payload/role"
    for publish in (lambda: ledger.publish(event("boss")), lambda: ledger.publish_many([event(), event("boss")])):
        with pytest.raises(RejectedError, match="/payload/role"):
            publish()
    assert ledger.size == size
    assert ledger.queue.stats().accepted == 0
    ledger.append(event())


def test_of_what_many_bring_only_what_breaks_a_schema_is_refused(
    ledger: tallystick.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.schemas.register("user.created", 1, {**ROLE, "required": []})
    brought = [
        Submission([event()], "jane"),
        Submission([event(), event("boss")], "joe"),
        Submission([event(None)], None),
    ]

    good, bad, bare = ledger.append_each(brought)
    assert isinstance(bad, RejectedError)
    assert (bad.__traceback__, bad.__context__) == (None, None), "its frames would keep the event as long as it"
    ticket, refused, _ = ledger.publish_each(brought)

    assert not isinstance(good, Exception)
    assert not isinstance(bare, Exception)
    assert isinstance(bad, RejectedError)
    assert isinstance(refused, RejectedError)
    assert not isinstance(ticket, RejectedError)
    assert bad.place == refused.place == "event 1 /payload/role"
    ledger.queue.drain()
    sealing: Callable[..., Any] = Sealer.seal_all

    def late(sealer: Sealer, batches: Any, **how: Any) -> Any:
        monkeypatch.setattr(Sealer, "seal_all", sealing)
        ledger.schemas.register("user.created", 2, ROLE, compatibility="none")
        ledger.schemas.enforce("strict")
        return sealing(sealer, batches, **how)

    monkeypatch.setattr(Sealer, "seal_all", late)
    other = {"event_type": "t.x", "entity_id": "e"}
    taken, strict = ledger.append_each([Submission([event()], None), Submission([other, other], None)])
    assert not isinstance(taken, Exception)
    assert isinstance(strict, RejectedError)
    assert strict.place == "event 0 /event_type"
    assert ledger.verify().holds


def test_every_form_of_an_event_is_held_to_its_schema(ledger: tallystick.Ledger) -> None:
    ledger.schemas.register("user.created", 1, ROLE)
    ledger.schemas.register("n.x", 1, {"properties": {"n": {"type": "number", "maximum": 9}}})
    quick = b'{"event_type":"user.created","entity_id":"u","payload":{"role":"boss"}}'
    slow = b'{"event_type":"user.created","entity_id":"u","labels":[],"payload":{"r\\u006fle":"boss"}}'
    for wrong in (quick, slow, tallystick.Event(**event("boss"))):
        with pytest.raises(RejectedError, match="/payload/role"):
            ledger.append(wrong)
    for number, taken in (("1e-7", True), ("1e1", False), ("9.0", True), ("1e300", False)):
        line = b'{"event_type":"n.x","entity_id":"u","payload":{"n":%b}}' % number.encode()
        try:
            ledger.append(line)
        except RejectedError:
            assert not taken
        else:
            assert taken


def test_a_schema_of_the_event_can_demand_an_actor_and_more(ledger: tallystick.Ledger) -> None:
    schema = {
        "required": ["actor", "id"],
        "properties": {
            "actor": {"required": ["type"]},
            "context": {"required": ["ip"], "properties": {"ip": {"format": "ipv4"}}},
            "labels": {"contains": {"const": "phi"}},
            "payload": ROLE,
        },
    }
    ledger.schemas.register("user.created", 1, schema, target="event")
    good = event(actor={"id": "jane", "type": "user"}, id="e-1", context={"ip": "10.0.0.1"}, labels=["phi"])

    ledger.append(good)

    for change, place in (
        ({"actor": None}, "/actor"),
        ({"actor": "jane"}, "/actor/type"),
        ({"id": None}, "/id"),
        ({"context": {}}, "/context/ip"),
        ({"context": {"ip": "home"}}, "/context/ip"),
        ({"labels": []}, "/labels"),
        ({"payload": {"role": "boss"}}, "/payload/role"),
    ):
        members = {name: value for name, value in {**good, "id": "e-2", **change}.items() if value is not None}
        with pytest.raises(RejectedError) as caught:
            ledger.append(members)
        assert caught.value.place == place


def test_the_principal_is_an_actor_too(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit", principal="service-a") as ledger:
        ledger.schemas.register("user.created", 1, {"required": ["actor"]}, target="event")
        ledger.append(event())


def test_a_version_that_no_schema_is_for_is_refused_with_those_that_there_are(ledger: tallystick.Ledger) -> None:
    ledger.schemas.register("user.created", 1, ROLE)

    with pytest.raises(RejectedError, match=r"/event_version: there is no version 2 .* there is 1;"):
        ledger.append(event(event_version=2))
    ledger.schemas.register("user.created", 2, WIDER)
    with pytest.raises(RejectedError, match="there is 1 to 2;"):
        ledger.append(event(event_version=3))


def test_strict_takes_only_types_that_have_a_schema_and_the_ledgers_own(ledger: tallystick.Ledger) -> None:
    ledger.schemas.enforce("strict")

    with pytest.raises(RejectedError, match=r"/event_type: t\.x has no schema"):
        ledger.append(event_type="t.x", entity_id="e")
    ledger.schemas.register("t.x", 1, {})
    ledger.append(event_type="t.x", entity_id="e")
    ledger.change_epoch()
    ledger.rotate_key("checkpoint")
    ledger.retention.hold("h", reason="r", entity="e")
    ledger.schemas.enforce("registered")
    ledger.append(event_type="t.y", entity_id="e")
    assert ledger.verify().holds


def test_with_warn_all_are_taken_and_whoever_sends_one_is_told(ledger: tallystick.Ledger) -> None:
    ledger.schemas.register("user.created", 1, ROLE)
    ledger.schemas.enforce("warn")

    one = ledger.append(event("boss"))
    many = ledger.append_many([event(), event(None), event("boss", event_version=7)])
    ticket, *_ = ledger.publish_many([event("boss"), event()])

    assert one.breach.startswith("/payload/role: the value is not one of")
    assert [bool(receipt.breach) for receipt in many] == [False, True, True]
    assert "there is no version 7" in many[2].breach
    assert ticket.breach == one.breach
    ledger.queue.drain()
    assert ledger.schemas.breaches() == {("user.created", 1): 3, ("user.created", 7): 1}
    assert len([*ledger.records(event_type="user.created")]) == 6
    assert next(ledger.schemas.validate([event("boss")])).taken
    assert sum(ledger.schemas.breaches().values()) == 4


ASKED: Final[dict[str, Callable[[tallystick.Ledger, Any], object]]] = {
    "append": lambda ledger, bad: ledger.append(bad),
    "publish": lambda ledger, bad: ledger.publish(bad),
    "validate": lambda ledger, bad: next(ledger.schemas.validate([bad])),
}


@pytest.mark.parametrize("asked", ASKED)
def test_rules_that_are_put_behind_the_last_record_while_it_is_open_are_not_obeyed(tmp_path: Path, asked: str) -> None:
    log = tmp_path / "audit" / "ledger.db"
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.schemas.register("user.created", 1, ROLE)
        ledger.schemas.enforce("strict")
        ledger.append(event())
        size = ledger.size
        forged = (
            line_at(log, 3)
            .replace(b'"enforcement":"strict"', b'"enforcement":"warn"')
            .replace(b'"position":3,', b'"position":%d,' % size)
        )
        assert b'"warn"' in forged
        edit(log, "INSERT INTO record VALUES (?, ?, ?)", size, forged, crc32(forged))
        edit(log, "UPDATE head SET size = size + 1")
        time.sleep(0.01)  # the head is looked at every few milliseconds

        for bad in (event("boss"), {"event_type": "t.none", "entity_id": "e"}):
            with pytest.raises((TamperError, RejectedError)):
                ASKED[asked](ledger, bad)

        edit(log, "DELETE FROM record WHERE position = ?", size)
        edit(log, "UPDATE head SET size = size - 1")
        with pytest.raises(RejectedError, match="role"):
            ledger.append(event("boss"))
        with pytest.raises(RejectedError, match="role"):
            ledger.publish(event("boss"))
        assert ledger.schemas.enforcement() == "strict"
        ledger.append(event())
        assert ledger.size == size + 1


def test_a_registration_by_another_process_that_the_index_hides_is_obeyed(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit") as ledger, tallystick.open(tmp_path / "audit") as other:
        assert ledger.schemas.enforcement() == "registered"
        ledger.append(event("boss"))
        other.schemas.register("user.created", 1, ROLE)
        assert other.count(event_type="tallystick.schema.registered") == 1
        edit(tmp_path / "audit" / "index.db", "UPDATE term SET name = 'x' WHERE name LIKE 'tallystick.schema%'")

        assert ledger.schemas.enforcement() == "registered"
        for refused in (ledger.append, ledger.publish):
            with pytest.raises(RejectedError, match="role"):
                refused(event("boss"))


def test_the_same_enforcement_again_changes_nothing(ledger: tallystick.Ledger) -> None:
    first = ledger.schemas.enforce("warn", actor="jane", reason="a trial")

    assert ledger.schemas.enforce("warn") == first
    assert types(ledger) == ["tallystick.schema.enforcement.set"]
    assert ledger.schemas.enforcements() == [first]
    with pytest.raises(RejectedError):
        ledger.schemas.enforce("off")  # type: ignore[arg-type]


def test_a_caller_cannot_pass_for_the_ledger(ledger: tallystick.Ledger) -> None:
    payload = {"event_type": "tallystick.schema.registered", "name": "t.x", "version": 1, "schema": {"not": {}}}
    with pytest.raises(RejectedError, match="the ledger's own"):
        ledger.append(event_type="tallystick.schema.registered", entity_id="tallystick.ledger", payload=payload)
    ledger.append(event_type="t.x", entity_id="e", payload=payload)

    assert ledger.schemas.list() == []
    ledger.append(event_type="t.x", entity_id="e")


def test_validate_says_for_each_event_what_would_become_of_it_and_seals_nothing(ledger: tallystick.Ledger) -> None:
    ledger.schemas.register("user.created", 1, ROLE)
    size = ledger.size

    verdicts = [*ledger.schemas.validate([event(), event("boss"), b"{", {"event_type": "t.x", "entity_id": "e"}])]

    assert [(one.index, one.taken, one.place) for one in verdicts] == [
        (0, True, ""),
        (1, False, "/payload/role"),
        (2, False, ""),
        (3, True, ""),
    ]
    assert ledger.size == size


def test_a_schema_is_inferred_from_what_was_recorded(ledger: tallystick.Ledger) -> None:
    ledger.append_many([*(event(role) for role in ("viewer", "editor") * 3), event(None, event_version=2)])

    schema, made_of = ledger.schemas.infer("user.created", version=1, enums=True)

    assert made_of == 6
    assert schema["properties"] == {"role": {"type": "string", "enum": ["editor", "viewer"]}}
    assert schema["required"] == ["role"]
    assert "required" not in ledger.schemas.infer("user.created")[0]
    ledger.schemas.register("user.created", 1, schema)
    with pytest.raises(NotFoundError):
        ledger.schemas.infer("t.none")


# ----------------------------------------------------------------------------- others who register meanwhile


def test_what_was_accepted_before_a_schema_came_is_judged_again_before_it_is_sealed(
    ledger: tallystick.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing: Callable[..., Any] = Sealer.seal

    def late(sealer: Sealer, drafts: Any, **how: Any) -> Any:
        monkeypatch.setattr(Sealer, "seal", sealing)
        ledger.schemas.register("user.created", 1, ROLE)  # in between: accepted, and not sealed
        return sealing(sealer, drafts, **how)

    monkeypatch.setattr(Sealer, "seal", late)
    with pytest.raises(RejectedError, match=r"^event 1 /payload/role: it is required"):
        ledger.append_many([event(), event(None)])

    assert types(ledger) == ["tallystick.schema.registered"]


def test_no_record_breaks_a_schema_that_lies_before_it_whatever_the_threads_do(ledger: tallystick.Ledger) -> None:
    stop = threading.Event()
    refused: list[str] = []

    def write() -> None:
        while not stop.is_set():
            try:
                ledger.append_many([event("boss"), event("boss")])
            except RejectedError as error:
                refused.append(error.place)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    while ledger.size < 20:
        pass
    position = ledger.schemas.register("user.created", 1, ROLE).position
    with pytest.raises(RejectedError):
        ledger.append(event("boss"))
    while len(refused) < 20:
        pass
    stop.set()
    for thread in threads:
        thread.join()

    assert [record.position for record in ledger.read(position + 1) if record.event_type == "user.created"] == []
    assert ledger.verify().holds


OTHER: Final = """
import sys, tallystick
with tallystick.open(sys.argv[1]) as ledger:
    print("open", flush=True)
    for line in sys.stdin:
        print(eval(line), flush=True)
"""


@pytest.fixture
def other(ledger: tallystick.Ledger, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Another process with the same ledger: evaluates an expression there and gives what it printed."""
    assert ledger.name
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}"}
    command = [sys.executable, "-c", OTHER, str(tmp_path / "audit")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "open\n"

        def ask(expression: str) -> str:
            assert process.stdin
            assert process.stdout
            process.stdin.write(expression + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield ask
        process.stdin.close()
        process.wait(30)


def test_what_another_process_registers_holds_here_at_once(
    ledger: tallystick.Ledger, other: Callable[[str], str]
) -> None:
    ledger.append(event("boss"))
    ledger.publish(event("boss"))
    ledger.queue.drain()

    assert other(f"ledger.schemas.register('user.created', 1, {ROLE!r}).version") == "1"

    time.sleep(0.01)  # what is published looks at the head every few milliseconds
    for attempt in (
        lambda: ledger.publish(event("boss")),
        lambda: ledger.append(event("boss")),
        lambda: ledger.append_many([event("boss")]),
    ):
        with pytest.raises(RejectedError, match="/payload/role"):
            attempt()
    assert ledger.append(event()).position == 5
    assert other("ledger.schemas.enforce('strict').enforcement") == "strict"
    time.sleep(0.01)
    with pytest.raises(RejectedError, match="has no schema"):
        ledger.publish(event_type="t.x", entity_id="e")
    assert ledger.schemas.enforcement() == "strict"
    ledger.schemas.enforce("warn")
    assert other("ledger.append(event_type='user.created', entity_id='e').breach[:13]") == "/payload/role"
    assert ledger.verify().holds


def test_an_append_is_judged_by_what_another_process_registered_just_before(
    ledger: tallystick.Ledger, other: Callable[[str], str]
) -> None:
    ledger.append(event("boss"))

    assert other(f"ledger.schemas.register('user.created', 1, {ROLE!r}).version") == "1"

    with pytest.raises(RejectedError, match="/payload/role"):
        ledger.append(event("boss"))
    assert other(f"ledger.schemas.register('user.created', 2, {WIDER!r}).version") == "2"
    ledger.append(event("boss", event_version=2))


def test_of_two_who_register_the_same_version_one_is_told_what_the_other_said(
    ledger: tallystick.Ledger, other: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checking: Callable[..., Any] = schemas_module.Schemas._check_next

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(schemas_module.Schemas, "_check_next", checking)
        assert other(f"ledger.schemas.register('user.created', 1, {ROLE!r}).version") == "1"
        checking(*arguments)

    monkeypatch.setattr(schemas_module.Schemas, "_check_next", late)
    with pytest.raises(ConflictError, match="with another document"):
        ledger.schemas.register("user.created", 1, WIDER)

    assert types(ledger) == ["tallystick.schema.registered"]


def test_a_process_that_is_killed_while_it_registers_leaves_all_of_a_schema_or_none(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit"):
        pass
    script = (
        "import sys, tallystick\n"
        "ledger = tallystick.open(sys.argv[1])\n"
        "for n in range(1, 10_000):\n"
        "    ledger.schemas.register('t.x', n, {'title': f'version {n}'})\n"
        "    print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "audit")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}"}
    ) as process:
        assert process.stdout
        told = 0
        while told < 20:
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout if line.strip().isdecimal())])

    with tallystick.open(tmp_path / "audit") as ledger:
        versions = ledger.schemas.history("t.x")
        assert [one.version for one in versions] == [*range(1, len(versions) + 1)]
        assert len(versions) >= told
        assert ledger.verify().holds
        with pytest.raises(RejectedError, match="there is no version"):
            ledger.append(event_type="t.x", entity_id="e", event_version=len(versions) + 1)


def proven(ledger: tallystick.Ledger, size: int) -> VerifiedReads:
    return VerifiedReads(ledger._store, Tree.from_edges(size, unfinished_tiles(ledger._store, size)))


def test_a_registry_reads_the_same_by_the_index_by_the_log_and_commit_by_commit(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        for version in range(1, 5):
            ledger.schemas.register("t.x", version, {"title": str(version)})
            ledger.append_many(event() for _ in range(version))
        ledger.schemas.enforce("warn")
        store = ledger._store
        by_log, by_index, in_steps = Registry(store), Registry(store), Registry(store)
        by_log.follow(proven(ledger, ledger.size))
        reader = ledger._open_reader()
        by_index.load(reader.search, reader.catch_up())
        for size in range(1, ledger.size + 1):
            in_steps.follow(proven(ledger, size))

        wanted = ledger.schemas._in_force(None)
        for registry in (by_log, by_index, in_steps):
            found = registry.snapshot()
            assert (found.schemas, found.changes) == (wanted.schemas, wanted.changes)
            assert registry.generation == 5


def test_the_bytes_of_all_versions_have_a_bound(ledger: tallystick.Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas_module, "SCHEMAS_BYTES_MAX", 300)
    ledger.schemas.register("a.b", 1, {"type": "object", "title": "a" * 100})
    with pytest.raises(RejectedError) as refused:
        ledger.schemas.register("c.d", 1, {"type": "object", "title": "a" * 200})
    assert refused.value.place == "schema"
    ledger.schemas.register("c.d", 1, {"type": "object", "title": "a" * 100})


def test_versions_are_kept_as_bytes_and_few_of_them_are_read(ledger: tallystick.Ledger) -> None:
    documents = registered.Documents(4_000)
    sources = [b'{"title":"%d","type":"object"}' % number for number in range(8)]
    read = [documents.read(source) for source in sources]
    assert documents.bytes <= 4_000
    assert documents.read(sources[-1]) is read[-1]
    assert documents.read(sources[0]) is not read[0]
    assert documents.read(sources[0]).takes({})
    assert not documents.read(sources[0]).takes(1)
    version = ledger.schemas.register("a.b", 1, {"type": "object"})
    assert isinstance(version.source, bytes)
    assert version.document is version.document
