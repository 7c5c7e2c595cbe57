"""The zip of an evidence bundle, in the one form that SPEC 10.1 allows: nothing in it can be read in two ways.

`zipfile` takes what lies before the first entry, behind the end, and between; believes one of two directories; and
passes over what the heads of entries say. What two readers can take differently is a way to deceive one of them.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, Final

from tallystick.errors import RejectedError

_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_DESCRIPTORS: Final = ((struct.Struct("<4sL2Q"), 1 << 64), (struct.Struct("<4s3L"), 1 << 32))
"""Behind the data, in 64 bits or in 32, and below what the numbers are."""
_BIG: Final = 0xFFFF_FFFF
"""What stands in 32 bits for a number that follows in 64."""
_STORED: Final = 0
_DEFLATED: Final = 8
_DESCRIBED: Final = 1 << 3
_FLAGS: Final = 1 << 1 | 1 << 2 | _DESCRIBED | 1 << 11
"""How hard it was packed, a descriptor behind the data, and names in UTF-8."""
_DIRECTORY_BYTES_MAX: Final = 4_096
_READ_BYTES: Final = 1 << 16
_ZIP64: Final = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a zip: where its data begin, and how they are to be read."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    head_at: int
    data_at: int = 0

    def open(self, file: IO[bytes]) -> IO[bytes]:
        """A stream of what it holds. Reading raises `RejectedError` where that is not what the zip says."""
        return io.BufferedReader(_Content(file, self), _READ_BYTES)


def read_entries(file: IO[bytes], names: Iterable[str]) -> dict[str, Entry]:
    """The entries of a zip that has exactly these files. Raises `RejectedError` for any other, and any other form."""
    wanted = {*names}
    directory_at, directory = _directory(file, len(wanted))
    entries, at = [], 0
    for _ in wanted:
        entry, at = _central(directory, at)
        entries.append(entry)
    _need(at == len(directory), "its directory has more than the entries")
    _need({entry.name for entry in entries} == wanted, f"a bundle is {', '.join(sorted(wanted))} and nothing else")
    found, reached = {}, 0
    for entry in sorted(entries, key=lambda entry: entry.head_at):
        _need(entry.head_at == reached, f"there are bytes before {entry.name} that are no entry's")
        found[entry.name], reached = _local(file, entry, directory_at)
    _need(reached == directory_at, "there are bytes before its directory that are no entry's")
    return found


def _directory(file: IO[bytes], count: int) -> tuple[int, bytes]:
    """Where the directory begins, and its bytes; it stands right before the end, or before the end in 64 bits."""
    end_at = file.seek(0, os.SEEK_END) - _END.size
    magic, *disks, here, entries, size, offset, comment = _END.unpack(_bytes(file, end_at, _END.size))
    _need(magic == b"PK\x05\x06", "it does not end as a zip does")
    _need([*disks, here, entries, comment] == [0, 0, count, count, 0], f"it has not {count} files, or a comment")
    locator = _bytes(file, end_at - _LOCATOR.size, _LOCATOR.size)
    if locator.startswith(b"PK\x06\x07"):
        end_at -= _LOCATOR.size + _END64.size
        _need(_LOCATOR.unpack(locator)[1:] == (0, end_at, 1), "its large end is elsewhere")
        magic, rest, _, _, *numbers, size64, offset64 = _END64.unpack(_bytes(file, end_at, _END64.size))
        _need((magic, rest, *numbers) == (b"PK\x06\x06", _END64.size - 12, 0, 0, count, count), "its large end is none")
        _need(size in (_BIG, size64) and offset in (_BIG, offset64), "its two ends do not say the same")
        size, offset = size64, offset64
    _need(size <= _DIRECTORY_BYTES_MAX and offset + size == end_at, "its directory is not right before its end")
    return offset, _bytes(file, offset, size)


def _central(directory: bytes, at: int) -> tuple[Entry, int]:
    """An entry of the directory, and where the next one begins."""
    head = directory[at : at + _CENTRAL.size]
    _need(len(head) == _CENTRAL.size, "its directory is too short")
    magic, _, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, mode, head_at = _CENTRAL.unpack(head)
    name_length, extra_length, comment_length = lengths
    name_at = at + _CENTRAL.size
    extra_at, stop = name_at + name_length, name_at + name_length + extra_length
    _need(magic == b"PK\x01\x02" and stop <= len(directory), "its directory is broken")
    name = directory[name_at:extra_at].decode("latin-1")
    _need(comment_length == 0 and disk == 0, f"{name[:80]!a} has a comment, or is elsewhere")
    _need(flags & ~_FLAGS == 0 and method in (_STORED, _DEFLATED), f"{name[:80]!a} is encrypted, or packed otherwise")
    _need(stat.S_IFMT(mode >> 16) in (0, stat.S_IFREG), f"{name[:80]!a} is a link, or something else than a file")
    size, packed, head_at = _in_full(directory[extra_at:stop], size, packed, head_at)
    _need(method == _DEFLATED or size == packed, f"{name[:80]!a} has two sizes")
    return Entry(name, flags, method, crc, packed, size, head_at), stop


def _local(file: IO[bytes], entry: Entry, most: int) -> tuple[Entry, int]:
    """An entry with the place of its data, and where the next begins, after its own head was held to the directory.

    No entry goes on past `most`.
    """
    head = _bytes(file, entry.head_at, _LOCAL.size)
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(head)
    named = _bytes(file, entry.head_at + _LOCAL.size, name_length + extra_length)
    _need(magic == b"PK\x03\x04", f"{entry.name} is not where the directory says")
    same = (flags, method, named[:name_length].decode("latin-1")) == (entry.flags, entry.method, entry.name)
    _need(same, f"the head of {entry.name} does not say what the directory does")
    size, packed = _in_full(named[name_length:], size, packed)
    data_at = entry.head_at + _LOCAL.size + len(named)
    stop = data_at + entry.packed
    _need(stop <= most, f"{entry.name} is longer than the zip")
    if flags & _DESCRIBED:
        stop = _behind_descriptor(file, entry, stop)
    else:
        told = (crc, packed, size) == (entry.crc, entry.packed, entry.size)
        _need(told, f"the head of {entry.name} does not say what the directory does")
    place = Entry(entry.name, flags, method, entry.crc, entry.packed, entry.size, entry.head_at, data_at)
    return place, stop


def _behind_descriptor(file: IO[bytes], entry: Entry, at: int) -> int:
    """The end of the descriptor behind an entry's data, with sizes in 32 or 64 bits."""
    for form, limit in _DESCRIPTORS:
        file.seek(at)
        numbers = (entry.packed, entry.size)
        if max(numbers) < limit and file.read(form.size) == form.pack(b"PK\x07\x08", entry.crc, *numbers):
            return at + form.size
    raise RejectedError(f"what follows on {entry.name} does not say what the directory does", place="zip")


