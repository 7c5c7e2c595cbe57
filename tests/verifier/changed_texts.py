"""Changes by chance of texts and bytes."""

from __future__ import annotations

import random
import re
from typing import Any, Final


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else []


_WORDS: Final = """
    x a 0 tallystick.ledger tallystick.epoch.closed user.created user.* .* a..b none log
    2026-03-15T12:00:00.000000Z 2026-03-15T12:00:00Z 0001-01-01T00:00:00.000000Z 9999-12-31T23:59:59.999999Z
    0000-01-01T00:00:00.000000Z 2026-02-29T12:00:00.000000Z 2026-03-15T24:00:00.000000Z 2026-03-15t12:00:00z
    2026-03-15T12:00:00+23:59 2026-03-15T12:00:00+24:00 0001-01-01T00:00:00+00:01 9999-12-31T23:59:59-00:01
    2026-03-15T12:00:60Z 2026-03-15T12:00:00.123456789-11:30 2026-03-15T12:00:00.1234567890Z 2026-03-15T12:00:00-00:00
    payload.n>1 payload.n!=null !payload.n payload.n>null payload.n payload.n.n payload payload."n" payload."a\\u0020b"
    payload."" payload.what="x" payload.n=-0 payload.n=1e400 payload.n=9007199254740993 context.correlation_id
    first=2 first=02 first=9007199254740991 first=9007199254740992 end=8 end= event_type=shop.* event_type!=shop.sold
    event_type=* event_type=shop.sold.* entity_id^=till- entity_id=till-1 entity_id!=x label=pci id=sale-1 actor=jane
    after=2026-03-15T12:00:02.000000Z before=2026-03-15T12:00:02Z occurred_after=2026-02-30T12:00:00.000000Z
"""
_INTEGERS: Final = (0, 1, -1, 2, 7, 8, 19, 20, 21, 2**31, 2**31 + 1, 2**53 - 1)
_LENGTHS: Final = (1, 100, 101, 200, 201, 512, 513)
EDGES: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        *_INTEGERS,
        1.5,
        1e300,
        1e-7,
        1e21,
        5e-324,
        *_WORDS.split(),
        "",
        "\u0000",
        "\u007f",
        "\ufeff",
        "\u2028",
    ),
    *("x" * length for length in _LENGTHS),
    *("\U0001f600" * length for length in _LENGTHS),
    *(
        "A" * 43 + "=",
        "A" * 44,
        "0" * 64,
        "0" * 63,
        "F" * 64,
        "0" * 128,
        "2026-03-15 12:00:00Z",
        "\u0662\u0660\u0662\u0666",
    ),
    *([], {}, [0], *map(_nested, (2, 28, 29, 30, 31, 32, 33))),
)
"""Values at the edges of what a member may be."""

_SPELLINGS: Final = (
    *(b"-0", b"1.0", b"1E5", b"1e5", b"01", b"+1", b".5", b"1.", b"1e-7", b"0.0000001", b"1e+21", b"1e21", b"NaN"),
    *(
        b"9007199254740991",
        b"9007199254740992",
        b"9007199254740993",
        b"-9007199254740992",
        b"1e400",
        b"1e-400",
        b"5e-324",
    ),
    *(b"4.9e-324", b"0.1", b"0.10", b"333333333.3333333", b"333333333.33333329", b"true", b"null", b"Infinity", b"0x1"),
    *(b"1000000000000000000000", b"1e+20", b"100000000000000000000", b"123456789012345680000", b"-1e+21", b"2.5e-8"),
    *(
        b'"\\u00e9"',
        b'"\xc3\xa9"',
        b'"\\ud83d\\ude00"',
        b'"\xf0\x9f\x98\x80"',
        b'"\\ud83d"',
        b'"\xed\xa0\xbd"',
        b'"\\/"',
        b'"/"',
    ),
    *(
        b'"\\b"',
        b'"\\u0008"',
        b'"\\u001f"',
        b'"\\u001F"',
        b'"\x7f"',
        b'"\\u007f"',
        b'"\xe2\x80\xa8"',
        b'"\\u2028"',
        b'"\xff"',
    ),
    *(b'"\xc0\x80"', b'"\xef\xbb\xbf"', b'"\t"', b'"\\t"', b"{}", b"[]", b"[ ]", b'{"b":1,"a":1}', b'{"a":1,"a":1}'),
    *('{"\U0001f600":1,"\uffff":1}'.encode(), '{"\uffff":1,"\U0001f600":1}'.encode(), b'{"":1}', b"[1,]", b"[[[[]]]]"),
)
"""Values in JSON, canonical ones and others."""


def near(value: str, chance: random.Random) -> str:
    """A text with one character other, less or more."""
    if not value:
        return "a"
    at = chance.randrange(len(value))
    other = chance.choice("aZ09=+/ \u0001é\U0001f600\n-_.")
    return chance.choice((value[:at] + other + value[at + 1 :], value[:at] + value[at + 1 :], value + other))


def broken(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Bytes with one, or a few, changed; and how."""
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 2, 16)))
    how = chance.choice(("flip", "insert", "delete", "double", "cut"))
    some = bytes(
        chance.choice((0, 9, 10, 13, 32, 34, 44, 61, 92, 123, 127, 128, 0xC0, 0xED, 255)) for _ in range(end - at)
    )
    changed = {
        "flip": data[:at] + bytes(one ^ (1 << chance.randrange(8)) for one in data[at:end]) + data[end:],
        "insert": data[:at] + some + data[at:],
        "delete": data[:at] + data[end:],
        "double": data[:end] + data[at:end] + data[end:],
        "cut": data[:at],
    }[how]
    return changed, f"{how} [{at}, {end})"


def retold(text: bytes, chance: random.Random) -> tuple[bytes, str]:
    """A text of lines and words, by lines and words."""
    lines = text.split(b"\n")
    at = chance.randrange(len(lines))
    words = lines[at].split(b" ")
    how = chance.choice(("drop", "twice", "swap", "word", "join", "near", "blank", "crlf"))
    if how == "drop":
        del lines[at]
    elif how == "twice":
        lines.insert(at, lines[at])
    elif how == "swap":
        other = chance.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "word":
        words[chance.randrange(len(words))] = chance.choice(
            (
                b"",
                b"0",
                b"00",
                b"-1",
                b"+1",
                b"9223372036854775807",
                b"9223372036854775808",
                b"\xff",
                "é".encode(),
                b"a+b",
                b"\xe2\x80\x94",
                b"AAAA",
                b"AAAAAA==",
                b"none",
                b"any",
                b"all",
                b"1",
                b"2",
                b"log",
                b"witness",
                b"group",
                b"w",
            )
        )
        lines[at] = b" ".join(words)
    elif how == "join":
        lines[at] = chance.choice((b"  ", b"\t", b"")).join(words)
    elif how == "near":
        lines[at], _ = broken(lines[at], chance)
    elif how == "blank":
        lines.insert(at, b"")
    else:
        lines[at] += b"\r"
    return b"\n".join(lines), f"{how} line {at + 1}"


def respelt(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """JSON with one of its values exchanged for another, as it is spelt; and which."""
    places = [match.span(1) for match in re.finditer(rb'[:\[,]("(?:[^"\\\n]|\\.)*"|-?[0-9][^,\]}\n]*)(?=[,\]}])', data)]
    start, end = chance.choice(places)
    spelling = chance.choice(_SPELLINGS)
    return data[:start] + spelling + data[end:], f"{spelling!a} at {start}"
