"""The manifest of an evidence bundle: what is in it, and all that checking it needs (SPEC 10.2).

One canonical JSON document, written and read here, strictly: what `parse` takes, `render` writes again byte for byte.
Whether what it says is true is for the verification (`tallystick.evidence.bundle.check`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.canonical import decode_canonical, encode
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.keys import KEY_BYTES
from tallystick.core.merkle import HASH_BYTES
from tallystick.core.record import Record, check_ledger_name
from tallystick.core.selector import Selector, check_bounds
from tallystick.core.strict import parse_base64, render_base64
from tallystick.errors import RejectedError
from tallystick.limits import (
    BUNDLE_EVENTS_BYTES_MAX,
    BUNDLE_HASHES_MAX,
    BUNDLE_LINES_MAX,
    BUNDLE_RECORDS_MAX,
    INTEGER_MAX,
    MANIFEST_BYTES_MAX,
    SELECTOR_ALTERNATIVES_MAX,
    SELECTOR_TERMS_MAX,
    SELECTORS_MAX,
    TIMESTAMP_BYTES_MAX,
    TIMESTAMPS_MAX,
)

FORMAT: Final = "tallystick-bundle/1"
MANIFEST_FILE: Final = "manifest.json"
EVENTS_FILE: Final = "events.jsonl"
SEAL_FILE: Final = "manifest.json.sig"
BUNDLE_FILES: Final = (MANIFEST_FILE, EVENTS_FILE, SEAL_FILE)

_TOOL_CHARACTERS_MAX: Final = 200
_HEX: Final = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself. Hashes and keys are bytes; positions half-open."""

    ledger: str
    origin: str
    ledger_id: bytes
    first: int
    end: int
    count: int
    prev_hash: bytes
    is_complete: bool
    """Whether every record of the range is there, or lawfully gone; else only those that fit a selector."""
    selectors: tuple[Selector, ...]
    """What counts, and in a filtered bundle what is there."""
    counts: tuple[int, ...]
    """Of each selector, how many records of the bundle fit it."""
    absent: tuple[tuple[int, int], ...]
    start_checkpoint: bytes | None
    checkpoint: bytes
    genesis: bytes
    records: tuple[bytes, ...]
    hashes: tuple[bytes, ...]
    mac_keys: tuple[tuple[int, bytes], ...]
    tokens: tuple[bytes, ...]
    """RFC 3161 TimeStampTokens over `checkpoint`, in DER."""
    events_bytes: int
    events_sha256: bytes
    created: str
    tool: str

    @property
    def size(self) -> int:
        """The size of the end checkpoint."""
        return _size_named(self.checkpoint, "/end/checkpoint")

    @property
    def start_size(self) -> int | None:
        """The size of the start checkpoint, if there is one."""
        return None if self.start_checkpoint is None else _size_named(self.start_checkpoint, "/start/checkpoint")

    @property
    def cuts(self) -> tuple[int, ...]:
        """The positions that no subtree of the fold reaches across."""
        start = self.start_size
        return (self.first, self.end) if start is None else (self.first, self.end, start)

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "absent": [list(pair) for pair in self.absent],
            "complete": self.is_complete,
            "created": self.created,
            "end": {"checkpoint": self.checkpoint.decode()},
            "events": {"bytes": self.events_bytes, "file": EVENTS_FILE, "sha256": self.events_sha256.hex()},
            "format": FORMAT,
            "genesis": self.genesis.decode(),
            "hashes": [render_base64(one) for one in self.hashes],
            "ledger": {"id": self.ledger_id.hex(), "name": self.ledger, "origin": self.origin},
            "mac_keys": [{"epoch": epoch, "key": key.hex()} for epoch, key in self.mac_keys],
            "range": {
                "count": self.count,
                "end": self.end,
                "first": self.first,
                "prev_hash": self.prev_hash.hex(),
            },
            "records": [line.decode() for line in self.records],
            "selectors": [
                {**selector.to_json(), "count": count}
                for selector, count in zip(self.selectors, self.counts, strict=True)
            ],
            "start": {"checkpoint": None if self.start_checkpoint is None else self.start_checkpoint.decode()},
            "timestamps": [
                {"over": "end.checkpoint", "token": render_base64(token), "type": "rfc3161"} for token in self.tokens
            ],
            "tool": self.tool,
        }

    def render(self) -> bytes:
        """Write what `parse` reads."""
        return encode(self.document())

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest. Raises `RejectedError` with the JSON pointer of what is wrong."""
        if len(data) > MANIFEST_BYTES_MAX:
            raise RejectedError(f"a manifest of {len(data)} bytes; at most {MANIFEST_BYTES_MAX} are allowed")
        reader = _Reader(decode_canonical(data))
        manifest = reader.manifest()
        if manifest.document() != reader.document:
            raise RejectedError("the manifest has other members than SPEC 10.2 prints")
        manifest.check()
        return manifest

    def check(self) -> None:
        """What the members must be to each other. Raises `RejectedError`."""
        size, start = self.size, self.start_size
        if not 0 <= self.first < self.end <= size:
            raise RejectedError(f"[{self.first}, {self.end}) is no range of {size} records", place="/range")
        if start is not None and start > size:
            raise RejectedError(f"it is of {start} records, past the {size} of the end", place="/start/checkpoint")
        if not 1 <= self.count <= self.end - self.first:
            raise RejectedError(f"{self.count} records cannot be in this range", place="/range/count")
        if not (self.is_complete or self.selectors):
            raise RejectedError("a filtered bundle without a selector", place="/selectors")
        self._check_absent()
        if any(one >= other for (one, _), (other, _) in pairwise(self.mac_keys)):
            raise RejectedError("the epochs do not ascend", place="/mac_keys")
        before = 0
        for index, line in enumerate(self.records):
            before = self._check_record(line, f"/records/{index}", before)

    def _check_absent(self) -> None:
        if self.absent and not self.is_complete:
            raise RejectedError("a filtered bundle names no absent positions", place="/absent")
        before = 0
        for first, end in self.absent:
            if not before < first < end <= self.size:
                raise RejectedError(f"[{first}, {end}) is out of place", place="/absent")
            before = end
        if self.absent and not any(first < self.end and self.first < end for first, end in self.absent):
            raise RejectedError("nothing of the range is absent", place="/absent")

    def _check_record(self, line: bytes, place: str, before: int) -> int:
        try:
            record = Record.parse(line)
        except RejectedError as error:
            raise RejectedError(f"it is no record: {error}", place=place) from error
        position = record.position
        if record.members["ledger"] != self.ledger:
            raise RejectedError("it is a record of another ledger", place=place)
        if not before < position < self.size or (self.is_complete and self.first <= position < self.end):
            raise RejectedError(f"a record at position {position} has no place here", place=place)
        return position


def _size_named(note: bytes, place: str) -> int:
    try:
        return Checkpoint.of_note(note).size
    except RejectedError as error:
        raise RejectedError(f"it is no checkpoint: {error}", place=place) from error


class _Reader:
    """Takes the members out of a document, each with its form; what is left over shows when it is written again."""

    def __init__(self, document: Any) -> None:
        if type(document) is not dict:
            raise RejectedError("a manifest is a JSON object")
        self.document: Final[dict[str, Any]] = document
        if document.get("format") != FORMAT:
            shown = ascii(document.get("format"))[:60]
            raise RejectedError(f"the format is {shown}, not {FORMAT}", place="/format", cure="use a newer verifier")

    def manifest(self) -> Manifest:
        created = self._text("created")
        timestamp.parse(created)
        tool = self._text("tool")
        if len(tool) > _TOOL_CHARACTERS_MAX:
            raise RejectedError("the name of the tool is too long", place="/tool")
        for name in ("ledger/name", "ledger/origin"):
            check_ledger_name(self._text(name), place=f"/{name}")
        start = self._member("start/checkpoint")
        selectors, counts = self._selectors()
        return Manifest(
            ledger=self._text("ledger/name"),
            origin=self._text("ledger/origin"),
            ledger_id=self._hash("ledger/id"),
            first=self._number("range/first"),
            end=self._number("range/end"),
            count=self._number("range/count", most=BUNDLE_LINES_MAX),
            prev_hash=self._hash("range/prev_hash"),
            is_complete=self._truth("complete"),
            selectors=selectors,
            counts=counts,
            absent=tuple(self._pair(pair) for pair in self._list("absent", BUNDLE_HASHES_MAX)),
            start_checkpoint=None if start is None else self._text("start/checkpoint").encode(),
            checkpoint=self._text("end/checkpoint").encode(),
            genesis=self._text("genesis").encode(),
            records=tuple(text.encode() for text in self._texts(self._list("records", BUNDLE_RECORDS_MAX), "/records")),
            hashes=tuple(_hash_of(text) for text in self._texts(self._list("hashes", BUNDLE_HASHES_MAX), "/hashes")),
            mac_keys=tuple(self._mac_key(one) for one in self._list("mac_keys", BUNDLE_RECORDS_MAX)),
            tokens=tuple(self._token(one) for one in self._list("timestamps", TIMESTAMPS_MAX)),
            events_bytes=self._number("events/bytes", most=BUNDLE_EVENTS_BYTES_MAX),
            events_sha256=self._hash("events/sha256"),
            created=created,
            tool=tool,
        )

    def _member(self, path: str) -> Any:
        value: Any = self.document
        for name in path.split("/"):
            if type(value) is not dict or name not in value:
                raise RejectedError("it is missing", place=f"/{path}")
            value = value[name]
        return value

    def _text(self, path: str) -> str:
        return self._texts([self._member(path)], f"/{path}")[0]

    def _number(self, path: str, *, most: int = INTEGER_MAX) -> int:
        return _number(self._member(path), f"/{path}", most=most)

    def _hash(self, path: str) -> bytes:
        return _from_hex(self._member(path), f"/{path}")

    def _list(self, name: str, most: int) -> list[Any]:
        value = self._member(name)
        if type(value) is not list or len(value) > most:
            raise RejectedError(f"not an array of at most {most}", place=f"/{name}")
        return value

    def _texts(self, values: Sequence[Any], place: str) -> list[str]:
        if any(type(value) is not str for value in values):
            raise RejectedError("not a string", place=place)
        return [*values]

    def _truth(self, name: str) -> bool:
        value = self._member(name)
        if type(value) is not bool:
            raise RejectedError("not true or false", place=f"/{name}")
        return value

    def _selectors(self) -> tuple[tuple[Selector, ...], tuple[int, ...]]:
        """The selectors and their counts. Lengths are bounded before terms are read."""
        given = self._list("selectors", SELECTORS_MAX)
        total = sum(_terms_of(one) for one in given)
        if total > SELECTOR_TERMS_MAX:
            raise RejectedError(f"more than {SELECTOR_TERMS_MAX} terms", place="/selectors")
        selectors = tuple(Selector.of(one["name"], one["any_of"], one["within"]) for one in given)
        check_bounds(selectors)
        return selectors, tuple(_number(one["count"], "/selectors") for one in given)

    def _pair(self, pair: Any) -> tuple[int, int]:
        if type(pair) is not list or len(pair) != 2:
            raise RejectedError("not a first and an end", place="/absent")
        return _number(pair[0], "/absent"), _number(pair[1], "/absent")

    def _mac_key(self, one: Any) -> tuple[int, bytes]:
        if type(one) is not dict or one.keys() != {"epoch", "key"}:
            raise RejectedError("not an epoch and its key", place="/mac_keys")
        return _number(one["epoch"], "/mac_keys"), _from_hex(one["key"], "/mac_keys")

    def _token(self, one: Any) -> bytes:
        if type(one) is not dict or (one.get("over"), one.get("type")) != ("end.checkpoint", "rfc3161"):
            raise RejectedError("not an RFC 3161 timestamp over end.checkpoint", place="/timestamps")
        token = parse_base64(self._texts([one.get("token")], "/timestamps")[0], place="/timestamps")
        if not 1 <= len(token) <= TIMESTAMP_BYTES_MAX:
            raise RejectedError(f"a token of {len(token)} bytes", place="/timestamps")
        return token


def _terms_of(one: Any) -> int:
    """How many terms a selector has, if it has the form of one. Raises `RejectedError`."""
    if type(one) is not dict or one.keys() != {"any_of", "count", "name", "within"} or type(one["name"]) is not str:
        raise RejectedError("not a selector", place="/selectors")
    any_of, within = one["any_of"], one["within"]
    if type(any_of) is not list or not 1 <= len(any_of) <= SELECTOR_ALTERNATIVES_MAX:
        raise RejectedError(f"not an array of 1 to {SELECTOR_ALTERNATIVES_MAX} lists", place="/selectors")
    for terms in (within, *any_of):
        if type(terms) is not list or any(type(term) is not str for term in terms):
            raise RejectedError("not a list of terms", place="/selectors")
    return len(within) + sum(map(len, any_of))


def _number(value: Any, place: str, *, most: int = INTEGER_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise RejectedError(f"not an integer from 0 to {most}", place=place)
    return value


def _from_hex(value: Any, place: str) -> bytes:
    if type(value) is not str or not _HEX(value):
        raise RejectedError(f"not {KEY_BYTES} bytes in lower-case hex", place=place)
    return bytes.fromhex(value)


def _hash_of(text: str) -> bytes:
    found = parse_base64(text, place="/hashes")
    if len(found) != HASH_BYTES:
        raise RejectedError(f"not a hash of {HASH_BYTES} bytes", place="/hashes")
    return found
