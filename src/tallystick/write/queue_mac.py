"""What is authenticated in the files of a queue, under the queue's MAC key (SPEC 5.1, purpose `queue-mac`).

A statement names a place in the chain of frames: the queue, a sequence number, and the MAC of the frame before it. The
head of a segment, the cursor and a slot of the mark are statements of one form and different kinds; no kind passes for
another, as each has its own domain separation string. Every queue has a random id, so that what belongs to an earlier
queue of the same ledger is not accepted in this one. MACs are HMAC-SHA256 cut to 16 bytes: a forger has to guess 128
bits, and the tag of a frame is never seen by those who choose its content. Pure: bytes and values, no files.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple
from zlib import crc32

from tallystick.errors import TamperError

MAC_BYTES: Final = 16
QUEUE_ID_BYTES: Final = 16
NO_LINK: Final = bytes(MAC_BYTES)
"""What stands for the MAC before the first frame of a queue, and before its first refusal."""

OLD_FORMAT: Final = b"tallystick-queue/1\n"
"""How segments began before frames were authenticated."""


class Fault(StrEnum):
    """What is wrong with a file of a queue; programs act on the word."""

    OLD_FORMAT = "old-format"
    CHECKSUM = "checksum"
    ALTERED = "altered"
    MISSING = "missing"
    CURSOR = "cursor"
    MARK = "mark"
    REFUSED = "refused"
    REPAIR = "repair"


class FaultError(TamperError):
    """Bytes of a queue's file that are not what was written. The one error of its parsers."""

    def __init__(self, fault: Fault, seen: str) -> None:
        super().__init__(seen)
        self.fault: Final = fault


class Kind(StrEnum):
    """The kinds of statements; the word is in the file and in the domain separation string."""

    SEGMENT = "segment"
    CURSOR = "cursor"
    MARK = "mark"
    REPAIR = "repair"


class Statement(NamedTuple):
    """A place in the chain of a queue."""

    queue: bytes
    """The id of the queue."""
    sequence: int
    link: bytes
    """The MAC of the frame before that sequence number."""
    number: int = 0
    """A cursor: how many refusals were written. A mark: how many marks were. A repair: when it was made."""
    other: bytes = NO_LINK
    """A cursor: the MAC of the last refusal. A repair: what the mark was that it replaces."""


_FIELDS: Final = struct.Struct(">16sQ16sQ16s")
_MAGIC_BYTES: Final = 27
STATEMENT_BYTES: Final = _MAGIC_BYTES + _FIELDS.size + 4 + MAC_BYTES


def mac(key: bytes, purpose: str, data: bytes) -> bytes:
    """The MAC of data in which only the last part may vary in length."""
    return hmac.digest(key, b"tallystick/v1/queue-" + purpose.encode() + b"\0" + data, "sha256")[:MAC_BYTES]


def tagger(key: bytes, purpose: str, prefix: bytes) -> Callable[[bytes], bytes]:
    """A function from data to the MAC of `prefix` and the data, with the two key blocks and the prefix hashed once
    (RFC 2104): half of what a new HMAC costs, of which every frame needs one."""
    block = key.ljust(64, b"\0")
    begin = b"tallystick/v1/queue-" + purpose.encode() + b"\0" + prefix
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + begin).copy
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block)).copy

    def tag(data: bytes) -> bytes:
        inside, outside = inner(), outer()
        inside.update(data)
        outside.update(inside.digest())
        return outside.digest()[:MAC_BYTES]

    return tag


def is_mac(key: bytes, purpose: str, data: bytes, tag: bytes) -> bool:
    """Whether a tag is the MAC of data, in constant time."""
    return hmac.compare_digest(mac(key, purpose, data), tag)


def render(kind: Kind, statement: Statement, *, key: bytes) -> bytes:
    """The bytes of a statement, `STATEMENT_BYTES` of them."""
    fields = _FIELDS.pack(*statement)
    return _magic(kind) + fields + crc32(fields).to_bytes(4, "big") + mac(key, kind, fields)


def parse(kind: Kind, data: bytes, *, key: bytes) -> Statement:
    """Read a statement. Raises `FaultError` for anything that `render` did not write under this key."""
    fields = statement_fields(kind, data)
    if not is_mac(key, kind, fields, data[-MAC_BYTES:]):
        raise FaultError(
            Fault.ALTERED, "it was not written with this ledger's keys: it is forged, or of another ledger"
        )
    return Statement(*_FIELDS.unpack(fields))


def peek(kind: Kind, data: bytes) -> Statement:
    """Read a statement without the key, for who only copies it. Raises `FaultError` for damage."""
    return Statement(*_FIELDS.unpack(statement_fields(kind, data)))


def statement_fields(kind: Kind, data: bytes) -> bytes:
    """The fields of a statement that is of this kind and has its checksum. Raises `FaultError`."""
    if data.startswith(OLD_FORMAT) or (kind is Kind.CURSOR and data[:-1].isdigit() and data.endswith(b"\n")):
        raise FaultError(Fault.OLD_FORMAT, "an older version wrote it, without MACs")
    if len(data) != STATEMENT_BYTES or not data.startswith(_magic(kind)):
        raise FaultError(Fault.CHECKSUM, f"it is not a {kind} as this version writes it")
    fields = data[_MAGIC_BYTES:-20]
    if crc32(fields).to_bytes(4, "big") != data[-20:-MAC_BYTES]:
        raise FaultError(Fault.CHECKSUM, "its checksum is wrong")
    return fields


def _magic(kind: Kind) -> bytes:
    return f"tallystick-queue/2 {kind:<7}\n".encode()
