"""Canonical JSON (SPEC 2), judged by `canonical(parse(text)) == text`, which alone refuses duplicate names, white
space, needless escapes, `1.0`, names out of order, lone surrogates and a byte order mark. Depth is bounded before
anything recurses. Where nothing lies past U+FFFF, what Python's json writes is RFC 8785 but for some floats, and
those are held to their own text as they are read.
"""

import json
import re
from decimal import Decimal
from typing import Any, Final

DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53 - 1
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


class RefusedError(ValueError):
    """The bytes are not what SPEC says, and the message tells why: the one error of all parsers here."""


def parse(data: bytes) -> Any:
    """The value of a canonical JSON text; raises RefusedError."""
    try:
        text = data.decode("utf-8")
        if text.count("{") + text.count("[") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
            raise RefusedError(f"more than {DEPTH_MAX} levels deep")
        value, _ = _READER.raw_decode(text)  # if there is more behind it, what is written below differs
    except UnicodeDecodeError:
        raise RefusedError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RefusedError(f"not JSON: {error.msg} at character {error.pos}") from None
    is_plain = text.isascii() or max(text) <= "\uffff"
    if not (is_plain and _WRITER.encode(value) == text) and write(value) != text:
        raise RefusedError("not in canonical form")
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
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        deepest = max(deepest, depth)
    return deepest


def _integer(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > INTEGER_MAX:
        raise RefusedError("an integer outside of what every reader reads exactly")
    return value


def _float(text: str) -> float:
    if number(value := float(text)) != text:  # of infinities and NaN, too, the text is another
        raise RefusedError(f"a number that is not in canonical form: {text[:50]}")
    return value


def _constant(text: str) -> None:
    raise RefusedError(f"{text} is not JSON")


_READER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
_WRITER: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), check_circular=False)
