"""Inferred schemas: every event that they were made from fits, and they say no more than was seen."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.canonical import canonical
from tallystick.govern.document import Document
from tallystick.govern.infer import infer
from tallystick.limits import INFERRED_MEMBERS_MAX

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
