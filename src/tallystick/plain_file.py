"""Files below a data folder, opened so that nobody leads the product out of that folder or holds it up there.

An attacker may be able to write the data folder, and not the keys or the marks. A link in the place of a file would
have the product read, overwrite or remove the keys for him; a pipe, or a file without an end, would hold it up. So what
is opened here is a regular file of a bounded size, and its name is not a link. The folders between it and the folder of
the ledger or of the deployment are not links, either; that folder itself may be one. Links in the middle of a path are
looked for before a file is opened: one that is put there in between is followed. Of an absent file callers get
`FileNotFoundError`, as each knows what that means.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from pathlib import Path
from typing import IO, Final

from tallystick.errors import DamagedError
from tallystick.private_file import open_private

_CURE: Final = "find out who can write there, then move it away"
_DATABASE_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
_NOT_PLAIN: Final = frozenset((errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR))
"""What the system says of a link, of a pipe or socket that nobody reads, of a folder, and of a file that is none."""


class NotPlainError(DamagedError):
    """In the place of a file is a link, a pipe, a folder or a file that is too long: it is not used."""


def open_plain(path: Path, *, bytes_max: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading. Raises `NotPlainError`, and `OSError` for all else.

    Who gives no bound reads only a bounded part of the file.
    """
    return os.fdopen(_open(path, os.O_RDONLY, bytes_max=bytes_max), "rb")


def read_plain(path: Path, *, bytes_max: int) -> bytes:
    """The bytes of a small file. Raises as `open_plain` does."""
    with open_plain(path, bytes_max=bytes_max) as file:
        return file.read(bytes_max)


def open_to_write(path: Path, *, create: bool = False, buffering: int = -1) -> IO[bytes]:
    """Open a regular file for reading and writing in place, and keep what is in it. Raises as `open_plain` does."""
    flags = os.O_RDWR | (os.O_CREAT if create else 0)
    return os.fdopen(_open(path, flags), "r+b", buffering=buffering)


def open_lock(path: Path) -> IO[bytes]:
    """Open a file that is only locked, making it if need be. Nothing in it is changed. Raises as `open_plain` does."""
    return os.fdopen(_open(path, os.O_RDWR | os.O_CREAT), "r+b")


def check_plain(path: Path) -> None:
    """Raises `NotPlainError` for what is there and is not a regular file; for what is opened by others than us."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise _error(path, _kind(mode))


def check_database(path: Path) -> None:
    """The same for a SQLite database, and for the files that SQLite opens beside it."""
    for suffix in _DATABASE_SUFFIXES:
        check_plain(path.with_name(path.name + suffix) if suffix else path)


def check_folder(folder: Path, *, below: Path) -> Path:
    """A folder, if it and all between it and `below` are folders and not links, or are not there.

    Raises `NotPlainError`. `below` itself may be a link.
    """
    place = below
    for part in folder.relative_to(below).parts:
        place /= part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            break
        if not stat.S_ISDIR(mode):
            raise _error(place, _kind(mode))
    return folder


def remove_folder(folder: Path, *, below: Path) -> None:
    """Remove a folder with all in it, as far as that can be done, and nothing that a link leads to.

    Raises `NotPlainError` for a link on the way.
    """
    shutil.rmtree(check_folder(folder, below=below), ignore_errors=True)


def _open(path: Path, flags: int, *, bytes_max: int | None = None) -> int:
    try:
        # Without waiting: opening a pipe would otherwise take until somebody opens its other end.
        descriptor = open_private(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise _error(path, _kind_at(path)) from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _error(path, _kind(found.st_mode))
        if bytes_max is not None and found.st_size > bytes_max:
            raise _error(path, f"has {found.st_size} bytes, and at most {bytes_max} are expected")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _kind_at(path: Path) -> str:
    try:
        return _kind(path.lstat().st_mode)
    except OSError:
        return "is not a file"


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "is a link, and links are not followed in a data folder"
    if stat.S_ISFIFO(mode):
        return "is a pipe"
    if stat.S_ISDIR(mode):
        return "is a folder"
    return "is a file" if stat.S_ISREG(mode) else "is not a file"


def _error(path: Path, seen: str) -> NotPlainError:
    return NotPlainError(f"{path} {seen}, so it is not used: {_CURE}")
