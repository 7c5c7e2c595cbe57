"""Files that this process makes in a folder in which others may write, too.

Whoever can write there can put another file, a link or a pipe under the name of one that was made, or write into it, at
any moment. So what is said of such a file, and signed, is of the bytes that were handed over to be written; and who
reads one again gets those bytes or an error.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from tallystick.durable import sync
from tallystick.errors import TamperError
from tallystick.plain_file import NotPlainError, open_plain
from tallystick.private_file import create

_CHUNK_BYTES: Final = 1 << 20


class Made(NamedTuple):
    """A file that was made, and is on the disk but for its name."""

    path: Path
    size: int
    sha256: bytes
    """Of what was written, whatever has its name now."""

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, read again. Raises `TamperError` when they are not those that were written.

        A small file is checked before any of it is given; so is the length of all. In a longer one the fault is found
        at the end: what was given before is not to be used then.
        """
        hasher, left = sha256(), self.size
        with self._opened() as file:
            while True:
                chunk = file.read(min(left, _CHUNK_BYTES))
                hasher.update(chunk)
                left -= len(chunk)
                if (not left or not chunk) and (left or hasher.digest() != self.sha256):
                    raise self._altered("was altered")
                yield chunk
                if not left:
                    break

    def check_name(self) -> None:
        """Raises `TamperError` when something of another kind or size has its name, or nothing."""
        self._opened().close()

    def _opened(self) -> IO[bytes]:
        try:
            file = open_plain(self.path)
        except (NotPlainError, FileNotFoundError) as error:
            raise self._altered("was replaced") from error
        if os.fstat(file.fileno()).st_size == self.size:
            return file
        file.close()
        raise self._altered("was altered")

    def _altered(self, what: str) -> TamperError:
        return TamperError(f"{self.path} {what} while it was in use: find out who can write there")


class NewFile(io.BufferedIOBase):
    """A file that is made, for its owner alone, and only written on. Closing it without `finish` tells nothing of it.

    Raises `FileExistsError` for any that is there, and `OSError`.
    """

    def __init__(self, path: Path, *, buffering: int = _CHUNK_BYTES) -> None:
        self.path: Final = path
        self._file: Final = create(path, buffering=buffering)
        self._hasher: Final = sha256()
        self._size = 0

    @property
    def name(self) -> str:
        """As other files have it."""
        return str(self.path)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._hasher.update(view)
        self._size += len(view)
        written = 0
        while written < len(view):  # a file without a buffer may take only a part at a time
            written += self._file.write(view[written:])
        return written

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def finish(self) -> Made:
        """All is written: have it on the disk, and close it."""
        sync(self._file)
        made = Made(self.path, self._size, self._hasher.digest())
        self.close()
        return made

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            super().close()


def make_file(path: Path, data: bytes) -> Made:
    """Make a small file. Raises as `NewFile` does."""
    with NewFile(path) as file:
        file.write(data)
        return file.finish()
