"""Canonical JSON: one value, one byte string (RFC 8785, "JCS"; SPEC 2).

`decode` reads strict JSON, `encode` writes the canonical form, and `decode_canonical` holds the rule by
which a sealed record is judged: `encode(decode(line)) == line`. Both have a fast path in C behind guards that
are exact, and an exact slow path behind it: a property test holds the two equal. The slow path also
finds the place of what is wrong, so only refused or unusual input pays for the explanation.

What is refused, beyond the JSON grammar: duplicate names, NaN and infinities, integers outside
±(2^53 - 1), lone surrogates, a byte order mark, nesting past the limit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson
import rfc8785

from tallystick.errors import RejectedError
from tallystick.limits import DEPTH_MAX, INTEGER_MAX

_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_ASTRAL: Final = re.compile(rb"[\xf0-\xf4]")
SURROGATE: Final = re.compile("[\ud800-\udfff]")
_BIG_CURE: Final = "send a number this large as a string"


class _OddFloat(float):
    """A float whose canonical text orjson would not write; orjson refuses the subclass."""


def decode_number(text: str) -> float | int:
    """Read a number that has a fraction or an exponent, as the value whose orjson text is its JCS text.

    One with an exponent is left to the exact path: it alone may be shorter than its canonical text.
    """
    value = float(text)
    return _OddFloat(value) if "e" in text or "E" in text else _for_fast_encode(value)


def _for_fast_encode(value: float) -> float | int:
    """The same number as a value whose orjson text is its JCS text, or which orjson refuses.

    orjson and ECMAScript print the same shortest digits. They differ for whole numbers (`1.0`), for
    exponents, and below 1e-5, where orjson turns to exponents before ECMAScript does.
    """
    size = abs(value)
    if size <= INTEGER_MAX and value == int(value):
        return int(value)
    if 1e-3 <= size <= INTEGER_MAX:
        return value
    return _OddFloat(value)


_decoder: Final = msgspec.json.Decoder(float_hook=decode_number)
_fast_decode: Final = _decoder.decode
_fast_encode: Final = orjson.dumps


def decode(data: bytes) -> Any:
    """Read one JSON document of builtin types; whole floats come back as integers, as JCS prints them.

    Raises `RejectedError` with the JSON pointer of what is wrong. The caller bounds the length.
    """
    value, _ = decode_and_encode(data)
    return value


def encode(value: Any) -> bytes:
    """Write a value that `decode` gave as canonical JSON. For values from elsewhere see `canonical`."""
    out = encode_plain(value)
    return _exact_encode(value) if out is None else out


def encode_plain(value: Any) -> bytes | None:
    """As `encode`, for a value whose orjson text is its canonical text; None for any other."""
    try:
        out: bytes = _fast_encode(value, None, _OPTIONS)
    except TypeError:
        return None
    # UTF-16 order of names differs from code-point order only past the basic plane (RFC 8785 3.2.3).
    return out if out.isascii() or not _ASTRAL.search(out) else None


def decode_and_encode(data: bytes) -> tuple[Any, bytes]:
    """Read strict JSON; give the value and its canonical bytes. Raises `RejectedError` with the place.

    The guards: msgspec keeps the last of two equal names, and each name it dropped took a colon with
    it, so equal colon counts prove that none was dropped, as long as no `\\u` escape can hide a colon.
    """
    try:
        value = _fast_decode(data)
        out = encode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError, RejectedError):
        value = _explain(data)
        return value, _exact_encode(value)
    if data.count(b":") != out.count(b":") or (b"\\" in data and b"\\u" in data):
        value = _explain(data)
        return value, _exact_encode(value)
    if out.count(b"{") + out.count(b"[") > DEPTH_MAX:
        _check_depth(value)
    return value, out


def decode_canonical(line: bytes) -> Any:
    """Read a document that must be canonical to the byte (SPEC 2); `RejectedError` says why it is not.

    Equal bytes need none of `decode`'s guards: the encoder never writes a name twice, a needless escape
    or an integer out of range.
    """
    try:
        value = _fast_decode(line)
        out = encode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError, RejectedError):
        value = _explain(line)
        out = _exact_encode(value)
    if out != line:
        _explain(line)
        at = next((i for i, (a, b) in enumerate(zip(line, out, strict=False)) if a != b), min(len(line), len(out)))
        raise RejectedError(f"not canonical JSON: byte {at} is not what RFC 8785 writes there")
    if out.count(b"{") + out.count(b"[") > DEPTH_MAX:
        _check_depth(value)
    return value


def canonical(value: Any) -> bytes:
    """The canonical JSON of a Python value made of dict, list, tuple, str, int, float, bool and None.

    Anything else, also what a JSON library would turn silently into a string (dates, UUIDs, enums),
    raises `RejectedError` with its JSON pointer; only an enum of strings or integers is taken as its value.
    """
    return decode_and_encode(to_json(value))[1]


def to_json(value: Any) -> bytes:
    """Some JSON of a Python value, losing nothing: decoding it gives an equal value. See `canonical`.

    orjson writes NaN as null and enums and UUIDs as their values; comparing what comes back finds it.
    """
    try:
        out: bytes = _fast_encode(value, None, _OPTIONS)
        if _fast_decode(out) == value:
            return out
    except (TypeError, ValueError, RecursionError, msgspec.DecodeError):
        pass  # the walk below says what it was, or finds that it was fine after all
    return rfc8785.dumps(_walk(value, ""))


def _exact_encode(value: Any) -> bytes:
    return rfc8785.dumps(_walk(value, ""))


def _explain(data: bytes) -> Any:
    """Read the document the slow way: the value if it is good after all, else the error with the place."""
    _check_text_depth(data)
    if data.startswith(b"\xef\xbb\xbf"):
        raise RejectedError("the document begins with a byte order mark", cure="send UTF-8 without one")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RejectedError(f"not UTF-8 at byte {error.start}", cure="send the document in UTF-8") from error
    try:
        value = json.loads(
            text, object_pairs_hook=_Pairs, parse_int=_integer, parse_float=float, parse_constant=_Constant
        )
    except json.JSONDecodeError as error:
        raise RejectedError(
            f"not JSON at line {error.lineno}, column {error.colno}: {error.msg.lower()}",
            cure="send one JSON document (RFC 8259)",
        ) from error
    return _walk(value, "")


class _Pairs(list[tuple[str, Any]]):
    """The members of an object in the order of the text, duplicates included."""


class _Constant(str):
    """`NaN`, `Infinity` or `-Infinity`, which `json` reads and JSON does not have."""


class _BigInteger(str):
    """The digits of an integer too long to be worth reading."""


def _integer(digits: str) -> int | _BigInteger:
    return int(digits) if len(digits) <= 17 else _BigInteger(digits)


def _walk(value: Any, pointer: str, depth: int = 0) -> Any:
    """Copy a value as plain builtins, refusing at its place whatever has no canonical form."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _check_text(value, pointer)
    if kind is int:
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise RejectedError(f"the integer {_short(value)} is beyond ±(2^53 - 1)", place=pointer, cure=_BIG_CURE)
        return value
    if kind is float or kind is _OddFloat:
        return _check_float(float(value), pointer)
    if kind is _BigInteger:
        raise RejectedError(f"the integer {_short(value)} is beyond ±(2^53 - 1)", place=pointer, cure=_BIG_CURE)
    if kind is _Constant:
        raise RejectedError(f"{value} is not a JSON number", place=pointer, cure="send null or a string")
    if depth >= DEPTH_MAX and kind in (dict, list, tuple, _Pairs):
        raise RejectedError(f"nested deeper than {DEPTH_MAX} levels", place=pointer[:200], cure="flatten it")
    if kind in (dict, _Pairs):
        return _walk_object(value, pointer, depth)
    if kind in (list, tuple):
        return [_walk(item, f"{pointer}/{index}", depth + 1) for index, item in enumerate(value)]
    raise RejectedError(
        f"a Python {kind.__name__} has no JSON form",
        place=pointer,
        cure="convert it to a string, number, boolean, list or dict first",
    )


