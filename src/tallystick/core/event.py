"""The event: a fact that a caller asks to keep, before anything vouches for it.

A plain value. What it may hold is judged at acceptance (`tallystick.write.accept`), which gives an
`Event` and raw JSON the very same treatment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

RESERVED_PREFIX: Final = "tallystick."
"""Event types that only the ledger itself writes."""

ExpectedVersion: TypeAlias = int | Literal["any", "none", "exists"]
"""What an entity's present version must be: a number, `none` (no events yet), `exists`, or `any`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    `actor` is an id, or an object of `id`, `type`, `name`, `identity_provider`. `occurred_at` is RFC 3339
    with a zone: the caller's claim, kept as sent and never used for order. An `id` makes the append
    idempotent. `expected_version` makes it optimistic.
    """

    event_type: str
    entity_id: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    actor: str | Mapping[str, str] | None = None
    context: Mapping[str, Any] | None = None
    labels: Sequence[str] = ()
    occurred_at: str | None = None
    id: str | None = None
    event_version: int = 1
    expected_version: ExpectedVersion = "any"

    def members(self) -> dict[str, Any]:
        """The members as they stand in JSON input: those left at their defaults are absent."""
        out: dict[str, Any] = {
            "event_type": self.event_type,
            "entity_id": self.entity_id,
            "payload": _plain(self.payload),
        }
        if self.actor is not None:
            out["actor"] = _plain(self.actor)
        if self.context is not None:
            out["context"] = _plain(self.context)
        if self.labels != ():
            out["labels"] = _plain(self.labels)
        if self.occurred_at is not None:
            out["occurred_at"] = self.occurred_at
        if self.id is not None:
            out["id"] = self.id
        if type(self.event_version) is not int or self.event_version != 1:
            out["event_version"] = self.event_version
        if self.expected_version != "any":
            out["expected_version"] = self.expected_version
        return out


def _plain(value: Any) -> Any:
    """A mapping as a dict, a tuple as a list; anything else stays what it is, for acceptance to judge."""
    if type(value) is dict:
        return value
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