def _in_full(extra: bytes, *numbers: int) -> list[int]:
    """Numbers, those that are too large for 32 bits from the extra field for that, which has those and no others."""
    fields, at = [], 0
    while at < len(extra):
        _need(at + 4 <= len(extra), "an extra field is broken")
        kind, length = struct.unpack_from("<2H", extra, at)
        _need(at + 4 + length <= len(extra), "an extra field is broken")
        if kind == _ZIP64:
            fields.append(extra[at + 4 : at + 4 + length])
        at += 4 + length
    count = numbers.count(_BIG)
    _need([len(field) for field in fields] == ([8 * count] if count else []), "its large numbers are missing, or many")
    large = iter(struct.unpack(f"<{count}Q", fields[0]) if count else ())
    return [next(large) if number == _BIG else number for number in numbers]


def _bytes(file: IO[bytes], at: int, count: int) -> bytes:
    data = b""
    if at >= 0:
        file.seek(at)
        data = file.read(count)
    _need(len(data) == count, "it is too short")
    return data


def _need(holds: bool, problem: str) -> None:
    if not holds:
        raise RejectedError(f"the zip is damaged, or not of the form of a bundle: {problem}", place="zip")


class _Content(io.RawIOBase):
    """What an entry holds, unpacked as it is read."""

    def __init__(self, file: IO[bytes], entry: Entry) -> None:
        super().__init__()
        self._file: Final = file
        self._entry: Final = entry
        self._inflate: Final = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == _DEFLATED else None
        self._taken = self._given = self._crc = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer)) if len(buffer) else b""
        self._given += len(data)
        self._crc = zlib.crc32(data, self._crc)
        entry = self._entry
        is_whole = (self._taken, self._given, self._crc) == (entry.packed, entry.size, entry.crc)
        _need(self._given <= entry.size and (bool(data) or not len(buffer) or is_whole), f"{entry.name} is another")
        buffer[: len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        """Some bytes; none at the end."""
        if self._inflate is None:
            return self._packed(most)
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed(_READ_BYTES)
            try:
                data = self._inflate.decompress(packed, most)
            except zlib.error as error:
                raise RejectedError(f"{self._entry.name} cannot be unpacked: {error}", place="zip") from error
            _need(not self._inflate.unused_data, f"there is more behind what {self._entry.name} holds")
            if data:
                return data
            _need(bool(packed) or self._inflate.eof, f"{self._entry.name} breaks off")
        return b""

    def _packed(self, most: int) -> bytes:
        self._file.seek(self._entry.data_at + self._taken)
        data = self._file.read(min(most, self._entry.packed - self._taken))
        self._taken += len(data)
        return data
