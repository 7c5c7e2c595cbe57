"""Schema documents: what is taken, what is refused and where, and that neither they nor an event take for ever."""

from __future__ import annotations

import time
from typing import Any, Final

import orjson
import pytest

from tallystick.core.canonical import canonical
from tallystick.errors import RejectedError
from tallystick.govern.document import FORMATS, Document, normal
from tallystick.limits import (
    PATTERN_CHARACTERS_MAX,
    SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX,
    SCHEMA_PARTS_MAX,
)


def read(schema: Any) -> Document:
    return Document.read(canonical(schema))


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"not": schema}
    return schema


WIDE: Final = {"$defs": {"a": {"anyOf": [True] * 50}, "b": {"anyOf": [{"$ref": "#/$defs/a"}] * 50}}}

REFUSED: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"type": "strin"}, "/type", "not JSON Schema 2020-12"),
    ({"properties": {"a": {"minLength": -1}}}, "/properties/a/minLength", "not JSON Schema 2020-12"),
    ({"requierd": ["a"]}, "/requierd", "no keyword that is known here"),
    ({"properties": {"a": {"nullable": True}}}, "/properties/a/nullable", "no keyword that is known here"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "not the dialect"),
    ({"items": {"$id": "https://example.com/x"}}, "/items/$id", "no keyword that is known here"),
    ({"$ref": "https://example.com/schema.json"}, "/$ref", "leads out of the schema"),
    ({"$ref": "file:///etc/passwd"}, "/$ref", "leads out of the schema"),
    ({"items": {"$ref": "other.json"}}, "/items/$ref", "leads out of the schema"),
    ({"$ref": "#name"}, "/$ref", "leads out of the schema"),
    ({"$ref": "#/$defs/none"}, "/$ref", "there is no"),
    ({"$ref": "#/type", "type": "string"}, "/$ref", "is no schema"),
    ({"$ref": "#"}, "/$ref", "leads back to itself"),
    ({"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}}}, "/$defs/a", "back to"),
    ({"$dynamicRef": "https://example.com/x"}, "/$dynamicRef", "no keyword that is known here"),
    ({"$defs": {"unused": {"pattern": "(?=a)b"}}}, "/$defs/unused/pattern", "look-around"),
    ({"pattern": r"(a)\1"}, "/pattern", "look-around"),
    ({"patternProperties": {"(?<!a)b": True}}, "/patternProperties", "look-around"),
    ({"pattern": "a" * (PATTERN_CHARACTERS_MAX + 1)}, "/pattern", "at most"),
    ({"pattern": "[a-z]{1,1000}{1,1000}"}, "/pattern", "it is too large"),
    ({"format": "credit-card"}, "/format", "is no format that is known here"),
    ({"x-personal": "yes"}, "/x-personal", "true or false"),
    (nested(SCHEMA_DEPTH_MAX + 1), "", "nests deeper"),
    ({"description": "x" * SCHEMA_BYTES_MAX}, "", "bytes"),
    ({**WIDE, "$ref": "#/$defs/b"}, "/$defs/b/anyOf/", "too large when it is put together"),
]


@pytest.mark.parametrize(("schema", "place", "told"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_means_nothing_or_leads_out_is_refused_at_its_place(schema: Any, place: str, told: str) -> None:
    with pytest.raises(RejectedError) as caught:
        read(schema)

    assert told in str(caught.value)
    assert caught.value.place.startswith(place[:16])


def test_the_largest_that_may_be_is_read() -> None:
    assert read(nested(SCHEMA_DEPTH_MAX)).validator.is_valid({}) in (True, False)
    assert read({"allOf": [True] * (SCHEMA_PARTS_MAX - 1)}).validator.is_valid(1)
    assert not read({"pattern": "a" * PATTERN_CHARACTERS_MAX}).validator.is_valid("a")


def test_a_schema_is_a_json_object_given_as_one_or_as_json() -> None:
    assert normal({"b": 1, "a": 2.0}) == normal(b' {"a": 2, "b": 1} ') == b'{"a":2,"b":1}'
    for wrong in (3, "x", [1], b"[1]", b"tru", b'{"a":1,"a":2}'):
        with pytest.raises(RejectedError):
            Document.read(normal(wrong))


def test_what_a_ref_names_stands_in_its_place() -> None:
    document = read(
        {
            "$id": "https://example.com/user.json",
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {"mail": {"type": "string", "format": "email"}, "list": {"items": {"$ref": "#/$defs/mail"}}},
            "properties": {
                "mail": {"$ref": "#/$defs/mail", "x-personal": True},
                "short": {"$ref": "#/$defs/mail", "maxLength": 9},
                "all": {"$ref": "#/$defs/list"},
            },
        }
    )

    assert "$ref" not in orjson.dumps(document.parts).decode()
    assert document.validator.is_valid({"mail": "jane@example.com", "short": "j@x.org", "all": ["a@b.org"]})
    for wrong in ({"mail": "jane"}, {"short": "jane@example.com"}, {"short": 3}, {"all": ["a@b.org", "b"]}):
        assert not document.validator.is_valid(wrong)


def test_personal_members_are_found_wherever_they_are() -> None:
    document = read(
        {
            "$defs": {"person": {"properties": {"name": {"x-personal": True}, "age": {"x-personal": False}}}},
            "properties": {
                "patient": {"$ref": "#/$defs/person"},
                "others": {"items": {"$ref": "#/$defs/person"}},
                "a/b": {"x-personal": True, "x-fold": "last"},
            },
            "additionalProperties": {"anyOf": [{"x-personal": True}, {"type": "null"}]},
        }
    )

    assert document.personal() == ("/*", "/a~1b", "/others/*/name", "/patient/name")


BREACHES: Final[list[tuple[Any, str, str]]] = [
    ({}, "/p/role", "it is required, and missing"),
    ({"role": 3}, "/p/role", 'the value is not of type "string"'),
    ({"role": "x", "more": 1}, "/p/more", "the schema has no such member"),
    ({"role": "x", "never": 1}, "/p/never", "the schema has no such member"),
    ({"role": "x", "list": [1, "secret"]}, "/p/list/1", 'the value is not of type "integer"'),
    ({"role": "secret" * 10}, "/p/role", "the value is longer than 20 characters"),
]


@pytest.mark.parametrize(("instance", "place", "problem"), BREACHES)
def test_a_breach_names_the_field_and_repeats_nothing_of_the_event(instance: Any, place: str, problem: str) -> None:
    document = read(
        {
            "type": "object",
            "required": ["role"],
            "properties": {
                "role": {"type": "string", "maxLength": 20},
                "never": False,
                "list": {"items": {"type": "integer"}},
            },
            "additionalProperties": False,
        }
    )

    assert [*map(tuple, document.breaches(instance, at="/p"))] == [(place, problem)]
    assert document.breaches({"role": "x"}) == []


def test_no_more_than_a_few_breaches_are_told_however_many_there_are() -> None:
    document = read({"items": {"type": "string", "enum": ["x" * 300]}})

    told = document.breaches([1] * 10_000)

    assert 1 <= len(told) <= 5
    assert max(len(one.problem) for one in told) <= 201


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_held_against_what_arrives(name: str) -> None:
    assert not read({"format": name}).validator.is_valid("( not \\ that %")


HOSTILE: Final = (
    (r"^(a+)+$", "a" * 60_000 + "!"),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 60_000),
    (r"(a|aa)+$", "a" * 60_000 + "!"),
    (r"([ab]{1,33}[ab]{1,33}){1,33}[^ab1]", "ab" * 30_000),
)
"""Patterns that take for ever where matching turns back, and the worst that we found where it does not."""


@pytest.mark.parametrize(("pattern", "text"), HOSTILE)
def test_a_hostile_pattern_does_not_hang_the_way_in(pattern: str, text: str) -> None:
    validator = read({"pattern": pattern}).validator
    began = time.perf_counter()

    assert not validator.is_valid(text)

    assert time.perf_counter() - began < 5
