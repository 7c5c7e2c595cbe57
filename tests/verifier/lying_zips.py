"""Zips that lie: bundles packed in every way that a reader may take, or must not, and fields of their heads changed."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from typing import Any, Final
from unittest.mock import patch

from tests.verifier.given import Files

_HEADS: Final = {
    "local": (b"PK\x03\x04", 30),
    "central": (b"PK\x01\x02", 46),
    "end": (b"PK\x05\x06", 22),
    "end64": (b"PK\x06\x06", 56),
    "locator": (b"PK\x06\x07", 20),
    "descriptor": (b"PK\x07\x08", 24),
}
"""What begins each record of a zip, and how long the fixed part of it is."""

_EXTRAS: Final = (
    b"\x99\x99\x02\x00ab",
    b"\x99\x99\x03\x00ab",
    b"\x99",
    b"\x01\x00\x00\x00",
    b"\x01\x00\x08\x00" + bytes(8),
)
_WAYS: Final = (
    *("plain", "plain", "stream", "stream", "zip64", "name", "twice", "folder", "method", "comment", "extra"),
    *("entry comment", "large", "as if large", "as if large"),
)


class _Unseekable:
    """A file that is only written on, for which a zip has the sizes behind the data."""

    def __init__(self, out: io.BytesIO) -> None:
        self._out: Final = out

    def write(self, data: bytes) -> int:
        return self._out.write(data)

    def flush(self) -> None:
        return


def zipped(files: Files, chance: random.Random) -> tuple[bytes, str]:
    """A zip of the files, packed in one of many ways and maybe changed; and what was done."""
    way = chance.choice(_WAYS)
    with patch.object(zipfile, "ZIP64_LIMIT", 50 if way == "as if large" else zipfile.ZIP64_LIMIT):
        data, is_stream = _packed(files, way, chance)
    data, how = lying(_with_end64(data) if way == "large" else data, chance)
    return data, f"{way}{', stream' if is_stream else ''}: {how}"


def _packed(files: Files, way: str, chance: random.Random) -> tuple[bytes, bool]:
    """The zip as `zipfile` writes it, and whether it was as a stream."""
    out = io.BytesIO()
    is_stream = way == "stream" or chance.random() < 0.2
    target: Any = _Unseekable(out) if is_stream else out
    with zipfile.ZipFile(target, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the name that comes twice
        for number, (name, data) in enumerate(sorted(files.items())):
            info = _info(name, way if number == 0 or way == "extra" else "", chance)
            with archive.open(
                info, "w", force_zip64=way in ("zip64", "as if large") or (is_stream and chance.random() < 0.5)
            ) as entry:
                entry.write(data)
            if number == 0 and way == "twice":
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), b"{}")
        if way == "folder":
            archive.writestr("a/", b"")
        if way == "comment":
            archive.comment = chance.choice((b"a comment", b"PK\x05\x06" + bytes(18)))
    return out.getvalue(), is_stream


def _info(name: str, way: str, chance: random.Random) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    if way == "name":
        info.filename = chance.choice((f"/{name}", f"./{name}", name.upper(), f"{name}/", f"a/{name}", f"{name}\0"))
    if way == "method":
        info.compress_type = chance.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    if way == "entry comment":
        info.comment = b"x" * 10
    if way == "extra":
        info.extra = chance.choice(_EXTRAS)
    return info


def _with_end64(data: bytes) -> bytes:
    """The end as it is for large zips: in 64 bits, and then once more in 32."""
    _, _, _, here, count, size, offset, _ = struct.unpack("<4s4H2LH", data[-22:])
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, here, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data) - 22, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, here, count, size, 0xFFFFFFFF, 0)
    return data[:-22] + end64 + locator + end


def lying(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """A field of one of its heads with another value, or bytes around it; and what was done."""
    heads = [name for name, (magic, _) in _HEADS.items() if magic in data]
    how = chance.choice(("as it is", "as it is", *heads, *heads, "before", "behind", "two ends", "two directories"))
    changed = bytearray(data)
    if how in _HEADS:
        magic, length = _HEADS[how]
        at = chance.choice([at for at in range(len(data)) if data.startswith(magic, at)])
        offset = chance.randrange(4, length)
        if at + offset < len(data):
            changed[at + offset] = chance.choice((0, 1, 2, 8, 9, 64, 128, 255, changed[at + offset] ^ 1))
        return bytes(changed), f"{how} +{offset}"
    if how == "before":
        changed[:0] = b"x" * chance.choice((1, 4, 100))
    elif how == "behind":
        changed += b"x" * chance.choice((1, 4, 22, 100))
    elif how == "two ends":
        changed += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, len(data) - 22, 0, 0)
    elif how == "two directories":
        changed = _two_directories(data, chance)
    return bytes(changed), how


def _two_directories(data: bytes, chance: random.Random) -> bytearray:
    """A second directory, to which the end in 64 bits leads and that in 32 does not."""
    *_, size, offset, _ = struct.unpack("<4s4H2LH", data[-22:])
    directory = data[offset : offset + size]
    other = bytearray(directory)
    other[chance.randrange(len(other))] ^= 1
    grown = data[:offset] + directory + bytes(other)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, size, offset + size)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(grown), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, size, chance.choice((offset, offset + size)), 0)
    return bytearray(grown + end64 + locator + end)
