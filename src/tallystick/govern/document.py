"""A schema document: read strictly, put together, compiled, and held against what arrives.

What is taken is JSON Schema 2020-12 with every `$ref` within the document and none of them in a circle, so that a
document can be put together into one that refers to nothing: nothing is ever fetched, and how much work an event
may cause is known. Keywords and formats that would mean nothing are refused. Patterns run in linear time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import orjson

from tallystick.core.canonical import canonical, decode_and_encode
from tallystick.errors import RejectedError
from tallystick.govern.breaches import Breach, Schema, breaches_of, cut, escaped, is_too_much, repeated
from tallystick.limits import (
    PATTERN_BYTES_MAX,
    PATTERN_CACHE_BYTES_MAX,
    PATTERN_CHARACTERS_MAX,
    SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX,
    SCHEMA_PARTS_DEPTH_MAX,
    SCHEMA_PARTS_MAX,
)

if TYPE_CHECKING:
    from jsonschema_rs import Validator

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

ONE: Final = frozenset(
    (
        *("additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else"),
        *("unevaluatedItems", "unevaluatedProperties"),
    )
)
MANY: Final = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
NAMED: Final = frozenset(("properties", "patternProperties", "dependentSchemas"))
"""Keywords whose value is a schema, an array of schemas, an object of schemas."""
PLAIN: Final = frozenset(
    (
        *("type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
        *("maxLength", "minLength", "pattern", "format", "maxItems", "minItems", "uniqueItems", "maxContains"),
        *("minContains", "maxProperties", "minProperties", "required", "dependentRequired"),
    )
)
NOTES: Final = frozenset(
    (
        *("title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples", "$comment"),
        *("contentEncoding", "contentMediaType"),
    )
)
"""Keywords that ask nothing of an event."""
FORMATS: Final = (
    *("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer", "time"),
    *("uri", "uri-reference", "uuid"),
)
"""The formats that are held against an event."""


def is_note(keyword: str) -> bool:
    """Whether the keyword asks nothing of an event."""
    return keyword in NOTES or keyword.startswith("x-")


class Document:
    """A schema that was read. `parts` is all of it in one piece, without `$ref` and `$defs`."""

    def __init__(self, parts: Schema) -> None:
        self.parts: Final = parts

    @classmethod
    def read(cls, data: bytes) -> Document:
        """From canonical JSON. Raises `RejectedError` with the place within the schema."""
        if len(data) > SCHEMA_BYTES_MAX:
            cure = "split the type, or describe less of it"
            raise RejectedError(f"the schema has {len(data)} bytes; at most {SCHEMA_BYTES_MAX} fit", cure=cure)
        whole = orjson.loads(data)
        if type(whole) is not dict:
            raise RejectedError("a schema is a JSON object", cure='send an object, such as {"type":"object"}')
        if _depth(whole) > SCHEMA_DEPTH_MAX:
            raise RejectedError(f"the schema nests deeper than {SCHEMA_DEPTH_MAX}", cure="use $defs and $ref")
        if str(whole.get("$schema", DIALECT)).rstrip("#") != DIALECT:
            raise RejectedError(
                "not the dialect of JSON Schema that is read here", place="/$schema", cure=f"send {DIALECT}"
            )
        _check_grammar(whole)
        return cls(_Assembly(whole).parts())

    @cached_property
    def validator(self) -> Validator:
        """What decides, compiled when it is first needed."""
        return compiled(self.parts)

    @cached_property
    def _repeats(self) -> int:
        return repeated(self.parts)

    def is_too_much(self, instance: Any) -> bool:
        """Whether it would take too long to hold a value against the schema."""
        return is_too_much(self.parts, self._repeats, instance)

    def takes(self, instance: Any) -> bool:
        """Whether a value fits, and that can be found out within bounds."""
        return not (self._repeats and self.is_too_much(instance)) and self.validator.is_valid(instance)

    def breaches(self, instance: Any, *, at: str = "") -> list[Breach]:
        """What a value does that the schema does not take: the first few, in order of place. `at` is its own place."""
        if self.is_too_much(instance):
            return [Breach(at, "it has too many values for so many alternatives in its schema")]
        return breaches_of(self.parts, instance, at=at, compiled=compiled)

    def personal(self) -> tuple[str, ...]:
        """Where `x-personal` marks a member: JSON pointers, with `*` for every element or name."""
        return tuple(sorted(set(_marked(self.parts, "x-personal", ""))))


def compiled(schema: Schema) -> Validator:
    """The validator of a schema that refers to nothing. Raises `RejectedError`."""
    import jsonschema_rs

    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=True,
            ignore_unknown_formats=False,
            mask="the value",  # messages must not repeat what an event holds
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=PATTERN_BYTES_MAX, dfa_size_limit=PATTERN_CACHE_BYTES_MAX
            ),
        )
    except ValueError as error:
        raise _refused(error) from error


def normal(schema: object) -> bytes:
    """A schema from a caller in canonical JSON. Raises `RejectedError`."""
    if isinstance(schema, bytes):
        if len(schema) > 4 * SCHEMA_BYTES_MAX:
            raise RejectedError(f"the schema has {len(schema)} bytes; at most {SCHEMA_BYTES_MAX} fit", place="schema")
        return decode_and_encode(schema)[1]
    if not isinstance(schema, Mapping):
        cure = "send an object, or JSON as bytes"
        raise RejectedError(f"a Python {type(schema).__name__} is not a schema", place="schema", cure=cure)
    return canonical(dict(schema))


class _Assembly:
    """Puts a document together: each `$ref` becomes what it names. Raises `RejectedError`."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self._whole: Final = whole
        self._count = 0

    def parts(self) -> Schema:
        for name, schema in self._whole.get("$defs", {}).items():
            self._part(schema, f"/$defs/{escaped(name)}", ("",), 1)  # also those that nothing refers to are read
        self._count = 0
        return self._part({k: v for k, v in self._whole.items() if k not in ("$schema", "$id")}, "", ("",), 0)

    def _part(self, schema: Any, place: str, within: tuple[str, ...], depth: int) -> Schema:
        self._count += 1
        if self._count > SCHEMA_PARTS_MAX or depth > SCHEMA_PARTS_DEPTH_MAX:
            cure = f"at most {SCHEMA_PARTS_MAX} schemas, {SCHEMA_PARTS_DEPTH_MAX} deep, with every $ref followed"
            raise RejectedError("the schema is too large when it is put together", place=place, cure=cure)
        if type(schema) is not dict:
            return bool(schema)
        out: dict[str, Any] = {}
        for keyword, value in schema.items():
            at = f"{place}/{escaped(keyword)}"
            if keyword in ONE:
                out[keyword] = self._part(value, at, within, depth + 1)
            elif keyword in MANY:
                out[keyword] = [self._part(one, f"{at}/{n}", within, depth + 1) for n, one in enumerate(value)]
            elif keyword in NAMED:
                out[keyword] = {
                    name: self._part(one, f"{at}/{escaped(name)}", within, depth + 1) for name, one in value.items()
                }
            elif keyword not in ("$ref", "$defs"):
                _check_plain(keyword, value, at)
                out[keyword] = value
            if keyword == "patternProperties":
                for name in value:
                    _check_pattern(name, at)
        return self._with_named(out, schema["$ref"], place, within, depth) if "$ref" in schema else out

    def _with_named(
        self, siblings: dict[str, Any], ref: str, place: str, within: tuple[str, ...], depth: int
    ) -> Schema:
        at = f"{place}/$ref"
        if not ref.startswith("#") or (ref != "#" and not ref.startswith("#/")):
            cure = "nothing is fetched, from nowhere: put it under $defs, and refer to it as #/$defs/…"
            raise RejectedError(f"{ref[:100]!r} leads out of the schema", place=at, cure=cure)
        if ref[1:] in within:
            cure = "say how deep it may go, or leave the rest open with true"
            raise RejectedError(f"{ref[:100]!r} leads back to itself", place=at, cure=cure)
        named = self._part(self._find(ref[1:], at), place, (*within, ref[1:]), depth + 1)
        if all(map(is_note, siblings)):
            return {**named, **siblings} if type(named) is dict else named
        return {**siblings, "allOf": [*siblings.get("allOf", ()), named]}

    def _find(self, pointer: str, at: str) -> Any:
        found: Any = self._whole
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if type(found) is dict and name in found:
                found = found[name]
            elif type(found) is list and name.isdecimal() and name.isascii() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise RejectedError(f"there is no '#{pointer[:100]}'", place=at, cure="put it under $defs")
        if type(found) not in (dict, bool):
            raise RejectedError(f"'#{pointer[:100]}' is no schema", place=at, cure="refer to a schema under $defs")
        if found is not self._whole:
            _check_grammar(found)
        return found


