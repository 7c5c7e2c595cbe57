"""Schema documents: what is taken, what is refused and where, and that neither they nor an event take for ever."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.canonical import canonical
from tallystick.errors import RejectedError
from tallystick.govern.document import FORMATS, MANY, NAMED, ONE, Document, compiled, normal
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


PLACED: Final[list[tuple[Any, Any, list[tuple[str, str]]]]] = [
    ({"anyOf": [{"const": 1}, {"const": 2}]}, 3, [("", "not valid under any of the schemas listed in the 'anyOf'")]),
    ({"oneOf": [{"const": 1}, {"const": 2}]}, 3, [("", "not valid under any of the schemas listed in the 'oneOf'")]),
    ({"oneOf": [{"type": "integer"}, {"const": 3}]}, 3, [("", "valid under more than one of the schemas")]),
    ({"allOf": [{"minimum": 5}, {"properties": {"a": False}}]}, 3, [("", "less than the minimum of 5")]),
    ({"not": {"const": 3}}, 3, [("", "it is what `not` excludes")]),
    ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, [("/b", "it is required, and missing")]),
    ({"if": {"required": ["c"]}, "else": {"required": ["b"]}}, {"a": 1}, [("/b", "it is required, and missing")]),
    ({"contains": {"const": 1}}, [2, 3], [("", "fit the schema under `contains`")]),
    ({"contains": {"const": 1}, "maxContains": 1}, [1, 1], [("", "fit the schema under `contains`")]),
    ({"prefixItems": [{"type": "string"}], "items": False}, [1, 2], [("/0", "type"), ("/1", "no such member")]),
    (
        {"patternProperties": {"^n": {"type": "null"}}, "additionalProperties": {"const": 1}},
        {"n": 1, "m": 1},
        [("/n", "type")],
    ),
    ({"patternProperties": {"^n": True}, "additionalProperties": False}, {"n": 1, "m": 1}, [("/m", "no such")]),
    ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, [("/ab", "longer than 1 character")]),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, [("/b", "it is required, and missing")]),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, [("/b", "it is required, and missing")]),
    ({"properties": {"a": True}, "unevaluatedProperties": False}, {"a": 1, "b": 1}, [("/b", "no such member")]),
    ({"unevaluatedProperties": False}, {"a": 1, "b": 1}, [("", "members that the schema does not have")]),
    ({"prefixItems": [True], "unevaluatedItems": False}, [1, 2], [("", "elements that the schema does not have")]),
    (
        {"properties": {"a": {"items": {"properties": {"b": {"enum": [1, [2]]}}}}}},
        {"a": [{"b": 1}, {"b": 3}]},
        [("/a/1/b", "not one of")],
    ),
]


@pytest.mark.parametrize(("schema", "instance", "expected"), PLACED, ids=lambda value: str(value)[:40])
def test_a_breach_of_each_keyword_is_found_at_its_place(
    schema: Any, instance: Any, expected: list[tuple[str, str]]
) -> None:
    found = read(schema).breaches(instance)

    assert [breach.place for breach in found] == [place for place, _ in expected]
    assert all(told in breach.problem for breach, (_, told) in zip(found, expected, strict=True))


VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several, named = st.lists(inner, min_size=1, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    one = st.sampled_from(sorted(ONE)).flatmap(lambda name: inner.map(lambda part: {name: part}))
    many = st.sampled_from(sorted(MANY)).flatmap(lambda name: several.map(lambda parts: {name: parts}))
    keyed = st.sampled_from(sorted(NAMED)).flatmap(lambda name: named.map(lambda parts: {name: parts}))
    return st.lists(one | many | keyed, min_size=1, max_size=3).map(
        lambda parts: {name: said for part in parts for name, said in part.items()}
    )


SCHEMAS: Final = st.recursive(
    st.booleans()
    | st.builds(lambda value: {"const": value}, VALUES)
    | st.builds(lambda name: {"type": name}, st.sampled_from(["object", "array", "string", "integer", "null"]))
    | st.builds(lambda names: {"required": names}, st.lists(st.sampled_from("abc"), unique=True, max_size=2))
    | st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=3)),
    _schemas,
    max_leaves=8,
)


@given(SCHEMAS, VALUES)
def test_there_are_breaches_just_where_the_library_says_that_a_value_does_not_fit(schema: Any, value: Any) -> None:
    document = Document(schema)

    assert document.takes(value) == compiled(schema).is_valid(value)
    assert bool(document.breaches(value)) != document.takes(value)


EXPENSIVE: Final[list[tuple[Any, Any]]] = [
    ({"items": {"anyOf": [{"const": number} for number in range(1_500)]}}, [7_777] * 10_000),
    ({"items": {"oneOf": [{"const": number} for number in range(1_500)]}}, [1_499] * 10_000),
    ({"items": {"enum": [[number] for number in range(5_000)]}}, [[7_777]] * 9_000),
    ({"anyOf": [{"items": {"anyOf": [{"const": [number]} for number in range(900)]}}]}, [[7_777]] * 9_000),
    (
        {"items": {"properties": {"a": {"items": {"anyOf": [{"const": n} for n in range(900)]}}}}},
        [{"a": [-1] * 999}] * 9,
    ),
    ({"patternProperties": {f"^k.*{n}$": {} for n in range(300)}}, {f"k{n}": 0 for n in range(5_000)}),
    ({"items": {"enum": [*range(8_000)]}}, [9_999] * 3_500),
    ({"enum": [[number] for number in range(5_000)]}, [7_777]),
    ({"required": [f"n{number}" for number in range(4_000)]}, {}),
    ({"unevaluatedProperties": False}, {f"n{number}": 0 for number in range(5_000)}),
]


@pytest.mark.parametrize(("schema", "value"), EXPENSIVE, ids=lambda value: str(value)[:40])
def test_neither_judging_nor_telling_takes_long_or_much(schema: Any, value: Any) -> None:
    document = Document(schema)
    document.takes(value)  # compiled
    tracemalloc.start()
    try:
        began = time.process_time()
        assert not document.takes(value)
        found = document.breaches(value, at="/payload")
        took = time.process_time() - began
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 1 <= len(found) <= 5
    assert took < 2, "of the worst there was, four would have taken gigabytes, and minutes"
    assert most < 40 * 2**20


def test_what_is_counted_is_how_often_parts_are_held_against_values() -> None:
    parts = {"items": {"anyOf": [{"const": number} for number in range(100)]}}
    assert Document(parts).takes([99] * 1_500)
    assert not Document(parts).takes([99] * 3_000), "EFFORT_MAX, and 200 for each element"
    wide = {"properties": {f"n{number}": {"type": "integer"} for number in range(1_500)}, "additionalProperties": False}
    assert Document(wide).takes({f"n{number}": number for number in range(1_500)}), "each part against one value"


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


@pytest.mark.parametrize("keyword", ["anyOf", "allOf", "oneOf", "dependentSchemas"])
def test_alternatives_beside_what_is_unevaluated_are_asked_of_each_member(keyword: str) -> None:
    def schema(count: int, *, members: bool) -> dict[str, Any]:
        parts: list[Any] = [{"properties": {f"a{n}": {}}} if members else {"prefixItems": [{}]} for n in range(count)]
        inner: Any = {f"b{n}": part for n, part in enumerate(parts)} if keyword == "dependentSchemas" else parts
        return {keyword: inner, "unevaluatedProperties" if members else "unevaluatedItems": {"type": "integer"}}

    wide = {f"b{n}": n for n in range(6_000)}
    began = time.perf_counter()
    assert not Document(schema(600, members=True)).takes(wide)
    assert not Document({"properties": {"deep": schema(600, members=True)}}).takes({"deep": wide})
    assert not Document({"items": schema(600, members=True)}).takes([wide])
    if keyword != "dependentSchemas":
        assert not Document(schema(600, members=False)).takes([*range(6_000)])
    assert time.perf_counter() - began < 1.0
    few = Document(schema(5, members=True))
    assert not few.is_too_much(wide)
    assert few.takes(wide) is few.validator.is_valid(wide)
    assert not Document(schema(600, members=True)).is_too_much({f"b{n}": n for n in range(100)})
