"""Canonical JSON against twins: `json` and `rfc8785` for all of it, ECMAScript's file for numbers."""

from __future__ import annotations

import datetime
import decimal
import enum
import hashlib
import json
import math
import struct
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from tallystick.core.canonical import canonical, decode, decode_and_encode, decode_canonical, encode, to_json
from tallystick.errors import RejectedError
from tallystick.limits import DEPTH_MAX, INPUT_BYTES_MAX, INTEGER_MAX

# ------------------------------------------------------------------------------------------- the twin


class RefusedError(Exception):
    """The twin takes no such document."""


def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in members}) != len(members):
        raise RefusedError("a name twice")
    return dict(members)


def refuse(constant: str) -> Any:
    raise RefusedError(constant)


def check(value: Any, depth: int = 0) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > INTEGER_MAX:
            raise RefusedError("a big integer")
    elif isinstance(value, float):
        if not math.isfinite(value) or INTEGER_MAX < abs(value) < 1e21:
            raise RefusedError("a number that has no canonical text which can be read back")
    elif isinstance(value, list | dict):
        if depth == DEPTH_MAX:
            raise RefusedError("nesting")
        for name in value if isinstance(value, dict) else ():
            check(name, depth + 1)
        for child in value.values() if isinstance(value, dict) else value:
            check(child, depth + 1)


def twin(data: bytes) -> bytes | None:
    """The canonical form of a document the slow and obvious way; None when it must be refused."""
    try:
        if data.startswith(b"\xef\xbb\xbf"):
            raise RefusedError("a byte order mark")
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=refuse)
        check(value)
    except (RefusedError, ValueError, RecursionError):
        return None
    return bytes(rfc8785.dumps(value))


def ours(data: bytes) -> bytes | None:
    """What the encoder under test makes of it; any error but `RejectedError` fails the test."""
    try:
        return decode_and_encode(data)[1]
    except RejectedError:
        return None


# ---------------------------------------------------------------------------------------- random documents

TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "",
        ":",
        '"',
        "\\",
        "/",
        "\x00",
        "\x1f",
        "\x7f",
        "\x85",
        "\u2028",
        "\ue000",
        "\ufffd",
        "😀",
        "𐀀",
        "é",
        "e\u0301",
    ]
)
NAMES: Final = TEXT | st.sampled_from(["a", "b", "A", "aa", "10", "9", "\ufb33", "\U0001d306", "\u20ac", "\r"])


@st.composite
def floats_of_every_magnitude(draw: st.DrawFn) -> float:
    exponent = draw(st.integers(-324, 308))
    value = float(f"{draw(st.integers(-(10**17), 10**17))}e{exponent - 17}")
    return value if math.isfinite(value) else 0.5


FLOATS: Final = (
    st.floats(allow_nan=False, allow_infinity=False)
    | floats_of_every_magnitude()
    | st.sampled_from([1e-7, 9.999999999999999e-7, 1e-6, 1e-5, 9.9e-4, 1e-3, 1e21, 1.5e300, 5e-324, -0.0, 2.0**53])
).filter(lambda value: not INTEGER_MAX < abs(value) < 1e21)
NUMBERS: Final = st.integers(-INTEGER_MAX, INTEGER_MAX) | FLOATS
VALUES: Final = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(NAMES, children, max_size=4),
    max_leaves=20,
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A value, written in one of many ways."""
    return json.dumps(
        draw(VALUES),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (" ,\r\n", " :\t")])),
        sort_keys=draw(st.booleans()),
    ).encode()


PIECES: Final = st.sampled_from(
    [
        *(b"{|}|[|]|:|,|\"|\\|/|-|+|.|e|E|0|1|9|\x00|\x1f|\x7f|\x80|\xff|\n|'|//|/**/".split(b"|")),
        *(b"\xc0\xaf|\xed\xa0\x80|\xef\xbb\xbf|\xe2\x80\xa8|\xf0\x9f\x98\x80".split(b"|")),
        *(b"null|true|NaN|Infinity|1e400|-0|01|1.0|1e0|9007199254740993|1e20".split(b"|")),
        *(b'"a":1,|,"a":1|[[|\\u0041|\\ud800|\\udc00|\\u003a|\\/'.split(b"|")),
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A document that was cut, overwritten, doubled or grown in a few places."""
    data = draw(documents())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 3)))
        inserted = draw(PIECES | st.binary(max_size=2) | st.just(data[end : end + 8]))
        data = data[:start] + inserted + data[end:]
    return data


