"""What was registered: a version of a schema with its record, and all that is in force after some records.

Values, read from the ledger's own events; `tallystick.govern.registry` keeps them abreast and judges by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import orjson

from tallystick.core import timestamp
from tallystick.core.record import Record
from tallystick.core.schema import (
    SCHEMA_REGISTERED,
    Compatibility,
    Enforcement,
    EnforcementSet,
    Registration,
    Target,
)
from tallystick.errors import RejectedError, StoreError
from tallystick.govern.document import Document

DEFAULT_ENFORCEMENT: Final[Enforcement] = "registered"


@dataclass(frozen=True)
class RegisteredSchema:
    """A version of a schema, and the record that registered it."""

    registration: Registration
    position: int
    recorded_at: str
    actor: dict[str, str] | None

    @property
    def name(self) -> str:
        """The event type."""
        return self.registration.name

    @property
    def version(self) -> int:
        """The event version."""
        return self.registration.version

    @property
    def schema(self) -> dict[str, Any]:
        """The document as it was registered, in values of its own: also what begins with `x-` is in it."""
        document: dict[str, Any] = orjson.loads(self.registration.document)
        return document

    @property
    def target(self) -> Target:
        """What it is held against."""
        return self.registration.target

    @property
    def compatibility(self) -> Compatibility:
        """What it owes to the version before."""
        return self.registration.compatibility

    @property
    def reason(self) -> str | None:
        """Why it was registered."""
        return self.registration.reason

    def to_json(self) -> dict[str, Any]:
        """As it is told of, without the document."""
        return {
            "name": self.name,
            "version": self.version,
            "target": self.target,
            "compatibility": self.compatibility,
            "position": self.position,
            "recorded_at": self.recorded_at,
            "actor": self.actor,
            "reason": self.reason,
        }

    @cached_property
    def document(self) -> Document:
        """The schema put together and compiled. Made when first needed."""
        try:
            return Document.read(self.registration.document)
        except RejectedError as error:  # it was read when it was registered, maybe by another version of this program
            what = f"version {self.version} of the schema of {self.name}, registered at position {self.position}"
            raise StoreError(f"{what}, cannot be read: {error}; update tallystick") from error

    @cached_property
    def takes(self) -> Callable[[Any, Callable[[], dict[str, Any]]], bool]:
        """Whether an event fits, by its payload and what gives the whole of it."""
        takes = self.document.takes
        if self.target == "payload":
            return lambda payload, _: takes(payload)
        return lambda _, whole: takes(whole())

    @property
    def personal(self) -> tuple[str, ...]:
        """Where `x-personal` marks a member of an event: JSON pointers, `*` for every element or name."""
        at = "/payload" if self.target == "payload" else ""
        return tuple(f"{at}{place}" for place in self.document.personal())


@dataclass(frozen=True, slots=True)
class Enforced:
    """A change of the enforcement, and the record of it."""

    enforcement: Enforcement
    position: int
    recorded_at: str
    actor: dict[str, str] | None
    reason: str | None


class InForce:
    """The schemas and the enforcement after the records that it took, in order."""

    def __init__(self) -> None:
        self.schemas: Final[dict[str, dict[int, RegisteredSchema]]] = {}
        self.changes: Final[list[Enforced]] = []

    @property
    def enforcement(self) -> Enforcement:
        """The enforcement in force."""
        return self.changes[-1].enforcement if self.changes else DEFAULT_ENFORCEMENT

    @property
    def count(self) -> int:
        """How many versions there are, of all names."""
        return sum(map(len, self.schemas.values()))

    def take(self, record: Record) -> None:
        """The next of the ledger's own records. Raises `RejectedError` for one that says what cannot be."""
        if record.event_type == SCHEMA_REGISTERED:
            registration = Registration.of(record)
            versions = self.schemas.setdefault(registration.name, {})
            if registration.version != len(versions) + 1:
                raise RejectedError(f"version {registration.version} of {registration.name} is not the next")
            versions[registration.version] = RegisteredSchema(
                registration, record.position, record.recorded_at, record.actor
            )
        else:
            change = EnforcementSet.of(record)
            self.changes.append(
                Enforced(change.enforcement, record.position, record.recorded_at, record.actor, change.reason)
            )

    def as_of(self, end: int) -> InForce:
        """What was in force before a moment, in microseconds."""
        before = InForce()
        for name, versions in self.schemas.items():
            there = {version: one for version, one in versions.items() if _at(one.recorded_at) < end}
            if there:
                before.schemas[name] = there
        before.changes.extend(change for change in self.changes if _at(change.recorded_at) < end)
        return before


def _at(recorded_at: str) -> int:
    return timestamp.parse(recorded_at)
