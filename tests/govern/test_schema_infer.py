"""Inferred schemas: every event that they were made from fits, and they say no more than was seen."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.canonical import canonical
from tallystick.govern.document import Document
from tallystick.govern.infer import infer
from tallystick.limits import INFERRED_MEMBERS_MAX, INFERRED_PARTS_MAX

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9, allow_nan=False) | st.sampled_from("abcdef"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)
PAYLOADS = st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4), min_size=1, max_size=12)


@given(PAYLOADS, st.booleans())
def test_every_payload_fits_the_schema_that_was_made_of_it(payloads: list[dict[str, Any]], enums: bool) -> None:
    schema, count = infer(payloads, enums=enums)

    document = Document.read(canonical(schema))
    assert count == len(payloads)
    assert [one for one in payloads if not document.validator.is_valid(one)] == []


def test_types_presence_and_nothing_else_are_told() -> None:
    schema, _ = infer(
        [
            {"role": "viewer", "count": 1, "at": "2026-03-01T00:00:00Z", "tags": ["a"], "who": {"id": "jane"}},
            {"role": "viewer", "count": 1.5, "at": None, "tags": [], "who": {"id": "joe", "name": "Joe"}},
        ]
    )

    assert schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["at", "count", "role", "tags", "who"],
        "properties": {
            "at": {"type": ["null", "string"]},
            "count": {"type": "number"},
            "role": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "who": {
                "type": "object",
                "required": ["id"],
                "properties": {"id": {"type": "string"}, "name": {"type": "string"}},
            },
        },
    }


def test_texts_that_are_few_and_come_often_are_listed_only_when_asked() -> None:
    payloads = [{"role": ("viewer", "admin")[n % 2], "id": f"u-{n}", "one": "a" if n else "b"} for n in range(4)]

    assert "enum" not in infer(payloads)[0]["properties"]["role"]
    members = infer(payloads * 2, enums=True)[0]["properties"]
    assert members["role"] == {"type": "string", "enum": ["admin", "viewer"]}
    assert "enum" not in infer(payloads, enums=True)[0]["properties"]["id"]


def test_an_object_with_very_many_names_is_taken_for_a_map() -> None:
    schema, _ = infer([{"counts": {f"k{n}": 1 for n in range(INFERRED_MEMBERS_MAX + 1)}}])

    assert schema["properties"]["counts"] == {"type": "object"}


def parts_of(schema: dict[str, Any]) -> int:
    below = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return len(below) + sum(map(parts_of, below))


def test_a_schema_has_a_bound_over_all_its_levels() -> None:
    inner = {f"b{n}": {"c": 1, "d": "t", "e": [1], "f": {}} for n in range(INFERRED_MEMBERS_MAX)}
    weights: list[int] = []

    schema, _ = infer(({f"a{n}": inner, "z": 1} for n in range(40)), held=weights.append)

    assert INFERRED_PARTS_MAX // 2 < parts_of(schema) <= INFERRED_PARTS_MAX
    assert {"c", "d", "e", "f"} == schema["properties"]["a0"]["properties"]["b0"]["properties"].keys()
    assert max(weights) <= INFERRED_PARTS_MAX * 2_000
    told = Document.read(canonical({**schema, "properties": {"a39": schema["properties"]["a39"]}, "required": []}))
    assert told.validator.is_valid({"a39": inner})
    assert b"too many parts" in canonical(schema)


def test_long_names_and_texts_weigh_more() -> None:
    names = ({f"{n:03}" + "n" * 5_000: {f"{m:03}" + "m" * 5_000: 1 for m in range(8)}} for n in range(400))
    schema, _ = infer(names)
    assert len(canonical(schema)) < 3 * 64 * INFERRED_PARTS_MAX

    texts = ({f"n{n}": {f"m{m}": f"{n % 8}" + "é" * 90 for m in range(400)}} for n in range(200))
    schema, _ = infer(texts, enums=True)
    assert len(canonical(schema)) < 3 * 64 * INFERRED_PARTS_MAX


def test_what_a_map_took_is_there_for_others() -> None:
    wide = {"counts": {f"k{n}": {"a": 1} for n in range(INFERRED_MEMBERS_MAX + 1)}}
    many = {f"m{n}": {f"n{k}": 1 for k in range(90)} for n in range(100)}

    schema, _ = infer([wide, many])

    assert schema["properties"]["counts"] == {"type": "object"}
    assert "too many" not in str(schema)
    assert len(schema["properties"]["m99"]["properties"]) == 90