def _walk_object(value: Any, pointer: str, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, member in value.items() if type(value) is dict else value:
        if type(name) is not str:
            raise RejectedError(f"the member name {_short(name)} is not a string", place=pointer, cure="use strings")
        _check_text(name, pointer)
        place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if name in out:
            raise RejectedError("the member appears twice", place=place, cure="send each name once")
        out[name] = _walk(member, place, depth + 1)
    return out


def _check_text(text: str, pointer: str) -> str:
    if SURROGATE.search(text):
        raise RejectedError(
            "the text has a lone surrogate, which no UTF-8 can hold",
            place=pointer,
            cure="send it as whole characters, or the raw bytes in base64",
        )
    return text


def _check_float(value: float, pointer: str) -> float | int:
    size = abs(value)
    if math.isnan(value):
        raise RejectedError("NaN is not a JSON number", place=pointer, cure="send null or a string")
    if size == float("inf"):
        raise RejectedError("the number is beyond what a double holds", place=pointer, cure=_BIG_CURE)
    if INTEGER_MAX < size < 1e21:
        # Its canonical text would be an integer literal that no strict reader may take back.
        raise RejectedError(f"the number {value!r} is beyond ±(2^53 - 1)", place=pointer, cure=_BIG_CURE)
    return _for_fast_encode(value)


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        level = [child for parent in level for child in _containers(parent)]
        if not level:
            return
    raise RejectedError(f"nested deeper than {DEPTH_MAX} levels", cure="flatten it")


def _containers(parent: Any) -> Iterator[Any]:
    children = parent.values() if type(parent) is dict else parent
    return (child for child in children if type(child) in (dict, list))


# A string that does not end is taken to the end: trying again from each of its quotes would take quadratic time.
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)


def _check_text_depth(data: bytes) -> None:
    """Bound the nesting before a recursive reader sees it."""
    depth = 0
    for match in _BRACKETS.finditer(data):
        if match.lastindex == 1:
            depth += 1
            if depth > DEPTH_MAX:
                raise RejectedError(f"nested deeper than {DEPTH_MAX} levels at byte {match.start()}", cure="flatten it")
        elif match.lastindex == 2:
            depth -= 1


def _short(value: object) -> str:
    text = str(value) if not isinstance(value, int) or value.bit_length() < 200 else f"{value:#x}"
    return text if len(text) <= 40 else f"{text[:37]}..."
