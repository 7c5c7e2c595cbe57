"""Canonical JSON (SPEC 2), judged by `canonical(parse(text)) == text`, which alone refuses duplicate names, white
space, needless escapes, `1.0`, names out of order, lone surrogates and a byte order mark. Depth is bounded before
anything recurses. Each number is judged as it is read; for the rest, what Python's json writes is RFC 8785, but for the
order of names past U+FFFF.
"""

import json
import re
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final

DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53 - 1
_NO_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[^\[\]{}"]+', re.DOTALL)


class RefusedError(Exception):
    """The bytes are not what SPEC says, and the message tells why: the one error of all parsers here."""


def need(holds: bool, why: str) -> None:
    """Raises RefusedError unless something holds."""
    if not holds:
        raise RefusedError(why)


def parse(data: bytes) -> Any:
    """The value of a canonical JSON text; raises RefusedError."""
    try:
        text = data.decode("utf-8")
        is_flat = text.count("{") + text.count("[") <= DEPTH_MAX
        need(is_flat or _depth(text) <= DEPTH_MAX, "more than 32 levels deep")
        value, _ = _READER.raw_decode(text)  # what is behind it differs below
    except UnicodeDecodeError:
        raise RefusedError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RefusedError(f"not JSON: {error.msg} at character {error.pos}") from None
    is_plain = text.isascii() or max(text) <= "\uffff"
    need((is_plain and _WRITER.encode(value) == text) or write(value) == text, "not in canonical form")
    return value


def write(value: Any) -> str:
    """The canonical text of a value of `parse`; names are in the order of their UTF-16 units (RFC 8785 3.2.3)."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_WRITER.encode(name)}:{write(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return number(value) if isinstance(value, float) else _WRITER.encode(value)


def number(value: float) -> str:
    """A float as ECMAScript writes it (RFC 8785 3.2.2.3), from the same shortest digits."""
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    return re.sub(r"e([+-])0", r"e\1", repr(value))


def _depth(text: str) -> int:
    """How deep objects and arrays lie in one another; brackets in strings are none."""
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in _NO_BRACKETS.sub("", text)))


def _integer(text: str) -> int:
    value = int(text[:18])  # of a longer one these are too much already
    need(abs(value) <= INTEGER_MAX, "an integer outside of what every reader reads exactly")
    return value


def _float(text: str) -> float:
    value = float(text)
    need(number(value) == text, "a number that is not in canonical form, or not finite")
    return value


_READER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_float)
_WRITER: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), check_circular=False)
