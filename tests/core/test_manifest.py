"""The manifest of a bundle: one canonical document, read as strictly as it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.canonical import encode
from tallystick.core.manifest import Manifest
from tallystick.errors import RejectedError
from tallystick.limits import BUNDLE_HASHES_MAX, MANIFEST_BYTES_MAX, SELECTORS_MAX, TIMESTAMPS_MAX
from vectors.scene import EVERYTHING, bundle, ledger, signed

LINES = ledger().lines
DOCUMENT = bundle(LINES, first=2, end=8, start=signed(LINES, 5)).document


def changed(path: str, value: Any) -> bytes:
    document = json.loads(encode(DOCUMENT))
    *above, name = path.split("/")
    inside = document
    for one in above:
        inside = inside[one]
    inside[name] = value
    return encode(document)


def test_a_manifest_that_was_read_is_written_as_the_same_bytes() -> None:
    data = encode(DOCUMENT)

    assert Manifest.parse(data).render() == data


def test_a_manifest_says_what_the_fold_needs() -> None:
    manifest = Manifest.parse(encode(DOCUMENT))

    assert (manifest.size, manifest.start_size, manifest.cuts) == (21, 5, (2, 8, 5))
    assert manifest.is_complete


@pytest.mark.parametrize("name", sorted(DOCUMENT))
def test_no_member_may_be_missing(name: str) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != name}

    with pytest.raises(RejectedError):
        Manifest.parse(encode(document))


@pytest.mark.parametrize("name", sorted(DOCUMENT))
@pytest.mark.parametrize("value", [True, 1.5, -1, "text", [[]], {"x": 1}])
def test_a_member_of_another_type_or_form_is_refused(name: str, value: Any) -> None:
    if (name, value) in (("tool", "text"), ("genesis", "text"), ("complete", True)):
        return  # these are of the right form

    with pytest.raises(RejectedError):
        Manifest.parse(changed(name, value))


@pytest.mark.parametrize("path", ["end/more", "events/more", "ledger/more", "range/more", "start/more", "more"])
def test_a_member_too_many_is_refused_at_any_depth(path: str) -> None:
    with pytest.raises(RejectedError, match=r"other members than SPEC 10\.2"):
        Manifest.parse(changed(path, 1))


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("format", "tallystick-bundle/2", "use a newer verifier"),
        ("range/end", 2, "no range"),
        ("range/first", 9, "no range"),
        ("range/count", 7, "7 records cannot be"),
        ("range/count", True, "not an integer"),
        ("range/prev_hash", "0" * 63, "32 bytes in lower-case hex"),
        ("created", "2026-03-16", "."),
        ("tool", "t" * 201, "too long"),
        ("hashes", ["AAAA"], "not a hash"),
        ("hashes", ["="], "base64"),
        ("complete", False, "without a selector"),
        ("complete", 1, "not true or false"),
        ("selectors", [{}], "not a selector"),
        ("selectors", [{**EVERYTHING, "within": [1]}], "not a list of terms"),
        ("selectors", [{**EVERYTHING, "within": ["id=" + "t" * 5_000]}], "a term of 5003 characters"),
        ("selectors", [{**EVERYTHING, "within": ["text=phi"]}], "not a term"),
        ("selectors", [EVERYTHING] * (SELECTORS_MAX + 1), "at most"),
        ("timestamps", [{}], "not an RFC 3161"),
        ("timestamps", [{"over": "end.checkpoint", "token": "", "type": "rfc3161"}] * 17, f"at most {TIMESTAMPS_MAX}"),
        ("timestamps", [{"over": "end.checkpoint", "token": "", "type": "rfc3161"}], "a token of 0 bytes"),
        ("mac_keys", [{"epoch": 1, "key": "0" * 64}, {"epoch": 0, "key": "0" * 64}], "do not ascend"),
        ("mac_keys", [{"epoch": 0, "key": "0" * 64, "x": 1}], "not an epoch and its key"),
        ("absent", [[5, 3]], "out of place"),
        ("absent", [[0, 3]], "out of place"),
        ("absent", [[3, 99]], "out of place"),
        ("absent", [[3]], "not a first and an end"),
        ("start/checkpoint", signed(LINES, 21).decode().replace("\n21\n", "\n22\n"), "past the 21"),
        ("start/checkpoint", "no", "no checkpoint"),
        ("end/checkpoint", "no", "no checkpoint"),
        ("events/bytes", 2**41, "not an integer from 0 to"),
        ("records", [LINES[3].decode()], "has no place here"),
        ("records", [LINES[8].decode().replace('"shop"', '"shoq"')], "another ledger"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(path: str, value: Any, problem: str) -> None:
    with pytest.raises(RejectedError, match=problem):
        Manifest.parse(changed(path, value))


def test_a_filtered_bundle_names_no_absent_positions() -> None:
    document = bundle(LINES, only=[3, 6]).document | {"absent": [[4, 5]]}

    with pytest.raises(RejectedError, match="filtered"):
        Manifest.parse(encode(document))


def test_a_manifest_is_bounded_before_it_is_read() -> None:
    with pytest.raises(RejectedError, match=f"at most {MANIFEST_BYTES_MAX}"):
        Manifest.parse(b"[" * (MANIFEST_BYTES_MAX + 1))
    with pytest.raises(RejectedError, match=f"at most {BUNDLE_HASHES_MAX}"):
        Manifest.parse(changed("hashes", ["A"] * (BUNDLE_HASHES_MAX + 1)))
    with pytest.raises(RejectedError, match="nested deeper"):
        Manifest.parse(b"[" * 1_000_000)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    with pytest.raises(RejectedError):
        Manifest.parse(data)


@given(st.integers(0, len(encode(DOCUMENT)) - 1), st.integers(0, 255))
def test_a_manifest_with_a_byte_changed_is_another_one_or_none(at: int, byte: int) -> None:
    data = bytearray(encode(DOCUMENT))
    data[at] = byte
    try:
        manifest = Manifest.parse(bytes(data))
    except RejectedError:
        return
    assert manifest.render() == bytes(data)