@given(documents())
@example(b'{"\\u0041":[1e-6,1e21,1.5,5e-324]}')
@example(b'{"A":[1e-6,1e21,1.5,5e-324]}')
def test_every_document_gets_the_canonical_form_that_the_twin_gives_it(data: bytes) -> None:
    expected = twin(data)

    assert expected is not None
    value, line = decode_and_encode(data)
    assert line == encode(value) == expected


@given(VALUES)
def test_every_value_gets_the_canonical_form_that_the_twin_gives_it(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(VALUES)
@example({"a small number beside an escape\x1f": 1e-6})
@example({"a large number beside an escape\x1f": 1e21})
def test_decoding_gives_an_equal_value_and_encoding_it_again_the_same_bytes(value: Any) -> None:
    line = canonical(value)

    assert decode(line) == decode_canonical(line) == value
    assert encode(decode(line)) == line


@given(mutated())
@example(b'{"a":1,"\\u0061":2}')
@example(b'{"a:":1,"b":2,"b":3}')
@example(b'{"a":"x\\u003ay","b":1,"b":2}')
@example(b'{"\\\\u003a":1,"b":2,"b":2}')
def test_a_mutated_document_is_taken_or_refused_as_the_twin_does(data: bytes) -> None:
    assert ours(data) == twin(data)


@given(st.binary(max_size=60) | st.lists(PIECES, max_size=12).map(b"".join))
def test_any_bytes_are_taken_or_refused_as_the_twin_does(data: bytes) -> None:
    assert ours(data) == twin(data)


@given(mutated() | documents())
def test_a_line_is_canonical_exactly_if_it_is_its_own_canonical_form(data: bytes) -> None:
    try:
        decode_canonical(data)
    except RejectedError:
        assert twin(data) != data
    else:
        assert twin(data) == data


# ------------------------------------------------------------------------------- what is refused, and where

CASES: Final[tuple[tuple[bytes, str, str, str], ...]] = (
    # document, place, a part of the problem, a part of the cure
    (b'{"a":1,"a":1}', "/a", "twice", "once"),
    (b'{"a":{"b":[0,{"c/d":1,"~":2,"c/d":3}]}}', "/a/b/1/c~1d", "twice", "once"),
    (b'[{"~":0,"~":0}]', "/0/~0", "twice", "once"),
    (b'{"A":1,"\\u0041":2}', "/A", "twice", "once"),
    (b'{"":[NaN]}', "//0", "NaN", "null or a string"),
    (b"[1,Infinity]", "/1", "Infinity", "null or a string"),
    (b"-Infinity", "", "-Infinity", "null or a string"),
    (b'{"n":9007199254740992}', "/n", "2^53", "as a string"),
    (b'{"n":-9007199254740992}', "/n", "2^53", "as a string"),
    (b'{"n":18446744073709551616}', "/n", "2^53", "as a string"),
    (b'{"n":9007199254740992.0}', "/n", "2^53", "as a string"),
    (b'{"n":1e20}', "/n", "2^53", "as a string"),
    (b'{"n":[1e400]}', "/n/0", "beyond what a double holds", "as a string"),
    (b'{"n":-1e400}', "/n", "beyond what a double holds", "as a string"),
    (b'{"t":"\\ud800"}', "/t", "lone surrogate", "base64"),
    (b'{"t":"\\udc00\\ud800"}', "/t", "lone surrogate", "base64"),
    (b'{"x":{"\\udfff":1}}', "/x", "lone surrogate", "base64"),
    (b'\xef\xbb\xbf{"a":1}', "", "byte order mark", "without"),
    (b'{"a":"\xc0\xaf"}', "", "not UTF-8 at byte 6", "UTF-8"),
    (b'{"a":"\xed\xa0\x80"}', "", "not UTF-8 at byte 6", "UTF-8"),
    (b'"\xff"', "", "not UTF-8 at byte 1", "UTF-8"),
    (b'{"a":"\x00"}', "", "line 1, column 7", "RFC 8259"),
    (b'{"a":1}\x00', "", "line 1, column 8", "RFC 8259"),
    (b'{"a":\n01}', "", "line 2, column 2", "RFC 8259"),
    (b"", "", "line 1, column 1", "RFC 8259"),
    (b'{"a":1,}', "", "line 1", "RFC 8259"),
    (b'{"a":1}{"a":1}', "", "line 1, column 8", "RFC 8259"),
    (b"[1.]", "", "line 1", "RFC 8259"),
    (b"[.5]", "", "line 1", "RFC 8259"),
    (b"[+1]", "", "line 1", "RFC 8259"),
    (b"[0x10]", "", "line 1", "RFC 8259"),
    (b"['a']", "", "line 1", "RFC 8259"),
    (b'["\\x41"]', "", "line 1", "RFC 8259"),
    (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "", "deeper than 32", "flatten"),
    (b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1), "", "deeper than 32", "flatten"),
)


