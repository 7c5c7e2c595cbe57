"""What was registered: a version of a schema with its record, and all that is in force after some records.

Values, read from the ledger's own events; `tallystick.govern.registry` keeps them abreast and judges by them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
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
from tallystick.limits import SCHEMAS_READ_BYTES_MAX

_PERSONAL: Final = b'"x-personal"'
_DOCUMENT_BYTES: Final = 1_024
"""What the smallest counts for, beside its bytes."""

DEFAULT_ENFORCEMENT: Final[Enforcement] = "registered"


class Documents:
    """The documents that were read lately, by their bytes. Safe for many threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max: Final = bytes_max
        self._lock: Final = threading.Lock()
        self._known: Final[OrderedDict[bytes, Document]] = OrderedDict()
        self.bytes = 0

    def read(self, source: bytes) -> Document:
        """The document of canonical JSON. Raises `RejectedError`."""
        with self._lock:
            found = self._known.get(source)
            if found is not None:
                self._known.move_to_end(source)
                return found
        read = Document.read(source)
        with self._lock:
            if source not in self._known:
                self._known[source] = read
                self.bytes += len(source) + _DOCUMENT_BYTES
            while self.bytes > self._bytes_max and len(self._known) > 1:
                oldest, _ = self._known.popitem(last=False)
                self.bytes -= len(oldest) + _DOCUMENT_BYTES
        return read


DOCUMENTS: Final = Documents(SCHEMAS_READ_BYTES_MAX)
"""Of all ledgers of the process."""


@dataclass(frozen=True, kw_only=True)
class RegisteredSchema:
    """A version of a schema, and the record that registered it.

    There may be thousands, each of them parsed or compiled a megabyte: so the document is kept as bytes.
    """

    name: str
    """The event type."""
    version: int
    """The event version."""
    source: bytes
    """The document in canonical JSON."""
    target: Target
    """What it is held against."""
    compatibility: Compatibility
    """What it owes to the version before."""
    reason: str | None
    """Why it was registered."""
    position: int
    recorded_at: str
    actor: dict[str, str] | None

    @classmethod
    def of(
        cls, registration: Registration, *, position: int, recorded_at: str, actor: dict[str, str] | None
    ) -> RegisteredSchema:
        """What a registration says, with what its record says of it."""
        names = ("name", "version", "target", "compatibility", "reason")
        said: dict[str, Any] = {name: getattr(registration, name) for name in names}
        return cls(source=registration.document, position=position, recorded_at=recorded_at, actor=actor, **said)

    @property
    def schema(self) -> dict[str, Any]:
        """The document as it was registered, in values of its own: also what begins with `x-` is in it."""
        document: dict[str, Any] = orjson.loads(self.source)
        return document

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

    @property
    def document(self) -> Document:
        """The schema put together and compiled. Made when it is needed, and kept for as long as there is room."""
        try:
            return DOCUMENTS.read(self.source)
        except RejectedError as error:  # it was read when it was registered, maybe by another version of this program
            what = f"version {self.version} of the schema of {self.name}, registered at position {self.position}"
            raise StoreError(f"{what}, cannot be read: {error}; update tallystick") from error

    def takes(self, payload: Any, whole: Callable[[], dict[str, Any]]) -> bool:
        """Whether an event fits, by its payload and what gives the whole of it."""
        return self.document.takes(payload if self.target == "payload" else whole())

    @cached_property
    def personal(self) -> tuple[str, ...]:
        """Where `x-personal` marks a member of an event: JSON pointers, `*` for every element or name."""
        if _PERSONAL not in self.source:
            return ()
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

    @property
    def bytes(self) -> int:
        """How many bytes the documents of all versions have."""
        return sum(len(one.source) for versions in self.schemas.values() for one in versions.values())

    def take(self, record: Record) -> None:
        """The next of the ledger's own records. Raises `RejectedError` for one that says what cannot be."""
        if record.event_type == SCHEMA_REGISTERED:
            registration = Registration.of(record)
            versions = self.schemas.setdefault(registration.name, {})
            if registration.version != len(versions) + 1:
                raise RejectedError(f"version {registration.version} of {registration.name} is not the next")
            schema = RegisteredSchema.of(
                registration, position=record.position, recorded_at=record.recorded_at, actor=record.actor
            )
            versions[registration.version] = schema
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
