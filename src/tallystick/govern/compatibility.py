"""Compatibility: whether one schema takes all that another takes, and if not, which change it is that breaks.

What is said is proven: there are no breaks only when every value that is valid under the inner schema is
valid under the outer. There may be breaks where none is: keywords that it cannot reason about
have to be the same in both. Schemas are in one piece, without `$ref` (`tallystick.govern.document`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tallystick.core.canonical import canonical
from tallystick.govern.breaches import Schema
from tallystick.govern.document import compiled, is_note

TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
_BREAKS_MAX: Final = 20
_STEPS_MAX: Final = 20_000
"""Pairs of schemas that are looked at: choices within choices would make them too many."""

_REASONED: Final = frozenset(
    (
        *("type", "enum", "const", "properties", "additionalProperties", "required", "items", "prefixItems", "allOf"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "uniqueItems", "anyOf"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format"),
    )
)
"""Keywords that are reasoned about. Any other has to be the same in both schemas."""

_TOGETHER: Final = {
    "if": ("if", "then", "else"),
    "then": ("if", "then", "else"),
    "else": ("if", "then", "else"),
    "contains": ("contains", "minContains", "maxContains"),
    "minContains": ("contains", "minContains", "maxContains"),
    "maxContains": ("contains", "minContains", "maxContains"),
}
_WHOLE: Final = frozenset(("unevaluatedItems", "unevaluatedProperties"))
"""Keywords that mean something only together with others: with those, or with all that stands beside them."""

_LEAST: Final = {"minLength": "string", "minItems": "array", "minProperties": "object"}
_MOST: Final = {"maxLength": "string", "maxItems": "array", "maxProperties": "object"}


class Break(NamedTuple):
    """A change by which a value that one schema takes may be refused by the other."""

    place: str
    change: str

    def __str__(self) -> str:
        return f"{self.place or '/'}: {self.change}"


def backward(old: Schema, new: Schema) -> list[Break]:
    """What keeps the new schema from taking everything that the old one took."""
    return _Reasoning(_FORTH).breaks(old, new)


def forward(old: Schema, new: Schema) -> list[Break]:
    """What keeps the old schema from taking everything that the new one takes."""
    return _Reasoning(_BACK).breaks(new, old)


class _TooMuchError(Exception):
    """The comparison would take too long."""


class _Words(NamedTuple):
    """How a change is told, that leads from the inner schema to the outer, or the other way round."""

    type: str
    required: str
    closed: str
    claimed: str
    bound: str
    gone: str
    value: str
    refused: str
    unlike: str


_FORTH: Final = _Words(
    type="type narrowed from {0} to {1}",
    required="became required",
    closed="additionalProperties became false",
    claimed="could be anything before, and is held to a schema now",
    bound="{0} became {2} (it was {1})",
    gone="is no longer taken",
    value="enum lost {0}",
    refused="the value {0} is no longer valid",
    unlike="cannot be compared: {0} was added or changed",
)
_BACK: Final = _Words(
    type="type widened from {1} to {0}",
    required="is no longer required",
    closed="additionalProperties is no longer false",
    claimed="was held to a schema before, and can be anything now",
    bound="{0} became {1} (it was {2})",
    gone="is taken now",
    value="enum gained {0}",
    refused="the value {0} is valid now",
    unlike="cannot be compared: {0} was removed or changed",
)


class _Reasoning:
    """Goes through two schemas side by side."""

    def __init__(self, words: _Words) -> None:
        self._words: Final = words
        self._steps = 0

    def breaks(self, inner: Schema, outer: Schema) -> list[Break]:
        """The first few breaks; none when `outer` takes all that `inner` takes."""
        found: list[Break] = []
        try:
            for one in self._between(inner, outer, ""):
                if one not in found:
                    found.append(one)
                if len(found) == _BREAKS_MAX:
                    break
        except _TooMuchError:
            found.append(Break("", "cannot be compared: there are too many choices within choices"))
        return found

    def _between(self, inner: Schema, outer: Schema, place: str) -> Iterator[Break]:
        self._steps += 1
        if self._steps > _STEPS_MAX:
            raise _TooMuchError
        if inner is False or outer is True or _same(inner, outer):
            return
        if outer is False:
            yield Break(place, self._words.gone)
            return
        a = {} if inner is True else _asking(inner)
        b = _asking(outer)
        if "enum" in a or "const" in a:
            yield from self._values(a, b, place)  # the few values decide, whatever else is asked
            return
        yield from self._unlike(a, b, place)
        if "enum" in b or "const" in b:
            yield Break(place, self._words.unlike.format("enum" if "enum" in b else "const"))
        types = _types(a)
        if not types <= _types(b):
            yield Break(place, self._words.type.format(_listed(types), _listed(_types(b))))
        yield from self._bounds(a, b, types, place)
        if "object" in types:
            yield from self._objects(a, b, place)
        if "array" in types:
            yield from self._arrays(a, b, place)
        yield from self._all_of(a, b, place)
        yield from self._any_of(a, b, place)

    def _values(self, a: dict[str, Any], b: dict[str, Any], place: str) -> Iterator[Break]:
        """The inner schema takes a few values only: each is tried."""
        values = a["enum"] if "enum" in a else [a["const"]]
        takes, would_take = compiled(a).is_valid, compiled(b).is_valid
        for value in values:
            if takes(value) and not would_take(value):
                word = self._words.value if "enum" in a and "enum" in b else self._words.refused
                yield Break(place, word.format(_shown(value)))

    def _unlike(self, a: dict[str, Any], b: dict[str, Any], place: str) -> Iterator[Break]:
        """Keywords of the outer schema that nobody here can reason about, and that the inner does not have so."""
        for keyword in b:
            if keyword in _REASONED:
                continue
            if keyword in _WHOLE:
                alike = _same(a, b)
            else:
                alike = all(_same_at(a, b, one) for one in _TOGETHER.get(keyword, (keyword,)))
            if not alike:
                yield Break(f"{place}/{keyword}", self._words.unlike.format(keyword))

    def _bounds(self, a: dict[str, Any], b: dict[str, Any], types: frozenset[str], place: str) -> Iterator[Break]:
        numbers = bool(types & {"number", "integer"})
        for keyword, limit in b.items():
            if keyword in _LEAST or keyword in _MOST:
                relevant = (_LEAST.get(keyword) or _MOST.get(keyword)) in types
                holds = not relevant or _count_holds(a, keyword, limit)
            elif keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
                holds = not numbers or _limit_holds(a, keyword, limit)
            elif keyword == "multipleOf":
                holds = not numbers or _multiple_holds(a, limit, types)
            elif keyword in ("pattern", "format"):
                holds = "string" not in types or a.get(keyword) == limit
            elif keyword == "uniqueItems":
                holds = "array" not in types or not limit or a.get(keyword) is True or a.get("maxItems", 2) <= 1
            else:
                continue
            if not holds:
                yield Break(place, self._words.bound.format(keyword, _shown(a.get(keyword)), _shown(limit)))

    def _objects(self, a: dict[str, Any], b: dict[str, Any], place: str) -> Iterator[Break]:
        required = a.get("required", ())
        for name in b.get("required", ()):
            if name not in required:
                yield Break(_below(place, name), self._words.required)
        mine, theirs = a.get("properties", {}), b.get("properties", {})
        patterns = a.get("patternProperties")
        # Where patterns may speak for a name too, nothing is known of those that have no schema of their own.
        rest_a = a.get("additionalProperties", True) if not patterns else True
        rest_b = b.get("additionalProperties", True)
        for name in {**mine, **theirs}:
            inner, outer = mine.get(name, rest_a), theirs.get(name, rest_b)
            if name in mine or rest_a is not True:
                yield from self._between(inner, outer, _below(place, name))
            elif not self._is_within(inner, outer):
                yield Break(_below(place, name), self._words.claimed)
        if patterns and _same_at(a, b, "patternProperties"):
            rest_a = a.get("additionalProperties", True)  # of both the names that no pattern speaks for
        if rest_b is False and rest_a is not False:
            yield Break(place, self._words.closed)
        else:
            yield from self._between(rest_a, rest_b, _below(place, "*"))

    def _arrays(self, a: dict[str, Any], b: dict[str, Any], place: str) -> Iterator[Break]:
        mine, theirs = a.get("prefixItems", []), b.get("prefixItems", [])
        rest_a, rest_b = a.get("items", True), b.get("items", True)
        for index in range(max(len(mine), len(theirs))):
            one = mine[index] if index < len(mine) else rest_a
            other = theirs[index] if index < len(theirs) else rest_b
            yield from self._between(one, other, f"{place}/{index}")
        yield from self._between(rest_a, rest_b, f"{place}/*")

    def _all_of(self, a: dict[str, Any], b: dict[str, Any], place: str) -> Iterator[Break]:
        """The inner schema as a whole, or one that it asks for, has to be within each that the outer asks for."""
        parts = a.get("allOf", ())
        for wanted in b.get("allOf", ()):
            if not any(self._is_within(part, wanted) for part in parts):
                yield from self._between(a, wanted, place)

    def _any_of(self, a: dict[str, Any], b: dict[str, Any], place: str) -> Iterator[Break]:
        wanted = b.get("anyOf")
        if wanted is None or self._is_within_any(a, wanted):
            return
        choices = a.get("anyOf")
        if choices is None or not all(self._is_within_any(choice, wanted) for choice in choices):
            yield Break(f"{place}/anyOf", self._words.unlike.format("anyOf"))

    def _is_within_any(self, inner: Schema, outers: Iterable[Schema]) -> bool:
        return any(self._is_within(inner, outer) for outer in outers)

    def _is_within(self, inner: Schema, outer: Schema) -> bool:
        return next(self._between(inner, outer, ""), None) is None


def _asking(schema: Schema) -> dict[str, Any]:
    """The keywords that ask something."""
    assert type(schema) is dict, "the two others were dealt with"
    return {keyword: value for keyword, value in schema.items() if not is_note(keyword)}


def _types(schema: dict[str, Any]) -> frozenset[str]:
    """What a schema's `type` allows; an integer is a number."""
    given = schema.get("type", TYPES)
    names = {given} if isinstance(given, str) else {*given}
    return frozenset(names | {"integer"} if "number" in names else names)


