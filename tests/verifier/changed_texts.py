"""Changes by chance of texts and bytes."""

from __future__ import annotations

import random


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