def _check_plain(keyword: str, value: Any, place: str) -> None:
    if keyword == "pattern":
        _check_pattern(value, place)
    elif keyword == "format" and value not in FORMATS:
        cure = f"send one of {', '.join(FORMATS)}, or a pattern"
        raise RejectedError(f"{value[:60]!r} is no format that is known here", place=place, cure=cure)
    elif keyword == "x-personal" and type(value) is not bool:
        raise RejectedError("x-personal is true or false", place=place)
    elif keyword not in PLAIN and not is_note(keyword):
        cure = "begin the names of your own notes with x-"
        if keyword in ("$id", "$schema"):
            cure = "give it at the top only"
        elif keyword in ("$anchor", "$dynamicRef", "$dynamicAnchor"):
            cure = "refer to a schema under $defs by its place, as #/$defs/…"
        raise RejectedError(f"{keyword[:60]!r} is no keyword that is known here", place=place, cure=cure)


def _check_pattern(pattern: str, place: str) -> None:
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise RejectedError(f"a pattern has at most {PATTERN_CHARACTERS_MAX} characters", place=place)
    try:
        compiled({"pattern": pattern})
    except RejectedError as error:
        raise RejectedError(error.problem, place=place, cure=error.cure) from error


def _check_grammar(schema: Any) -> None:
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(schema)
    except ValueError as error:
        raise _refused(error) from error


