"""The events that every benchmark uses: 5,000 entities, records of 400 to 500 bytes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

ENTITIES = 5_000
_ROLES = ("viewer", "editor", "admin", "auditor")


SCHEMA = {
    "type": "object",
    "properties": {"field": {"type": "string", "maxLength": 40}, "new_value": {"enum": [*_ROLES]}, "n": {"minimum": 0}},
    "required": ["field", "new_value"],
    "additionalProperties": False,
}
"""What the payloads look like."""


def events(first: int, end: int, *, with_ids: bool = False) -> list[bytes]:
    """Events as JSON bytes, as they would arrive over a wire."""
    return list(_events(first, end, with_ids=with_ids))


def _events(first: int, end: int, *, with_ids: bool) -> Iterator[bytes]:
    for number in range(first, end):
        event = {
            "event_type": "user.permission_changed",
            "entity_id": f"user-{number * 7919 % ENTITIES}",
            "payload": {"field": "role", "new_value": _ROLES[number % 4], "n": number},
        }
        if with_ids:
            event["id"] = str(uuid.uuid4())
        yield json.dumps(event, separators=(",", ":")).encode()