@pytest.mark.parametrize(("data", "place", "problem", "cure"), CASES)
def test_a_refusal_says_what_is_wrong_where_and_what_to_send_instead(
    data: bytes, place: str, problem: str, cure: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        decode(data)

    assert caught.value.place == place
    assert problem in caught.value.problem
    assert cure in caught.value.cure
    with pytest.raises(RejectedError):
        decode_canonical(data)


@pytest.mark.parametrize("length", [5_000, 100_000])
@pytest.mark.parametrize("digit", [b"1", b"9"])
def test_an_integer_of_many_digits_is_refused_without_being_read(digit: bytes, length: int) -> None:
    with pytest.raises(RejectedError, match=r"beyond ±\(2\^53 - 1\)"):
        decode(b"[" + digit * length + b"]")


HOSTILE: Final[dict[str, bytes]] = {
    "arrays": b"[" * 1_000_000,
    "objects": b'{"a":' * 1_000_000,
    "arrays that end": b"[" * 500_000 + b"]" * 500_000,
    "both by turns": b'[{"":' * 500_000,
    "many short ones": b"[" + b"[]," * 80_000 + b"NaN]",
    "quotes": b'"' * INPUT_BYTES_MAX,
    "escaped quotes": b'"' + b'\\"' * (INPUT_BYTES_MAX // 2),
    "backslashes": b'"' + b"\\" * INPUT_BYTES_MAX,
    "the same name": b"{" + b'"a":1,' * 40_000 + b'"a":1}',
    "digits": b"[0." + b"1" * INPUT_BYTES_MAX + b",NaN]",
    "an exponent": b"[1e" + b"1" * INPUT_BYTES_MAX + b"]",
    "colons": b'{"' + b":" * INPUT_BYTES_MAX + b'":NaN}',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_input_of_the_greatest_length_is_refused_at_once(data: bytes) -> None:
    # Not a measurement: what took quadratic time would take minutes here.
    begun = time.monotonic()

    for read in (decode, decode_canonical):
        with pytest.raises(RejectedError):
            read(data)

    assert time.monotonic() - begun < 5


def test_the_deepest_allowed_document_is_taken() -> None:
    line = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX

    assert decode_and_encode(line)[1] == line


# ------------------------------------------------------------------------- other spellings of the same value


@pytest.mark.parametrize(
    ("spelling", "line"),
    [
        (b'"\\u0041"', b'"A"'),
        (b'"\\/"', b'"/"'),
        (b'"\\u000a\\u0008"', b'"\\n\\b"'),
        (b'"\\u001F"', b'"\\u001f"'),
        (b'"\\u007f"', b'"\x7f"'),
        (b'"\\ud83d\\ude00"', '"😀"'.encode()),
        (b"1.0", b"1"),
        (b"1e0", b"1"),
        (b"1E+2", b"100"),
        (b"-0", b"0"),
        (b"-0.0", b"0"),
        (b"0.10", b"0.1"),
        (b"1e-7", b"1e-7"),
        (b"0.0000001", b"1e-7"),
        (b"0.000001", b"0.000001"),
        (b"1e+21", b"1e+21"),
        (b"1000000000000000000000.0", b"1e+21"),
        (b"1e-400", b"0"),
        (b' { "b" : 1 ,\n"a" : [ ] } ', b'{"a":[],"b":1}'),
        # UTF-16 order: U+1D306 begins with the surrogate D834, and so comes before U+FB33.
        (
            '{"\ufb33":1,"\U0001d306":2,"\u20ac":3}'.encode(),
            '{"\u20ac":3,"\U0001d306":2,"\ufb33":1}'.encode(),
        ),
    ],
)
def test_each_spelling_has_its_canonical_one_and_is_itself_not_canonical(spelling: bytes, line: bytes) -> None:
    assert decode_and_encode(spelling)[1] == line
    assert encode(decode_canonical(line)) == line
    if spelling != line:
        with pytest.raises(RejectedError, match="not canonical JSON: byte"):
            decode_canonical(spelling)


@pytest.mark.parametrize("text", ["a\u2028b\u2029", "\x85", "\x7f", "\ufeff", "e\u0301", "é", "\u0000", "👩‍🚀"])
def test_legal_text_passes_and_is_kept_as_it_is(text: str) -> None:
    line = canonical({"t": text, text: 1})

    assert decode_canonical(line) == {"t": text, text: 1}
    assert b"\n" not in line


def test_composed_and_decomposed_letters_stay_different() -> None:
    assert canonical(["é", "e\u0301"]) == '["é","e\u0301"]'.encode()
    assert canonical({"é": 1, "e\u0301": 2}).count(b":") == 2


# --------------------------------------------------------------------------------------------- Python values


class Colour(enum.Enum):
    RED = "red"


class Count(int):
    pass


class Words(str):
    __slots__ = ()


class Shape(enum.StrEnum):
    ROUND = "round"


class Flags(enum.IntFlag):
    ONE = 1
    TWO = 2


@dataclass
class Point:
    x: int


RECURSIVE: Final[list[Any]] = []
RECURSIVE.append(RECURSIVE)
RECURSIVE_DICT: Final[dict[str, Any]] = {}
RECURSIVE_DICT["again"] = [RECURSIVE_DICT]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"at": datetime.datetime(2026, 3, 15, tzinfo=datetime.UTC)}, "/at"),
        ({"at": datetime.date(2026, 3, 15)}, "/at"),
        ([uuid.UUID(int=1)], "/0"),
        ({"c": Colour.RED}, "/c"),
        ({"c": {1, 2}}, "/c"),
        ({"c": frozenset()}, "/c"),
        ({"c": b"bytes"}, "/c"),
        ({"c": decimal.Decimal("1.5")}, "/c"),
        ({"c": Count(7)}, "/c"),
        ({"c": Words("w")}, "/c"),
        ({"c": OrderedDict(a=1)}, "/c"),
        ({"c": Point(1)}, "/c"),
        ({"c": object()}, "/c"),
        ({"c": float("nan")}, "/c"),
        ([float("inf")], "/0"),
        ([float("-inf")], "/0"),
        ([1e20], "/0"),
        ([2**53], "/0"),
        ([10**400], "/0"),
        ({"c": {1: 2}}, "/c"),
        ({"c": {None: 2}}, "/c"),
        ({"c": {Words("w"): 2}}, "/c"),
        ({"c": {uuid.UUID(int=1): 2}}, "/c"),
        ({"c": "\ud800"}, "/c"),
        ({"c": {"\ud800": 1}}, "/c"),
        ({"a/b": [{"~": object()}]}, "/a~1b/0/~0"),
    ],
)
def test_a_value_without_a_json_form_of_its_own_is_refused_at_its_place(value: Any, place: str) -> None:
    for write in (canonical, lambda value: decode(to_json(value))):
        with pytest.raises(RejectedError) as caught:
            write(value)

        assert caught.value.place == place
        assert caught.value.cure


