"""The three files of a bundle, in a folder or a zip (SPEC 10.1, 11 (1)): found, bounded, and read as streams.

Nothing is written, no link is followed, and nothing is read whole but what has a bound. All raise RefusedError.
"""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tallystick_verify.canonical import RefusedError, need

MANIFEST, EVENTS, SEAL = "manifest.json", "events.jsonl", "manifest.json.sig"
SIZES_MAX: Final = {MANIFEST: 64 * 2**20, EVENTS: 2**40, SEAL: 4096}
READ_BYTES: Final = 2**18
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _File(io.FileIO):
    """A regular file, opened without following a link or waiting for a pipe, and of which nobody reads much at once:
    a zip's directory of three entries is short."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW))
        if not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            self.close()
            raise RefusedError(f"{path.name} is not a regular file")

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 4 * READ_BYTES:
            raise zipfile.BadZipFile("a directory of that size is not one of three files")
        return super().read(4 * READ_BYTES if size is None or size < 0 else size)


class Package:
    """A bundle as files."""

    def __init__(self, path: Path) -> None:
        try:
            self._path, self._is_folder = path.resolve(), path.is_dir()
            sizes = dict(self._look_into_folder() if self._is_folder else self._look_into_zip())
        except PermissionError:
            raise
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
        with _File(self._path) as file, zipfile.ZipFile(file) as archive:
            names = [entry.orig_filename for entry in archive.infolist()]
            need(len(names) == len(SIZES_MAX), f"it has not three files: {names[:4]}")
            for entry in archive.infolist():
                is_file = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
                is_plain = not entry.flag_bits & 0x41 and entry.compress_type in METHODS
                need(
                    is_file and is_plain, f"{entry.orig_filename} is a link, encrypted, or neither stored nor deflated"
                )
                yield entry.orig_filename, entry.file_size

    def chunks(self, name: str, most: int) -> Iterator[bytes]:
        """The first `most` bytes of one of the three."""
        try:
            with _File(self._path / name if self._is_folder else self._path) as file, ExitStack() as stack:
                archive = None if self._is_folder else stack.enter_context(zipfile.ZipFile(file))
                stream = stack.enter_context(archive.open(name)) if archive else file
                while chunk := stream.read(min(READ_BYTES, most)):
                    most -= len(chunk)
                    yield chunk
        except PermissionError:
            raise
        except Exception as error:
            raise RefusedError(f"{name} cannot be read: {error}") from error

    def read(self, name: str) -> bytes:
        """One of the two small files."""
        return b"".join(self.chunks(name, SIZES_MAX[name]))