def _refused(error: ValueError) -> RejectedError:
    """What is wrong with a schema, from the library's words."""
    path = list(getattr(error, "instance_path", ()))
    message = str(getattr(error, "message", error)).replace("\n", " ")
    kind = getattr(getattr(error, "kind", None), "name", "")
    if kind == "format":
        cure = "look-around and back-references are not read, as they may take for ever; or it is too large"
        return RejectedError(f"not a pattern that is read here: {cut(message)}", place=_pointer(path), cure=cure)
    return RejectedError(f"not JSON Schema 2020-12: {cut(message)}", place=_pointer(path))


def _marked(schema: Schema, mark: str, place: str) -> Iterator[str]:
    if type(schema) is not dict:
        return
    if schema.get(mark) is True:
        yield place
    for keyword, value in schema.items():
        if keyword == "properties":
            for name, part in value.items():
                yield from _marked(part, mark, f"{place}/{escaped(name)}")
        elif keyword in ("patternProperties", "dependentSchemas"):
            inside = f"{place}/*" if keyword == "patternProperties" else place
            for part in value.values():
                yield from _marked(part, mark, inside)
        elif keyword in MANY:
            for part in value:
                yield from _marked(part, mark, f"{place}/*" if keyword == "prefixItems" else place)
        elif keyword in ONE:
            inside = f"{place}/*" if keyword in _INSIDE else place
            yield from _marked(value, mark, inside)


_INSIDE: Final = ("additionalProperties", "items", "contains", "unevaluatedItems", "unevaluatedProperties")


def _depth(value: Any) -> int:
    if type(value) is dict:
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if type(value) is list else 0


def _pointer(path: list[str | int]) -> str:
    return "".join(f"/{escaped(str(part))}" for part in path)