@pytest.mark.parametrize("value", [RECURSIVE, RECURSIVE_DICT])
def test_a_value_that_contains_itself_is_refused(value: Any) -> None:
    with pytest.raises(RejectedError, match="nested deeper"):
        canonical(value)


def test_an_enum_of_strings_or_integers_is_taken_as_its_value() -> None:
    assert canonical({"shape": Shape.ROUND, "flags": Flags.TWO}) == b'{"flags":2,"shape":"round"}'


def test_a_tuple_is_an_array_and_plain_values_are_taken_as_they_are() -> None:
    assert canonical({"t": (1, (2.5, None), []), "b": True}) == b'{"b":true,"t":[1,[2.5,null],[]]}'


# ------------------------------------------------------------------------------ the number file of RFC 8785

MAGNITUDES: Final = """
    446696695dbd1cc3 443211ede4974a35 43fce97ca0f21056 43c7213080c1a6ac 439280f39a348556 435d9b1f5d20d557
    4327af4c4a80aaac 42f2f2a36ecd5556 42be51057e155558 428840d131aaaaac 4253670dc1555557 421f0b4935555557
    41e8d5d42aaaaaac 41b3de4355555556 417fca0555555556 41496e6aaaaaaaab 4114585555555555 40e046aaaaaaaaab
    40aa0aaaaaaaaaaa 4074d55555555555 4040aaaaaaaaaaab 400aaaaaaaaaaaab 3fd5555555555555 3fa1111111111111
    3f6b4e81b4e81b4f 3f35d867c3ece2a5 3f0179ec9cbd821e 3ecbf647612f3696 3e965e9f80f29212 3e61e54c672874db
    3e2ca213d840baf8 3df6e80fe033c8c6 3dc2533fe68fd3d2 3d8d51ffd74c861c 3d5774ccac3d3817 3d22c3d6f030f9ac
    3cee0624b3818f79 3cb804ea293472c7 3c833721ba905bd3 3c4ebe9c5db3c61e 3c18987d17c304e5 3be3ad30dfcf371d
    3baf7b816618582f 3b792f9ab81379bf 3b442615600f9499 3b101e77800c76e1 3ad9ca58cce0be35 3aa4a1e0a3e6fe90
    3a708180831f320d 3a3a68cd9e985016
"""
"""Thirds of powers of ten, from 10^22 / 3 downwards: first all of them negative, then all positive."""

