"""Schemas: what the events of a type have to look like, as events of the ledger's own (SPEC 5.6).

A registration is one version of one event type's schema; the enforcement says what becomes of an event that breaks
it. Their payloads are written and read here, strictly. What a schema means is for `tallystick.govern`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from tallystick.core.canonical import encode
from tallystick.core.content import is_event_type
from tallystick.core.custody import own_payload, text_member
from tallystick.core.event import RESERVED_PREFIX
from tallystick.core.record import Record
from tallystick.errors import RejectedError
from tallystick.limits import INTEGER_MAX, REASON_CHARACTERS_MAX

SCHEMA_REGISTERED: Final = "tallystick.schema.registered"
ENFORCEMENT_SET: Final = "tallystick.schema.enforcement.set"
SCHEMA_TYPES: Final = (SCHEMA_REGISTERED, ENFORCEMENT_SET)
"""The events by which what events are held to changes."""
SCHEMA_MARK: Final = b'"event_type":"tallystick.schema.'
"""What the record of each of them has in its bytes."""

Target: TypeAlias = Literal["payload", "event"]
"""What a schema is held against."""
Compatibility: TypeAlias = Literal["none", "backward", "forward", "full"]
"""What a version owes to the one before: that the new schema takes what the old one took, the reverse, or both."""
Enforcement: TypeAlias = Literal["strict", "registered", "warn"]
"""Whether types without a schema are refused too, or only events that break one, or nothing is refused."""

TARGETS: Final[tuple[Target, ...]] = get_args(Target)
COMPATIBILITIES: Final[tuple[Compatibility, ...]] = get_args(Compatibility)
ENFORCEMENTS: Final[tuple[Enforcement, ...]] = get_args(Enforcement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One version of the schema of an event type, as it is registered."""

    name: str
    """The event type, exactly."""
    version: int
    """The `event_version` of the events that it is for."""
    schema: dict[str, Any]
    """The JSON Schema document as `tallystick.core.canonical.decode` gives it."""
    target: Target = "payload"
    compatibility: Compatibility = "backward"
    """What it owed to the version before, and what the next one owes to it unless that says something else."""
    reason: str | None = None

    def __post_init__(self) -> None:
        if type(self.name) is not str or not is_event_type(self.name):
            cure = "a schema is named as its event type, exactly, such as user.created"
            raise RejectedError(f"{str(self.name)[:60]!r} is not an event type", place="name", cure=cure)
        if self.name.startswith(RESERVED_PREFIX):
            raise RejectedError(f"event types that begin with {RESERVED_PREFIX} are the ledger's own", place="name")
        if type(self.version) is not int or not 1 <= self.version <= INTEGER_MAX:
            raise RejectedError(f"{str(self.version)[:60]!r} is not an integer from 1", place="version")
        if type(self.schema) is not dict:
            cure = 'send an object, such as {"type":"object","required":["role"]}'
            raise RejectedError("a schema is a JSON object", place="schema", cure=cure)
        _check_word(self.target, TARGETS, "target")
        _check_word(self.compatibility, COMPATIBILITIES, "compatibility")
        _check_reason(self.reason)

    @property
    def document(self) -> bytes:
        """The schema in canonical JSON."""
        return encode(self.schema)

    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "compatibility": self.compatibility,
            "name": self.name,
            "schema": self.schema,
            "target": self.target,
            "version": self.version,
        }
        return payload if self.reason is None else {**payload, "reason": self.reason}

    @classmethod
    def of(cls, record: Record) -> Registration:
        """Read a record as a registration. Raises `RejectedError`."""
        payload = own_payload(record, SCHEMA_REGISTERED)
        registration = cls(
            name=text_member(payload, "name"),
            version=payload.get("version", 0),
            schema=payload.get("schema", {}),
            target=payload.get("target", ""),
            compatibility=payload.get("compatibility", ""),
            reason=payload.get("reason"),
        )
        if registration.payload() != payload:
            raise RejectedError(f"the {SCHEMA_REGISTERED} is not what SPEC 5.6 prints", place="/payload")
        return registration


@dataclass(frozen=True, slots=True)
class EnforcementSet:
    """From here on schemas are enforced like this."""

    enforcement: Enforcement
    reason: str | None = None

    def __post_init__(self) -> None:
        _check_word(self.enforcement, ENFORCEMENTS, "enforcement")
        _check_reason(self.reason)

    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = {"enforcement": self.enforcement}
        return payload if self.reason is None else {**payload, "reason": self.reason}

    @classmethod
    def of(cls, record: Record) -> EnforcementSet:
        """Read a record as a change of the enforcement. Raises `RejectedError`."""
        payload = own_payload(record, ENFORCEMENT_SET)
        change = cls(payload.get("enforcement", ""), payload.get("reason"))
        if change.payload() != payload:
            raise RejectedError(f"the {ENFORCEMENT_SET} is not what SPEC 5.6 prints", place="/payload")
        return change


def _check_word(value: Any, words: tuple[str, ...], place: str) -> None:
    if type(value) is not str or value not in words:
        cure = f"send {', '.join(words[:-1])} or {words[-1]}"
        raise RejectedError(f"{str(value)[:60]!r} is none", place=place, cure=cure)


def _check_reason(reason: Any) -> None:
    if reason is not None and (type(reason) is not str or not 1 <= len(reason) <= REASON_CHARACTERS_MAX):
        cure = f"say why in 1 to {REASON_CHARACTERS_MAX} characters, or leave it out"
        raise RejectedError("the reason is empty, or too long", place="reason", cure=cure)
