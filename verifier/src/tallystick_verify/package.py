"""The three files of a bundle, in a folder or a zip (SPEC 10.1, 11 (1)): found, bounded, and read as streams.

Nothing is written, no link is followed, and nothing is read whole but what has a bound.
"""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

MANIFEST, EVENTS, SEAL = "manifest.json", "events.jsonl", "manifest.json.sig"
SIZES_MAX: Final = {MANIFEST: 64 * 2**20, EVENTS: 2**40, SEAL: 4096}
READ_BYTES: Final = 2**18
_ZIP: Final = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error)
_UNREADABLE: Final = (*_ZIP, OSError, EOFError, ValueError, RuntimeError, OverflowError, IndexError)
"""What a hostile zip or folder makes the standard library raise."""


class NoBundleError(Exception):
    """A file is missing, unlawful, too long or cannot be read."""


class _File(io.FileIO):
    """A regular file, opened without following a link or waiting for a pipe, and of which nobody reads much at once:
    a zip's directory of three entries is short."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
        if not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            self.close()
            raise NoBundleError(f"{path.name} is not a regular file")

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 4 * READ_BYTES:
            raise zipfile.BadZipFile("a directory of that size is not one of three files")
        return super().read(4 * READ_BYTES if size is None or size < 0 else size) or b""


class Package:
    """A bundle as files; `sizes` are what the folder or the zip says. Raises NoBundleError."""

    def __init__(self, path: Path) -> None:
        self.sizes: dict[str, int] = {}
        try:
            self._path, self._is_folder = path.resolve(), path.is_dir()
            self._look_into_folder() if self._is_folder else self._look_into_zip()
        except _UNREADABLE as error:
            raise NoBundleError(f"it cannot be read: {error}") from error
        for name, most in SIZES_MAX.items():
            if self.sizes.get(name, most + 1) > most:
                raise NoBundleError(f"{name} is missing, or has more than {most:,} bytes")

    def _look_into_folder(self) -> None:
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name not in SIZES_MAX or not entry.is_file(follow_symlinks=False):
                    raise NoBundleError(f"{entry.name!r} is not of a bundle, or not a regular file")
                self.sizes[entry.name] = entry.stat(follow_symlinks=False).st_size

    def _look_into_zip(self) -> None:
        with _File(self._path) as file, zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                name, mode = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
                if name not in SIZES_MAX or name in self.sizes or mode not in (0, stat.S_IFREG):
                    raise NoBundleError(f"the entry {name[:100]!r} is not of a bundle, not a file, or there twice")
                if entry.flag_bits & 0x41 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise NoBundleError(f"{name} is encrypted, or neither stored nor deflated")
                self.sizes[name] = entry.file_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one of the three; raises NoBundleError."""
        try:
            with _File(self._path / name if self._is_folder else self._path) as file, ExitStack() as stack:
                archive = None if self._is_folder else stack.enter_context(zipfile.ZipFile(file))
                stream = file if archive is None else stack.enter_context(archive.open(name))
                while chunk := stream.read(READ_BYTES):
                    yield chunk
        except _UNREADABLE as error:
            raise NoBundleError(f"{name} cannot be read: {error}") from error

    def read(self, name: str) -> bytes:
        """One of the two small files; raises NoBundleError."""
        data = bytearray()
        for chunk in self.chunks(name):
            data += chunk
            if len(data) > SIZES_MAX[name]:
                raise NoBundleError(f"{name} has more than {SIZES_MAX[name]:,} bytes")
        return bytes(data)
