"""How every file and directory that holds records or keys is created: for its owner alone, whatever the umask is.

Files have mode 0600 and directories 0700. What exists already keeps its mode, as somebody may have set that on purpose;
a file that is replaced is a new one. A tree that is published (`evidence.tiles`) is not created here: it is for
everybody. `tests/test_tidy.py` names the few modules that may create something in another way.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, Final

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
_creating: Final = threading.Lock()


def open_private(path: Path, flags: int) -> int:
    """`os.open`, with the mode of what is private for a file that this creates. Raises `OSError`."""
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


def create(path: Path, *, buffering: int = -1) -> IO[bytes]:
    """Create a file and open it for writing. Raises `FileExistsError` for any that is there, and `OSError`."""
    return os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", buffering=buffering)


def write_new(path: Path, data: bytes) -> None:
    """Create a file with these bytes. It is not synced. Raises as `create` does."""
    with create(path) as file:
        file.write(data)


def write_through(path: Path, data: bytes) -> None:
    """Write to what a name stands for: a pipe, a device, or where a link leads. A file there is emptied first."""
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(data)


def create_empty(path: Path) -> None:
    """Create an empty file, unless there is one: for SQLite, which gives all files of a database the mode of its first.

    Raises `OSError`.
    """
    # Closing a file ends all locks that the process has on it. So no other thread may get past this call, and have
    # SQLite lock the file, while it is still open here.
    with _creating:
        if not os.path.lexists(path):
            try:
                os.close(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:  # another process was first
                return


def make_folder(folder: Path, *, exist_ok: bool = True) -> None:
    """Create a directory, and those above it that are missing. Raises `OSError`.

    `Path.mkdir` with `parents` gives its mode to the last one only.
    """
    try:
        folder.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        make_folder(folder.parent)
        make_folder(folder, exist_ok=exist_ok)
    except OSError:
        # Where a directory is, the system may have another reason to refuse: a read-only mount, or no permission.
        if not exist_ok or not folder.is_dir():
            raise
