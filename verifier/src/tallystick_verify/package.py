"""The three files of a bundle, in a folder or a zip (SPEC 10.1, 11 (1)): found, bounded, and read as streams.

Nothing is written, no link is followed, and nothing is read whole but what has a bound. All raise RefusedError.
"""

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tallystick_verify.canonical import RefusedError, need

MANIFEST, EVENTS, SEAL = "manifest.json", "events.jsonl", "manifest.json.sig"
SIZES_MAX: Final = {MANIFEST: 64 * 2**20, EVENTS: 2**40, SEAL: 4096}
READ_BYTES: Final = 2**18
DIRECTORY_BYTES_MAX: Final = 4096
LARGE: Final = 2**32 - 1  # where a number of 32 bits stands for one of 64 that is elsewhere
DESCRIBED, FLAGS = 0x0008, 0x080E


class _File(io.FileIO):
    """A regular file, opened without following a link or waiting for a pipe."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
        if not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            self.close()
            raise RefusedError(f"{path.name} is not a regular file")

    def bytes_at(self, start: int, count: int) -> bytes:
        """All of them."""
        need(0 <= start <= start + count <= os.fstat(self.fileno()).st_size, "the zip ends too early")
        self.seek(start)
        data = b""
        while len(data) < count and (more := self.read(count - len(data))):
            data += more
        return data

    def chunks(self, start: int, count: int) -> Iterator[bytes]:
        """That many bytes, or as many as there are."""
        self.seek(start)
        while count and (chunk := self.read(min(READ_BYTES, count))):
            count -= len(chunk)
            yield chunk


class _Entry(NamedTuple):
    """What a zip's directory says of a file, and where its data begin."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    start: int


class Package:
    """A bundle as files."""

    def __init__(self, path: Path) -> None:
        self._entries: dict[str, _Entry] = {}
        try:
            self._path, self._is_folder = path.resolve(), path.is_dir()
            sizes = dict(self._look_into_folder() if self._is_folder else self._look_into_zip())
        except PermissionError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise RefusedError(f"it is no bundle: {error}") from error
        for name, most in SIZES_MAX.items():
            need(sizes.get(name, most + 1) <= most, f"{name} is missing, or has more than {most:,} bytes")

    def _look_into_folder(self) -> Iterator[tuple[str, int]]:
        with os.scandir(self._path) as entries:
            for entry in entries:
                is_ours = entry.name in SIZES_MAX and entry.is_file(follow_symlinks=False)
                need(is_ours, f"{entry.name!r} is not of a bundle, or not a regular file")
                yield entry.name, entry.stat(follow_symlinks=False).st_size

    def _look_into_zip(self) -> Iterator[tuple[str, int]]:
        with _File(self._path) as file:
            start, directory = _directory(file)
            listed, at = dict[str, _Entry](), 0
            while at < len(directory):
                name, entry, at = _listed(directory, at)
                need(name in SIZES_MAX and name not in listed, f"{name[:80]!r} is not of a bundle, or there twice")
                listed[name] = entry
            reached = 0
            for name, entry in sorted(listed.items(), key=lambda item: item[1].start):
                need(entry.start == reached, f"the zip has other bytes before {name}")
                self._entries[name], reached = _opened(file, name, entry)
            need(reached == start, "the zip has other bytes before its directory")
            yield from ((name, entry.size) for name, entry in listed.items())

    def chunks(self, name: str, most: int) -> Iterator[bytes]:
        """The first `most` bytes of one of the three."""
        try:
            with _File(self._path / name if self._is_folder else self._path) as file:
                stream = file.chunks(0, most) if self._is_folder else _unpacked(file, self._entries[name])
                for chunk in stream:
                    yield chunk[:most]
                    most -= len(chunk)
                    if most <= 0:
                        return
        except PermissionError:
            raise
        except (OSError, zlib.error) as error:
            raise RefusedError(f"{name} cannot be read: {error}") from error

    def read(self, name: str) -> bytes:
        """One of the two small files."""
        return b"".join(self.chunks(name, SIZES_MAX[name] + 1))


def _directory(file: _File) -> tuple[int, bytes]:
    """Where a zip's directory is, and it; right behind it are the ends, that of 64 bits and its locator if any."""
    stop = file.seek(0, os.SEEK_END) - 22
    magic, *said, size, start, comment = struct.unpack("<4s4H2LH", file.bytes_at(stop, 22))
    need(magic == b"PK\5\6" and [*said, comment] == [0, 0, 3, 3, 0], "not a zip of three files, without a comment")
    locator = struct.unpack("<4sLQL", file.bytes_at(stop - 20, 20))
    if locator[0] == b"PK\6\7":
        stop -= 76
        magic, rest, _, *said, large_size, large_start = struct.unpack("<4sQL2L4Q", file.bytes_at(stop, 56))
        need(
            (magic, rest, *said) == (b"PK\6\6", 44, 0, 0, 3, 3) and locator[1:] == (0, stop, 1), "the zip has two ends"
        )
        need(size in (large_size, LARGE) and start in (large_start, LARGE), "the zip has two directories")
        size, start = large_size, large_start
    need(size <= DIRECTORY_BYTES_MAX and start + size == stop, "the directory of the zip does not stand before its end")
    return start, file.bytes_at(start, size)


