"""What makes a file outlive a crash: its bytes and its name on the disk, and the old or the new one, never half."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from tallystick.private_file import create


def sync(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_data(descriptor: int) -> None:
    """Wait until the bytes of an open file are on the disk, and of its size and dates what reading them needs."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk, as far as the system can be asked for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, *, synced: bool = True, published: bool = False) -> None:
    """Put a whole file in its place: whoever reads finds the old one or the new one. `OSError` leaves the old one.

    So does a crash, if it is `synced`; a file that is cheap to make anew need not be. The new file is for its owner
    alone; one that is `published` is for everybody whom the umask lets read it.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.unlink(missing_ok=True)  # a crash may have left one, with another mode
        with scratch.open("xb") if published else create(scratch) as file:
            file.write(data)
            if synced:
                sync(file)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
