"""A backup in one file: a tar (POSIX ustar) of regular files, and of nothing else that a tar can have.

Any tar program unpacks it. What is read back has to be what is written here, header by header, byte for byte: so there
are no links, no devices, no sparse files, no extended headers, and nothing that two readers could read in two ways.
"""

from __future__ import annotations

import re
from typing import IO, Final

from tallystick.errors import RejectedError
from tallystick.limits import BACKUP_FILE_BYTES_MAX, BACKUP_FILES_MAX

BLOCK_BYTES: Final = 512
END: Final = bytes(2 * BLOCK_BYTES)
"""What a tar ends with."""

_NAME_BYTES: Final = 100
_PREFIX_BYTES: Final = 155
_OCTAL_MAX: Final = 8**11 - 1
_CHECKSUM: Final = slice(148, 156)
_PRINTABLE: Final = re.compile(r"[!-~]+").fullmatch


def render_header(name: str, size: int) -> bytes:
    """The block before a file's bytes. Raises `RejectedError` for a name that it cannot hold."""
    prefix, name = _split(name)
    fields = (
        (name.encode("ascii"), _NAME_BYTES),
        (b"0000600\0", 8),
        (b"0000000\0" * 2, 16),
        (_size_field(size), 12),
        (b"00000000000\0", 12),  # the time is in the manifest
        (b" " * 8, 8),
        (b"0", 1 + 100),
        (b"ustar\x0000", 8),
        (bytes(64), 64),
        (b"0000000\0" * 2, 16),
        (prefix.encode("ascii"), _PREFIX_BYTES + 12),
    )
    block = b"".join(value.ljust(width, b"\0") for value, width in fields)
    return block[: _CHECKSUM.start] + b"%06o\0 " % sum(block) + block[_CHECKSUM.stop :]


def parse_header(block: bytes) -> tuple[str, int]:
    """The name and the length of the file behind a header. Raises `RejectedError` for one of another form."""
    try:
        name = block[:_NAME_BYTES].rstrip(b"\0").decode("ascii")
        prefix = block[345 : 345 + _PREFIX_BYTES].rstrip(b"\0").decode("ascii")
        field = block[124:136]
        size = int.from_bytes(field[1:], "big") if field[:1] == b"\x80" else int(field[:-1], 8)
        whole = f"{prefix}/{name}" if prefix else name
        if size <= BACKUP_FILE_BYTES_MAX and render_header(whole, size) == block:
            return whole, size
    except (UnicodeDecodeError, ValueError, RejectedError):
        pass  # told below, as any other
    cure = "take the file as it was made; what another program packed, unpack, and name the folder"
    raise RejectedError("it is not a tar as `tallystick backup` writes it", cure=cure)


def padding(size: int) -> bytes:
    """What fills the last block of a file of that length."""
    return bytes(-size % BLOCK_BYTES)


def read_index(file: IO[bytes]) -> dict[str, tuple[int, int]]:
    """Where the files in a tar are, and how long: the offset and the length of each, by name.

    Raises `RejectedError` with the offset of what is no such tar. Nothing but headers is read.
    """
    length = file.seek(0, 2)
    found: dict[str, tuple[int, int]] = {}
    at = 0
    while at + len(END) <= length:
        file.seek(at)
        block = file.read(BLOCK_BYTES)
        if not any(block):
            if at + len(END) == length and not any(file.read(BLOCK_BYTES)):
                return found
            raise RejectedError("something stands behind its end", place=f"byte {at}")
        try:
            name, size = parse_header(block)
        except RejectedError as error:
            raise RejectedError(error.problem, place=f"byte {at}", cure=error.cure) from error
        if name in found or len(found) > BACKUP_FILES_MAX:
            raise RejectedError("a name comes twice, or it has too many files", place=f"byte {at}")
        found[name] = (at + BLOCK_BYTES, size)
        at += BLOCK_BYTES + size + len(padding(size))
    raise RejectedError("it is cut short", place=f"byte {length}", cure="copy it again from where it was made")


def _size_field(size: int) -> bytes:
    return b"%011o\0" % size if size <= _OCTAL_MAX else b"\x80" + size.to_bytes(11, "big")


def _split(name: str) -> tuple[str, str]:
    """A name as its first folders, if it is too long for one field, and the rest."""
    if not _PRINTABLE(name):
        raise RejectedError("a name that no backup has", place=ascii(name)[:80])
    at = -1
    while len(name) - at - 1 > _NAME_BYTES:
        at = name.find("/", at + 1)
        if not 0 < at <= _PREFIX_BYTES:
            raise RejectedError("a name that is too long", place=name[:80])
    return (name[:at], name[at + 1 :]) if at > 0 else ("", name)
