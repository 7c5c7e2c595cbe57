"""Runs: sorted, immutable sets of entries, in pages that prove themselves. Pure: bytes in and out.

An entry says where the record of an event id stands, or which version an entity has. Its key is a keyed hash, so keys
are spread evenly, and the leading bits of a key name the page that has it, or proves that it is not there. Every page
carries a MAC over the run, its own number and its content: a page cannot be altered, nor stand for another one.
What a run is, and which runs there are, says the manifest, which has a MAC of its own.

    entry    = key (12 bytes) || position (6 bytes, big-endian) || version (6 bytes, big-endian; 0 for an event id)
    page     = MAC (16 bytes) || entries, ascending
    manifest = MAC (32 bytes) || MessagePack of `Manifest`
"""

from __future__ import annotations

import hmac
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b, sha256
from typing import Final, Literal, TypeAlias

import msgspec

from tallystick.errors import TamperError

KEY_BYTES: Final = 12
ENTRY_BYTES: Final = 24
NONCE_BYTES: Final = 16
NUMBER_MAX: Final = 2**48 - 1
"""Positions and versions have six bytes in an entry: more than any ledger has."""

MERGED_AT_ONCE: Final = 8
"""Runs of about one size that become one: each entry is then written about log8(entries) times."""

FILTER_PART_BYTES: Final = 1 << 20
_FILTER_BITS: Final = 24
"""Bits of the filter an entry: about one key in 200 that is not in a run has one of its pages looked at."""

_ENTRIES_PER_PAGE: Final = 144
"""At most so many on average, 3.4 KiB: a page then lies in one page of the database."""

_ENTITY_MARK: Final = b"\x00"
"""Ends the keys of entities."""

_MAC_BYTES: Final = 16
_LAYOUT: Final = 1
_MASKS: Final = tuple(
    sum(1 << bit for bit in {byte & 63 for byte in sha256(number.to_bytes(2, "big")).digest()[:4]})
    for number in range(4096)
)
"""Four bits of a filter's word, more or less, for each twelve bits of a key."""

Kind: TypeAlias = Literal["entity", "id", "made"]
Content: TypeAlias = bytes
"""The entries of a page, one after another, without the MAC."""


class Run(msgspec.Struct, array_like=True, frozen=True):
    """One run: 2**bits pages of `count` entries in all. The nonce tells it from any other that had its number."""

    number: int
    nonce: bytes
    bits: int
    count: int
    filter_parts: int

    @property
    def size_class(self) -> int:
        """Runs of one class are within a factor of 8 in size."""
        return max(0, self.count.bit_length() - 1) // 3


class Manifest(msgspec.Struct, array_like=True, frozen=True):
    """Which runs there are, and what they cover: the records below `size`, of which `last_hash` is the last one's."""

    layout: int
    ledger_id: bytes
    size: int
    last_hash: bytes
    pruned_below: int
    """How far the log was pruned when the runs were made from it."""
    generation: bytes
    """Random, and new whenever the runs are begun again: those of another generation may say what is so no more."""
    next_run: int
    runs: tuple[Run, ...]

    @classmethod
    def empty(cls, ledger_id: bytes, *, pruned_below: int, generation: bytes) -> Manifest:
        """What covers no record yet."""
        return cls(_LAYOUT, ledger_id, 0, b"", pruned_below, generation, 1, ())


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Manifest).decode


def render_manifest(key: bytes, manifest: Manifest) -> bytes:
    """Write what `parse_manifest` reads."""
    content = _encode(manifest)
    return hmac.digest(key, b"tallystick/v1/sealing-manifest\0" + content, "sha256") + content


def parse_manifest(key: bytes, data: bytes) -> Manifest:
    """Read a manifest. `TamperError` for any bytes that were not written under this key."""
    mac, content = data[:32], data[32:]
    if not hmac.compare_digest(mac, hmac.digest(key, b"tallystick/v1/sealing-manifest\0" + content, "sha256")):
        raise TamperError("its manifest was altered, or was written under another key")
    try:
        manifest = _decode(content)
    except msgspec.DecodeError as error:
        raise TamperError(f"its manifest has another layout: {error}") from error
    if manifest.layout != _LAYOUT:
        raise TamperError(f"its manifest has layout {manifest.layout}, and this version reads {_LAYOUT}")
    return manifest


def keyed(key: bytes, kind: Kind) -> Callable[[str], bytes]:
    """A function from a text to its 12-byte key: 11 bytes of keyed BLAKE2b, and one that tells entities from ids.

    Without the key nobody can find two texts of one hash, which would give one entity the version of another.
    """
    fresh = blake2b(key=key, person=b"sealing-" + kind.encode(), digest_size=KEY_BYTES - 1).copy
    mark = _ENTITY_MARK if kind == "entity" else b"\x01"

    def of(text: str) -> bytes:
        hasher = fresh()
        hasher.update(text.encode())
        return hasher.digest() + mark

    return of


def entry(key: bytes, position: int, version: int) -> bytes:
    """An entry as it rests."""
    return key + (position << 48 | version).to_bytes(12, "big")


def position_of(one: bytes) -> int:
    """The position that an entry says."""
    return int.from_bytes(one[12:18], "big")


