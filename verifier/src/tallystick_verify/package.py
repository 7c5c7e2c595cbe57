"""The three files of a bundle, in a folder or a zip (SPEC 10.1, 11 (1)): found, bounded, and read as streams.

Nothing is written, no link is followed, and nothing is read whole but what has a bound. All raise RefusedError.
"""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tallystick_verify.canonical import RefusedError, need

MANIFEST, EVENTS, SEAL = "manifest.json", "events.jsonl", "manifest.json.sig"
SIZES_MAX: Final = {MANIFEST: 64 * 2**20, EVENTS: 2**40, SEAL: 4096}
READ_BYTES: Final = 2**18


class _BoundedFile(io.FileIO):
    """A file of which nobody reads much at once: a zip's directory of three entries is short."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 4 * READ_BYTES:
            raise zipfile.BadZipFile("a directory of that size is not one of three files")
        return super().read(4 * READ_BYTES if size is None or size < 0 else size) or b""


class Package:
    """A bundle as files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        try:
            sizes = dict(self._look_into_folder() if path.is_dir() else self._look_into_zip())
        except Exception as error:  # a hostile zip makes the standard library raise errors of many kinds
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
        self._zip = zipfile.ZipFile(_BoundedFile(_open_file(self._path.resolve()), "rb"))
        names = set[str]()
        for entry in self._zip.infolist():
            name, mode = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
            is_ours = name in SIZES_MAX and name not in names and mode in (0, stat.S_IFREG)
            is_plain = not entry.flag_bits & 0x41 and entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            need(is_ours, f"the entry {name[:100]!r} is not of a bundle, not a regular file, or there twice")
            need(is_plain, f"{name} is encrypted, or neither stored nor deflated")
            names.add(name)
            yield name, entry.file_size

    def chunks(self, name: str, most: int) -> Iterator[bytes]:
        """The first `most` bytes of one of the three."""
        try:
            with self._zip.open(name) if self._zip else io.FileIO(_open_file(self._path / name), "rb") as stream:
                while chunk := stream.read(min(READ_BYTES, most)):
                    most -= len(chunk)
                    yield chunk
        except Exception as error:
            raise RefusedError(f"{name} cannot be read: {error}") from error

    def read(self, name: str) -> bytes:
        """One of the two small files."""
        return b"".join(self.chunks(name, SIZES_MAX[name]))


def _open_file(path: Path) -> int:
    """A regular file's descriptor, without waiting for a FIFO and without following a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError(f"{path.name} is not a regular file")
    return descriptor
