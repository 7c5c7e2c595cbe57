"""What a value does that its schema does not take, and how much work it is to find out.

The library would make every error there is before it gives the first, with those of each alternative within it: an
event of 60 KB could take gigabytes. So it is only ever asked whether a part fits, and the way down to the parts that do
not is found here, with bounds on how many are asked. And asking takes time, which nothing cuts short: ten thousand
elements, each held against a thousand alternatives, are counted before they are begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import orjson

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

Schema: TypeAlias = dict[str, Any] | bool
Compile: TypeAlias = Callable[[Schema], "Validator"]

BREACHES_MAX: Final = 5
EFFORT_MAX: Final = 200_000
"""Parts of a schema that are held against values, each as often as there are values: about 40 ms."""

_QUESTIONS_MAX: Final = 256
_REMOVED_MAX: Final = 16
_STEP_EFFORT: Final = 5
"""A step of the count itself, in what it counts."""

_TEXT_CHARACTERS_MAX: Final = 200
_ALTERNATIVES: Final = ("allOf", "anyOf", "oneOf")
_AT_THE_SAME: Final = ("not", "if", "then", "else")
_UNEVALUATED: Final[dict[str, type]] = {"unevaluatedProperties": dict, "unevaluatedItems": list}
_OF_ELEMENTS: Final = ("items", "contains", "unevaluatedItems")
_OF_MEMBERS: Final = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_DEEPER: Final = frozenset(
    (
        *(*_ALTERNATIVES, *_AT_THE_SAME, *_OF_ELEMENTS, *_OF_MEMBERS),
        *("prefixItems", "properties", "patternProperties", "dependentSchemas"),
    )
)
_ENDED: Final = "it does not fit the schema"


class Breach(NamedTuple):
    """One thing that an event does which its schema does not take."""

    place: str
    """A JSON pointer."""
    problem: str


def escaped(name: str) -> str:
    """A name as a part of a JSON pointer, cut where it is long."""
    return name[:_TEXT_CHARACTERS_MAX].replace("~", "~0").replace("/", "~1")


def cut(text: str) -> str:
    """A text that is not too long to be told."""
    return text if len(text) <= _TEXT_CHARACTERS_MAX else f"{text[:_TEXT_CHARACTERS_MAX]}…"


# --------------------------------------------------------------------------------------------- how much work


class _TooMuchError(Exception):
    pass


def repeated(schema: Schema) -> int:
    """How many parts of a schema are held against each of any number of values."""
    if type(schema) is not dict:
        return 0
    many = [schema[name] for name in (*_OF_ELEMENTS, *_OF_MEMBERS) if name in schema]
    many += schema.get("patternProperties", {}).values()
    once = [part for name in _ALTERNATIVES for part in schema.get(name, ())]
    once += [schema[name] for name in _AT_THE_SAME if name in schema]
    once += [*schema.get("prefixItems", ()), *schema.get("properties", {}).values()]
    once += schema.get("dependentSchemas", {}).values()
    if any(name in schema for name in _UNEVALUATED):
        many += _beside(schema)
    return sum(map(_weight, many)) + sum(map(repeated, once))


def is_too_much(schema: Schema, repeats: int, value: Any) -> bool:
    """Whether holding a value against a schema would be more than `EFFORT_MAX`. `repeats` is what `repeated` says.

    Nearly always that is plain from how long the value is: no two characters are more than one value.
    """
    if not repeats or repeats * (len(orjson.dumps(value)) // 2) <= EFFORT_MAX:
        return False
    try:
        _Effort().spend(schema, value)
    except _TooMuchError:
        return True
    return False


class _Effort:
    """Counts how often parts are held against values, and gives up past the bound."""

    def __init__(self) -> None:
        self._left = EFFORT_MAX
        self._weights: Final[dict[int, tuple[int, bool]]] = {}

    def spend(self, schema: Schema, value: Any) -> None:
        """The parts of a schema, against a value and what is in it. Raises `_TooMuchError`."""
        if type(schema) is not dict:
            return self._take(1)
        self._take(_STEP_EFFORT + _own_weight(schema))
        for name in _ALTERNATIVES:
            self._each(schema.get(name, ()), value)
        self._each((schema[name] for name in _AT_THE_SAME if name in schema), value)
        if any(name in schema and type(value) is kind for name, kind in _UNEVALUATED.items()):
            self._take(sum(map(_weight, _beside(schema))) * len(value))
        if type(value) is dict:
            self._members(schema, value)
        elif type(value) is list:
            for part, element in zip(schema.get("prefixItems", ()), value, strict=False):
                self.spend(part, element)
            for name in _OF_ELEMENTS:
                if name in schema:
                    self._all(schema[name], value)
        return None

    def _members(self, schema: dict[str, Any], value: dict[str, Any]) -> None:
        for name, part in schema.get("properties", {}).items():
            if name in value:
                self.spend(part, value[name])
        for name, part in schema.get("dependentSchemas", {}).items():
            if name in value:
                self.spend(part, value)
        for name in _OF_MEMBERS:
            if name in schema:
                self._all(schema[name], value.values())
        for part in schema.get("patternProperties", {}).values():
            self._all(part, value.values())

    def _each(self, parts: Any, value: Any) -> None:
        for part in parts:
            self.spend(part, value)

    def _all(self, part: Schema, values: Any) -> None:
        weight, is_flat = self._weights.get(id(part)) or self._weights.setdefault(
            id(part), (_weight(part), repeated(part) == 0)
        )
        if is_flat:
            self._take(weight * len(values))
        else:
            for value in values:
                self.spend(part, value)

    def _take(self, effort: int) -> None:
        self._left -= effort
        if self._left < 0:
            raise _TooMuchError


def _weight(schema: Schema) -> int:
    """How many parts a schema has."""
    if type(schema) is not dict:
        return 1
    return 1 + _own_weight(schema) + sum(map(_weight, _parts(schema)))


def _beside(schema: dict[str, Any]) -> Iterator[Schema]:
    """Parts that are held against the same value. Beside an `unevaluated...` each is asked of each member or element
    whether it has been looked at."""
    for name in _ALTERNATIVES:
        yield from schema.get(name, ())
    yield from (schema[name] for name in _AT_THE_SAME if name in schema)
    yield from schema.get("dependentSchemas", {}).values()


def _own_weight(schema: dict[str, Any]) -> int:
    """What is asked one by one: values of an enum that are no scalars, which could be looked up."""
    listed = schema.get("enum", ())
    return len(listed) if any(isinstance(one, (dict, list)) for one in listed) else 0


def _parts(schema: dict[str, Any]) -> Iterator[Schema]:
    for name in _DEEPER & schema.keys():
        inner = schema[name]
        if type(inner) is list:
            yield from inner
        elif name in ("properties", "patternProperties", "dependentSchemas"):
            yield from inner.values()
        else:
            yield inner


# --------------------------------------------------------------------------------------------- what is wrong


def breaches_of(schema: Schema, value: Any, *, at: str, compiled: Compile) -> list[Breach]:
    """The first few breaches that are found, by place; none if the value fits. `at` is the value's own place."""
    search = _Search(compiled)
    found: list[Breach] = []
    with suppress(_TooMuchError):
        for breach in search.within(schema, value, at):
            if breach not in found:
                found.append(breach)
            if len(found) == BREACHES_MAX:
                break
    if not found and search.is_ended:
        found.append(Breach(search.at or at, _ENDED))
    return sorted(found)