def version_of(one: bytes) -> int:
    """The version that an entry says."""
    return int.from_bytes(one[18:24], "big")


def split(content: Content) -> list[bytes]:
    """The entries of a page."""
    return [content[at : at + ENTRY_BYTES] for at in range(0, len(content), ENTRY_BYTES)]


def merged(entries: list[bytes]) -> list[bytes]:
    """The entries in order, each once; of one entity only the newest, which is the one furthest on."""
    entries.sort()
    out: list[bytes] = []
    before = b""
    for one in entries:
        if one[:KEY_BYTES] != before:
            before = one[:KEY_BYTES]
            out.append(one)
        elif before[-1:] == _ENTITY_MARK:
            out[-1] = one
        elif one != out[-1]:
            out.append(one)
    return out


def bits_for(count: int) -> int:
    """How many leading bits of a key name its page in a run of so many entries."""
    return max(0, -(-count // _ENTRIES_PER_PAGE) - 1).bit_length()


def page_number(key: bytes, bits: int) -> int:
    """The page of a key in a run of 2**bits pages."""
    return int.from_bytes(key[:4], "big") >> (32 - bits)


def pages_of(entries: Sequence[bytes], bits: int) -> Iterator[Content]:
    """Sorted entries as the contents of 2**bits pages, in order."""
    start = 0
    for number in range(1, 1 << bits):
        end = bisect_left(entries, (number << (32 - bits)).to_bytes(4, "big"), start)
        yield b"".join(entries[start:end])
        start = end
    yield b"".join(entries[start:])


def take_below(entries: list[bytes], end: int) -> list[bytes]:
    """Take those entries from the front of a sorted list whose leading 32 bits are below `end`."""
    if end >> 32:
        taken, entries[:] = entries[:], []
        return taken
    at = bisect_left(entries, end.to_bytes(4, "big"))
    taken, entries[:at] = entries[:at], []
    return taken


def seal_page(key: bytes, run: Run, number: int, content: Content) -> bytes:
    """A page or a part of a filter as it rests; parts of filters are numbered on from the last page."""
    return _page_mac(key, run, number, content) + content


def open_page(key: bytes, run: Run, number: int, data: bytes | None) -> Content:
    """The content of a page. `TamperError` when it is not there, or is not the one that was written."""
    if data is None:
        raise TamperError(f"page {number} of run {run.number} is missing")
    content = data[_MAC_BYTES:]
    if not hmac.compare_digest(data[:_MAC_BYTES], _page_mac(key, run, number, content)):
        raise TamperError(f"page {number} of run {run.number} was altered")
    return content


def _page_mac(key: bytes, run: Run, number: int, content: Content) -> bytes:
    head = b"tallystick/v1/sealing-page\0" + run.nonce + run.number.to_bytes(8, "big") + number.to_bytes(4, "big")
    return hmac.digest(key, head + content, "sha256")[:_MAC_BYTES]


def found_in(content: Content, key: bytes) -> list[bytes]:
    """The entries of a key among those of its page."""
    at = content.find(key)
    while at > 0 and at % ENTRY_BYTES:  # the bytes of two neighbours may look like the key
        at = content.find(key, at + 1)
    out = []
    while at >= 0 and content.startswith(key, at):
        out.append(content[at : at + ENTRY_BYTES])
        at += ENTRY_BYTES
    return out


class Filter:
    """Which keys may be in a run: one word of 64 bits a key, in which its four bits are set (a blocked Bloom filter).

    A key that is in the run always passes; one that is not passes in about one of 200 cases.
    """

    __slots__ = ("words",)

    def __init__(self, count: int) -> None:
        self.words: array[int] = array("Q", bytes(8 * max(1, count * _FILTER_BITS // 64)))

    def add(self, entries: Iterable[bytes]) -> None:
        """Let the keys of these entries pass."""
        words, count, masks = self.words, len(self.words), _MASKS
        for one in entries:
            number = int.from_bytes(one[3:11], "big")
            words[(number >> 12) % count] |= masks[number & 4095]

    def parts(self) -> list[bytes]:
        """The filter in parts, as they rest: little-endian words."""
        data = _little_endian(self.words).tobytes()
        return [data[at : at + FILTER_PART_BYTES] for at in range(0, len(data), FILTER_PART_BYTES)]

    @classmethod
    def of(cls, parts: Iterable[bytes]) -> Filter:
        """A filter from its parts, which were authenticated."""
        words: array[int] = array("Q")
        for part in parts:
            words.frombytes(part)
        made = cls(0)
        made.words = _little_endian(words)
        return made


def keys_that_pass(keys: Iterable[bytes], runs: Sequence[tuple[Run, Filter]]) -> list[tuple[Run, bytes]]:
    """The runs whose filters let keys pass, with the key: a key is surely in no other run."""
    out = []
    masks, filters = _MASKS, [(run, each.words, len(each.words)) for run, each in runs]
    for key in keys:
        number = int.from_bytes(key[3:11], "big")
        mask, place = masks[number & 4095], number >> 12
        for run, words, count in filters:
            if words[place % count] & mask == mask:
                out.append((run, key))
    return out


def _little_endian(words: array[int]) -> array[int]:
    if sys.byteorder == "big":
        words = words[:]
        words.byteswap()
    return words