def _listed(directory: bytes, at: int) -> tuple[str, _Entry, int]:
    """An entry of the directory, with the place of its head, and where the next one begins."""
    need(at + 46 <= len(directory), "the directory of the zip breaks off")
    said = struct.unpack_from("<4s4x2H4x3L4H2x2L", directory, at)
    magic, flags, method, crc, packed, size, name_length, extra_length, comment, disk, mode, start = said
    behind = at + 46 + name_length
    stop = behind + extra_length
    need(magic == b"PK\1\2" and stop <= len(directory), "the directory of the zip is broken")
    need(
        not (flags & ~FLAGS or comment or disk) and method in (0, 8), "an entry is encrypted, packed otherwise, or odd"
    )
    need(stat.S_IFMT(mode >> 16) in (0, stat.S_IFREG), "an entry is not a regular file")
    size, packed, start = _in_full(directory[behind:stop], size, packed, start)
    need(method == 8 or packed == size, "an entry has two sizes")
    return directory[at + 46 : behind].decode("latin-1"), _Entry(flags, method, crc, packed, size, start), stop


def _opened(file: _File, name: str, entry: _Entry) -> tuple[_Entry, int]:
    """An entry with the place of its data, and where the next one begins; its own head says the same of it."""
    said = struct.unpack("<4s2x2H4x3L2H", file.bytes_at(entry.start, 30))
    magic, flags, method, crc, packed, size, name_length, extra_length = said
    behind = file.bytes_at(entry.start + 30, name_length + extra_length)
    is_it = (magic, flags, method, behind[:name_length]) == (b"PK\3\4", entry.flags, entry.method, name.encode())
    size, packed = _in_full(behind[name_length:], size, packed)
    start = entry.start + 30 + len(behind)
    stop, numbers = start + entry.packed, (entry.crc, entry.packed, entry.size)
    need(is_it and (flags & DESCRIBED or (crc, packed, size) == numbers), f"the zip says two things of {name}")
    if flags & DESCRIBED:
        behind = file.bytes_at(stop, 24)  # an end is behind it, of no less bytes
        forms = ["<4sL2Q"] + ["<4s3L"] * (max(numbers) <= LARGE)
        told = [
            form for form in (struct.pack(form, b"PK\7\x08", *numbers) for form in forms) if behind.startswith(form)
        ]
        need(bool(told), f"the zip says two things of {name}")
        stop += len(told[0])
    return entry._replace(start=start), stop


def _in_full(extra: bytes, *numbers: int) -> list[int]:
    """The numbers, those that are past 32 bits by the extra field 1, which has these and no others."""
    fields, at = list[bytes](), 0
    while at < len(extra):
        kind, length = struct.unpack("<2H", extra[at : at + 4].ljust(4, b"\xff"))
        field, at = extra[at + 4 : at + 4 + length], at + 4 + length
        need(at <= len(extra), "an extra field of the zip breaks off")
        fields += [field] if kind == 1 else []
    count = numbers.count(LARGE)
    need([*map(len, fields)] == [8 * count] * bool(count), "the zip has not the large numbers that it tells of")
    large = iter(struct.unpack(f"<{count}Q", b"".join(fields)))
    return [next(large) if number == LARGE else number for number in numbers]


def _unpacked(file: _File, entry: _Entry) -> Iterator[bytes]:
    """What an entry holds, refused at its end if that is not what the zip says."""
    crc = size = 0
    packed = file.chunks(entry.start, entry.packed)
    for chunk in packed if entry.method == 0 else _inflated(packed):
        crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        need(size <= entry.size, "an entry of the zip is longer than it says")
        yield chunk
    need((crc, size) == (entry.crc, entry.size), "an entry of the zip is not what it says")


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-15)
    for chunk in packed:
        rest = chunk
        while rest and not inflate.eof:
            data = inflate.decompress(rest, READ_BYTES)
            rest = inflate.unconsumed_tail
            if data:
                yield data
        need(not rest and not inflate.unused_data, "an entry of the zip goes on behind its end")
    while not inflate.eof and (data := inflate.decompress(b"", READ_BYTES)):
        yield data
    need(inflate.eof, "an entry of the zip breaks off")
