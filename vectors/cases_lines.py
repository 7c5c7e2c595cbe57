"""Vectors of changed records: what someone with the file can do, and what a writer of other JSON would write.

All are of one complete bundle of positions [2, 8): line 1 is position 2. Its manifest is left as it was, so that the
file's hash gives the change away first (*events*); the other findings say where it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from tallystick.core.canonical import decode, encode
from vectors.case import Case, Expected
from vectors.scene import Bundle, bundle, changed, ledger, signed_anew

LINES: Final = ledger().lines
_THIRD: Final = LINES[4]
"""Line 3."""


def base() -> Bundle:
    return bundle(LINES, first=2, end=8)


def cases() -> Iterator[Case]:
    yield from _flips()
    yield from _moves()
    yield from _members()
    yield from _texts()
    yield from _files()


def _third(name: str, spec: str, says: str, line: bytes, *expected: Expected) -> Case:
    """Line 3 is replaced."""
    made = base()
    made.lines[2] = line
    return Case(name, spec, says, made.files(), (("events", None), *expected))


def _all(name: str, spec: str, says: str, lines: list[bytes], *expected: Expected) -> Case:
    """All lines are replaced."""
    made = base()
    made.lines = lines
    return Case(name, spec, says, made.files(), (("events", None), *expected))


_NO_CLOSE: Final = (("missing", None), ("epoch", None))
"""Line 6, the close of the epoch, is gone or past the lines that are looked at."""

_UNSIGNED: Final = (("signature", 3), ("root", None))


def _flips() -> Iterator[Case]:
    for name, says, old, new in (
        ("key", "a byte of a name", b'"n":2', b'"m":2'),
        ("value", "a byte of a string", b'"id":"jane"', b'"id":"janf"'),
        ("digit", "a digit", b'"n":2', b'"n":3'),
        ("nfd", "NFC becomes NFD", "Füße".encode(), "Fu\u0308ße".encode()),
    ):
        yield _third(f"flip-{name}", "11 (9)", f"line 3: {says} is changed", _THIRD.replace(old, new), *_UNSIGNED)
    says = "line 3: a brace becomes a bracket"
    yield _third("flip-brace", "11 (5)", says, b"[" + _THIRD[1:], ("not-canonical", 3))


def _moves() -> Iterator[Case]:
    lines = base().lines
    yield _all("delete-first", "11 (6)", "the first line is gone", lines[1:], ("missing", 1), ("chain", 1))
    yield _all("delete-middle", "11 (6)", "line 3 is gone", lines[:2] + lines[3:], ("missing", 3))
    yield _all("delete-last", "11 (6)", "the last line is gone", lines[:-1], *_NO_CLOSE)
    doubled = [*lines[:3], lines[2], *lines[3:]]
    yield _all("duplicate", "11 (6)", "line 3 stands twice", doubled, ("misplaced", 4), *_NO_CLOSE)
    swapped = [*lines[:2], lines[3], lines[2], *lines[4:]]
    yield _all("swap", "11 (6)", "lines 3 and 4 are swapped", swapped, ("missing", 3), ("misplaced", 4))
    forged = changed(
        LINES[5], entity_id="till-9", entity_version=1, id="forged", signature="0" * 64, payload={"n": 1_000}
    )
    inserted = [*lines[:3], forged, *lines[3:]]
    says = "a forged record stands before line 4, with the prev_hash that fits"
    expected = (("signature", 4), ("misplaced", 5), *_NO_CLOSE)
    yield _all("insert-forged", "11 (9)", says, inserted, *expected)
    yield from _rechained(lines)


def _rechained(lines: list[bytes]) -> Iterator[Case]:
    bare, with_key = [*lines], [*lines]
    bare[2] = changed(lines[2], payload={"n": 2_000})
    with_key[2] = signed_anew(lines[2], payload={"n": 2_000})
    for at in range(3, len(lines)):
        bare[at] = changed(lines[at], prev_hash=sha256(bare[at - 1]).hexdigest())
        with_key[at] = signed_anew(lines[at], prev_hash=sha256(with_key[at - 1]).hexdigest())
    says = "line 3 is rewritten, and all after it chained anew, without a key"
    unsigned = [("signature", line) for line in range(3, 7)]
    yield _all("rechain-without-key", "11 (9)", says, bare, *unsigned, ("root", None))
    says = "the same with the disclosed MAC key: only the tree tells"
    yield _all("rechain-with-key", "11 (14)", says, with_key, ("root", None))


def _members() -> Iterator[Case]:
    yield _third(
        *("member-position", "11 (6)", "line 3 says that it is at position 40", changed(_THIRD, position=40)),
        *(("misplaced", 3), ("signature", 3), ("missing", 4)),
    )
    later = changed(_THIRD, recorded_at="2026-03-15T13:00:00.000000Z")
    yield _third("member-recorded-at", "11 (9)", "line 3 claims another time", later, *_UNSIGNED)
    says = "line 3 claims another epoch, of which there is no key"
    yield _third("member-epoch", "11 (9)", says, changed(_THIRD, epoch=1), *_UNSIGNED)
    says = "line 3 is of another ledger"
    yield _third("member-ledger", "11 (6)", says, changed(_THIRD, ledger="shoq"), ("misplaced", 3), ("signature", 3))
    says = "line 3 names another record before it"
    yield _third("member-prev-hash", "11 (7)", says, changed(_THIRD, prev_hash="0" * 64), ("chain", 3), *_UNSIGNED)
    signature = str(decode(_THIRD)["signature"])
    says = "a digit of the signature is changed"
    other = f"{'0' if signature[0] != '0' else '1'}{signature[1:]}"
    yield _third("member-signature", "11 (9)", says, changed(_THIRD, signature=other), *_UNSIGNED)
    for name, text in (("truncated", signature[:-1]), ("upper-case", signature.upper()), ("empty", "")):
        line = changed(_THIRD, signature=text)
        yield _third(f"signature-{name}", "3.1", f"the signature is {name}", line, ("not-canonical", 3))
    says = "line 3 is signed under the key of epoch 1"
    yield _third("signature-other-epoch", "11 (9)", says, signed_anew(_THIRD, epoch=1), *_UNSIGNED)
    says = "line 3 has a member that records do not have"
    yield _third("member-unknown", "3.1", says, encode({**decode(_THIRD), "extra": 1}), ("not-canonical", 3))
    without = {name: value for name, value in decode(_THIRD).items() if name != "labels"}
    yield _third("member-missing", "3.1", "line 3 has no labels", encode(without), ("not-canonical", 3))


def _texts() -> Iterator[Case]:
    reordered = json.dumps({**dict(reversed(decode(_THIRD).items()))}, ensure_ascii=False, separators=(",", ":"))
    for name, says, line in (
        ("duplicate-name", "a name stands twice", _THIRD.replace(b'{"n":2', b'{"n":2,"n":2')),
        ("reordered", "names are out of order", reordered.encode()),
        ("white-space", "there is a space", _THIRD.replace(b'"n":2', b'"n": 2')),
        ("crlf", "the line ends in CR LF", _THIRD + b"\r"),
        ("escaped-letter", "a letter is escaped", _THIRD.replace(b'"jane"', b'"\\u006aane"')),
        ("escaped-slash", "a slash is escaped", _THIRD.replace(b"A/B", b"A\\/B")),
        ("float", "1.0 for 1", _THIRD.replace(b'"n":2', b'"n":2.0')),
        ("exponent", "an exponent", _THIRD.replace(b'"n":2', b'"n":2e0')),
        ("minus-zero", "minus zero", _THIRD.replace(b'"n":2', b'"n":-0')),
        ("leading-zero", "a leading zero", _THIRD.replace(b'"n":2', b'"n":02')),
        ("big-integer", "2^53", _THIRD.replace(b'"n":2', b'"n":9007199254740992')),
        ("big-float", "1e+20, whose text is an integer past 2^53", _THIRD.replace(b'"n":2', b'"n":1e+20')),
        ("nan", "NaN", _THIRD.replace(b'"n":2', b'"n":NaN')),
        ("surrogate", "a lone surrogate, escaped", _THIRD.replace(b"A/B", b"\\ud800")),
        ("surrogate-bytes", "a lone surrogate in bytes", _THIRD.replace(b"A/B", b"\xed\xa0\x80")),
        ("overlong", "an overlong slash", _THIRD.replace(b"A/B", b"A\xc0\xafB")),
        ("nul", "a NUL in a string", _THIRD.replace(b"A/B", b"A\0B")),
        ("truncated", "the line ends early", _THIRD[:-1]),
        ("trailing", "there is more after the record", _THIRD + b"{}"),
        ("deep", "too deep a nesting", _THIRD.replace(b'"n":2', b'"n":' + b"[" * 30_000 + b"]" * 30_000)),
        ("open-strings", "strings and lists that never end", _THIRD.replace(b'"n":2', b'"n":' + b'["\\' * 20_000)),
        ("depth-33", "33 levels", _THIRD.replace(b'"n":2', b'"n":' + b"[" * 31 + b"]" * 31)),
    ):
        yield _third(f"text-{name}", "11 (5)", f"line 3: {says}", line, ("not-canonical", 3))


def _files() -> Iterator[Case]:
    lines = base().lines
    expected = (("not-canonical", 4), ("misplaced", 5), *_NO_CLOSE)
    yield _all("blank-line", "11 (5)", "there is an empty line", [*lines[:3], b"", *lines[3:]], *expected)
    yield _all("bom", "11 (5)", "a byte order mark", [b"\xef\xbb\xbf" + lines[0], *lines[1:]], ("not-canonical", 1))
    made = base()
    made.raw_events = made.events[:-1]
    yield Case("no-final-newline", "11 (4)", "the last newline is gone", made.files(), (("events", None),))
    made = base()
    made.raw_events = b""
    yield Case("empty-events", "11 (4)", "the file of records is empty", made.files(), (("events", None), *_NO_CLOSE))
    made = base()
    made.raw_events = made.events + b"\n"
    yield Case("trailing-newline", "11 (4)", "there is one more newline", made.files(), (("events", None),))
    deep = b"[" * 1_000_000
    made = base()
    made.lines[2] = deep
    found = (("events", None), ("not-canonical", 3))
    says = "line 3 is a million brackets"
    yield Case("million-brackets", "11 (5)", says, made.files(), found, as_zip=True)
