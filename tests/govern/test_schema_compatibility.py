"""Compatibility of schemas: what is called compatible is so, for every instance; and a break is told by its place."""

from __future__ import annotations

import json
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.govern import compatibility
from tallystick.govern.breaches import Schema
from tallystick.govern.compatibility import backward, forward
from tallystick.govern.document import compiled

ATOMS: Final[list[Any]] = [None, True, False, 0, 1, 2, 3, 6, -1, 1.5, "", "a", "ab", "viewer", "x-y", "2026-03-01"]
LISTS: Final[list[Any]] = [
    [],
    *([one] for one in ATOMS),
    [1, 1],
    [1, "a"],
    ["a", 1],
    ["a", "b"],
    [1, 2, 3],
    [{"a": 1}],
    [{}],
    [[]],
]
INNER: Final[list[Any]] = [None, 1, 1.5, "a", "viewer", [], [1], {}, {"a": 1}, {"a": "a"}, {"b": None}]
OBJECTS: Final[list[Any]] = [
    {},
    *({name: value} for name, value in product(("a", "b", "xa", "c"), INNER)),
    *({"a": one, "b": other} for one, other in product(INNER, INNER)),
    *({"a": one, "xa": 1, "c": other} for one, other in product(INNER[:5], INNER[:5])),
]
INSTANCES: Final[list[Any]] = [*ATOMS, *LISTS, *OBJECTS]

_TYPES: Final = ("object", "array", "string", "integer", "number", "null", "boolean")
_NAMES: Final = st.sampled_from(("a", "b", "xa"))


