"""A schema from events that there are: which members, of which types, and which of them are always there.

It takes every payload that it was made from. It says no more than was seen of types and presence, and, when asked,
of texts that are always one of a few; formats and bounds are not guessed. It is a draft for a person to mend.

It has a bound in parts over all of its levels: an object that would have more is told of as a map, with a `$comment`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from tallystick.govern.document import DIALECT
from tallystick.limits import INFERRED_DEPTH_MAX, INFERRED_MEMBERS_MAX, INFERRED_PARTS_MAX

_VALUES_MAX: Final = 8
"""Texts of which a member is always one, for them to be a list of choices."""
_TIMES_SEEN_MIN: Final = 3
"""How often each of them must have been seen, taken together: fewer texts say nothing."""
_VALUE_CHARACTERS_MAX: Final = 100


_PART_BYTES: Final = 1_536
"""What a part takes in memory, about, with what is told of it."""
_WEIGHT_CHARACTERS: Final = 64
"""A name or text weighs as one part more for each so many characters."""
_TOO_MANY: Final = "not told further: the schema would have too many parts"


def infer(
    payloads: Iterable[dict[str, Any]], *, enums: bool = False, held: Callable[[int], object] = lambda _: None
) -> tuple[dict[str, Any], int]:
    """The schema of payloads, and how many there were. With `enums` it lists the texts of a member that has few.

    `held` is told after each payload how many bytes are in memory for it, and may raise.
    """
    left, count = _Left(), 0
    seen = _Seen(0, left, enums=enums)
    for payload in payloads:
        seen.add(payload)
        count += 1
        held((INFERRED_PARTS_MAX - left.parts) * _PART_BYTES)
    return {"$schema": DIALECT, **seen.schema()}, count


class _Left:
    """How many parts the whole schema may still have."""

    def __init__(self) -> None:
        self.parts = INFERRED_PARTS_MAX

    def take(self, weight: int) -> bool:
        if weight > self.parts:
            return False
        self.parts -= weight
        return True


def _weight(text: str) -> int:
    return 1 + len(text) // _WEIGHT_CHARACTERS


class _Seen:
    """What was seen at one place."""

    __slots__ = (
        "_depth",
        "_elements",
        "_enums",
        "_is_cut",
        "_left",
        "_members",
        "_objects",
        "_present",
        "_texts",
        "_types",
    )

    def __init__(self, depth: int, left: _Left, *, enums: bool) -> None:
        self._depth: Final = depth
        self._left: Final = left
        self._enums: Final = enums
        self._types: set[str] = set()
        self._objects = 0
        self._members: dict[str, _Seen] | None = {}
        """By name; None when the names are too many to mean anything."""
        self._present: dict[str, int] = {}
        self._elements: _Seen | None = None
        self._texts: dict[str, int] | None = {} if enums else None
        self._is_cut = False
        """Whether more was seen than there was room for."""

    def add(self, value: Any) -> None:
        kind = _type_of(value)
        self._types.add(kind)
        if kind == "object":
            self._add_members(value)
        elif kind == "array" and self._depth < INFERRED_DEPTH_MAX:
            self._add_elements(value)
        elif kind == "string" and self._texts is not None:
            self._add_text(self._texts, value)

    def _add_text(self, texts: dict[str, int], text: str) -> None:
        if text in texts:
            texts[text] += 1
        elif len(texts) < _VALUES_MAX and len(text) <= _VALUE_CHARACTERS_MAX and self._left.take(_weight(text)):
            texts[text] = 1
        else:
            self._left.parts += sum(map(_weight, texts))
            self._texts = None

    def _add_elements(self, values: list[Any]) -> None:
        if self._elements is None and values:
            if not self._left.take(1):
                self._is_cut = True
                return
            self._elements = self._below()
        for element in values:
            if self._elements is not None:
                self._elements.add(element)

    def _add_members(self, value: dict[str, Any]) -> None:
        self._objects += 1
        if self._members is None or self._depth >= INFERRED_DEPTH_MAX:
            return
        for name, member in value.items():
            below = self._members.get(name)
            if below is None:
                is_map = len(self._members) >= INFERRED_MEMBERS_MAX
                if is_map or not self._left.take(_weight(name)):
                    self._is_cut = not is_map
                    self._forget_members(self._members)
                    return
                below = self._members[name] = self._below()
            below.add(member)
            self._present[name] = self._present.get(name, 0) + 1

    def _forget_members(self, members: dict[str, _Seen]) -> None:
        """Take the object for a map. What its members took is there for others."""
        self._left.parts += sum(_weight(name) + member.weight() for name, member in members.items())
        self._members = None
        self._present.clear()

    def _below(self) -> _Seen:
        return _Seen(self._depth + 1, self._left, enums=self._enums)

    def weight(self) -> int:
        """What is below here of what all parts take."""
        weight = sum(map(_weight, self._texts or ()))
        weight += sum(_weight(name) + member.weight() for name, member in (self._members or {}).items())
        return weight if self._elements is None else weight + 1 + self._elements.weight()

    def schema(self) -> dict[str, Any]:
        """What to ask of values as those that were seen."""
        types = sorted(self._types - {"integer"} if "number" in self._types else self._types)
        if not types:
            return {}  # elements of arrays that were all empty
        out: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
        if self._is_cut:
            out["$comment"] = _TOO_MANY
        if self._members:
            out["properties"] = {name: self._members[name].schema() for name in sorted(self._members)}
            required = sorted(name for name, count in self._present.items() if count == self._objects)
            if required:
                out["required"] = required
        items = {} if self._elements is None else self._elements.schema()
        if items:
            out["items"] = items
        if types == ["string"] and self._texts and self._is_choice(self._texts):
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
