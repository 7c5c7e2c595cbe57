"""A backup at rest, in a folder or in one tar; opened with suspicion.

No link is followed, nothing but regular files is read, and no more of them than was announced. Whether what is there is
right is for `tallystick.backups.judging`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from tallystick.backups.layout import MANIFEST_FILE, SEAL_FILE
from tallystick.backups.manifest import BackupManifest
from tallystick.backups.tar import read_index
from tallystick.errors import NotFoundError, RejectedError, StoreError
from tallystick.limits import BACKUP_FILES_MAX, BACKUP_MANIFEST_BYTES_MAX, SEAL_BYTES_MAX

STRANGE_MAX: Final = 50
"""Files that do not belong there, of which so many are named."""


class Found(Protocol):
    """A backup that can be read from."""

    def names(self, wanted: frozenset[str]) -> Iterator[str]:
        """The names of the files there are, those that are not regular files with what they are behind them.

        Folders in which none of the wanted is are named, and not entered.
        """

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file's bytes, from its beginning on. Raises `RejectedError` when there is no such regular file."""

    def size(self, name: str) -> int:
        """How long it is. Raises as `open`."""


@contextmanager
def open_found(path: Path) -> Iterator[Found]:
    """Open a backup. Raises `NotFoundError`, or `RejectedError` for what is none."""
    try:
        if path.is_dir():
            yield FolderFound(path)
            return
        try:
            # Without waiting: in its place may be a pipe by now, and opening that takes until somebody writes to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NotFoundError(f"there is no backup at {path}") from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotFoundError(f"there is no backup at {path}")
            yield TarFound(file)
    except OSError as error:
        raise StoreError(f"could not read {path}: {error.strerror or error}") from error


class FolderFound:
    """A backup in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder

    def names(self, wanted: frozenset[str]) -> Iterator[str]:
        inside = {parent.as_posix() for name in wanted for parent in Path(name).parents}
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            with os.scandir(self._folder / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False) and name in inside:
                        waiting.append(name)
                    else:
                        yield name if entry.is_file(follow_symlinks=False) else f"{name} (no regular file)"

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        folder = self._folder
        for part in Path(name).parts[:-1]:  # a link in the middle would lead out as well
            folder /= part
            if folder.is_symlink():
                raise RejectedError("it is behind a link", place=name)
        try:
            # Without waiting: opening a pipe would otherwise take until somebody writes to it.
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise RejectedError(f"it cannot be read: {error.strerror or error}", place=name) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RejectedError("it is not a regular file", place=name)
        with os.fdopen(descriptor, "rb") as file:
            yield file

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return os.fstat(file.fileno()).st_size


class TarFound:
    """A backup in one file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file: Final = file
        self._index: Final = read_index(file)

    def names(self, wanted: frozenset[str]) -> Iterator[str]:
        del wanted
        yield from self._index

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        self._file.seek(self._at(name)[0])
        yield self._file

    def size(self, name: str) -> int:
        return self._at(name)[1]

    def _at(self, name: str) -> tuple[int, int]:
        try:
            return self._index[name]
        except KeyError:
            raise RejectedError("it is missing", place=name) from None


def read_manifest(found: Found) -> tuple[bytes, BackupManifest]:
    """The manifest as it is written, and what it says. Raises `RejectedError` with its place."""
    try:
        data = _read_small(found, MANIFEST_FILE, BACKUP_MANIFEST_BYTES_MAX)
        return data, BackupManifest.parse(data)
    except RejectedError as error:
        place = f"{MANIFEST_FILE}{error.place}" if error.place.startswith("/") else MANIFEST_FILE
        raise RejectedError(error.problem, place=place, cure=error.cure) from error


def read_seal(found: Found) -> bytes:
    """The signature of the manifest. Raises `RejectedError`."""
    return _read_small(found, SEAL_FILE, SEAL_BYTES_MAX)


def strange(found: Found, manifest: BackupManifest) -> list[str]:
    """What is there and does not belong there, and what is missing: in sentences, the first of them."""
    wanted = {file.name: file.size for file in manifest.files}
    own = {MANIFEST_FILE, *(() if manifest.signer is None else (SEAL_FILE,))}
    problems = []
    for number, name in enumerate(found.names(frozenset(wanted))):
        if name not in wanted and name not in own:
            problems.append(f"{ascii(name)[1:-1][:200]}: the manifest does not name it")
        if number > BACKUP_FILES_MAX or len(problems) >= STRANGE_MAX:
            break
    return problems


def _read_small(found: Found, name: str, most: int) -> bytes:
    size = found.size(name)
    if size > most:
        raise RejectedError(f"{size} bytes; at most {most} are allowed", place=name)
    with found.open(name) as file:
        return file.read(size)
