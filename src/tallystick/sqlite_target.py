"""Where a copy of a database is written: a file that is open already, so that SQLite opens nothing by its name.

SQLite writes pages in an order of its own, and reads some of them again. Each is hashed when it is written and checked
whenever it is read: what somebody else writes into the file meanwhile is found, and never is in the copy.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import apsw

from tallystick.errors import TamperError
from tallystick.made_file import Made
from tallystick.private_file import open_private

_HASH_BYTES: Final = 32
_SECTOR_BYTES: Final = 4_096
_VERSIONS: Final = slice(18, 20)
"""Where the first page says by which version of the format the file is written and read; 2 is the write-ahead log."""
_number: Final = itertools.count()


@contextmanager
def copy_target(path: Path, *, page_bytes: int) -> Iterator[tuple[apsw.Connection, CopyTarget]]:
    """A connection to an empty database that is written to a new file, and the file. Raises `FileExistsError`.

    Pages have that size. There is no journal: what a crash leaves is no database, and nobody uses it.
    """
    target = CopyTarget(path, page_bytes=page_bytes)
    try:
        system = _OneFile(f"tallystick-copy-{next(_number)}", target)
        try:
            writer = apsw.Connection(str(path), vfs=system.name)
            try:
                writer.pragma("journal_mode", "off")
                writer.pragma("synchronous", "off")
                yield writer, target
            finally:
                writer.close()
        finally:
            system.unregister()
    finally:
        target.close()


class CopyTarget:
    """The file, as SQLite asks for it (`apsw.VFSFile`)."""

    def __init__(self, path: Path, *, page_bytes: int) -> None:
        self._path: Final = path
        self._page_bytes: Final = page_bytes
        self._hashes: Final = bytearray()
        """Of each page as it was written last."""
        self._descriptor: Final = open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def finish(self) -> Made:
        """SQLite has written all of it: have it on the disk. Raises `TamperError` for a page that it did not write."""
        hasher = sha256()
        os.fsync(self._descriptor)
        for page in range(len(self._hashes) // _HASH_BYTES):
            hasher.update(self._page(page))
        if os.fstat(self._descriptor).st_size != self.xFileSize():
            raise self._altered()
        return Made(self._path, self.xFileSize(), hasher.digest())

    def close(self) -> None:
        """Let go of the file, when SQLite has."""
        os.close(self._descriptor)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's names, here and below
        """Of one page: SQLite asks for a page, or for a part of the first."""
        page, begin = divmod(offset, self._page_bytes)
        if page >= len(self._hashes) // _HASH_BYTES:
            return b""
        return self._page(page)[begin : begin + amount]

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """A whole page."""
        page, begin = divmod(offset, self._page_bytes)
        if begin or len(data) != self._page_bytes:
            raise apsw.IOError(f"{len(data)} bytes at {offset} are not a page")
        data = bytes(data)
        if not page:  # so that to read the copy needs no right to write beside it
            data = data[: _VERSIONS.start] + b"\1\1" + data[_VERSIONS.stop :]
        at = page * _HASH_BYTES
        self._hashes.extend(bytes(max(0, at - len(self._hashes))))
        self._hashes[at : at + _HASH_BYTES] = sha256(data).digest()
        if os.pwrite(self._descriptor, data, offset) != len(data):
            raise apsw.FullError(f"{self._path} was written only in part")

    def xTruncate(self, size: int) -> None:  # noqa: N802
        """Cut it to a number of pages."""
        del self._hashes[size // self._page_bytes * _HASH_BYTES :]
        os.ftruncate(self._descriptor, size)

    def xFileSize(self) -> int:  # noqa: N802
        """How long it is by what was written."""
        return len(self._hashes) // _HASH_BYTES * self._page_bytes

    def xSync(self, flags: int) -> None:  # noqa: N802
        """At the end, by `finish`."""

    def xLock(self, level: int) -> None:  # noqa: N802
        """Nobody else has it."""

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """Nobody else has it."""

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        """Nobody else has it."""
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: ARG002, N802
        """It knows none of the further requests."""
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        """Of a disk."""
        return _SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        """It promises nothing."""
        return 0

    def xClose(self) -> None:  # noqa: N802
        """By `close`: it is read once more before."""

    def _page(self, page: int) -> bytes:
        data = os.pread(self._descriptor, self._page_bytes, page * self._page_bytes)
        if sha256(data).digest() != self._hashes[page * _HASH_BYTES : (page + 1) * _HASH_BYTES]:
            raise self._altered()
        return data

    def _altered(self) -> TamperError:
        return TamperError(f"{self._path} was altered while it was written: find out who can write there")


class _OneFile(apsw.VFS):
    """A file system that has one file, and makes no others: no journal is kept."""

    def __init__(self, name: str, target: CopyTarget) -> None:
        self.name: Final = name
        self._target: Final = target
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: ARG002, N802
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            raise apsw.CantOpenError("a copy has one file")
        flags[1] = flags[0]
        return self._target  # type: ignore[return-value]  # any object with its methods serves

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: ARG002, N802
        return False

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """There is nothing to be removed."""
