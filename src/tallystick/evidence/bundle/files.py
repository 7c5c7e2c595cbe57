"""An evidence bundle at rest: three files in a folder, or in one zip; opened with suspicion (SPEC 10.1).

Nothing is unpacked, no link is followed, and no more is read than the limits allow. What the files say is for
`tallystick.evidence.bundle.check`.
"""

from __future__ import annotations

import errno
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tallystick.core.manifest import BUNDLE_FILES, EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.errors import NotFoundError, RejectedError
from tallystick.limits import BUNDLE_EVENTS_BYTES_MAX, MANIFEST_BYTES_MAX, RECORD_BYTES_MAX, SEAL_BYTES_MAX

_BYTES_MAX: Final = {
    MANIFEST_FILE: MANIFEST_BYTES_MAX,
    SEAL_FILE: SEAL_BYTES_MAX,
    EVENTS_FILE: BUNDLE_EVENTS_BYTES_MAX,
}
_READABLE: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TAIL_BYTES: Final = 65_535 + 22 + 20 + 56
"""Where the end of a zip's directory can stand: a comment, and the records of a large zip before it."""

_END_BYTES: Final = 22
_DIRECTORY_BYTES_MAX: Final = 4_096
_ENTRIES_MAX: Final = 16
"""Names of strangers that are looked at; one is enough for a finding."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The manifest and its signature, read; and the records, to be read once, line by line."""

    manifest: bytes
    seal: bytes
    events: IO[bytes]

    def lines(self, bytes_max: int) -> Iterator[bytes]:
        """The lines with their newlines, up to so many bytes; one that is longer than any record comes in parts."""
        while bytes_max > 0:
            raw = self.events.readline(min(RECORD_BYTES_MAX + 2, bytes_max))
            if not raw:
                return
            bytes_max -= len(raw)
            yield raw


@contextmanager
def open_bundle(path: str | os.PathLike[str]) -> Iterator[Bundle]:
    """Open a folder or a zip. Raises `NotFoundError`, or `RejectedError` for what is no bundle (SPEC 11, step 1)."""
    place = Path(path)
    if not place.exists():
        raise NotFoundError(f"there is no bundle at {place}")
    if place.is_dir():
        with _open_folder(place) as bundle:
            yield bundle
        return
    try:
        with _regular(place).open("rb") as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive, _open_zip(archive) as bundle:
                yield bundle
    # What zipfile raises for a hostile file: as its kind, and NotImplementedError for a method or version, EOFError for
    # a short entry, zlib.error for a wrong stream, OSError (EINVAL) for an offset before the beginning.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # what seeking before the beginning raises
            raise
        raise RejectedError(f"the zip is damaged: {error}", place=place.name) from error


@contextmanager
def _open_folder(folder: Path) -> Iterator[Bundle]:
    with os.scandir(folder) as entries:
        names = [entry.name for _, entry in zip(range(_ENTRIES_MAX), entries, strict=False)]
    _check_names(names)
    read = {name: _regular(folder / name).read_bytes() for name in (MANIFEST_FILE, SEAL_FILE)}
    with _regular(folder / EVENTS_FILE).open("rb") as events:
        yield Bundle(read[MANIFEST_FILE], read[SEAL_FILE], events)


def _check_directory(file: IO[bytes]) -> None:
    """A zip's directory is read whole, so it must be small (APPNOTE.TXT 4.3.14 to 4.3.16), whatever it then says."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < _END_BYTES:
        raise zipfile.BadZipFile("it has no directory")
    counts = [int.from_bytes(tail[end + 10 : end + 12], "little")]
    sizes = [int.from_bytes(tail[end + 12 : end + 16], "little")]
    larger = tail.rfind(b"PK\x06\x06", 0, end)
    if larger >= 0:  # the record of a zip past 4 GB, which readers believe instead
        counts.append(int.from_bytes(tail[larger + 32 : larger + 40], "little"))
        sizes.append(int.from_bytes(tail[larger + 40 : larger + 48], "little"))
    if {*counts} != {len(BUNDLE_FILES)} or max(sizes) > _DIRECTORY_BYTES_MAX:
        raise RejectedError(f"a bundle is {', '.join(BUNDLE_FILES)} and nothing else", place="zip")
    file.seek(0)


@contextmanager
def _open_zip(archive: zipfile.ZipFile) -> Iterator[Bundle]:
    _check_names([info.orig_filename for info in archive.infolist()])
    for info in archive.infolist():
        if info.flag_bits & 1 or info.compress_type not in _READABLE:
            raise RejectedError("it is encrypted, or packed in a way that is not taken", place=info.filename)
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise RejectedError("it is a link, or something else than a file", place=info.filename)
        _check_size(info.filename, info.file_size)
    read = {name: _read_entry(archive, name) for name in (MANIFEST_FILE, SEAL_FILE)}
    with archive.open(EVENTS_FILE) as events:
        yield Bundle(read[MANIFEST_FILE], read[SEAL_FILE], events)


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as entry:
        data = entry.read(_BYTES_MAX[name] + 1)
    _check_size(name, len(data))
    return data


def _regular(file: Path) -> Path:
    """The file, if it is one: no link, no pipe, no folder, and not too large."""
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise RejectedError("it is not a regular file", place=file.name, cure="take the files as they were exported")
    _check_size(file.name, found.st_size)
    return file


def _check_names(names: list[str]) -> None:
    if sorted(names) != sorted(BUNDLE_FILES):
        strange = (
            sorted({*names} - {*BUNDLE_FILES}) or sorted({*BUNDLE_FILES} - {*names}) or ["a name that comes twice"]
        )
        problem = f"a bundle is {', '.join(BUNDLE_FILES)} and nothing else"
        raise RejectedError(problem, place=ascii(strange[0])[:80])


def _check_size(name: str, size: int) -> None:
    most = _BYTES_MAX.get(name, BUNDLE_EVENTS_BYTES_MAX)
    if size > most:
        raise RejectedError(f"{size} bytes; at most {most} are allowed", place=name)