def _schemas() -> st.SearchStrategy[Schema]:
    values = st.sampled_from([*ATOMS, {}, {"a": 1}, [1]])

    def larger(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
        few = st.lists(inner, min_size=1, max_size=2)
        keywords: dict[str, st.SearchStrategy[Any]] = {
            "type": st.sampled_from(_TYPES) | st.lists(st.sampled_from(_TYPES), min_size=1, max_size=3, unique=True),
            "enum": st.lists(values, min_size=1, max_size=4, unique_by=json.dumps),
            "const": values,
            "properties": st.dictionaries(_NAMES, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(("^x", "a$")), inner, min_size=1, max_size=1),
            "additionalProperties": inner | st.booleans(),
            "required": st.lists(_NAMES, max_size=2, unique=True),
            "minProperties": st.integers(0, 2),
            "maxProperties": st.integers(0, 2),
            "propertyNames": st.just({"maxLength": 1}),
            "dependentRequired": st.just({"a": ["b"]}),
            "unevaluatedProperties": st.booleans(),
            "items": inner | st.booleans(),
            "prefixItems": few,
            "contains": inner,
            "minContains": st.integers(0, 2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
            "uniqueItems": st.booleans(),
            "minLength": st.integers(0, 3),
            "maxLength": st.integers(0, 3),
            "pattern": st.sampled_from(("^a", "b$")),
            "format": st.just("date"),
            "minimum": st.integers(-1, 3),
            "exclusiveMinimum": st.integers(-1, 3),
            "maximum": st.integers(0, 3),
            "exclusiveMaximum": st.integers(0, 3),
            "multipleOf": st.sampled_from((1, 2, 3, 0.5)),
            "allOf": few,
            "anyOf": few,
            "oneOf": few,
            "not": inner,
            "if": inner,
            "then": inner,
            "title": st.just("a note"),
        }

        def of(names: list[str]) -> st.SearchStrategy[Schema]:
            return st.fixed_dictionaries({name: keywords[name] for name in names})

        return st.lists(st.sampled_from(sorted(keywords)), max_size=4, unique=True).flatmap(of)

    return st.recursive(st.booleans() | st.just({}), larger, max_leaves=6)


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[Schema, Schema]:
    """Two schemas that have much in common: most of the second's keywords are the first's."""
    one, other = draw(_schemas()), draw(_schemas())
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one, other
    kept = draw(st.sets(st.sampled_from(sorted(one)))) if one else set()
    mixed = {**{name: one[name] for name in kept}, **other}
    for name in ("properties", "patternProperties"):
        if name in one and name in other and draw(st.booleans()):
            mixed[name] = {**one[name], **other[name]}
    dropped = draw(st.sets(st.sampled_from(sorted(mixed)))) if mixed else set()
    second = {name: value for name, value in mixed.items() if name not in dropped}
    return one, second


@pytest.mark.slow
@settings(max_examples=400)
@given(_pairs())
def test_what_is_called_compatible_takes_every_instance_that_it_must(pair: tuple[Schema, Schema]) -> None:
    old, new = pair
    takes_old, takes_new = compiled(old).is_valid, compiled(new).is_valid

    for breaks, inner, outer in ((backward(old, new), takes_old, takes_new), (forward(old, new), takes_new, takes_old)):
        if not breaks:
            assert [one for one in INSTANCES if inner(one) and not outer(one)] == []


@given(_schemas())
def test_a_schema_is_compatible_with_itself_and_with_what_asks_nothing(schema: Schema) -> None:
    assert backward(schema, schema) == forward(schema, schema) == []
    assert backward(schema, True) == backward(schema, {}) == []


OPEN: Final[dict[str, Any]] = {"type": "object", "properties": {"role": {"type": "string"}}}
CLOSED: Final[dict[str, Any]] = {**OPEN, "additionalProperties": False}

KEPT: Final[list[tuple[Schema, Schema]]] = [
    (CLOSED, {**CLOSED, "properties": {"role": {"type": "string"}, "mail": {"type": "string"}}}),
    (CLOSED, OPEN),
    ({**OPEN, "required": ["role"]}, OPEN),
    ({"type": "integer"}, {"type": "number"}),
    ({"type": "string"}, {"type": ["null", "string"]}),
    ({"enum": ["a", "b"]}, {"enum": ["b", "c", "a"]}),
    ({"enum": ["a", "b"]}, {"type": "string", "maxLength": 1}),
    ({"const": 3}, {"minimum": 1, "type": "integer"}),
    ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 9}),
    ({"exclusiveMinimum": 3}, {"minimum": 3}),
    ({"minimum": 4}, {"exclusiveMinimum": 3}),
    ({"multipleOf": 6}, {"multipleOf": 3}),
    ({"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "number"}}),
    ({"prefixItems": [{"type": "integer"}], "items": False}, {"items": {"type": "number"}}),
    ({"required": ["a", "b"]}, {"minProperties": 2}),
    ({"type": "string"}, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
    ({"anyOf": [{"const": 1}, {"const": 2}]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
    ({"type": "string", "maxLength": 3}, {"allOf": [{"type": "string"}, {"maxLength": 4}]}),
    ({"type": "string", "title": "old"}, {"type": "string", "title": "new", "x-personal": True}),
    ({"oneOf": [{"type": "string"}, {"minimum": 1}]}, {"oneOf": [{"type": "string"}, {"minimum": 1}]}),
    (False, {"type": "string"}),
]


@pytest.mark.parametrize(("old", "new"), KEPT)
def test_a_schema_that_only_takes_more_is_backward_compatible(old: Schema, new: Schema) -> None:
    assert backward(old, new) == []
    assert forward(new, old) == []


BROKEN: Final[list[tuple[Schema, Schema, str]]] = [
    (OPEN, {**OPEN, "required": ["role"]}, "/properties/role: became required"),
    ({"type": ["string", "null"]}, {"type": "string"}, "/: type narrowed from string|null to string"),
    ({}, {"type": "string"}, "/: type narrowed from anything to string"),
    ({"enum": ["viewer", "admin"]}, {"enum": ["admin"]}, "/: enum lost 'viewer'"),
    ({"enum": ["viewer", 3]}, {"type": "integer"}, "/: the value 'viewer' is no longer valid"),
    (OPEN, CLOSED, "/: additionalProperties became false"),
    (OPEN, {"properties": {"mail": {"type": "string"}}}, "/properties/mail: could be anything before, and is held to"),
    (CLOSED, {"type": "object", "additionalProperties": False}, "/properties/role: is no longer taken"),
    ({"type": "string", "maxLength": 9}, {"type": "string", "maxLength": 5}, "/: maxLength became 5 (it was 9)"),
    ({"type": "string"}, {"type": "string", "pattern": "^a"}, "/: pattern became '^a' (it was nothing)"),
    ({"type": "number"}, {"type": "integer"}, "/: type narrowed from number to integer"),
    ({"items": {"type": "number"}}, {"items": {"type": "integer"}}, "/*: type narrowed from number to integer"),
    ({}, {"not": {"type": "null"}}, "/not: cannot be compared: not was added or changed"),
    (
        {"oneOf": [{"type": "string"}]},
        {"oneOf": [{"type": "number"}]},
        "/oneOf: cannot be compared: oneOf was added or changed",
    ),
    ({"a/b": 1, "properties": {"a/b": True}}, {"required": ["a/b"]}, "/properties/a~1b: became required"),
]


@pytest.mark.parametrize(("old", "new", "told"), BROKEN)
def test_a_change_that_breaks_is_told_by_its_place(old: Schema, new: Schema, told: str) -> None:
    assert any(str(one).startswith(told) for one in backward(old, new))


def test_forward_tells_what_the_old_schema_would_refuse() -> None:
    old: Schema = {"type": "string", "enum": ["a"]}
    assert [str(one) for one in forward(old, {"type": "string", "enum": ["a", "b"]})] == ["/: enum gained 'b'"]
    required: Schema = {**CLOSED, "required": ["role"]}
    assert [str(one) for one in forward(required, CLOSED)] == ["/properties/role: is no longer required"]
    assert [str(one) for one in forward(CLOSED, OPEN)] == ["/: additionalProperties is no longer false"]


def test_a_name_that_a_pattern_speaks_for_is_not_taken_for_one_that_nothing_speaks_for() -> None:
    old: dict[str, Any] = {"patternProperties": {"^x": {}}, "additionalProperties": False}
    new: Schema = {**old, "properties": {"xa": {"type": "string"}}}

    assert backward(old, new) != []
    assert compiled(old).is_valid({"xa": 1})
    assert not compiled(new).is_valid({"xa": 1})


def test_a_comparison_that_would_take_too_long_is_given_up_as_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = [{"type": "object", "properties": {f"p{n}": {"type": "string"}}} for n in range(20)]
    old: Schema = {"anyOf": choices}
    new: Schema = {"anyOf": [*reversed(choices), {"type": "null"}]}

    assert backward(old, new) == []
    monkeypatch.setattr(compatibility, "_STEPS_MAX", 100)
    assert [one.change for one in backward(old, new)] == [
        "cannot be compared: there are too many choices within choices"
    ]