def _count_holds(a: dict[str, Any], keyword: str, limit: Any) -> bool:
    """Whether what the inner schema says of a length or number implies the outer's limit."""
    given = a.get(keyword)
    if keyword in _LEAST:
        least = 0 if given is None else given
        if keyword == "minProperties":
            least = max(least, len(a.get("required", ())))
        return bool(least >= limit)
    return given is not None and bool(given <= limit)


def _limit_holds(a: dict[str, Any], keyword: str, limit: Any) -> bool:
    """Whether a limit of the inner schema is at least as tight as the outer's."""
    upper = keyword.lower().endswith("maximum")
    plain, strict = ("maximum", "exclusiveMaximum") if upper else ("minimum", "exclusiveMinimum")
    for name in (plain, strict):
        given = a.get(name)
        if given is None:
            continue
        tighter = given < limit if upper else given > limit
        if tighter or (given == limit and (name == strict or keyword == plain)):
            return True
    return False


def _multiple_holds(a: dict[str, Any], wanted: Any, types: frozenset[str]) -> bool:
    given = a.get("multipleOf")
    if wanted == 1 and "number" not in types:
        return True
    if type(given) is int and type(wanted) is int:
        return given % wanted == 0
    return given is not None and bool(given == wanted)


def _same(one: Any, other: Any) -> bool:
    """Whether two schemas are the same but for their notes; where a note may be a value, the notes count too."""
    if type(one) is dict and type(other) is dict:
        one, other = _asking(one), _asking(other)
    return canonical(one) == canonical(other)


def _same_at(a: dict[str, Any], b: dict[str, Any], keyword: str) -> bool:
    return (keyword in a) == (keyword in b) and canonical(a.get(keyword)) == canonical(b.get(keyword))


def _below(place: str, name: str) -> str:
    return f"{place}/properties/{name[:60].replace('~', '~0').replace('/', '~1')}"


def _listed(types: frozenset[str]) -> str:
    shown = types - {"integer"} if "number" in types else types
    return "anything" if len(shown) == len(TYPES) - 1 else "|".join(sorted(shown, key=lambda one: (one == "null", one)))


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else canonical(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
