"""Input from files and pipes: plain or gzip, cut into lines, never more of it in memory than a line.

Lines end at b"\\n" alone, since U+2028 and U+0085 are legal inside JSON. One "\\r" before it is dropped,
blank lines are passed over, the last line may lack its end. Of a line longer than an event may be, no more
is kept than it takes to know.
"""

from __future__ import annotations

import select
import stat
import sys
import zlib
from collections.abc import Iterator
from os import fstat
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from tallystick.errors import RejectedError
from tallystick.limits import INPUT_BYTES_MAX

STANDARD_INPUT: Final = "-"
_CHUNK_BYTES: Final = 65_536
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS

Chunk = bytes | None
"""Some bytes, or None where the input pauses: a good moment to seal what has come."""


class Line(NamedTuple):
    """One line and its number, from 1; None instead of its bytes when it is too long."""

    number: int
    data: bytes | None


def shown(file: str) -> str:
    """A file's name for messages."""
    return "standard input" if file == STANDARD_INPUT else file


def too_long(kind: str) -> RejectedError:
    """What is wrong with a line or record of which no more was read."""
    return RejectedError(
        f"the {kind} has more than {INPUT_BYTES_MAX:,} bytes",
        cure="keep large data elsewhere and record its name and SHA-256",
    )


def read_chunks(file: str) -> Iterator[Chunk]:
    """The bytes of a file, or of standard input for `-`; gzip is unpacked as it comes."""
    try:
        if file == STANDARD_INPUT:
            yield from _unpacked(_arrivals(sys.stdin.buffer))
        else:
            with Path(file).open("rb") as stream:
                yield from _unpacked(_arrivals(stream))
    except OSError as error:
        raise RejectedError(f"cannot be read: {error.strerror or error}", place=shown(file)) from error
    except zlib.error as error:
        raise RejectedError(f"not whole gzip: {error}", place=shown(file), cure="fetch it again") from error


def split_lines(chunks: Iterator[Chunk]) -> Iterator[Line | None]:
    """The lines that are not blank, and None where the input pauses."""
    number = 0
    rest = b""
    dropping = False
    for chunk in chunks:
        if chunk is None:
            yield None
            continue
        *whole, rest = (rest + chunk).split(b"\n")
        for data in whole:
            if dropping:
                dropping = False  # this is the end of a line that was given up before
                continue
            number += 1
            yield from _line(number, data)
        if dropping:
            rest = b""
        elif len(rest) > INPUT_BYTES_MAX + 1:
            number += 1
            yield Line(number, None)
            dropping, rest = True, b""
    if rest and not dropping:
        yield from _line(number + 1, rest)


def _line(number: int, data: bytes) -> Iterator[Line]:
    data = data.removesuffix(b"\r")
    if len(data) > INPUT_BYTES_MAX:
        yield Line(number, None)
    elif data and not data.isspace():
        yield Line(number, data)


def _arrivals(stream: BinaryIO) -> Iterator[Chunk]:
    descriptor = _pipe_of(stream)
    read = getattr(stream, "read1", stream.read)
    while True:
        if descriptor is not None and not select.select([descriptor], [], [], 0)[0]:
            yield None
        chunk = read(_CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _pipe_of(stream: BinaryIO) -> int | None:
    """The descriptor of an input that may let us wait, such as a pipe; None for a file, which never does."""
    try:
        descriptor = stream.fileno()
        waits = not stat.S_ISREG(fstat(descriptor).st_mode)
        select.select([descriptor], [], [], 0)
    except (OSError, ValueError):
        return None
    return descriptor if waits else None


def _unpacked(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks as they are, or unpacked when they begin as gzip does."""
    start = b""
    for chunk in chunks:
        start += chunk or b""
        if len(start) >= len(_GZIP_MAGIC):
            break
    if not start.startswith(_GZIP_MAGIC):
        yield start
        yield from chunks
        return
    yield from _inflate(start, chunks)


def _inflate(data: bytes, chunks: Iterator[Chunk]) -> Iterator[bytes]:
    """Unpack gzip, a member after another, a bounded piece at a time: a small file may hold a huge one."""
    unpacker = zlib.decompressobj(_GZIP_FORMAT)
    while True:
        while data:
            yield unpacker.decompress(data, _CHUNK_BYTES)
            data = unpacker.unconsumed_tail
            if unpacker.eof:
                data = unpacker.unused_data.lstrip(b"\0")
                if data:
                    unpacker = zlib.decompressobj(_GZIP_FORMAT)
        chunk = next(chunks, b"")
        if chunk == b"":
            break
        data = (chunk or b"").lstrip(b"\0") if unpacker.eof else (chunk or b"")
        if data and unpacker.eof:
            unpacker = zlib.decompressobj(_GZIP_FORMAT)
    if not unpacker.eof:
        raise zlib.error("it ends early")
