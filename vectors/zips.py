"""Zips written head by head, so that every part of them can lie. Nothing in them is compressed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

LARGE = 0xFFFF_FFFF


@dataclass
class Zip:
    """A zip on its way. Without changes it is of the form of SPEC 10.1."""

    files: Mapping[str, bytes]
    flags: int = 0
    method: int = 0
    described: int = 0
    """Bits of the sizes in descriptors behind the data, 32 or 64, or 0 for no descriptors."""
    before: bytes = b""
    between: bytes = b""
    behind: bytes = b""
    comment: bytes = b""
    entry_comment: bytes = b""
    extra: bytes = b""
    mode: int = 0
    disk: int = 0
    count: int = 3
    is_large: bool = False
    """With a zip64 end record."""
    end_offset: int | None = None
    """Of the directory, in the last record of a large zip."""
    local: dict[str, int | bytes] = field(default_factory=dict)
    """What the first local header says otherwise: `name`, `flags`, `method`, `crc`, `packed`, `size`."""

    def render(self) -> bytes:
        out, directory = bytearray(self.before), b""
        for number, (name, data) in enumerate(self.files.items()):
            at, crc = len(out), zlib.crc32(data)
            out += self._entry(name, data, self.local if number == 0 else {})
            if number == 0:
                out += self.between
            behind = self.extra + self.entry_comment
            directory += struct.pack(
                "<4s6H3L5H2L",
                *(b"PK\x01\x02", 20, 20, self.flags | bool(self.described) << 3, self.method, 0, 33),
                *(crc, len(data), len(data), len(name), len(self.extra), len(self.entry_comment), self.disk, 0),
                *(self.mode << 16, at),
            )
            directory += name.encode() + behind
        return bytes(out) + directory + self._end(len(out), len(directory), len(out) + len(directory)) + self.behind

    def _entry(self, name: str, data: bytes, other: Mapping[str, int | bytes]) -> bytes:
        is_told = not self.described
        named = other.get("name", name.encode())
        assert isinstance(named, bytes), "a name is bytes"
        numbers = (zlib.crc32(data), len(data), len(data)) if is_told else (0, 0, 0)
        crc, packed, size = (
            other.get(key, number) for key, number in zip(("crc", "packed", "size"), numbers, strict=True)
        )
        head = struct.pack(
            "<4s5H3L2H",
            *(b"PK\x03\x04", 20, other.get("flags", self.flags | bool(self.described) << 3)),
            *(other.get("method", self.method), 0, 33, crc, packed, size, len(named), len(self.extra)),
        )
        out = head + named + self.extra + data
        if self.described:
            form = "<4s3L" if self.described == 32 else "<4sL2Q"
            out += struct.pack(form, b"PK\x07\x08", zlib.crc32(data), len(data), len(data))
        return out

    def _end(self, offset: int, size: int, at: int) -> bytes:
        large = b""
        if self.is_large:
            large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, self.count, size, offset)
            large += struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
            offset = LARGE if self.end_offset is None else self.end_offset
        head = (b"PK\x05\x06", self.disk, self.disk, self.count, self.count, size, offset, len(self.comment))
        return large + struct.pack("<4s4H2LH", *head) + self.comment