class _Search:
    """The way from a schema that a value does not fit to the parts of it that say so."""

    def __init__(self, compiled: Compile) -> None:
        self._compiled: Final = compiled
        self._validators: Final[dict[int, tuple[Schema, Validator]]] = {}
        """By the identity of a schema, which is kept with it, as otherwise another could have the same one later."""
        self._left = _QUESTIONS_MAX
        self.is_ended = False
        """Whether it ended before everything was asked."""
        self.at = ""
        """Where it went last into what does not fit."""

    def within(self, schema: Schema, value: Any, place: str) -> Iterator[Breach]:
        """The breaches of a part and of what is in it. Raises `_TooMuchError` once too much was asked."""
        if schema is False:
            yield Breach(place, "the schema has no such member")
        if type(schema) is not dict or self._fits(schema, value):
            return
        self.at = place
        yield from self._plain(schema, value, place)
        for part in schema.get("allOf", ()):
            yield from self.within(part, value, place)
        for name in ("anyOf", "oneOf"):
            if name in schema and not self._fits({name: schema[name]}, value):
                yield Breach(place, self._alternatives(name, schema[name], value))
        if "not" in schema and self._fits(schema["not"], value):
            yield Breach(place, "it is what `not` excludes")
        if "if" in schema:
            branch = "then" if self._fits(schema["if"], value) else "else"
            yield from self.within(schema.get(branch, True), value, place)
        if type(value) is dict:
            yield from self._members(schema, value, place)
        elif type(value) is list:
            yield from self._elements(schema, value, place)

    def _plain(self, schema: dict[str, Any], value: Any, place: str) -> Iterator[Breach]:
        plain = {name: said for name, said in schema.items() if name not in _DEEPER}
        if plain and not self._fits(plain, value):
            for error in islice(self._compiled(plain).iter_errors(value), BREACHES_MAX):
                yield _of_library(error, place)

    def _alternatives(self, name: str, parts: list[Schema], value: Any) -> str:
        fitting = islice((part for part in parts if self._fits(part, value)), 2)
        if name == "oneOf" and len([*fitting]) > 1:
            return "the value is valid under more than one of the schemas listed in the 'oneOf' keyword"
        return f"the value is not valid under any of the schemas listed in the '{name}' keyword"

    def _members(self, schema: dict[str, Any], value: dict[str, Any], place: str) -> Iterator[Breach]:
        listed, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name in sorted(listed.keys() & value.keys()):
            yield from self.within(listed[name], value[name], f"{place}/{escaped(name)}")
        others = value.keys() - listed.keys()
        for pattern, part in patterns.items():
            named = {"pattern": pattern}
            for name in sorted(value):
                if self._fits(named, name):
                    others.discard(name)
                    yield from self.within(part, value[name], f"{place}/{escaped(name)}")
        for name in sorted(others) if "additionalProperties" in schema else ():
            yield from self.within(schema["additionalProperties"], value[name], f"{place}/{escaped(name)}")
        for name, part in schema.get("dependentSchemas", {}).items():
            if name in value:
                yield from self.within(part, value, place)
        for name in sorted(value) if "propertyNames" in schema else ():
            yield from self.within(schema["propertyNames"], name, f"{place}/{escaped(name)}")
        if "unevaluatedProperties" in schema:
            yield from self._unknown(schema, value, place)

    def _unknown(self, schema: dict[str, Any], value: dict[str, Any], place: str) -> Iterator[Breach]:
        """The members that no other part of the schema knows: without them it fits."""
        for name in sorted(value)[:_REMOVED_MAX]:
            without = {key: one for key, one in value.items() if key != name}
            if self._fits(schema, without):
                yield Breach(f"{place}/{escaped(name)}", "the schema has no such member")
                return
        yield Breach(place, "it has members that the schema does not have")

    def _elements(self, schema: dict[str, Any], value: list[Any], place: str) -> Iterator[Breach]:
        first = schema.get("prefixItems", [])
        for number, (part, element) in enumerate(zip(first, value, strict=False)):
            yield from self.within(part, element, f"{place}/{number}")
        for number, element in enumerate(value[len(first) :], start=len(first)) if "items" in schema else ():
            yield from self.within(schema["items"], element, f"{place}/{number}")
        counted: dict[str, Any] = {
            name: schema[name] for name in ("contains", "minContains", "maxContains") if name in schema
        }
        if "contains" in counted and not self._fits(counted, value):
            yield Breach(place, "fewer or more of its elements than there may be fit the schema under `contains`")
        if "unevaluatedItems" in schema and not self._fits(schema, value):
            yield Breach(place, "it has elements that the schema does not have")

    def _fits(self, schema: Schema, value: Any) -> bool:
        """Ask. What is asked of many elements is compiled once."""
        if type(schema) is bool:
            return schema
        known = self._validators.get(id(schema))
        if known is None:
            self._left -= 1
            if self._left < 0:
                self.is_ended = True
                raise _TooMuchError
            known = self._validators[id(schema)] = schema, self._compiled(schema)
        return known[1].is_valid(value)


def _of_library(error: ValidationError, place: str) -> Breach:
    """A breach of a keyword that has no schemas within, in the library's words."""
    kind, facts = error.kind.name, error.kind.as_dict()
    place += "".join(f"/{escaped(str(part))}" for part in error.instance_path)
    if kind in ("required", "dependentRequired") and "property" in facts:
        return Breach(f"{place}/{escaped(facts['property'])}", "it is required, and missing")
    return Breach(place, cut(error.message.replace("\n", " ")))
