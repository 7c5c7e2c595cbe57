"""Lines and documents are cut as a naive reader of the whole would cut them, however the bytes arrive."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.cli.documents import open_document
from tallystick.cli.lines import Chunk, Line, read_chunks, split_lines
from tallystick.errors import RejectedError
from tallystick.limits import INPUT_BYTES_MAX

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", '\\"', "]}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def arriving(data: bytes, sizes: list[int]) -> Iterator[Chunk]:
    """The data in pieces of these sizes, with a pause between any two."""
    for size in sizes:
        if data:
            yield data[:size]
            yield None
            data = data[size:]
    yield data


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 30)))
def test_lines_are_those_between_newlines(parts: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(parts)

    found = [line for line in split_lines(arriving(data, sizes)) if line is not None]

    naive = [Line(n, part.removesuffix(b"\r")) for n, part in enumerate(data.split(b"\n"), 1)]
    assert found == [line for line in naive if line.data and not line.data.isspace()]


def test_a_line_that_is_too_long_is_known_before_its_end_and_the_next_one_is_good() -> None:
    fetched = 0

    def chunks() -> Iterator[bytes]:
        nonlocal fetched
        for _ in range(1_000):
            fetched += 1
            yield b"x" * 65_536
        yield b"\ngood\n"

    found = split_lines(chunks())

    assert next(found) == Line(1, None)
    assert fetched <= INPUT_BYTES_MAX // 65_536 + 1
    assert [*found] == [Line(2, b"good")]


@given(
    st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4)),
    st.lists(st.integers(1, 50)),
    st.booleans(),
)
def test_the_records_of_a_document_are_those_of_a_parser(
    records: list[dict[str, Any]], sizes: list[int], spaced: bool
) -> None:
    data = json.dumps({"Records": records}, indent=2 if spaced else None).encode()

    found, _ = open_document(arriving(data, sizes))

    assert found is not None
    assert [json.loads(record) for record in found] == records


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"Records":[{"a":1}', "ends early"),
        (b'{"Records":[{"a":"', "ends early"),
        (b'{"Records":[{}]', "ends early"),
        (b'{"Records":[{},]}', "no record behind the last comma"),
        (b'{"Records":[{}{}]}', "not divided by commas"),
        (b'{"Records":[1]}', "not an object"),
        (b'{"Records":[{}],"more":1}', "something follows the records"),
        (b'{"Records":[{}]} {}', "something follows the document"),
        (b'{"Records":[{"a":"' + b"x" * 300_000 + b'"}]}', "more than 262,144 bytes"),
    ],
)
def test_a_document_that_is_not_whole_is_refused(text: bytes, problem: str) -> None:
    found, _ = open_document(iter([text]))
    assert found is not None

    with pytest.raises(RejectedError, match=problem):
        list(found)


@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=3))
def test_gzip_of_several_members_is_unpacked_whole(parts: list[bytes]) -> None:
    path = Path("packed.gz")
    path.write_bytes(b"".join(map(gzip.compress, parts)) + b"\0" * 7)

    assert b"".join(chunk or b"" for chunk in read_chunks("packed.gz")) == b"".join(parts)
