"""A schema from events that there are: which members, of which types, and which of them are always there.

It takes every payload that it was made from. It says no more than was seen of types and presence, and, when asked,
of texts that are always one of a few; formats and bounds are not guessed. It is a draft for a person to mend.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tallystick.govern.document import DIALECT
from tallystick.limits import INFERRED_DEPTH_MAX, INFERRED_MEMBERS_MAX

_VALUES_MAX: Final = 8
"""Texts of which a member is always one, for them to be a list of choices."""
_TIMES_SEEN_MIN: Final = 3
"""How often each of them must have been seen, taken together: fewer texts say nothing."""
_VALUE_CHARACTERS_MAX: Final = 100


def infer(payloads: Iterable[dict[str, Any]], *, enums: bool = False) -> tuple[dict[str, Any], int]:
    """The schema of payloads, and how many there were. With `enums` it lists the texts of a member that has few."""
    seen, count = _Seen(0), 0
    for payload in payloads:
        seen.add(payload)
        count += 1
    return {"$schema": DIALECT, **seen.schema(enums)}, count


class _Seen:
    """What was seen at one place."""

    def __init__(self, depth: int) -> None:
        self._depth: Final = depth
        self._types: set[str] = set()
        self._objects = 0
        self._members: dict[str, _Seen] | None = {}
        """By name; None when the names are too many to mean anything."""
        self._present: dict[str, int] = {}
        self._elements: _Seen | None = None
        self._texts: dict[str, int] | None = {}

    def add(self, value: Any) -> None:
        kind = _type_of(value)
        self._types.add(kind)
        if kind == "object":
            self._add_members(value)
        elif kind == "array" and self._depth < INFERRED_DEPTH_MAX:
            self._elements = self._elements or _Seen(self._depth + 1)
            for element in value:
                self._elements.add(element)
        elif kind == "string" and self._texts is not None:
            self._texts[value] = self._texts.get(value, 0) + 1
            if len(self._texts) > _VALUES_MAX or len(value) > _VALUE_CHARACTERS_MAX:
                self._texts = None

    def _add_members(self, value: dict[str, Any]) -> None:
        self._objects += 1
        if self._members is None or self._depth >= INFERRED_DEPTH_MAX:
            return
        for name, member in value.items():
            self._members.setdefault(name, _Seen(self._depth + 1)).add(member)
            self._present[name] = self._present.get(name, 0) + 1
        if len(self._members) > INFERRED_MEMBERS_MAX:
            self._members = None

    def schema(self, enums: bool) -> dict[str, Any]:
        """What to ask of values as those that were seen."""
        types = sorted(self._types - {"integer"} if "number" in self._types else self._types)
        if not types:
            return {}  # elements of arrays that were all empty
        out: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
        if self._members:
            out["properties"] = {name: self._members[name].schema(enums) for name in sorted(self._members)}
            required = sorted(name for name, count in self._present.items() if count == self._objects)
            if required:
                out["required"] = required
        if self._elements is not None and self._elements.schema(enums):
            out["items"] = self._elements.schema(enums)
        if enums and types == ["string"] and self._texts and self._is_choice(self._texts):
            out["enum"] = sorted(self._texts)
        return out

    @staticmethod
    def _is_choice(texts: dict[str, int]) -> bool:
        return sum(texts.values()) >= _TIMES_SEEN_MIN * len(texts)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if value == int(value) else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