EDGES: Final = """
    4024000000000000 4014000000000000 3fe0000000000000 3fa999999999999a 3f747ae147ae147b 3f40624dd2f1a9fc
    3f0a36e2eb1c432d 3ed4f8b588e368f1 3ea0c6f7a0b5ed8d 3e6ad7f29abcaf48 3e35798ee2308c3a 3ed539223589fa95
    3ed4ff26cd5a7781 3ed4f95a762283ff 3ed4f8c60703520c 3ed4f8b72f19cd0d 3ed4f8b5b31c0c8d 3ed4f8b58d1c461a
    3ed4f8b5894f7f0e 3ed4f8b588ee37f3 3ed4f8b588e47da4 3ed4f8b588e3849c 3ed4f8b588e36bb5 3ed4f8b588e36937
    3ed4f8b588e368f8 3ed4f8b588e368f1 3ff0000000000000 bff0000000000000 bfeffffffffffffa bfeffffffffffffb
    3feffffffffffffa 3feffffffffffffb 3feffffffffffffc 3feffffffffffffe bfefffffffffffff bfefffffffffffff
    3fefffffffffffff 3fefffffffffffff 3fd3333333333332 3fd3333333333333 3fd3333333333334 0010000000000000
    000ffffffffffffd 000fffffffffffff 7fefffffffffffff ffefffffffffffff 4340000000000000 c340000000000000
    4430000000000000 44b52d02c7e14af5 44b52d02c7e14af6 44b52d02c7e14af7 444b1ae4d6e2ef4e 444b1ae4d6e2ef4f
    444b1ae4d6e2ef50 3eb0c6f7a0b5ed8c 3eb0c6f7a0b5ed8d 41b3de4355555553 41b3de4355555554 41b3de4355555555
    41b3de4355555556 41b3de4355555557 becbf647612f3696 43143ff3c1cb0959
"""


def number_file() -> Iterator[float]:
    """The doubles of the JCS number test file, in its order: static, serial, and from chained SHA-256."""
    yield from (0.0, -0.0, 5e-324, -5e-324)
    magnitudes = [struct.unpack(">d", bytes.fromhex(bits))[0] for bits in MAGNITUDES.split()]
    yield from (-value for value in magnitudes)
    yield from magnitudes
    yield from (struct.unpack(">d", bytes.fromhex(bits))[0] for bits in EDGES.split())
    yield from (struct.unpack(">d", struct.pack(">Q", (1 << 52) + serial))[0] for serial in range(2_000))
    block = bytes(32)
    while True:
        block = hashlib.sha256(block).digest()
        yield from (value for value in struct.unpack("<4d", block) if math.isfinite(value) and value)


def canonical_number(value: float) -> bytes:
    """The text of a number: by our decoder and encoder where they take it.

    They refuse what lies beyond ±(2^53 - 1) and below 10^21: its canonical text is an integer literal that
    no strict reader may take back. There, the exact encoder behind ours is asked directly.
    """
    if INTEGER_MAX < abs(value) < 1e21:
        with pytest.raises(RejectedError):
            decode(repr(value).encode())
        return bytes(rfc8785.dumps(value))
    text = decode_and_encode(repr(value).encode())[1]
    assert canonical(value) == text
    return text


@pytest.mark.parametrize(
    ("lines", "digest"),
    [
        (1_000, "be18b62b6f69cdab33a7e0dae0d9cfa869fda80ddc712221570f9f40a5878687"),
        (10_000, "b9f7a8e75ef22a835685a52ccba7f7d6bdc99e34b010992cbc5864cd12be6892"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(lines: int, digest: str) -> None:
    file = hashlib.sha256()

    for value, _ in zip(number_file(), range(lines), strict=False):
        bits = struct.unpack(">Q", struct.pack(">d", value))[0]
        file.update(b"%x,%b\n" % (bits, canonical_number(value)))

    assert file.hexdigest() == digest


READERS: Final[tuple[Callable[[bytes], Any], ...]] = (decode, decode_canonical)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("value", [INTEGER_MAX, -INTEGER_MAX, 0, 1e21, -1e21, 1.7976931348623157e308, 5e-324])
def test_the_numbers_at_the_edges_are_read_back(read: Callable[[bytes], Any], value: float) -> None:
    assert read(canonical(value)) == value
